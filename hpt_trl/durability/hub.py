"""The Hub fails sometimes: what that means, in one paragraph, and a run that goes on or ends with its model safe."""

import shlex
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from hpt_trl.common.errors import RunError
from hpt_trl.common.logs import get_logger
from hpt_trl.common.masking import mask_tokens

logger = get_logger(__name__)

# A RuntimeError says which file could not be uploaded, or comes from xet; a ValueError, that the card was refused or an
# answer is not JSON. The Hub's own answer is their cause.
PUSH_ERRORS = (HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, RuntimeError, ValueError)

_ADVICE = {
    400: "The Hub did not accept what was sent.",
    401: "Log in with `hf auth login`, or set HF_TOKEN to a token that has not expired.",
    403: "The token has no write access: use one with the role 'write', and a repository that you may write to.",
    404: "There is no such repository, or the token has no access to it: check the name, and that it was created.",
    409: "Another write to this repository is in progress: try again when it has finished.",
    413: "A file is too large.",
    429: "Too many requests: try again in a few minutes.",
}
_SERVER_ERROR = "The Hub has an internal problem: try again in a few minutes."
_NO_CONNECTION = "The connection failed or was interrupted ({}): check the network, the proxy and HF_ENDPOINT."


class HubError(RunError, OSError):
    """The Hub could not be reached, or rejected the request."""


def explain(error: BaseException) -> str:
    """The response of the Hub and what to do about it, in a few sentences, without secrets."""
    return mask_tokens(_explanation(error))


def _explanation(error: BaseException) -> str:
    context = "" if isinstance(error, HTTPError) else f"{error} "
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            message = cause.server_message or cause.response.reason_phrase
            advice = _SERVER_ERROR if status >= 500 else _ADVICE.get(status, "")
            return " ".join(f"{context}The Hub responded with {status}: {message.rstrip('.')}. {advice}".split())
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so nothing is sent to the Hub: unset it."
        if isinstance(cause, HTTPError):
            reason = str(cause) or type(cause).__name__
            return " ".join(f"{context}{_NO_CONNECTION.format(reason)}".split())
        cause = cause.__cause__
    return " ".join(str(error).split())


@contextmanager
def creating(repo: str) -> Iterator[None]:
    """Raise HubError where a repository cannot be created."""
    try:
        yield
    except PUSH_ERRORS as error:
        raise HubError(
            f"The repository {repo!r} on the Hub could not be created or opened. {explain(error)} Or set "
            "push_to_hub=False and push later with `hpt-trl push`."
        ) from error


@contextmanager
def pushing(folder: str | Path, repo: str) -> Iterator[None]:
    """Raise HubError where a model that is saved in `folder` cannot be pushed."""
    try:
        yield
    except PUSH_ERRORS as error:
        if isinstance(error, RunError):
            raise
        command = f"hpt-trl push {shlex.quote(str(folder))} --repo_id {repo}"
        raise HubError(
            f"The push to {repo!r} failed. {explain(error)} Nothing is lost: the model is in {str(folder)!r}, and "
            f"`{command}` pushes it."
        ) from error


def warn_if_failed(job: Future, repo: str, step: int) -> None:
    """Warn if a push in the background failed; nothing else looks at its result."""
    error = None if job.cancelled() else job.exception()
    if error is not None:
        warn_of_failed_push(error, repo, step)


def warn_of_failed_push(error: BaseException, repo: str, step: int) -> None:
    """Warn that a push during training failed, and say what happens now."""
    logger.warning(
        f"The push of step {step} to {repo!r} failed. {explain(error)} Training continues, the checkpoint is on disk, "
        "and the next save pushes again."
    )
