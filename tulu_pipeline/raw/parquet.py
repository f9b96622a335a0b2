"""Parquet files as streams of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.dataset import BrokenRow, RawRow

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_BATCH = 1024


class ParquetRows:
    """The rows of one Parquet file, as often as one likes; only a batch of them is in memory.

    Args:
        name: what people know the file by.
        path: the file.

    Attributes:
        columns: names of its columns.

    Raises:
        BadInput: the file is damaged or no Parquet; from reading too.
    """

    def __init__(self, name: str, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = name
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)

    def read(self, columns: Sequence[str]) -> Iterator[RawRow | BrokenRow]:
        """Rows with those of `columns` that are there, as objects; ids are running numbers."""
        import pyarrow as pa

        wanted, number = [name for name in self.columns if name in columns], 0
        try:
            for batch in self._file.iter_batches(_ROWS_PER_BATCH, columns=wanted):
                for value in _objects(batch):
                    where = f"{self.name}, row {number}"
                    if value is None:
                        yield BrokenRow(str(number), where, "not valid Unicode")
                    else:
                        yield RawRow(str(number), where, value)
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> BadInput:
        return BadInput(f"Parquet cannot be read: {error}", self.name, "write or fetch the whole file again")


def _objects(batch: pa.RecordBatch) -> Iterator[dict[str, object] | None]:
    """The rows of a batch; None for one with text that is no Unicode."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError:
                yield None
