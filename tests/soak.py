"""A store under load for minutes: writers that are killed and begun anew, and readers that never stop.

    python -m tests.soak --minutes 5 --writers 3 --kills-per-s 3
    python -m tests.soak --kills 500

Readers scan, follow, ask for the end and list segments all the while, and beside them segments are
compacted and old ones removed, by a process that is killed now and then as well. A row that is missing,
there twice, out of its writer's order or not as it was stored ends the run with exit code 1. What must be
there the readers know from a board in shared memory, on which every writer notes what it is about to append
and what `append` has returned for: a kill does not wipe that out. The second form kills one writer after
another at random moments and reads after each.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qigcore.history import History
from qigcore.rows import Batch
from tests.core import truth

LANES = 8
"""Writers at one time, at most. A label is 8·n + lane: rows of several lie between one another in time."""
GRACE_S = 20.0
"""How long segments stay that were compacted: longer than any pass of a reader takes."""
KEPT = 8 * 20_000
"""Labels behind the front that are not expired."""
BATCHES = (1, 2, 30, 200, 700)
GROWTH_MB = 24.0
"""How much a process may grow in the second half of a long run; the rows written in that time take more."""

Cells = npt.NDArray[np.int64]

LANE, START, ASKED, STORED = range(4)  # of a writer
PASSES, ROWS = range(2)  # of a reader
CUT, STOP, WRITERS = range(3)  # of the run
RUN, READERS, KEEPER, FIRST, SIZE = 0, 1, 15, 16, 1 << 15


class Plan(NamedTuple):
    """What all processes of a run know. `cells` is the board: a row for the run, each reader, each writer."""

    folder: Path
    cells: Cells
    precision: str
    seed: int

    def writers(self) -> Cells:
        return self.cells[FIRST : FIRST + int(self.cells[RUN, WRITERS])]

    def front(self) -> int:
        """No label so far is greater, nor was one asked for."""
        writers = self.writers()
        return int((writers[:, START] + LANES * writers[:, ASKED]).max(initial=LANES))

    def begin(self, lane: int) -> int:
        """A row on the board for a new writer of a lane; where it stands."""
        row = FIRST + int(self.cells[RUN, WRITERS])
        self.cells[row] = lane, self.front() // LANES * LANES + LANES + lane, 0, 0
        self.cells[RUN, WRITERS] += 1
        return row

    @property
    def over(self) -> bool:
        return bool(self.cells[RUN, STOP])


class Violation(AssertionError):
    """A row that is missing, repeated, out of order, or that nobody wrote."""


class Outlasted(Exception):
    """A reading took longer than segments stay that were compacted: it may miss rows, and is told so."""


class Pass:
    """One reading of a store from its beginning on, compared with the board row by row."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.owed = plan.writers()[:, STORED].copy()
        self._next = np.zeros(SIZE, np.int64)
        self._begun = time.monotonic()

    def owe(self) -> None:
        """A new round: from now on, what was stored until now is expected too."""
        self._begun = time.monotonic()
        self.owed = self._plan.writers()[:, STORED].copy()

    def take(self, batches: Iterable[Batch]) -> int:
        """Read them all; how many rows they held."""
        count = 0
        for batch in batches:
            count += len(batch)
            self._compare(truth.checked(batch, self._plan.precision))
        return count

    def _compare(self, labels: truth.Labels) -> None:
        writers = self._plan.writers()
        order = np.lexsort((writers[:, START], writers[:, LANE]))
        places = (writers[order, LANE] << 48) + writers[order, START]
        which = order[np.searchsorted(places, (labels % LANES << 48) + labels, "right") - 1]
        counts = (labels - writers[which, START]) // LANES
        if (counts >= writers[which, ASKED]).any() or (counts < 0).any():
            raise Violation("a row that nobody wrote")
        order = np.argsort(which, kind="stable")
        which, counts = which[order], counts[order]
        first = np.diff(which, prepend=-1) != 0
        steps = counts - np.where(first, self._next[which], np.roll(counts, 1) + 1)
        if (steps < 0).any():
            raise Violation(f"repeated or out of order: {labels[order][steps < 0][:9]}")
        self._missing(labels[order][steps > 0] - LANES)
        last = np.roll(first, -1)
        self._next[which[last]] = counts[last] + 1

    def finish(self) -> None:
        """All that was owed was there."""
        writers = self._plan.writers()[: len(self.owed)]
        short = self._next[: len(writers)] < self.owed
        self._missing(writers[short, START] + LANES * (self.owed[short] - 1))

    def _missing(self, labels: Cells) -> None:
        """Labels of the newest rows of gaps: only what was expired may be gone."""
        lost = labels[labels >= self._plan.cells[RUN, CUT]]
        if len(lost):
            seconds = time.monotonic() - self._begun
            kind = Outlasted if seconds > GRACE_S else Violation
            raise kind(f"missing up to {lost[:9]} of a front of {self._plan.front()}, after {seconds:.1f} s")


