"""Checkpoints that are whole or known not to be, and the part of a run's state that transformers does not save.

A checkpoint is complete once `hpt_complete.json` stands in it: written last, when everything else is on the disk, it
names every file with its size. So a folder that a killed run left half-written, or whose files a full disk cut short,
is recognised by a look at the folder.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather_object, send_to_device
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.files import UNFINISHED, flush, write_atomically
from hpt_trl.durability.faults import first_fault, is_lost_connection

logger = get_logger(__name__)

MARKER = "hpt_complete.json"
REFERENCE = "hpt_reference.safetensors"


def unmark(folder: Path) -> None:
    """Take a checkpoint that is about to be written over for incomplete."""
    (folder / MARKER).unlink(missing_ok=True)


def mark_complete(folder: Path) -> None:
    """Note that all processes have written their files, and what they wrote."""
    # A run that was killed while writing may have left a temporary file.
    contents = [path for path in sorted(folder.rglob("*")) if UNFINISHED not in path.name]
    for path in contents:
        flush(path)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in contents if path.is_file()}
    write_atomically(folder / MARKER, json.dumps({"files": sizes}, indent=1))


def flaw(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is complete."""
    try:
        sizes = json.loads((folder / MARKER).read_text())["files"]
    except FileNotFoundError:
        return f"it has no {MARKER}, so it is half-written or another trainer's"
    except json.JSONDecodeError:
        return f"its {MARKER} is cut short"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"its file {name} is missing"
        if path.stat().st_size != size:
            return f"its file {name} has {path.stat().st_size} bytes instead of {size}"
    return None


@contextmanager
def writing(folder: Path, together: bool) -> Iterator[None]:
    """Raise RunError where a checkpoint cannot be written.

    Args:
        folder: the checkpoint.
        together: raise on all processes if it fails on one; every process must come here. Where the writing itself has
            collectives, which the one that fails leaves, the others learn of it from the broken connection.
    """
    failure: Exception | None = None
    try:
        yield
    # safetensors has an error of its own, and torch.save a plain RuntimeError.
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RunError) or is_lost_connection(error):
            raise
        failure = error
    own = None if failure is None else _not_written(folder, failure)
    fault = first_fault(own) if together else own
    if fault is not None:
        raise (RunError if together else LocalRunError)(fault) from failure


def _not_written(folder: Path, failure: Exception) -> str:
    others = [path for path in _by_step(folder.parent).values() if path != folder and flaw(path) is None]
    last = f"{str(others[-1])!r} is whole" if others else "there is no other checkpoint"
    return (
        f"The checkpoint {str(folder)!r} could not be written: {' '.join(str(failure).split())}. See that the disk has "
        f"room and can be written to; {last}, and resume_from_checkpoint=True passes over what is half-written."
    )


