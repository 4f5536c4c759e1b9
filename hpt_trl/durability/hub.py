"""The Hub fails sometimes: what that means, in one paragraph, and a run that goes on or ends with its model safe."""

import shlex
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from accelerate.logging import get_logger
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from hpt_trl.common.errors import RunError

logger = get_logger(__name__)

# A RuntimeError says which file could not be uploaded, or comes from xet; a ValueError, that the card was refused or an
# answer is not JSON. The Hub's own answer is their cause.
PUSH_ERRORS = (HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, RuntimeError, ValueError)

_ADVICE = {
    400: "The Hub did not take what was sent.",
    401: "Log in with `hf auth login`, or set HF_TOKEN to a token that has not expired.",
    403: "The token may not write there: take one with the role 'write', and a name whose owner you are or belong to.",
    404: "There is no such repository, or the token may not see it: check its name, and that it was created.",
    409: "Something else is being written to this repository: try again when that has ended.",
    413: "A file is too large.",
    429: "The Hub was asked too often: try again in some minutes.",
}
_SERVER_ERROR = "The Hub has trouble of its own: try again in some minutes."
_NO_CONNECTION = "The connection could not be made or broke off ({}): check network, proxy and HF_ENDPOINT."


class HubError(RunError, OSError):
    """The Hub could not be reached, or refused what it was sent."""


def explain(error: BaseException) -> str:
    """What the Hub answered and what to do about it, in a few sentences."""
    what = "" if isinstance(error, HTTPError) else f"{error} "
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            said = cause.server_message or cause.response.reason_phrase
            advice = _SERVER_ERROR if status >= 500 else _ADVICE.get(status, "")
            return " ".join(f"{what}The Hub answered {status}: {said.rstrip('.')}. {advice}".split())
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, and nothing goes to the Hub: unset it."
        if isinstance(cause, HTTPError):
            reason = str(cause) or type(cause).__name__
            return " ".join(f"{what}{_NO_CONNECTION.format(reason)}".split())
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
            "push_to_hub=False and push later, by `hpt-trl push`."
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
            f"The push to {repo!r} failed. {explain(error)} Nothing is lost: the model lies in {str(folder)!r}, and "
            f"`{command}` pushes it."
        ) from error


def warn_if_failed(job: Future, repo: str, step: int) -> None:
    """Tell of a push in the background that failed; nobody else looks at its outcome."""
    error = None if job.cancelled() else job.exception()
    if error is not None:
        warn_of_failed_push(error, repo, step)


def warn_of_failed_push(error: BaseException, repo: str, step: int) -> None:
    """Say that a push during training failed and what happens now."""
    logger.warning(
        f"The push of step {step} to {repo!r} failed. {explain(error)} Training goes on, the checkpoint is on disk, "
        "and the next save pushes again."
    )
