"""Which checkpoint a run is resumed from, and the state of a run that transformers does not save.

Its marker says whether a checkpoint is complete and undamaged: see `markers.py`.
"""

import os
import re
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, send_to_device
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.logs import get_logger
from hpt_trl.durability.faults import first_fault, is_lost_connection
from hpt_trl.durability.markers import (
    MARKER,
    damage_reason,
    divergence_reason,
    incomplete_reason,
    mark_diverged,
    unusable_reason,
)

logger = get_logger(__name__)

REFERENCE = "hpt_reference.safetensors"


@contextmanager
def reporting_write_errors(folder: Path, together: bool) -> Iterator[None]:
    """Raise RunError where a checkpoint cannot be written.

    Args:
        folder: the checkpoint.
        together: raise on all processes if it fails on one; every process must enter and leave the block. Where the
            block contains collectives, which the failing process leaves, the others notice the broken connection.
    """
    failure: Exception | None = None
    try:
        yield
    # safetensors raises an error of its own, and torch.save a plain RuntimeError.
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RunError) or is_lost_connection(error):
            raise
        failure = error
    own = None if failure is None else _not_written(folder, failure)
    fault = first_fault(own) if together else own
    if fault is not None:
        raise (RunError if together else LocalRunError)(fault) from failure


def _not_written(folder: Path, failure: Exception) -> str:
    others = [path for path in _by_step(folder.parent).values() if path != folder and unusable_reason(path) is None]
    last = f"{str(others[-1])!r} is complete" if others else "there is no other checkpoint"
    return (
        f"The checkpoint {str(folder)!r} could not be written: {' '.join(str(failure).split())}. Check that the disk "
        f"has room and is writable; {last}, and resume_from_checkpoint=True skips incomplete ones."
    )


@contextmanager
def reporting_read_errors(folder: Path) -> Iterator[None]:
    """Raise RunError where a checkpoint cannot be loaded: another model's, or damaged and without checksums."""
    try:
        yield
    # What the reader of a damaged file raises depends on where the damage is.
    except Exception as error:
        if isinstance(error, (RunError, torch.OutOfMemoryError)) or is_lost_connection(error):
            raise
        raise LocalRunError(
            f"The checkpoint {str(folder)!r} could not be loaded: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}. It is damaged, or belongs to another model or optimizer. Resume "
            "from another checkpoint, or start from scratch in another output_dir."
        ) from error


def _by_step(output_dir: Path) -> dict[int, Path]:
    """Paths named like checkpoints by step, oldest first; not each of them is a folder."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-([0-9]+)")
    found = [(pattern.fullmatch(path.name), path) for path in output_dir.iterdir()] if output_dir.is_dir() else []
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def newest_usable(output_dir: Path, before: int) -> Path | None:
    """The newest complete checkpoint from before a step whose policy has not diverged, as this process sees it."""
    usable = [path for step, path in _by_step(output_dir).items() if step < before and unusable_reason(path) is None]
    return usable[-1] if usable else None


def mark_steps_diverged(output_dir: Path, steps: Container[int], reason: str) -> None:
    """Mark the complete checkpoints of these steps as those of a policy that has diverged."""
    for step, path in _by_step(output_dir).items():
        if step in steps and unusable_reason(path) is None:
            try:
                mark_diverged(path, reason)
            except OSError as error:
                logger.warning(f"{str(path)!r} could not be marked as diverged: {error}. Delete it.")


def rotate(newest: Path, limit: int | None, best: str | None, spare: Path | None = None) -> None:
    """Delete checkpoints until `limit` are left, unusable ones first; transformers may keep those instead.

    Args:
        newest: the one just written, which is kept.
        limit: how many are kept; None: all.
        best: the one with the best metric, which is kept too.
        spare: another one that is kept, whatever the limit.
    """
    if limit is None or limit < 1:
        return
    step_of = {path: step for step, path in _by_step(newest.parent).items() if path.is_dir()}
    kept = {newest, *([] if best is None else [newest.parent / Path(best).name]), *([] if spare is None else [spare])}

    def is_worth_keeping(path: Path) -> bool:
        return step_of[path] < step_of[newest] and unusable_reason(path) is None

    others = sorted(step_of.keys() - kept, key=lambda path: (is_worth_keeping(path), step_of[path]))
    for path in others[: max(0, len(others) + len(kept & step_of.keys()) - limit)]:
        shutil.rmtree(path, ignore_errors=True)  # processes of several nodes may meet here


def newest_complete(output_dir: Path) -> Path | None:
    """The newest checkpoint that is complete and undamaged on every process; others are skipped with a warning.

    One whose policy has diverged is skipped too. Every process must call it.

    Raises:
        RunError: if some processes see complete checkpoints, and none is complete for all.
    """
    folders = _by_step(output_dir)
    reasons = {step: unusable_reason(folder) for step, folder in folders.items()}
    on_ranks = gather_object([reasons])
    complete = [step for step in folders if all(step in seen and seen[step] is None for seen in on_ranks)]
    if not complete and any(reason is None for seen in on_ranks for reason in seen.values()):
        raise RunError(
            f"There are complete checkpoints in {str(output_dir)!r}, but none that every process sees: the machines do "
            "not share this folder. Copy the newest to all of them, or start from scratch in another output_dir."
        )
    newest = -1
    damage: dict[int, str] = {}
    for step in reversed(complete):
        fault = _damage(folders[step])
        if fault is None:
            newest = step
            break
        damage[step] = fault
    for step, folder in folders.items():
        if step > newest:
            reason = damage.get(step) or next((seen[step] for seen in on_ranks if seen.get(step)), None)
            logger.warning(f"Skipping {str(folder)!r}: {reason or 'not every process sees it'}.")
    return folders.get(newest)


def _damage(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted, the same on every process. Every process must call it."""
    # Processes of one machine see the same files: one of them reads all.
    return first_fault(damage_reason(folder) if PartialState().is_local_main_process else None)


