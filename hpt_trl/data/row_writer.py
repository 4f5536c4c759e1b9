"""Streams rows to a .jsonl or .parquet file that appears only when it is complete."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from hpt_trl.common.files import atomic_path

_BUFFERED_ROWS = 256


class RowWriter:
    """
    Writes rows to a temporary file next to `path`, and renames it to `path` if the `with` block ends without an error.

    Args:
        path: the file to write, .jsonl or .parquet.

    Raises:
        ValueError: for another suffix.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".jsonl", ".parquet"):
            raise ValueError(f"output must end in .jsonl or .parquet, got {str(path)!r}.")
        self.path = path
        self._temporary: Path = path
        self._rows: list[dict[str, Any]] = []
        self._stack = ExitStack()
        self._file: Any = None

    def __enter__(self) -> "RowWriter":
        self._temporary = self._stack.enter_context(atomic_path(self.path, per_process=True))
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; rows are written in blocks of 256."""
        self._rows.append(row)
        if len(self._rows) >= _BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.path.suffix == ".jsonl":
            self._file = self._file or self._stack.enter_context(self._temporary.open("w", encoding="utf-8"))
            # `default=str`, because extra columns may have dates.
            self._file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in self._rows)
        else:
            self._flush_parquet()
        self._rows = []

    def _flush_parquet(self) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.Table.from_pylist(self._rows, schema=self._file and self._file.schema)
        except pyarrow.ArrowException as error:
            raise ValueError(
                f"A Parquet column has one type, but these rows differ: {error}. Write .jsonl instead."
            ) from None
        if self._file is None:
            self._file = self._stack.enter_context(pyarrow.parquet.ParquetWriter(self._temporary, table.schema))
        self._file.write_table(table)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            # Inside the stack, because the flush may open the file, which must be closed before it is renamed.
            with self._stack:
                self._flush()
        else:
            self._stack.__exit__(kind, error, trace)
