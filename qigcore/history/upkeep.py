"""What keeps a store small: old segments go as a whole, small ones become one. Beside living writers and readers.

Only dead segments are touched. Expiry unlinks. Compaction has the rows of several segments written to one new
segment (`rewrite`), whose header names those whose rows it took over. From then on readers pass over those
(`standing`). They are unlinked after a time of grace, for readers that had listed the folder before. Killed
at any moment, a store has each row readable once.
"""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

import msgspec

from qigcore.errors import HistoryError
from qigcore.history.files import JOURNAL_SUFFIX, SEGMENT_SUFFIX, host_name, journal_of, segments_in
from qigcore.history.rewrite import PART_SUFFIX, damage_of, rewritten
from qigcore.history.segment import Header
from qigcore.history.survey import Surveyed, counting, surveyed
from qigcore.history.writer import SEGMENT_BYTES, SEGMENT_SPAN_S

GRACE_S = 600.0
"""How long segments stay that another took over: as long as a reader may need that listed them before."""

LARGE_BYTES = SEGMENT_BYTES // 4
"""From here on a segment is left as it is: fewer and larger ones would save nothing that can be noticed."""

_MOST_AT_ONCE = 512  # segments open at once, or half of the files that this process may open
_ROOM = 1 << 32  # names to choose from, so that none is chosen twice


class Expired(msgspec.Struct, frozen=True):
    """What was removed: whole segments, their rows, the bytes of their files."""

    segments: int = 0
    rows: int = 0
    bytes: int = 0


class Compacted(msgspec.Struct, frozen=True):
    """What compaction did.

    segments, rows, bytes_before: of the segments that were taken over. made, bytes_after: the segments that
    now stand for them. removed: segments taken over earlier, whose grace was over. left: damaged segments
    that stay as they are, each with the reason.
    """

    segments: int = 0
    rows: int = 0
    bytes_before: int = 0
    made: int = 0
    bytes_after: int = 0
    removed: int = 0
    left: tuple[str, ...] = ()


def expire(folder: Path, *, keep_s: float | None, keep_bytes: float | None, now: float, dim: int) -> Expired:
    """Remove dead segments that end more than `keep_s` before `now`, and the oldest ones above `keep_bytes`.

    Oldest first. What is alive, or not known to be a segment, stays. Raises OSError.
    """
    _sweep(folder, now, GRACE_S, dim, {})
    found = surveyed(segments_in(folder), dim)
    present = {each.header.segment: each.path for each in found if each.header is not None}
    standing = counting(found)
    total = sum(each.info.bytes for each in standing)  # what was replaced goes by itself, and soon
    gone = Expired()
    for each in sorted(standing, key=_end):
        if not (
            (keep_s is not None and _end(each) < now - keep_s)
            or (keep_bytes is not None and total > keep_bytes)
        ):
            break
        if each.info.alive or not (each.info.rows or each.header):
            continue
        for identity in each.header.replaces if each.header is not None else ():
            if (
                identity in present
            ):  # these first: without the one that stands for them they would count again
                _unlink(present[identity])
        if _unlink(each.path):
            gone = Expired(gone.segments + 1, gone.rows + each.info.rows, gone.bytes + each.info.bytes)
        total -= each.info.bytes
    return gone


