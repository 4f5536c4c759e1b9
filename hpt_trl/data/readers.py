"""Reads rows from files, folders and the Hub."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpt_trl.common.overriding import overriding

SPLITS = ("train", "validation", "test")
_FILE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
REPORT_SUFFIX = ".report.json"
"""Suffix of the report that `hpt-trl prepare` writes next to its data; such a file is never read as data."""

_PARQUET_ROWS = 256
_REACH_SECONDS = 10.0


def local_files(source: str, split: str) -> list[Path]:
    """The files of a local dataset, or an empty list if `source` is a Hub id.

    In a folder, these are the file named after the split (`train.jsonl`), or else the files whose names start with the
    split (`train-00000-of-00002.parquet`), or else all files, provided that none is named after another split.

    Raises:
        FileNotFoundError: if `source` looks like a path and does not exist.
        ValueError: for an empty file, an unknown suffix, or a folder with files of several formats.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = _files_of_folder(path, split)
    elif path.is_file():
        if path.suffix not in _FILE_BUILDERS:
            raise ValueError(f"The data file {source!r} must have one of the suffixes {', '.join(_FILE_BUILDERS)}.")
        if path.stem in SPLITS and path.stem != split:
            raise ValueError(
                f"The split is {split!r}, but the data file {source!r} is named after the split {path.stem!r}. Give "
                "another file or another split."
            )
        files = [path]
    elif path.suffix in _FILE_BUILDERS or source.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"The data {source!r} does not exist. Give a .jsonl, .json, .csv or .parquet file, a folder with a file "
            f"named after the split ({split}.jsonl), or the id of a dataset on the Hub."
        )
    else:
        return []
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"The data file {str(file)!r} is empty: it has no rows.")
    return files


def _files_of_folder(folder: Path, split: str) -> list[Path]:
    exact = [folder / f"{split}{suffix}" for suffix in _FILE_BUILDERS if (folder / f"{split}{suffix}").is_file()]
    if exact:
        return exact[:1]
    files = [file for file in sorted(folder.rglob("*")) if is_data(file) and not _is_hidden(file, folder)]
    files_of_split = [file for file in files if _split_of(file) == split]
    selected = files_of_split or [file for file in files if not any(_split_of(other) for other in files)]
    if not selected:
        raise FileNotFoundError(
            f"The folder {str(folder)!r} has no data for the split {split!r} (such as {split}.jsonl), only "
            f"{[file.name for file in files[:5]]}."
        )
    if len({file.suffix for file in selected}) > 1:
        names = [file.name for file in selected[:5]]
        raise ValueError(f"The folder {str(folder)!r} has files of several formats: {names}. Give one of the files.")
    return selected


def is_data(file: Path) -> bool:
    """Whether a file is a data file, judged by its name."""
    return file.is_file() and file.suffix in _FILE_BUILDERS and not file.name.endswith(REPORT_SUFFIX)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _split_of(file: Path) -> str | None:
    for split in SPLITS:
        if file.parent.name == split or file.stem == split or file.name.startswith((f"{split}-", f"{split}_")):
            return split
    return None


def load_rows(source: str, split: str = "train", config: str | None = None, streaming: bool = False) -> Any:
    """Load a dataset for training with `datasets`, from a local file, a folder of such files, or the Hub.

    Raises:
        FileNotFoundError: if `source` looks like a path and does not exist.
        ValueError: if a file is empty, or its content does not match its suffix.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    files = local_files(source, split)
    try:
        if not files:
            with _offline_without_hub():
                return load_dataset(source, name=config, split=split, streaming=streaming)
        builder = _FILE_BUILDERS[files[0].suffix]
        return load_dataset(builder, data_files=[str(file) for file in files], split="train", streaming=streaming)
    except DatasetsError as error:
        for file in files:
            for _ in read_file(file):  # its error names the line
                pass
        file_format = files[0].suffix[1:] if files else "data"
        raise ValueError(f"The data {source!r} is not readable as {file_format}: {error.__cause__ or error}") from error
    except RuntimeError as error:
        # The dataset has a loading script, and `datasets` does not run code from the Hub.
        raise ValueError(f"The data {source!r} cannot be loaded: {error}") from error


@contextmanager
def _offline_without_hub() -> Iterator[None]:
    """Where the Hub cannot be reached, read from the cache at once: `datasets` would retry for half a minute first."""
    import datasets
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _can_reach(constants.ENDPOINT):
        yield
        return
    with overriding(constants, HF_HUB_OFFLINE=True), overriding(datasets.config, HF_HUB_OFFLINE=True):
        yield


def _can_reach(url: str) -> bool:
    import requests

    try:
        requests.head(url, timeout=_REACH_SECONDS)
    except requests.exceptions.SSLError:  # it has answered
        return True
    except (requests.ConnectionError, requests.Timeout):
        return False
    return True


def read_rows(source: str, split: str = "train", config: str | None = None, streaming: bool = False) -> Iterator[dict]:
    """Iterate over rows as Python values. Local files are streamed: neither loaded into memory nor copied to a cache.

    `datasets` gives each column a single type. Here every value stays as it is in the file: an answer may be 7 in one
    row and "x = 7" in the next.

    Raises:
        FileNotFoundError, ValueError: as in `load_rows`; the message names the line that cannot be read.
    """
    files = local_files(source, split)
    if files:
        return (row for file in files for row in read_file(file))
    return iter(load_rows(source, split, config, streaming))


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of one local file.

    Raises:
        ValueError: if the content does not match the suffix; the message names file and line.
    """
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    return readers[path.suffix](path)


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {number}, is not readable as JSON: {error}. Fix or remove it."
                ) from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: a row must be an object, got {type(row).__name__}.")
            yield row


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        is_list = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if not is_list:
        yield from _read_jsonl(path)
        return
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}.") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, entry {number}: a row must be an object, got {type(row).__name__}.")
        yield row


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a long demonstration
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"it has more fields than the {len(reader.fieldnames or ())} columns of the header"
                    )
                yield row
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path}, near line {reader.line_num}, is not readable as CSV: {error}.") from None


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_PARQUET_ROWS):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not readable as Parquet: {error}.") from None