def resolve_resume_checkpoint(wanted: str | bool | None, output_dir: Path) -> str | None:
    """The checkpoint to resume from. Every process must call it.

    Args:
        wanted: a folder; True, the newest complete one in `output_dir`; "auto", the same, or none if there is none
            yet; False or None, none.
        output_dir: the run's folder.

    Raises:
        RunError: if there is no such checkpoint, or files of it are missing or damaged.
    """
    if wanted is None or wanted is False:
        return None
    if wanted is True or wanted == "auto":
        found = newest_complete(output_dir)
        if found is None and wanted is True:
            raise RunError(
                f"resume_from_checkpoint=True, but there is no complete checkpoint in {str(output_dir)!r}. Name the "
                "folder of one that another trainer wrote, or use 'auto' to start from scratch where there is none."
            )
        logger.info(f"Resuming from {found}." if found else f"No complete checkpoint in {output_dir}: a fresh start.")
        return str(found) if found else None
    folder = Path(wanted)
    has_marker = os.path.lexists(folder / MARKER)
    problem = first_fault(incomplete_reason(folder)) or _damage(folder)
    fault = first_fault(problem if has_marker or not folder.is_dir() else None)
    if fault is not None:
        raise RunError(f"{wanted!r} is not a complete checkpoint: {fault}. Resume from another one, or use 'auto'.")
    problem = problem or first_fault(divergence_reason(folder))
    if problem is not None:
        logger.warning(f"{wanted}: {problem}. Resuming anyway because it was named explicitly.")
    return str(wanted)


def save_state(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Save one process's state: tensors, numbers, strings, and lists and dicts of them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), folder / f"hpt_state_{rank}.pth")


def load_state(folder: Path, rank: int, layout: Mapping[str, int], device: torch.device) -> dict[str, Any] | None:
    """This process's state; None with a warning, on every process, if one of them has none that fits.

    Every process must call it.

    Args:
        folder: the checkpoint.
        rank: this process's number.
        layout: the current options that the state depends on; the saved state has its own under "layout".
        device: device of its tensors.
    """
    path = folder / f"hpt_state_{rank}.pth"
    problem: str | None = f"{folder} has no {path.name}"
    if path.is_file():
        with reporting_read_errors(folder):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            changed = {name: (loaded["layout"].get(name), now) for name, now in layout.items()}
        changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
        problem = f"{folder} was written with other options (then, now): {changed}" if changed else None
    # A process that restored its rollouts alone would wait for the others, which generate theirs.
    fault = first_fault(problem)
    if fault is None:
        return send_to_device(loaded, device)
    logger.warning(f"{fault}. The resumed run is not exact: rollouts are generated again, and metrics start over.")
    return None


def save_reference(folder: Path, model: torch.nn.Module) -> None:
    """Save a reference model that follows the policy (`sync_ref_model`)."""
    save_model(model, str(folder / REFERENCE))


def load_reference(folder: Path, model: torch.nn.Module | None) -> None:
    """Load what `save_reference` saved, or warn why that is not possible.

    Args:
        folder: the checkpoint.
        model: the reference model; None if it is sharded over processes, and was not saved.
    """
    if model is not None and (folder / REFERENCE).is_file():
        load_model(model, str(folder / REFERENCE))
        return
    reason = "it is sharded" if model is None else f"{folder} has no {REFERENCE}"
    logger.warning(f"The reference model starts over: {reason}. The resumed run is not exact.")


def trainer_state(folder: Path) -> TrainerState:
    """transformers' state of the run at a checkpoint."""
    with reporting_read_errors(folder):
        return TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))


def stream_position(folder: Path, batches_per_step: int) -> tuple[int, int]:
    """Complete epochs that the run of a checkpoint has read from a stream, and batches of the next one.

    Args:
        folder: the checkpoint.
        batches_per_step: `gradient_accumulation_steps`.
    """
    state = trainer_state(folder)
    # transformers counts `max_steps` steps as one epoch of a stream, and begins another where the stream ends.
    epoch = int(state.epoch or 0)
    return epoch, round(((state.epoch or 0) - epoch) * state.max_steps) * batches_per_step


class TrainBeginCallback(TrainerCallback):
    """Calls a function when training begins, after transformers has set its own state."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.function()


class EpochEndCallback(TrainerCallback):
    """Defers a save in the last step of an epoch until the end of the epoch has been logged and evaluated.

    A resumed run begins with the next epoch and would not repeat what came in between.
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
