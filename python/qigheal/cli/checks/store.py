"""One store: its folder, what it holds, what was learned, and the healer's ledger in it."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from qigcore.durations import worded
from qigcore.errors import HistoryError
from qigcore.history import Damage, History, SegmentInfo
from qigcore.regular import open_regular
from qigcore.rules import MIN_SNAPSHOTS
from qigheal.cli.checks import Check, one_line
from qigheal.healerchild import LOCK, LOG, complaint
from qigheal.health import failing
from qigheal.settings import HealSettings, MonitorSettings
from qigheal.standing import Standing

FUTURE_S: Final = 5.0
MANY_SEGMENTS: Final = 100
SLACK_MB: Final = 64.0
"""Retention removes whole segments, which are no larger: so much more than asked for may be there."""

LOW_MB, TOO_LOW_MB = 200.0, 10.0


def folder(place: Path) -> Iterator[Check]:
    """Whether the folder is there, whose it is, who may read it, and how much room there is."""
    if not place.is_dir():
        kind = "a file" if place.exists() else "nothing"
        remedy = "name the store that the service writes with --store, or start the service"
        yield Check(name="store", state="fail", found=f"{place}: {kind} and no folder", remedy=remedy)
        return
    about = place.stat()
    if not os.access(place, os.R_OK | os.X_OK):
        remedy = f"run this as its owner, {_owner(about.st_uid)}"
        yield Check(name="store", state="fail", found=f"{place} cannot be read", remedy=remedy)
        return
    yield Check(name="store", state="ok", found=f"{place.absolute()}, of {_owner(about.st_uid)}")
    if not os.access(place, os.W_OK):
        remedy = "a service or healer of this user can record nothing here"
        yield Check(name="store writable", state="warn", found="not by this user", remedy=remedy)
    mode = stat.S_IMODE(about.st_mode)
    if mode & 0o077:
        remedy = f"chmod 700 {place}"
        yield Check(name="permissions", state="warn", found=f"{mode:04o}: others may look in", remedy=remedy)
    else:
        yield Check(name="permissions", state="ok", found=f"{mode:04o}")
    free = shutil.disk_usage(place).free / 1e6
    found = f"{free:,.0f} MB free"
    if free < LOW_MB:
        remedy = "make room, or lower keep_mb: what cannot be written is lost in the end"
        yield Check(name="disk", state="fail" if free < TOO_LOW_MB else "warn", found=found, remedy=remedy)
    else:
        yield Check(name="disk", state="ok", found=found)


def _owner(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"


def contents(place: Path) -> Iterator[Check]:
    """Snapshots, damage, writers, size and time. Every block is read."""
    settings = MonitorSettings.load(place)
    with History.read_only(place) as history:
        rows = sum(len(batch) for batch in history.scan(columns=("timestamp",)))
        damage, segments = history.damage, history.segments()
    if not segments:
        remedy = "start the service with this folder as its history"
        yield Check(name="snapshots", state="warn", found="none yet", remedy=remedy)
        return
    newest = max((each.last for each in segments if each.rows), default=0.0)
    age = time.time() - newest
    yield Check(name="snapshots", state="ok", found=f"{rows:,} readable, the newest {_ago(age)}")
    yield _damage(damage, segments)
    if age < -FUTURE_S:
        found = f"the newest snapshot is {worded(-age)} ahead of this clock"
        remedy = "see to the clocks of this machine and of the service"
        yield Check(name="future", state="warn", found=found, remedy=remedy)
    yield from _writers(segments)
    yield _size(segments, settings)


def _ago(age: float) -> str:
    return f"{worded(age)} ago" if age > 0 else "just now"


def _damage(damage: Damage, segments: tuple[SegmentInfo, ...]) -> Check:
    lost = {name: count for name, count in msgspec.to_builtins(damage).items() if count}
    problems = [f"{each.name}: {each.problem}" for each in segments if each.problem]
    said = [f"{count} {name.replace('_', ' ')}" for name, count in lost.items()] + problems
    if not said:
        return Check(name="damage", state="ok", found="none, and no row is missing")
    remedy = "what is whole is used, the rest is lost; see to the disk, and export what is to be kept"
    return Check(name="damage", state="warn", found="; ".join(said), remedy=remedy)


def _writers(segments: tuple[SegmentInfo, ...]) -> Iterator[Check]:
    alive = [each for each in segments if each.alive]
    ended = len(segments) - len(alive)
    if alive:
        found = "now written by " + ", ".join(f"process {each.pid} on {each.host}" for each in alive)
        yield Check(name="writers", state="ok", found=found)
    else:
        remedy = "start the service; where it writes elsewhere, name that store"
        yield Check(name="writers", state="warn", found="no living process writes it", remedy=remedy)
    if ended > MANY_SEGMENTS:
        found = f"{ended} of processes that have ended"
        yield Check(
            name="segments", state="warn", found=found, remedy="make few of them with: qigheal compact"
        )
    else:
        yield Check(name="segments", state="ok", found=f"{len(segments)}, {ended} of ended processes")


def _size(segments: tuple[SegmentInfo, ...], settings: MonitorSettings) -> Check:
    held = sum(each.bytes for each in segments) / 1e6
    kept = (
        f"of {settings.keep_mb:,.0f} MB that are kept" if settings.keep_mb is not None else "no limit is set"
    )
    if settings.keep_mb is not None and held > settings.keep_mb + SLACK_MB:
        remedy = f"no monitor has tidied it; do it with: qigheal compact --keep-mb {settings.keep_mb:g}"
        return Check(name="size", state="warn", found=f"{held:,.1f} MB {kept}", remedy=remedy)
    return Check(name="size", state="ok", found=f"{held:,.1f} MB, {kept}")


def baseline(place: Path) -> Iterator[Check]:
    """What was learned as healthy, and when."""
    standing = Standing(place)
    found = standing.baseline
    if found is None:
        total, wanted = standing.last(1).total, standing.settings.learn_after
        said = f"none yet: {total:,} of {wanted:,} snapshots"
        if total < wanted + MIN_SNAPSHOTS:
            yield Check(name="baseline", state="ok", found=said)
        else:
            remedy = "a running monitor learns it; until then the absolute limits hold"
            yield Check(name="baseline", state="warn", found=said, remedy=remedy)
        return
    age = _ago(time.time() - found.created)
    said = f"learned {age} from {found.count:,} snapshots, drift limit {found.drift_limit:.3g} rad"
    yield Check(name="baseline", state="ok", found=said)
    if failing(found, most := standing.settings.error_rate_max):
        said = f"error rate {found.bands['errors'].mean:.1%} while it was learned, above {most:.3g}"
        remedy = "the baseline was learned while the service failed; learn again with set_baseline()"
        yield Check(name="baseline errors", state="warn", found=said, remedy=remedy)
    for note in found.notes:
        yield Check(name="baseline", state="ok", found=note)


def healer(place: Path) -> Iterator[Check]:
    """Whether a healer works for the store, and what the last one of the service complained of where none does."""
    odd = [name for name in (LOCK, LOG) if _no_file(place / name)]
    for name in odd:
        found = f"{place / name} is no regular file: no healer can be started"
        remedy = "remove it; the next healer makes it anew"
        yield Check(name="healer", state="fail", found=found, remedy=remedy)
    if odd:
        return
    try:
        with os.fdopen(open_regular(place / LOCK, os.O_RDONLY), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read(32).decode("ascii", "replace").strip()
                found = f"process {pid} works for this store"
                if why := complaint(place / LOG):
                    remedy = "mend that; its next pass tries again"
                    yield Check(name="healer", state="warn", found=f"{found}, in vain: {why}", remedy=remedy)
                else:
                    yield Check(name="healer", state="ok", found=found)
                return
    except OSError:  # none was ever there, or it is not for this user
        return
    if why := complaint(place / LOG):
        remedy = "mend that; the service tries again, after an hour at most"
        yield Check(
            name="healer", state="warn", found=f"none now; the last one ended with: {why}", remedy=remedy
        )
    else:
        yield Check(name="healer", state="ok", found="none now")


def _no_file(path: Path) -> bool:
    """Whether something is there that a healer does not open: a link, a folder, a FIFO or a device."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def healer_settings(place: Path) -> Iterator[Check]:
    """What keeps the settings that the last healer left from being used; nothing where they can be."""
    try:
        HealSettings.load(place)
    except HistoryError as error:
        found, _, remedy = one_line(error).rpartition("; ")
        yield Check(name="healer settings", state="fail", found=found, remedy=remedy)


def ledger(place: Path) -> Iterator[Check]:
    """The healer's ledger: whether its chain is whole, and the phase that it says."""
    path = place / "ledger.db"
    if not path.exists():
        yield Check(name="ledger", state="ok", found="none: nothing was ever healed here")
        return
    from qigheal.healing.ledger import Ledger
    from qigheal.healing.phases import current

    opened = Ledger(path, read_only=True)
    if broken := opened.verify():
        remedy = "trust nothing after that row (all of it: qigheal patches --verify); see to who wrote to it"
        yield Check(name="ledger", state="fail", found=f"the chain is broken: {broken[0]}", remedy=remedy)
        return
    entries = len(opened.entries())
    yield Check(name="ledger", state="ok", found=f"{entries:,} entries, the chain is whole")
    yield Check(name="phase", state="ok", found=str(current(opened)))