def write(plan: Plan, row: int, pause: float = 0.004) -> None:
    """Append batches of all sizes, seal, flush, end segments and begin new ones, until told to stop."""
    rng = np.random.default_rng([plan.seed, row])
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    cells = plan.cells[row]
    start = int(cells[START])

    def opened() -> History:
        durability = rng.choice(["block", "snapshot"], p=[0.8, 0.2])
        return History(plan.folder, dim=truth.DIM, precision=plan.precision, durability=durability)  # type: ignore[arg-type]

    history = opened()
    while not stopped and not plan.over:
        behind = start + LANES * cells[STORED] < plan.front() - KEPT // 8
        count = BATCHES[-1] if behind else int(rng.choice(BATCHES, p=[0.5, 0.2, 0.2, 0.06, 0.04]))
        cells[ASKED] += count
        labels = start + LANES * np.arange(cells[STORED], cells[STORED] + count)
        history.append_rows(*truth.rows(labels), truth.NAMES)
        cells[STORED] += count
        chance = rng.random()
        if chance < 0.05:
            history.seal()
        elif chance < 0.1:
            history.flush()
        elif chance < 0.12:
            history.close()
            history = opened()
        time.sleep(0 if behind else pause * rng.random())
    history.close()


def scan(plan: Plan, row: int) -> None:
    reader = History.read_only(plan.folder)
    while not plan.over:
        one = Pass(plan)
        try:
            plan.cells[row, ROWS] += one.take(reader.scan())
            one.finish()
        except Outlasted:
            continue
        hurt = reader.damage
        if hurt.bad_blocks or hurt.bad_rows or hurt.missing_rows or hurt.unreadable:
            raise Violation(f"damage: {hurt}")
        plan.cells[row, PASSES] += 1


def follow(plan: Plan, row: int) -> None:
    reader = History.read_only(plan.folder)
    one = Pass(plan)
    one.owed[:] = 0

    def counted() -> Iterable[Batch]:
        for batch in reader.follow(poll_s=0, stop=stop):
            plan.cells[row, ROWS] += len(batch)
            yield batch

    def stop() -> bool:
        """Called once between two rounds: what had been stored before the one that is over was in it."""
        one.finish()
        one.owe()
        plan.cells[row, PASSES] += 1
        time.sleep(0.01)
        return plan.over

    one.take(counted())
    one.finish()