def _by_step(output_dir: Path) -> dict[int, Path]:
    """Folders of checkpoints by step, oldest first."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = [(pattern.fullmatch(path.name), path) for path in output_dir.iterdir()] if output_dir.is_dir() else []
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def rotate(newest: Path, limit: int | None, best: str | None) -> None:
    """Delete checkpoints until `limit` are left, as transformers does, whose order may keep a half-written one instead.

    Args:
        newest: the one just written, which stays.
        limit: how many may stay; None: all.
        best: the one with the best metric, which stays too.
    """
    if limit is None or limit < 1:
        return
    step_of = {path: step for step, path in _by_step(newest.parent).items()}
    kept = {newest} if best is None else {newest, newest.parent / Path(best).name}

    def is_worth_keeping(path: Path) -> bool:
        return step_of[path] < step_of[newest] and flaw(path) is None

    others = sorted(step_of.keys() - kept, key=lambda path: (is_worth_keeping(path), step_of[path]))
    for path in others[: max(0, len(others) + len(kept & step_of.keys()) - limit)]:
        shutil.rmtree(path, ignore_errors=True)  # processes of several nodes may meet here


def newest_complete(output_dir: Path) -> Path | None:
    """The newest checkpoint that is complete on every process; others are passed over with a message.

    Every process must ask.

    Raises:
        RunError: if some processes see complete checkpoints, and none is complete for all.
    """
    folders = _by_step(output_dir)
    flaws = {step: flaw(folder) for step, folder in folders.items()}
    everywhere = gather_object([flaws])
    complete = [step for step in folders if all(step in each and each[step] is None for each in everywhere)]
    if not complete and any(problem is None for each in everywhere for problem in each.values()):
        raise RunError(
            f"There are complete checkpoints in {str(output_dir)!r}, but none that every process sees: the machines do "
            "not share this folder. Copy the newest to all of them, or name another output_dir to start anew."
        )
    newest = max(complete, default=-1)
    for step, folder in folders.items():
        if step > newest:
            found = next((each[step] for each in everywhere if each.get(step)), "not every process sees it")
            logger.warning(f"Passing over {str(folder)!r}: {found}.")
    return folders[newest] if complete else None


def to_resume(wanted: str | bool | None, output_dir: Path) -> str | None:
    """The checkpoint to resume from. Every process must ask.

    Args:
        wanted: a folder; True, the newest complete one in `output_dir`; "auto", the same, or none if there is none
            yet; False or None, none.
        output_dir: the run's folder.

    Raises:
        RunError: if there is no such checkpoint, or files of it are missing or cut short.
    """
    if wanted is None or wanted is False:
        return None
    if wanted is True or wanted == "auto":
        found = newest_complete(output_dir)
        if found is None and wanted is True:
            raise RunError(
                f"resume_from_checkpoint=True, but there is no complete checkpoint in {str(output_dir)!r}. Name the "
                "folder of one that another trainer wrote, or set 'auto' to start anew where there is none."
            )
        logger.info(f"Resuming from {found}." if found else f"No complete checkpoint in {output_dir}: a fresh start.")
        return str(found) if found else None
    problem = flaw(Path(wanted))
    fault = first_fault(problem if (Path(wanted) / MARKER).exists() else None)
    if fault is not None:
        raise RunError(f"{wanted!r} is not a whole checkpoint: {fault}. Resume from another, or set 'auto'.")
    if problem is not None:
        logger.warning(f"{wanted}: {problem}. Resuming from it, for it was named.")
    return str(wanted)


def save_state(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Save one process's state: tensors, numbers, texts, and lists and dicts of them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), folder / f"hpt_state_{rank}.pth")


def load_state(folder: Path, rank: int, layout: Mapping[str, int], device: torch.device) -> dict[str, Any] | None:
    """This process's state, or None with a message if there is none that fits.

    Args:
        folder: the checkpoint.
        rank: this process's number.
        layout: what the state depends on, as it is now; the saved state has its own under "layout".
        device: where its tensors belong.
    """
    path = folder / f"hpt_state_{rank}.pth"
    problem = f"{folder} has no {path.name}"
    if path.is_file():
        state = torch.load(path, map_location="cpu", weights_only=True)
        changed = {name: (state["layout"].get(name), now) for name, now in layout.items()}
        changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
        if not changed:
            return send_to_device(state, device)
        problem = f"{folder} was written with other options (then, now): {changed}"
    logger.warning(f"{problem}. The resumed run is not exact: rollouts are generated anew, metrics begin anew.")
    return None


def save_reference(folder: Path, model: torch.nn.Module) -> None:
    """Save a reference model that follows the policy."""
    save_model(model, str(folder / REFERENCE))


def load_reference(folder: Path, model: torch.nn.Module | None) -> None:
    """Load what `save_reference` saved, or say why not.

    Args:
        folder: the checkpoint.
        model: the reference model; None if it is sharded over processes, and was not saved.
    """
    if model is not None and (folder / REFERENCE).is_file():
        load_model(model, str(folder / REFERENCE))
        return
    why = "it is sharded" if model is None else f"{folder} has no {REFERENCE}"
    logger.warning(f"The reference model begins anew: {why}. The resumed run is not exact.")


def batches_read(folder: Path, batches_a_step: int) -> tuple[int, int]:
    """Epochs that a checkpoint's run has read of a stream, and batches of the next one.

    Args:
        folder: the checkpoint.
        batches_a_step: `gradient_accumulation_steps`.
    """
    state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
    # transformers takes `max_steps` steps for an epoch of a stream, and begins another where the stream ends.
    epoch = int(state.epoch or 0)
    return epoch, round(((state.epoch or 0) - epoch) * state.max_steps) * batches_a_step


class EpochEndCallback(TrainerCallback):
    """Puts off a save in an epoch's last step until the epoch's end has been logged and evaluated.

    A resumed run begins with the next epoch: of what came between, it would know nothing.
    """

    def __init__(self) -> None:
        self._is_due = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._is_due = control.should_save and float(state.epoch or 0).is_integer()
        control.should_save = control.should_save and not self._is_due

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_save = control.should_save or self._is_due
        self._is_due = False
