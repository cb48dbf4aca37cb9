"""A history as Arrow tables: Parquet files and Arrow IPC files (Feather).

Figures are the stored float64, bit for bit; `basin_coords` is a list of fixed length. A confidence,
surprise or agency that was not reported is null, and so is a time beyond the years that microseconds in
64 bits can count. The schema's metadata says the geometry, the dimension and the format.

The only room of the core that imports pyarrow, which is no dependency: it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from qigcore.history.fields import OPTIONAL, POINTERS, microseconds, numbered, repaired
from qigcore.history.segment import FORMAT
from qigcore.rows import HEAD, REGIMES, Array, Batch

_GROUP_BYTES = 16 << 20
"""What a row group takes before it is packed: readers want tens of thousands of rows, writers hold them."""

_TEXT = pa.dictionary(pa.int32(), pa.string())


class Layout:
    """How columns of batches are written. columns: names of `fields.EXPORTED`, in the order wanted."""

    def __init__(self, columns: Sequence[str], dim: int, geometry: str) -> None:
        self.columns = tuple(columns)
        self.dim = dim
        self.group_rows = max(1024, _GROUP_BYTES // (HEAD.itemsize + 8 * dim))
        types = {
            "timestamp": pa.timestamp("us", "UTC"),
            "repaired": pa.list_(pa.string()),
            "basin_coords": pa.list_(pa.float64(), dim),
            **dict.fromkeys(("regime", *POINTERS), _TEXT),
        }
        self.schema = pa.schema(
            [(name, types.get(name, pa.float64())) for name in self.columns],
            metadata={
                "qigheal.geometry": geometry,
                "qigheal.dim": str(dim),
                "qigheal.format": str(FORMAT),
            },
        )

    def record(self, batch: Batch) -> Any:
        """A batch as a record batch of the schema."""
        return pa.record_batch([self._array(name, batch) for name in self.columns], schema=self.schema)

    def _array(self, name: str, batch: Batch) -> Any:
        if name in POINTERS:
            return _text(*numbered(batch, name))
        column = batch.columns[name]
        if name == "timestamp":
            moments, beyond = microseconds(column)
            return pa.array(moments, pa.timestamp("us", "UTC"), mask=beyond)
        if name == "repaired":
            counts, names = repaired(column)
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            return pa.ListArray.from_arrays(pa.array(offsets), pa.array(names, pa.string()))
        if name == "regime":
            return _text(column.astype(np.int32), REGIMES)
        if name == "basin_coords":
            components = pa.array(np.ascontiguousarray(column).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(components, self.dim)
        return pa.array(column, mask=np.isnan(column) if name in OPTIONAL else None)


def write_parquet(file: BinaryIO, batches: Iterable[Batch], layout: Layout) -> int:
    """All rows of the batches as a Parquet file; gives their number."""
    rows = 0
    repeating = [field.name for field in layout.schema if field.type == _TEXT]
    with pyarrow.parquet.ParquetWriter(
        file, layout.schema, compression="zstd", use_dictionary=[*repeating, "repaired.list.element"]
    ) as writer:
        for table in _grouped(map(layout.record, batches), layout.group_rows):
            writer.write_table(table.unify_dictionaries(), row_group_size=table.num_rows)
            rows += table.num_rows
    return rows


def write_ipc(file: BinaryIO, batches: Iterable[Batch], layout: Layout, spool: BinaryIO) -> int:
    """All rows of the batches as an Arrow IPC file; gives their number.

    In such a file a dictionary stands before the rows that use it, and most readers take no second one.
    So the rows wait in `spool`, with numbers for texts, until every text is known.
    """
    rows = 0
    known: dict[str, dict[str, int]] = {field.name: {} for field in layout.schema if field.type == _TEXT}
    plain = pa.schema(
        [pa.field(field.name, pa.int32() if field.name in known else field.type) for field in layout.schema]
    )
    with pyarrow.ipc.new_stream(spool, plain) as waiting:
        for record in map(layout.record, batches):
            columns = [
                _renumbered(column, known[name]) if name in known else column
                for name, column in zip(layout.columns, record.columns, strict=True)
            ]
            waiting.write_batch(pa.record_batch(columns, schema=plain))
    spool.seek(0)
    texts = {name: pa.array(list(table), pa.string()) for name, table in known.items()}
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with pyarrow.ipc.new_file(file, layout.schema, options=options) as writer:
        for table in _grouped(pyarrow.ipc.open_stream(spool), layout.group_rows):
            (record,) = table.combine_chunks().to_batches()
            columns = [
                pa.DictionaryArray.from_arrays(column, texts[name]) if name in texts else column
                for name, column in zip(layout.columns, record.columns, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=layout.schema))
            rows += len(record)
    return rows


def _grouped(records: Iterable[Any], rows: int) -> Iterator[Any]:
    """Tables of at least `rows` rows, and what is left as a smaller one; none of no rows."""
    held: list[Any] = []
    count = 0
    for record in records:
        held.append(record)
        count += len(record)
        if count >= rows:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if count:
        yield pa.Table.from_batches(held)


def _text(numbers: Array, texts: Sequence[str]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(texts, pa.string()))


def _renumbered(column: Any, known: dict[str, int]) -> Any:
    """A column of text as numbers by a table that grows with every record."""
    places = [known.setdefault(text, len(known)) for text in column.dictionary.to_pylist()]
    return pa.array(np.array(places, np.int32)[column.indices.to_numpy()], pa.int32())