def last(plan: Plan, row: int) -> None:
    rng = np.random.default_rng([plan.seed, row])
    reader = History.read_only(plan.folder)
    while not plan.over:
        before = plan.writers().copy()
        asked = int(rng.choice([1, 50, 3000]))
        found = truth.checked(reader.last(asked), plan.precision)
        if (np.diff(found) <= 0).any():
            raise Violation("the end of the store is not in order")
        least = found.min(initial=1 << 60)
        if len(found) < asked and plan.cells[RUN, CUT] == 0:
            least = 0
        for lane, start, _, stored in before.tolist():
            low = max(0, -(-(least - start) // LANES)) if len(found) else 0
            expected = stored - min(low, stored)
            end = start + LANES * stored
            there = int(((found % LANES == lane) & (found >= start) & (found < end)).sum())
            if there < expected and end > plan.cells[RUN, CUT]:
                raise Violation(f"{there} of {expected} rows of a writer at the end of the store")
        plan.cells[row, ROWS] += len(found)
        plan.cells[row, PASSES] += 1


def list_segments(plan: Plan, row: int) -> None:
    reader = History.read_only(plan.folder)
    while not plan.over:
        before = plan.writers()[:, STORED].copy()
        infos = reader.segments()
        for info in infos:
            if info.problem and info.bytes > 0 and "header" not in info.problem:
                raise Violation(f"{info.name}: {info.problem}")
        if plan.cells[RUN, CUT] == 0 and sum(info.rows for info in infos) < before.sum():
            raise Violation("fewer rows in the segments than were stored")
        plan.cells[row, ROWS] += len(infos)
        plan.cells[row, PASSES] += 1


def keep(plan: Plan, row: int) -> None:
    """Make one segment of many small ones, and remove what is too old; note on the board what may be gone."""
    while not plan.over:
        front = plan.front()
        plan.cells[RUN, CUT] = max(0, front - KEPT)
        with History(plan.folder, dim=truth.DIM, clock=lambda front=front: float(front)) as tidy:  # type: ignore[misc]
            plan.cells[row, ROWS] += tidy.expire(keep_s=KEPT).segments
        with History(plan.folder, dim=truth.DIM, precision=plan.precision) as tidy:  # type: ignore[arg-type]
            plan.cells[row, PASSES] += tidy.compact(grace_s=GRACE_S).made
        time.sleep(0.2)


JOBS: dict[str, Callable[[Plan, int], None]] = {
    "scan": scan,
    "follow": follow,
    "last": last,
    "segments": list_segments,
}


def forked(job: Callable[[Plan, int], None], plan: Plan, row: int) -> int:
    """Start a job in a process of its own; its process id. Exit code 1 and a traceback are how it fails."""
    if process := os.fork():
        return process
    try:
        job(plan, row)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def soak(plan: Plan, minutes: float, writers: int, kills_per_s: float) -> bool:
    """Run it all; whether nothing was violated. Prints figures."""
    rng = np.random.default_rng(plan.seed)
    rows = {lane: plan.begin(lane) for lane in range(writers)}
    lanes = {lane: forked(write, plan, row) for lane, row in rows.items()}
    jobs = {name: forked(job, plan, READERS + place) for place, (name, job) in enumerate(JOBS.items())}
    sizes: dict[str, list[float]] = {name: [] for name in ("writer", *jobs)}
    keeper = forked(keep, plan, KEEPER)
    begun, kills, failed = time.monotonic(), 0, False
    ends = begun + 60 * minutes
    tick = 0.05
    while time.monotonic() < ends and not failed:
        time.sleep(tick)
        if writers > 1 and rng.random() < kills_per_s * tick:
            lane = int(rng.integers(1, writers))  # the first one lives through it all
            os.kill(lanes[lane], signal.SIGKILL if rng.random() < 0.85 else signal.SIGTERM)
            _, status = os.waitpid(lanes[lane], 0)
            failed |= status not in (0, signal.SIGKILL)
            kills += status == signal.SIGKILL
            lanes[lane] = forked(write, plan, plan.begin(lane))
        if rng.random() < kills_per_s * tick / 4:
            os.kill(keeper, signal.SIGKILL)
            _, status = os.waitpid(keeper, 0)
            failed |= status != signal.SIGKILL
            keeper = forked(keep, plan, KEEPER)
        for name, process in (("writer", lanes[0]), *jobs.items()):
            sizes[name].append(resident_mb(process))
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            failed = True
            lanes = {lane: process for lane, process in lanes.items() if process != ended}
            jobs = {name: process for name, process in jobs.items() if process != ended}
            keeper = 0 if keeper == ended else keeper
    plan.cells[RUN, STOP] = 1
    for process in filter(None, (*lanes.values(), *jobs.values(), keeper)):
        _, status = os.waitpid(process, 0)
        failed |= status != 0
    seconds = time.monotonic() - begun
    print(
        f"{seconds:.0f} s, {writers} writers at a time, {len(plan.writers())} in all, {kills} of them killed"
    )
    print(
        f"{plan.writers()[:, STORED].sum():,} rows stored, in {len(History.read_only(plan.folder).segments())} segments"
    )
    for place, name in enumerate(JOBS):
        passes, count = plan.cells[READERS + place, :2]
        print(f"{name}: {passes:,} passes, {count:,} rows read")
    made, gone = plan.cells[KEEPER, :2]
    print(f"{made:,} segments made of smaller ones, {gone:,} expired")
    for name, series in sizes.items():
        late = np.array(series[len(series) // 2 :])
        slope = np.polyfit(np.arange(len(late)) * seconds / len(series), late, 1)[0] if len(late) > 2 else 0.0
        print(f"{name}: {late.max(initial=0):.1f} MB at most, {60 * slope:+.2f} MB a minute")
        failed |= slope * seconds / 2 > GROWTH_MB
    return not failed and whole(plan)


def whole(plan: Plan) -> bool:
    """Read everything once more, now that nobody writes."""
    one = Pass(plan)
    try:
        one.take(History.read_only(plan.folder).scan())
        one.finish()
    except AssertionError:
        traceback.print_exc()
        return False
    return True


def kill(plan: Plan, times: int) -> bool:
    """Kill one writer after another at a random moment; whether each left what `append` had returned for."""
    rng = np.random.default_rng(plan.seed)
    stored = 0
    for turn in range(times):
        if turn % 20 == 0:  # a folder of its own for each twenty, for all of it is read every time
            plan = plan._replace(folder=plan.folder.with_name(f"store-{turn}"))
            plan.folder.mkdir()
            plan.cells[RUN, CUT] = plan.front()
        row = plan.begin(0)
        process = forked(lambda plan, row: write(plan, row, pause=0.0), plan, row)
        enough = int(1500 * rng.random() ** 3)
        while plan.cells[row, ASKED] <= enough:
            time.sleep(0.0005)
        time.sleep(0.004 * rng.random())
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        stored += int(plan.cells[row, STORED])
        if status != signal.SIGKILL or not whole(plan):
            return False
    print(f"{times} kills, {stored:,} rows stored before them")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--writers", type=int, default=3, choices=range(1, LANES + 1), metavar="N")
    parser.add_argument("--kills-per-s", type=float, default=3.0, metavar="RATE")
    parser.add_argument(
        "--kills", type=int, default=0, metavar="N", help="only kill so many writers, one by one"
    )
    parser.add_argument("--precision", choices=truth.PRECISIONS, default="compact")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cells = np.memmap(Path(folder) / "board", np.int64, "w+", shape=(SIZE, 4))
        plan = Plan(Path(folder) / "store", cells, given.precision, given.seed)
        plan.folder.mkdir()
        well = (
            kill(plan, given.kills)
            if given.kills
            else soak(plan, given.minutes, given.writers, given.kills_per_s)
        )
        print("nothing was lost, repeated or wrong" if well else f"FAILED, with --seed {given.seed}")
        sys.stdout.flush()
        return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
