"""Functions for the processes of reward functions; this module imports nothing that takes time."""

import asyncio
import logging
import os
import random
import re
import sys
import time

logger = logging.getLogger("tests.functions")
calls = 0


def hangs(**kwargs):
    time.sleep(3600)


async def hangs_async(**kwargs):
    await asyncio.sleep(3600)


def keeps_the_interpreter_lock(**kwargs):
    re.match("(a+)+$", "a" * 40 + "b")


async def blocks_the_event_loop(**kwargs):
    time.sleep(3600)


def logs_forever(log_extra, **kwargs):
    while True:
        log_extra("note", ["x"])


def raises(**kwargs):
    raise KeyError("solution")


def exits(**kwargs):
    sys.exit("enough")


def dies(**kwargs):
    os._exit(7)


async def returns_later(completions, **kwargs):
    return [float(len(text)) for text in completions]


def yields(completions, **kwargs):
    yield from (1.0 for _ in completions)


def returns_a_generator(**kwargs):
    return [yields([])]


def reports(completions, log_extra, log_metric, trainer_state, **kwargs):
    logger.info("level %s", "info")
    logger.debug("hidden")
    log_metric("length", trainer_state.global_step)
    log_extra("note", completions)
    return [0.0] * len(completions)


def counts(**kwargs):
    global calls
    calls += 1
    return [calls]


def draws(**kwargs):
    return [random.random() for _ in range(3)]


def environment(**kwargs):
    return [os.environ.get("MASTER_ADDR"), os.environ.get("LOCAL_RANK"), os.getpid()]