def compact(folder: Path, *, grace_s: float, clock: Callable[[], float], dim: int) -> Compacted:
    """Make one segment of several small dead ones, as often as there are such. Raises HistoryError or OSError.

    Those that follow each other by name become one, so that rows of one moment keep their order; no more
    than a writer would put into one; of one precision.
    """
    with _alone(folder):
        for part in folder.glob(f"*{PART_SUFFIX}"):
            part.unlink(missing_ok=True)  # of a compaction that was killed
        left: dict[str, str] = {}
        removed = _sweep(folder, float(clock()), grace_s, dim, left)
        found = surveyed(segments_in(folder), dim)
        standing = counting(found)
        names = [each.path.name for each in standing]
        groups = list(_groups(standing, found, left))
        done = Compacted()
        while groups:
            group = groups.pop()
            at = names.index(group[0].path.name)
            random = _ranked(names[at], names[max(0, at - 1) : at], names[at + len(group) :][:1])
            if random is None:
                continue
            header, path = _heading(group, random, float(clock()))
            size, unfit = rewritten(group, header, path)
            if not size:
                left |= unfit
                groups += _parted(group, unfit)
                continue
            names[at : at + len(group)] = [path.name]
            done = msgspec.structs.replace(
                done,
                segments=done.segments + len(group),
                rows=done.rows + sum(each.info.rows for each in group),
                bytes_before=done.bytes_before + sum(each.info.bytes for each in group),
                made=done.made + 1,
                bytes_after=done.bytes_after + size,
            )
        if grace_s <= 0:
            removed += _sweep(folder, float(clock()), grace_s, dim, left)
        reasons = tuple(f"{name}: {reason}" for name, reason in sorted(left.items()))
        return msgspec.structs.replace(done, removed=removed, left=reasons)


def _end(each: Surveyed) -> float:
    """When the last row of a segment was; of one without rows when it began, if that is known."""
    if each.info.rows:
        return each.info.last
    return -math.inf if each.header is None else each.header.first


def _unlink(path: Path, *, journal_first: bool = True) -> bool:
    """Remove a segment and its journal. False: somebody else did. Other things in a journal's place stay.

    The journal first, unless somebody may still want the rows: a reader that has opened the segment then
    sees that it is gone, and does not take what is left for all of it.
    """
    files = [path, journal_of(path)]
    existed = False
    for file in reversed(files) if journal_first else files:
        if file.is_file() and not file.is_symlink():
            with suppress(FileNotFoundError):
                file.unlink()
                existed |= file == path
    return existed


