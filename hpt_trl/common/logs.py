"""Loggers of this package, and its own lines on the terminal: neither shows a secret."""

import logging
import sys
from typing import Any

from hpt_trl.common.escaping import encodable
from hpt_trl.common.masking import mask_tokens


class _MaskingFilter(logging.Filter):
    """Masks secrets in messages and tracebacks before any handler sees them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = mask_tokens(record.getMessage()), None
        if record.exc_info:
            record.exc_text = mask_tokens(logging.Formatter().formatException(record.exc_info))
        return True


def plain_logger(name: str) -> logging.Logger:
    """A logger that masks secrets, for processes that are not part of a run."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, _MaskingFilter) for each in logger.filters):
        logger.addFilter(_MaskingFilter())
    return logger


def get_logger(name: str) -> Any:
    """Accelerate's logger, which logs on the main process only, with secrets masked."""
    from accelerate.logging import get_logger as of_accelerate

    plain_logger(name)
    return of_accelerate(name)


def say(text: object, is_error: bool = False) -> None:
    """Print a text with secrets masked, and flush it."""
    print(encodable(mask_tokens(str(text))), file=sys.stderr if is_error else sys.stdout, flush=True)
