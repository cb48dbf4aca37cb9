"""Many dead writers in one store, for the tests of compaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qigcore.history import History

from .stores import abandon, rows


def opened(path: Path, now: float = 1e6, **settings: Any) -> History:
    return History(path, **{"dim": 3, "precision": "exact", **settings}, clock=lambda: now)


def crowd(path: Path, writers: int = 6, *, kills: bool = True, **settings: Any) -> list[History]:
    """Dead writers whose rows lie across each other in time, at equal moments too, with clocks that step back.

    Every third one is killed: its last rows are in its journal.
    """
    made = [opened(path, writer + 1.0, **settings) for writer in range(writers)]
    for rank, history in enumerate(made):
        rng = np.random.default_rng(rank)
        heads, basins = rows(90 + 120 * rank, dim=history.dim, seed=rank)
        heads["timestamp"] = 40 * rank + np.cumsum(rng.choice([0.0, 1.0, 2.0, -9.0], len(heads)))
        heads["phi"] = 1000 * rank + np.arange(len(heads))
        for start in range(0, len(heads), 70):
            part = slice(start, start + 70)
            history.append_rows(heads[part], basins[part], ("", f"code {rank}", f"module {start}"))
    for rank, history in enumerate(made):
        if kills and rank % 3 == 2:
            abandon(history)
        else:
            history.close()
    return made


def names_of(path: Path) -> list[str]:
    return [info.name for info in History.read_only(path).segments()]
