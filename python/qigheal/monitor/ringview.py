"""The snapshots of a ring as a sequence. It reads, and holds nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from qigcore.recorder import GeometricSnapshot, Recorder
from qigcore.rows import Array


class RingView(Sequence[GeometricSnapshot]):
    """The snapshots that the ring holds, oldest first: a live view, up to its capacity."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __len__(self) -> int:
        return min(self._recorder.total, self._recorder.capacity)

    @overload
    def __getitem__(self, index: int) -> GeometricSnapshot: ...
    @overload
    def __getitem__(self, index: slice) -> list[GeometricSnapshot]: ...
    def __getitem__(self, index: int | slice) -> GeometricSnapshot | list[GeometricSnapshot]:
        total = self._recorder.total
        count = min(total, self._recorder.capacity)
        if isinstance(index, slice):
            chosen = range(total - count, total)[index]
            return [each for number in chosen if (each := self._held(number)) is not None]
        try:
            return self._recorder.snapshot(total - count + range(count)[index])
        except IndexError:
            raise IndexError(f"snapshot {index}: the ring holds {count}") from None

    def __iter__(self) -> Iterator[GeometricSnapshot]:
        total = self._recorder.total
        for number in range(max(0, total - self._recorder.capacity), total):
            if (snapshot := self._held(number)) is not None:
                yield snapshot

    @property
    def total(self) -> int:
        """How many were ever recorded."""
        return self._recorder.total

    def since(self, number: int, most: int) -> tuple[int, Array]:
        """(Number of the first row given, heads of at most `most` held rows from row `number` on, shape [n])."""
        first, heads, _ = self._recorder.rows(number, number + most)
        return first, heads

    def _held(self, number: int) -> GeometricSnapshot | None:
        """None for one that other threads overwrote since its number was read."""
        try:
            return self._recorder.snapshot(number)
        except IndexError:
            return None

    def __repr__(self) -> str:
        return f"<{len(self)} of {self._recorder.total} snapshots>"
