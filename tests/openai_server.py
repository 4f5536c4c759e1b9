"""A local server that speaks OpenAI's protocol, with the bundled model behind it.

    python -m tests.openai_server [--key KEY] [--slow SECONDS]

Prints its address. The bundled model sees the last message of a conversation as its prompt.
"""

import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hpt_trl.evaluation.engines import Sampling, TransformersEngine, load_tokenizer, resolve_checkpoint


class Server(ThreadingHTTPServer):
    """Completes with the bundled model, one request at a time.

    `asked` lists prompt and seed of every request that was completed. The first `fail` requests are answered with 429,
    as by a busy server; each completion takes `slow` seconds longer.
    """

    def __init__(self, key: str | None = None, fail: int = 0, slow: float = 0.0, with_logps: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        checkpoint = resolve_checkpoint("miniature")
        self.engine = TransformersEngine(checkpoint, load_tokenizer(checkpoint), "float32", with_logps=True)
        self.key, self.fail, self.slow, self.with_logps = key, fail, slow, with_logps
        self.asked: list[tuple[str, int]] = []
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def complete(self, text: str, body: dict[str, Any]) -> tuple[str, int, str, float]:
        """Text, number of tokens, finish reason and log-probability."""
        with self.lock:
            time.sleep(self.slow)
            self.asked.append((text, body["seed"]))
            sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"])
            (done,) = self.engine.complete([self.engine.tokenizer(text)["input_ids"]], sampling, body["seed"])
        return done.text, done.tokens, "length" if done.cut else "stop", done.logp


class Handler(BaseHTTPRequestHandler):
    """`/v1/completions` and `/v1/chat/completions`."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            is_busy = self.server.fail > 0
            self.server.fail -= is_busy
        if is_busy:
            self.answer(429, {"error": {"message": "busy"}}, {"Retry-After": "0"})
        elif self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self.answer(401, {"error": {"message": f"not this key: {self.headers['Authorization']}"}})
        elif body["model"] != "small":
            self.answer(404, {"error": {"message": f"no model {body['model']}"}})
        else:
            self.answer(200, self.completion(body))

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        is_chat = self.path == "/v1/chat/completions"
        text, tokens, reason, logp = self.server.complete(
            body["messages"][-1]["content"] if is_chat else body["prompt"], body
        )
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        if body.get("logprobs") and self.server.with_logps:
            choice["logprobs"] = {"content": [{"logprob": logp}]} if is_chat else {"token_logprobs": [logp]}
        return {"choices": [choice], "usage": {"completion_tokens": tokens}}

    def answer(self, status: int, content: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--key")
    parser.add_argument("--slow", type=float, default=0.0)
    options = parser.parse_args()
    with Server(options.key, slow=options.slow) as server:
        print(server.address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
