"""Files, folders and Hub ids -> rows."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = ("train", "validation", "test")
_FILE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
REPORT_SUFFIX = ".report.json"
"""What `hpt-trl prepare` writes beside its data; never data itself."""

_PARQUET_ROWS = 256


def local_files(source: str, split: str) -> list[Path]:
    """The files of a local data set, or none if `source` is the id of one on the Hub.

    A folder's files are the one named for the split (`train.jsonl`), else those that begin with its name
    (`train-00000-of-00002.parquet`), else all where none is named for another split.

    Raises:
        FileNotFoundError: if `source` looks like a path and nothing is there.
        ValueError: for an empty file, an unknown ending, or a folder that leaves the choice open.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = _files_of_folder(path, split)
    elif path.is_file():
        if path.suffix not in _FILE_BUILDERS:
            raise ValueError(f"The data file {source!r} must end in one of {', '.join(_FILE_BUILDERS)}.")
        if path.stem in SPLITS and path.stem != split:
            raise ValueError(f"Split {split!r} was asked for, but the data file {source!r} is named for {path.stem!r}.")
        files = [path]
    elif path.suffix in _FILE_BUILDERS or source.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"The data {source!r} does not exist. Give a .jsonl, .json, .csv or .parquet file, a folder with one named "
            f"for the split ({split}.jsonl), or the id of a data set on the Hub."
        )
    else:
        return []
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"The data file {str(file)!r} is empty: 0 rows.")
    return files


def _files_of_folder(folder: Path, split: str) -> list[Path]:
    exact = [folder / f"{split}{suffix}" for suffix in _FILE_BUILDERS if (folder / f"{split}{suffix}").is_file()]
    if exact:
        return exact[:1]
    files = [file for file in sorted(folder.rglob("*")) if is_data(file) and not _is_hidden(file, folder)]
    named = [file for file in files if _split_of(file) == split]
    chosen = named or [file for file in files if not any(_split_of(other) for other in files)]
    if not chosen:
        raise FileNotFoundError(
            f"The folder {str(folder)!r} has no data of split {split!r} (like {split}.jsonl), only "
            f"{[file.name for file in files[:5]]}."
        )
    if len({file.suffix for file in chosen}) > 1:
        names = [file.name for file in chosen[:5]]
        raise ValueError(f"The folder {str(folder)!r} has files of several kinds: {names}. Name one of them.")
    return chosen


def is_data(file: Path) -> bool:
    """Whether a file holds rows, by its name."""
    return file.is_file() and file.suffix in _FILE_BUILDERS and not file.name.endswith(REPORT_SUFFIX)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _split_of(file: Path) -> str | None:
    for split in SPLITS:
        if file.parent.name == split or file.stem == split or file.name.startswith((f"{split}-", f"{split}_")):
            return split
    return None


def load_rows(source: str, split: str = "train", config: str | None = None, streaming: bool = False) -> Any:
    """Load a data set from a local file, a folder of such files or the Hub, as `datasets` does, to train on.

    Raises:
        FileNotFoundError: if `source` looks like a path and nothing is there.
        ValueError: if a file is empty or not what its ending says.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    files = local_files(source, split)
    try:
        if not files:
            return load_dataset(source, name=config, split=split, streaming=streaming)
        builder = _FILE_BUILDERS[files[0].suffix]
        return load_dataset(builder, data_files=[str(file) for file in files], split="train", streaming=streaming)
    except DatasetsError as error:
        for file in files:
            for _ in read_file(file):  # names the line
                pass
        kind = files[0].suffix[1:] if files else "data"
        raise ValueError(f"The data {source!r} is not readable as {kind}: {error.__cause__ or error}") from error
    except RuntimeError as error:
        # Data sets that come with a loading script: `datasets` no longer runs code from the Hub, and we never did.
        raise ValueError(f"The data {source!r} cannot be loaded: {error}") from error


def read_rows(source: str, split: str = "train", config: str | None = None, streaming: bool = False) -> Iterator[dict]:
    """Rows one by one, as Python values. Local files are never held in memory nor copied to a cache.

    Unlike `datasets`, which makes one type of a column, it leaves every value as the file has it: an answer may be 7
    in one row and "x = 7" in the next.

    Raises:
        FileNotFoundError, ValueError: as `load_rows`; a broken line is named.
    """
    files = local_files(source, split)
    if files:
        return (row for file in files for row in read_file(file))
    return iter(load_rows(source, split, config, streaming))


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of one local file.

    Raises:
        ValueError: naming file and line, if it is not what its ending says.
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
                raise ValueError(f"{path}, line {number}, is not readable as JSON: {error}. Mend or drop it.") from None
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
    csv.field_size_limit(2**31 - 1)  # by default 128 KiB, less than a long demonstration
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"it has more fields than the {len(reader.fieldnames or ())} columns of its header"
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
