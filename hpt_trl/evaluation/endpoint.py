"""Completions from a server that speaks OpenAI's protocol: vLLM, `transformers serve`, llama.cpp, or a hosted one."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from hpt_trl.common.errors import RunError
from hpt_trl.common.formats import END_OF_THINK, THINK
from hpt_trl.common.masking import mask_tokens
from hpt_trl.data.prompts import Prompt
from hpt_trl.evaluation.engines import Completion, Sampling

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the server's key. It is read for each request, and is in no option, setting or file."""

_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 1800
_RETRY = Retry(
    total=6, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None, raise_on_status=False
)


class _Key(requests.auth.AuthBase):
    """Sends the key, if there is one. Without this, requests would send the password of a `.netrc`."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key := os.environ.get(KEY_VARIABLE):
            request.headers["Authorization"] = f"Bearer {key}"
        return request


class Endpoint:
    """
    Completes prompts by requests to a server, one request per completion.

    Args:
        address: what precedes `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
        model: name under which the server knows the model.
        concurrency: number of requests at the same time.
        with_logps: whether to ask for log-probabilities.

    Raises:
        ValueError: if the address is not one, or contains a password.
    """

    def __init__(self, address: str, model: str, concurrency: int = 16, with_logps: bool = False) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"endpoint must be an address such as http://127.0.0.1:8000/v1, got {address!r}.")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "endpoint must not contain a password or a query. Set the environment variable "
                f"{KEY_VARIABLE} to the server's key instead."
            )
        self.address = address.rstrip("/")
        self.model = model
        self.concurrency = concurrency
        self.with_logps = with_logps
        self._session = requests.Session()
        self._session.auth = _Key()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=concurrency, max_retries=_RETRY))

    def complete(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> list[Completion]:
        """Generate one completion per prompt, each with the seed `seed` plus its index.

        Raises:
            RunError: if the server cannot be reached, refuses a request, or answers in another form.
        """
        with ThreadPoolExecutor(self.concurrency) as pool:
            requested = [
                pool.submit(self._complete, prompt, sampling, (seed + index) % 2**31)
                for index, prompt in enumerate(prompts)
            ]
            try:
                return [each.result() for each in requested]
            finally:
                pool.shutdown(cancel_futures=True)

    def _complete(self, prompt: Prompt, sampling: Sampling, seed: int) -> Completion:
        is_text = isinstance(prompt, str)
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
            "prompt" if is_text else "messages": prompt,
        }
        if self.with_logps:
            body["logprobs"] = 1 if is_text else True
        content = self._post("completions" if is_text else "chat/completions", body)
        try:
            choice = content["choices"][0]
            tokens = content["usage"]["completion_tokens"]
            text = choice["text"] if is_text else _text_of(choice["message"])
            is_cut = choice["finish_reason"] == "length"
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._wrong_form(str(content)) from error
        logp = _logp_of(choice) if self.with_logps else None
        if self.with_logps and logp is None:
            raise RunError(
                f"The server at {self.address} does not return log-probabilities, which choose='most_likely' compares. "
                "Use 'first' or 'shortest', or a server that returns them, such as `vllm serve`."
            )
        # A model may have been shown secrets of this environment, in a prompt for instance.
        return Completion(mask_tokens(text), tokens, is_cut, logp)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            response = self._session.post(
                f"{self.address}/{path}", json=body, timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS), allow_redirects=False
            )
        except requests.RequestException as error:
            raise RunError(
                f"The server at {self.address} cannot be reached or did not answer: {error}. Start it, or correct "
                "--endpoint; the same command then continues."
            ) from error
        if response.status_code == 200:
            try:
                return response.json()
            except requests.JSONDecodeError as error:
                raise self._wrong_form(response.text) from error
        key = f" {KEY_VARIABLE} is {'set' if os.environ.get(KEY_VARIABLE) else 'not set'}."
        raise RunError(
            f"The server at {self.address} refused a request to {path} with status {response.status_code}: "
            f"{response.text[:300]!r}.{key if response.status_code in (401, 403) else ''} Correct the request or the "
            "server; the same command then continues."
        )

    def _wrong_form(self, answer: str) -> RunError:
        return RunError(
            f"The server at {self.address} answered in another form than OpenAI's: {answer[:300]!r}. Check that "
            "--endpoint is the address of a server with OpenAI's protocol; most of them end in /v1."
        )


def _text_of(message: dict[str, Any]) -> str:
    """The message, with the reasoning that some servers put into a field of its own."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    text = message["content"] or ""
    return f"{THINK}\n{reasoning.strip()}\n{END_OF_THINK}\n\n{text}" if reasoning else text


def _logp_of(choice: dict[str, Any]) -> float | None:
    """Log-probability of a completion, from either form of the protocol; None if the server does not give it."""
    found = choice.get("logprobs") or {}
    if found.get("content") is not None:
        return sum(token["logprob"] for token in found["content"])
    if found.get("token_logprobs") is not None:
        return sum(found["token_logprobs"])
    return None
