"""Which run a folder and a checkpoint belong to, so that two runs are never mixed.

Each checkpoint holds the identity of its run (`hpt_identity.json`), and `_record/run.json` that of the folder. While a
run trains, it holds a lock on its folder.
"""

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.common.errors import RunError
from hpt_trl.common.files import write_atomically
from hpt_trl.common.logs import get_logger
from hpt_trl.common.masking import without_secrets
from hpt_trl.durability.checkpoints import resolve_resume_checkpoint
from hpt_trl.durability.faults import first_fault

logger = get_logger(__name__)

FILE_NAME = "hpt_identity.json"
LOCK_NAME = "_record/lock"
_SAMPLED_ROWS = 64
_TEXT_COLUMNS = ("prompt", "demonstration", "solution", "answer")
# What says where a run writes and what it shows, not what it computes.
_IRRELEVANT = re.compile(
    r"((overwrite_)?output_dir|run_name|logging_dir|resume_from_checkpoint|report_to|disable_tqdm|local_rank|project|ddp_timeout|"
    r"(hub|push|trackio|logging|log|save|dataloader)_.*|.*_token|log|num_completions_to_print)"
)
# What a run leaves in its folder, and `overwrite_output_dir` moves. Other files, such as data, stay.
_FILES_OF_A_RUN = (
    "checkpoint-*", "completions", "gate.parquet", "hpt_run.json", "README.md", "trainer_state.json",
    "training_args.bin", "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json",
    "adapter_*", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template*", "gate.png", "report.html", "runs", "*_results.json", "_record/*.json*",
)  # fmt: skip
_locked_here: set[Path] = set()


@dataclass(frozen=True)
class Identity:
    """What makes a run this run.

    Args:
        run_id: drawn when a run starts from scratch, and inherited when it is resumed.
        fixed: what must not change within a run: algorithm, gate, model, seeds, data.
        options: options that may change within a run, which is noted.
    """

    run_id: str
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write `hpt_identity.json` into a checkpoint."""
        write_atomically(folder / FILE_NAME, json.dumps(asdict(self), indent=1, default=str))


def identify(fixed: Mapping[str, Any], options: Mapping[str, Any]) -> Identity:
    """The identity of a run that starts from scratch. Every process must call it; all get that of the first.

    Args:
        fixed: what must not change within a run.
        options: all options; those that do not change what is computed are left out.
    """
    # As JSON returns them, so that they can be compared with what a checkpoint holds.
    relevant = {name: value for name, value in options.items() if not _IRRELEVANT.fullmatch(name) and name not in fixed}
    content = json.loads(json.dumps([dict(fixed), without_secrets(relevant)], default=str))
    return Identity(gather_object([os.urandom(8).hex()])[0], *content)


def data_fingerprint(dataset: Any) -> str | None:
    """Hash of the number of rows and of the texts of 64 of them; None for a stream, which would have to be read."""
    if not isinstance(dataset, Dataset):
        return None
    columns = [name for name in _TEXT_COLUMNS if name in dataset.column_names]
    rows = sorted({round(index * (len(dataset) - 1) / (_SAMPLED_ROWS - 1)) for index in range(_SAMPLED_ROWS)})
    texts = dataset.select_columns(columns).select([row for row in rows if row >= 0]).to_list() if columns else []
    content = json.dumps([len(dataset), texts], default=lambda value: type(value).__name__, sort_keys=True)
    return hashlib.sha256(content.encode(errors="backslashreplace")).hexdigest()[:16]


def read_identity(path: Path) -> Identity | None:
    """The identity in a checkpoint or, under "identity", in `_record/run.json`; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content.get("identity", content)
        return Identity(str(content["run_id"]), dict(content["fixed"]), dict(content["options"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # of an early version, or another trainer's


def claim_folder(
    identity: Identity, wanted: str | bool | None, output_dir: Path, may_move: bool
) -> tuple[str | None, Identity]:
    """The checkpoint to resume from, if any, and the run's identity. Every process must call it.

    Args:
        identity: of the run as it is configured now; its `run_id` if it starts from scratch.
        wanted: as in `resolve_resume_checkpoint`.
        output_dir: the run's folder.
        may_move: `overwrite_output_dir`: move another run in `output_dir` aside instead of refusing.

    Raises:
        RunError: if there is no checkpoint to resume from, or if two runs would be mixed.
    """
    checkpoint = resolve_resume_checkpoint(wanted, output_dir)
    is_named = checkpoint is not None and wanted is not True and wanted != "auto"
    earlier = read_identity(Path(checkpoint) / FILE_NAME) if checkpoint else None
    conflict: str | None = None
    if checkpoint is not None:
        changed = _changes(earlier.fixed, identity.fixed) if earlier else {}
        if changed and not is_named:
            conflict = f"{checkpoint!r} belongs to another run: (then, now) {changed}"
        if Path(checkpoint).absolute().parent != output_dir.absolute():
            conflict = _conflict_of_start(earlier or identity, output_dir, is_auto=False)
    else:
        conflict = _conflict_of_start(identity, output_dir, is_auto=wanted == "auto")
    conflict = first_fault(conflict)
    if conflict is not None:
        if not may_move:
            raise RunError(_refusal(conflict, output_dir, is_resumed=bool(wanted)))
        checkpoint = checkpoint if is_named else None
        _move_aside_together(output_dir)
    if checkpoint is None:
        return None, identity
    if earlier is None:
        return checkpoint, identity
    changed = changed_since(Path(checkpoint), identity)
    if changed:
        logger.warning(f"{checkpoint} is resumed with other options than it was written with (then, now): {changed}.")
    return checkpoint, Identity(earlier.run_id, identity.fixed, identity.options)


def changed_since(checkpoint: Path, identity: Identity) -> dict[str, tuple[Any, Any]]:
    """What differs from the run that wrote a checkpoint, by name: its value then, and now."""
    earlier = read_identity(checkpoint / FILE_NAME)
    if earlier is None:
        return {}
    return _changes(earlier.fixed, identity.fixed) | _changes(earlier.options, identity.options)


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    # An option that one of the two versions does not know is no change.
    return {name: (then[name], now[name]) for name in now if name in then and then[name] != now[name]}


def _conflict_of_start(identity: Identity, output_dir: Path, is_auto: bool) -> str | None:
    """Why a run that resumes from nothing in `output_dir` would be mixed with what is there."""
    checkpoints = sorted(output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-[0-9]*")) if output_dir.is_dir() else []
    folders = [path for path in checkpoints if path.is_dir()]
    if not folders:
        return None
    identities = [read_identity(path / FILE_NAME) for path in folders]
    if all(found is not None and found.run_id == identity.run_id for found in identities):
        return None
    of_folder = read_identity(output_dir / "_record" / "run.json")
    # 'auto' has found no complete checkpoint: the run was killed before it had one.
    if is_auto and not (of_folder and _changes(of_folder.fixed, identity.fixed)):
        return None
    return f"{str(output_dir)!r} holds another run, with {folders[-1].name}"


def _refusal(conflict: str, output_dir: Path, is_resumed: bool) -> str:
    way = "" if is_resumed else "To continue that run, use resume_from_checkpoint='auto'. "
    return (
        f"{conflict}. Two runs are not mixed in one folder. {way}To start another run, choose another output_dir, or "
        f"set overwrite_output_dir=True, which moves the files of the earlier run to {str(_place_aside(output_dir))!r}."
    )


def _place_aside(output_dir: Path) -> Path:
    folder = output_dir.absolute()
    number = 1
    while (aside := folder.with_name(f"{folder.name}.earlier-{number}")).exists():
        number += 1
    return aside


def _move_aside_together(output_dir: Path) -> None:
    """Move the files of the earlier run. Every process must call it."""
    problem: str | None = None
    if PartialState().is_main_process:
        try:
            move_aside(output_dir)
        except OSError as error:
            problem = f"The earlier run in {str(output_dir)!r} could not be moved aside: {error}. Move it yourself."
    fault = first_fault(problem)
    if fault is not None:
        raise RunError(fault)


def move_aside(output_dir: Path) -> Path:
    """Move what a run has written to a new folder beside its own; other files stay. Returns the new folder."""
    aside = _place_aside(output_dir)
    for pattern in _FILES_OF_A_RUN:
        for path in sorted(output_dir.glob(pattern)):
            target = aside / path.relative_to(output_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    logger.warning(f"The files of the earlier run in {str(output_dir)!r} were moved to {str(aside)!r}.")
    return aside


@contextmanager
def folder_lock(output_dir: Path) -> Iterator[None]:
    """Keep other trainings out of a folder. Every process must enter it; the first one holds the lock.

    The system releases the lock when the process ends, however it ends. Forks of the process do not inherit it.

    Raises:
        RunError: if another training runs in the folder.
    """
    path = (output_dir / LOCK_NAME).absolute()
    file: IO[str] | None = None
    problem: str | None = None
    if PartialState().is_main_process:
        try:
            file = _locked(path)
        except BlockingIOError as error:
            problem = (
                f"Another training is running in {str(output_dir)!r} ({error}). Two runs are not mixed in one folder: "
                "choose another output_dir, or end the other run first."
            )
        except (OSError, ImportError) as error:
            logger.warning(f"{str(output_dir)!r} cannot be locked ({error}): make sure that no other run uses it.")
    fault = first_fault(problem)
    try:
        if fault is not None:
            raise RunError(fault)
        yield
    finally:
        if file is not None:
            _locked_here.discard(path)
            file.close()


def _locked(path: Path) -> IO[str]:
    """The open lock file; BlockingIOError, with the process that holds it, if another training does."""
    import fcntl  # there is none on Windows

    # Locks belong to processes: another trainer of this one would be given the lock, and closing would release it.
    if path in _locked_here:
        raise BlockingIOError("this process")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # systems differ in how they report a lock that is held
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise BlockingIOError(holder or "an unknown process") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _locked_here.add(path)
    return file
