"""The layout of one recorded snapshot: the same bytes in the ring, in the journal and in a batch.

A row is a fixed head (`HEAD`, 88 bytes) followed by `dim` float64 values, the basin exactly as the
host reported it (not normalised). Strings are numbers into a table of names that travels along.

Fields are only ever appended, and only on a new format version: files written today must be
readable for as long as anybody keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qigcore.constants import BASIN_DIM

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

DIM = BASIN_DIM
"""Components of a basin unless the user says otherwise."""

HEAD = np.dtype(
    [
        ("timestamp", "<f8"),  # Unix seconds
        ("phi", "<f8"),
        ("kappa_eff", "<f8"),
        ("basin_drift", "<f8"),  # radians from the reference at the time of recording
        ("error_rate", "<f8"),  # fraction of requests, 0 to 1
        ("avg_latency_ms", "<f8"),
        ("memory_mb", "<f8"),
        ("confidence", "<f8"),  # NaN: not reported (this and the next two)
        ("surprise", "<f8"),
        ("agency", "<f8"),
        ("repaired", "<u2"),  # bit i set: REPAIRABLE[i] was unusable and holds the last good value
        ("regime", "u1"),  # index into REGIMES
        ("reserved", "u1"),
        ("code", "<u2"),  # index into the table of names: code_hash
        ("module", "<u2"),  # index into the table of names: module_name
    ]
)

REGIMES = ("linear", "geometric", "breakdown")

REPAIRABLE = (
    "phi",
    "kappa_eff",
    "basin_coords",
    "error_rate",
    "avg_latency_ms",
    "memory_mb",
    "confidence",
    "surprise",
    "agency",
)
"""Fields that can be flagged, in the order of their bits in `repaired`."""

BIT = {name: 1 << i for i, name in enumerate(REPAIRABLE)}
BIT["basin_drift"] = BIT["basin_coords"]  # a drift is as good as the basin it was measured on

METRICS = {
    "phi": "phi",
    "kappa": "kappa_eff",
    "basin_drift": "basin_drift",
    "latency": "avg_latency_ms",
    "errors": "error_rate",
    "memory": "memory_mb",
}
"""The six metrics that trends, bands and findings speak of, with the column each is read from."""

_FIGURES = tuple(name for name in HEAD.names or () if HEAD[name].kind == "f")

COLUMNS = (*(name for name in HEAD.names or () if name != "reserved"), "basin_coords")


class Batch:
    """Snapshots as a struct of arrays: `len(batch)`, and one attribute per column.

    `columns` maps names of `COLUMNS` to arrays of one length n; `basin_coords` has shape [n, dim].
    A batch holds only the columns that were asked for; touching another one is an AttributeError.
    `names` is the table that `code` and `module` point into.
    """

    __slots__ = ("columns", "names")

    def __init__(self, columns: Mapping[str, Array], names: Sequence[str] = ("",)) -> None:
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns of one batch must have one length, got {sorted(lengths)}")
        self.columns = dict(columns)
        self.names = tuple(names)

    @classmethod
    def of_rows(cls, heads: Array, basins: FloatArray, names: Sequence[str]) -> Batch:
        """From rows as the ring and the journal hold them: heads [n] of `HEAD`, basins [n, dim]."""
        columns: dict[str, Array] = {name: heads[name] for name in COLUMNS if name != "basin_coords"}
        columns["basin_coords"] = basins
        return cls(columns, names)

    @classmethod
    def of_snapshots(cls, snapshots: Iterable[Any], dim: int = DIM) -> Batch:
        """From `GeometricSnapshot` objects. Raises ValueError that says which one does not fit a row."""
        listed = list(snapshots)
        heads = np.zeros(len(listed), HEAD)
        basins = np.zeros((len(listed), dim))
        names = {"": 0}
        for index, snapshot in enumerate(listed):
            head = heads[index]
            try:
                for name in _FIGURES:
                    value = getattr(snapshot, name)
                    head[name] = np.nan if value is None else value
                head["repaired"] = sum({BIT[name] for name in snapshot.repaired})
                head["regime"] = REGIMES.index(snapshot.regime)
                head["code"] = names.setdefault(snapshot.code_hash, len(names))
                head["module"] = names.setdefault(snapshot.module_name, len(names))
                basins[index] = np.reshape(snapshot.basin_coords, dim)
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
                raise ValueError(f"snapshot {index} is no row of {dim} components: {error}") from error
        return cls.of_rows(heads, basins, tuple(names))

    @classmethod
    def empty(cls, dim: int = DIM) -> Batch:
        """A batch of no snapshots."""
        return cls.of_rows(np.empty(0, HEAD), np.empty((0, dim)), ("",))

    @classmethod
    def concat(cls, batches: Iterable[Batch], dim: int = DIM) -> Batch:
        """One batch of all, in the order given; tables of names are united."""
        parts = [batch for batch in batches if len(batch)]
        if not parts:
            return cls.empty(dim)
        names: dict[str, int] = {}
        recoded: list[dict[str, Array]] = []
        for part in parts:
            table = np.array([names.setdefault(name, len(names)) for name in part.names], dtype="<u2")
            columns = dict(part.columns)
            for pointer in ("code", "module"):
                if pointer in columns:
                    columns[pointer] = table[columns[pointer]]
            recoded.append(columns)
        shared = [name for name in recoded[0] if all(name in part for part in recoded)]
        return cls({name: np.concatenate([part[name] for part in recoded]) for name in shared}, tuple(names))

    def __len__(self) -> int:
        for column in self.columns.values():
            return len(column)
        return 0

    def __getattr__(self, name: str) -> Array:
        if name == "code_hash":
            return np.array(self.names, dtype=object)[self.columns["code"]]
        if name == "module_name":
            return np.array(self.names, dtype=object)[self.columns["module"]]
        try:
            return self.columns[name]
        except KeyError:
            raise AttributeError(
                f"no column {name!r} in this batch; it has {', '.join(self.columns)}"
            ) from None

    def __repr__(self) -> str:
        return f"Batch({len(self)} snapshots, columns {', '.join(self.columns)})"

    def take(self, index: Any) -> Batch:
        """The snapshots chosen by a slice, a mask or an array of positions, as a new batch."""
        return Batch({name: column[index] for name, column in self.columns.items()}, self.names)

    def good(self, column: str) -> npt.NDArray[np.bool_]:
        """Where `column` holds what the host reported, and not a repaired value."""
        good: npt.NDArray[np.bool_] = (self.columns["repaired"] & BIT.get(column, 0)) == 0
        return good

    def values(self, metric: str) -> FloatArray:
        """What the host reported of a metric (a key of `METRICS`), without the repaired values."""
        column = METRICS[metric]
        return self.columns[column][self.good(column)]

    def heads(self) -> Array:
        """The scalar columns as an array of `HEAD`, for the compiled loops (a copy)."""
        heads = np.zeros(len(self), HEAD)
        for name in HEAD.names or ():
            if name != "reserved":
                heads[name] = self.columns[name]
        return heads