def _sweep(folder: Path, now: float, grace_s: float, dim: int, left: dict[str, str]) -> int:
    """Remove segments that another took over at least `grace_s` before `now`; how many there were.

    Not before all of the other one was read without damage. One that is damaged is noted in `left`: without
    it, those that it replaced would count again.
    """
    found = surveyed(segments_in(folder), dim)
    present = {each.header.segment for each in found if each.header is not None}
    replaced: set[int] = set()
    for each in found:
        if each.header is None or each.header.created + grace_s > now:
            continue
        if not present.isdisjoint(each.header.replaces) and (damage := damage_of(each)):
            left[each.info.name] = f"{damage}; the segments that it replaced are kept"
        else:
            replaced.update(each.header.replaces)
    removed = 0
    for each in found:
        if each.header is not None and each.header.segment in replaced and not each.info.alive:
            removed += _unlink(each.path, journal_first=False)
    for journal in folder.glob(f"*{JOURNAL_SUFFIX}") if replaced else ():
        # Killed between the two, it leaves a journal behind; its name tells whose.
        if _identity_of(journal) in replaced and not journal.with_suffix(SEGMENT_SUFFIX).exists():
            _unlink(journal.with_suffix(SEGMENT_SUFFIX))
    return removed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """As the only one that compacts this folder. Raises HistoryError where there is another."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise HistoryError(
                f"{folder} is being compacted by another process or thread; try again when it is done"
            ) from None
        try:
            yield
        finally:
            flock(descriptor, LOCK_UN)  # a child forked meanwhile would hold it on
    finally:
        os.close(descriptor)


def _groups(
    standing: Sequence[Surveyed], found: Iterable[Surveyed], left: dict[str, str]
) -> Iterator[list[Surveyed]]:
    """What may become one each, in the order of names. Segments that cannot be read are noted in `left`."""
    present = {each.header.segment for each in found if each.header is not None}
    group: list[Surveyed] = []
    for each in standing:
        info, header = each.info, each.header
        if not info.alive and (info.problem or header is None):
            left[info.name] = info.problem
        fit = (
            header is not None
            and not (info.alive or info.problem)
            and info.bytes < LARGE_BYTES
            and present.isdisjoint(header.replaces)  # else what it took over would count again without it
        )
        if group and not (fit and _fits(group, each)):
            yield from _worthwhile(group)
            group = []
        if fit:
            group.append(each)
    yield from _worthwhile(group)


def _fits(group: Sequence[Surveyed], each: Surveyed) -> bool:
    """Whether a segment may join: one kind, and together no more than a writer would put into one."""
    infos = [other.info for other in (*group, each)]
    times = [time for info in infos if info.rows for time in (info.first, info.last)]
    return (
        len({(info.precision, info.dim, info.geometry) for info in infos}) == 1
        and len(infos) <= min(_MOST_AT_ONCE, max(2, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        and sum(info.bytes for info in infos) <= SEGMENT_BYTES
        and max(times, default=0.0) - min(times, default=0.0) <= SEGMENT_SPAN_S
    )


def _worthwhile(group: list[Surveyed]) -> Iterator[list[Surveyed]]:
    """Several, or one that a kill left with a journal, whose rows lie there in five times the bytes."""
    if any(each.info.rows for each in group) and (len(group) > 1 or group[0].logged):
        yield group


def _parted(group: Sequence[Surveyed], unfit: Collection[str]) -> Iterator[list[Surveyed]]:
    """What is left of a group on either side of those that turned out to be unfit."""
    part: list[Surveyed] = []
    for each in group if unfit else ():
        if each.info.name in unfit:
            yield from _worthwhile(part)
            part = []
        else:
            part.append(each)
    yield from _worthwhile(part)


def _ranked(first: str, before: Sequence[str], after: Sequence[str]) -> bytes | None:
    """Random bytes for a name in the place of `first` and those that follow it up to `after`, if there is room.

    Rows of one moment come in the order of names. Only their random ends tell apart the names of what one
    process began in one microsecond.
    """
    low, high = -1, 1 << 64
    for name in before:
        low = _number(name, _base(first), low)
    for name in after:
        high = _number(name, _base(first), high)
    if high - low < _ROOM:
        return None
    random = (low + 1 + int.from_bytes(os.urandom(16)) % (high - low - 1)).to_bytes(8)
    names = [*before, f"{_base(first)}{random.hex()}{SEGMENT_SUFFIX}", *after]
    return random if names == sorted(names) else None


def _base(name: str) -> str:
    stem = name.removesuffix(SEGMENT_SUFFIX)
    return f"{stem.rpartition('-')[0] or stem}-"


def _number(name: str, base: str, otherwise: int) -> int:
    """The random end of a name that begins with `base`."""
    end = name.removeprefix(base).removesuffix(SEGMENT_SUFFIX)
    return int(end, 16) if name.startswith(base) and re.fullmatch("[0-9a-f]{16}", end) else otherwise


def _heading(group: Sequence[Surveyed], random: bytes, now: float) -> tuple[Header, Path]:
    """Header and name of the segment to be: by its name it takes the place of those that it replaces."""
    headers = [each.header for each in group if each.header is not None]
    header = Header(
        segment=int.from_bytes(random, "little"),
        dim=headers[0].dim,
        geometry=headers[0].geometry,
        precision=headers[0].precision,
        host=host_name(),
        pid=os.getpid(),
        created=now,
        first=min(each.info.first for each in group if each.info.rows),
        replaces=[each.segment for each in headers],
    )
    first = group[0].path
    return header, first.with_name(f"{_base(first.name)}{random.hex()}{SEGMENT_SUFFIX}")


def _identity_of(journal: Path) -> int | None:
    """Whose journal it is, by the end of its name."""
    random = journal.stem.rpartition("-")[2]
    try:
        return int.from_bytes(bytes.fromhex(random), "little") if len(random) == 16 else None
    except ValueError:
        return None
