"""The ledger: every transition of the healing chain, one row each, written before its side effect.

One SQLite file in WAL mode. Rows are only ever appended (triggers refuse the rest), and each carries
a digest over the one before it, so that a row altered, removed or slipped in later is found by
`verify`; the head of the chain stands in each merge commit. What rows mean to the healer stands in
`phases`; nothing here knows git, a trial or the clock.

    kind        subject        data (JSON)
    change      its id         the full `Change`, once per state it enters
    verdict     fingerprint    `Judged`: the patch, the verdict, and the digest of its proof
    evaluation  fingerprint    `Evaluation`: somebody else's diff, which counts for no gate
    proof_removed  fingerprint `audit.Removed`: an old proof that is not kept any longer
    trial       fingerprint    `phases.TrialFacts`
    review      fingerprint    `phases.Review`: a person's word on a patch that was not opened
    rehearsal   change id      `phases.Rehearsal`
    phase       new phase      `phases.Move`
    drill       fingerprint    `phases.DrillPlan`, before it; `drilled`, after it: `phases.Drilled`

Other kinds are kept and shown, whoever wrote them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import numbers
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from qigheal.errors import LedgerBusy, LedgerError
from qigheal.records import Change, HealingPatch, Record, Verdict

T = TypeVar("T")

SCHEMA: Final = 1
APPLICATION: Final = 0x71696768  # "qigh", in SQLite's header field for it
GENESIS: Final = "0" * 64
"""What the first entry names as the digest before it."""

BUSY_S: Final = 30.0
BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
QUARANTINING: Final = frozenset({"rejected", "reverting", "reverted", "rolled_back"})

# REPLACE deletes without firing delete triggers, hence the condition on inserts. AUTOINCREMENT
# remembers the highest number ever given, which shows rows cut off at the end.
TABLES: Final = (
    """CREATE TABLE entry (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        data TEXT NOT NULL,
        previous TEXT NOT NULL,
        digest TEXT NOT NULL
    )""",
    "CREATE INDEX entry_kind ON entry (kind, subject)",
    """CREATE TRIGGER entry_kept BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entry_stays BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entry_follows BEFORE INSERT ON entry
    WHEN EXISTS (SELECT 1 FROM entry WHERE seq >= NEW.seq)
    OR NEW.previous IS NOT COALESCE((SELECT digest FROM entry ORDER BY seq DESC LIMIT 1), printf('%064d', 0))
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)
TRIGGERS: Final = ("entry_follows", "entry_kept", "entry_stays")


class Entry(Record, frozen=True):
    """One row of the ledger. `seq` counts from 1, `at` is in Unix seconds, `data` is JSON text."""

    seq: int
    at: float
    kind: str
    subject: str
    data: str
    previous: str
    digest: str

    def read(self, kind: type[T]) -> T:
        """The data as a record of type `kind`; LedgerError when it is none."""
        try:
            return msgspec.json.decode(self.data, type=kind)
        except msgspec.MsgspecError as error:
            raise LedgerError(
                f"entry {self.seq} of the ledger ({self.kind} {self.subject}): expected a {kind.__name__}, "
                f"got something else: {error}; a later version of qigheal may have written it: upgrade"
            ) from error


class Judged(Record, frozen=True):
    """The data of a `verdict` entry. The patch's evidence stands in the proof alone."""

    patch: HealingPatch
    verdict: Verdict
    bundle: str = ""  # file of the proof in the store; "": none was kept
    proof: str = ""  # SHA-256 of that file


class _Word(Record, frozen=True):
    """As much of a `review` entry as a quarantine needs."""

    approved: bool


def digest_of(entry: Entry) -> str:
    """SHA-256, as 64 hex digits, of [previous, seq, at, kind, subject, data] as compact JSON in UTF-8."""
    parts = [entry.previous, entry.seq, entry.at, entry.kind, entry.subject, entry.data]
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(data: Any) -> str:
    """`data` (records, dicts, lists, strings, numbers) as JSON with sorted keys and no spaces.

    Raises LedgerError for what JSON cannot hold: NaN, infinities, lone surrogates, foreign objects.
    """
    try:
        plain = msgspec.to_builtins(data, str_keys=True, enc_hook=_number)
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"this cannot be written to the ledger: expected plain JSON, got {error}"
        ) from error
    return text


def _number(value: Any) -> float:
    """numpy's scalars as Python's: one left in a record must not stop a transition from being written."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"a {type(value).__name__}")


class Ledger:
    """The ledger in file `path`, made (mode 0600) if it does not exist.

    Each operation opens and closes the file, so an instance may be used from any thread, on both
    sides of a fork, and by several processes at once; a process killed at any point leaves either a
    whole entry or none. With `read_only` nothing is made or written.

    busy_s: how long each operation waits for another process that holds the file, before it raises LedgerBusy.

    Raises LedgerError when the file is missing (read-only), is no ledger, was written by a newer
    version, or cannot be opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, read_only: bool = False, busy_s: float = BUSY_S
    ) -> None:
        self.path = Path(path).absolute()
        self.read_only = read_only
        self.busy_s = busy_s
        if not read_only:
            self._make_file()
        elif not self.path.exists():
            raise LedgerError(
                f"{self.path}: no ledger here; it is made by the first pass of the healer "
                "(qigheal heal), or name another store with --store"
            )
        with self._opened() as connection:
            self._check(connection)

    def append(self, kind: str, subject: str, data: Any, at: float) -> Entry:
        """Write one entry and return it; when this returns, it is on the disk.

        data: a record, or what JSON can hold. at: Unix seconds.
        """
        if self.read_only:
            raise LedgerError(f"{self.path}: opened for reading only, so {kind} {subject} was not written")
        if not math.isfinite(at):
            raise LedgerError(f"{kind} {subject}: expected a time in Unix seconds, got {at!r}")
        text = canonical(data)
        canonical([kind, subject])
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            last = connection.execute("SELECT digest FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
            entry = Entry(
                seq=_highest(connection) + 1,
                at=float(at),
                kind=kind,
                subject=subject,
                data=text,
                previous=last[0] if last else GENESIS,
                digest="",
            )
            entry = msgspec.structs.replace(entry, digest=digest_of(entry))
            connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", _row(entry))
            connection.execute("COMMIT")
        return entry

    def entries(
        self, kind: str | None = None, subject: str | None = None, after: int = 0
    ) -> tuple[Entry, ...]:
        """Entries in order: those of `kind`, of `subject`, and numbered above `after`."""
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT seq, at, kind, subject, data, previous, digest FROM entry "
                "WHERE seq > ? AND (? IS NULL OR kind = ?) AND (? IS NULL OR subject = ?) ORDER BY seq",
                (after, kind, kind, subject, subject),
            )
            return tuple(_entry(row) for row in rows)

    @property
    def head(self) -> str:
        """Digest of the newest entry: 64 hex digits, `GENESIS` when there is none."""
        with self._opened() as connection:
            row = connection.execute("SELECT digest FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
            return str(row[0]) if row else GENESIS

    def verify(self) -> tuple[str, ...]:
        """What is broken, one sentence each; empty when the chain is whole.

        Finds entries altered, removed or slipped in, as long as the chain after them was not
        computed anew. Against that stand the heads kept elsewhere, in the merge commits.
        """
        broken: list[str] = []
        with self._opened() as connection:
            named = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
            kept = {str(row[0]) for row in connection.execute(named)}
            broken += [f"the guard {name} was removed from the file" for name in TRIGGERS if name not in kept]
            seq, digest = 0, GENESIS
            try:
                for row in connection.execute(
                    "SELECT seq, at, kind, subject, data, previous, digest FROM entry ORDER BY seq"
                ):
                    entry = _entry(row)
                    if entry.seq != seq + 1:
                        broken.append(_missing(seq + 1, entry.seq - 1))
                    elif entry.previous != digest:
                        broken.append(f"entry {entry.seq} does not follow the one before it")
                    if entry.digest != digest_of(entry):
                        broken.append(f"entry {entry.seq} was altered: its digest is another's")
                    seq, digest = entry.seq, entry.digest
                if (highest := _highest(connection)) > seq:
                    broken.append(_missing(seq + 1, highest))
            except sqlite3.DatabaseError as error:
                broken.append(f"the file is damaged after entry {seq}: {error}")
        return tuple(broken)

    def record_change(self, change: Change, at: float) -> Entry:
        """Write that `change` enters the state it is in; call it before making that state true."""
        return self.append("change", change.id, change, at)

    def changes(self) -> dict[str, Change]:
        """Every change as it stands now, by id, in order of first appearance."""
        latest = {entry.subject: entry for entry in self.entries("change")}
        return {subject: entry.read(Change) for subject, entry in latest.items()}

    def verdicts(self) -> list[tuple[HealingPatch, Verdict, float]]:
        """Every patch that was judged, its verdict and the time of it, in order."""
        found = ((entry.read(Judged), entry.at) for entry in self.entries("verdict"))
        return [(judged.patch, judged.verdict, at) for judged, at in found]

    def quarantined(self, patch: HealingPatch | str) -> bool:
        """Whether this patch, or the one of this fingerprint, was rejected or taken back before.

        A patch is also the same when it makes the same edit to the same lines on another base: the
        revert of a harmful patch moves the base, and must not clear the patch.
        """
        edit = _edit(patch) if isinstance(patch, HealingPatch) else None
        fingerprint = patch.fingerprint if isinstance(patch, HealingPatch) else patch
        return any(bad.fingerprint == fingerprint or _edit(bad) == edit for bad in self._unwanted())

    def _unwanted(self) -> Iterator[HealingPatch]:
        for change in self.changes().values():
            if change.state in QUARANTINING:
                yield change.patch
        words = {entry.subject: entry.read(_Word).approved for entry in self.entries("review")}
        for patch, _, _ in self.verdicts() if words else ():
            if not words.get(patch.fingerprint, True):
                yield patch

    def _make_file(self) -> None:
        """Make the ledger beside its place and link it there whole: of several makers one succeeds, and
        none meets the half-made file of another. An existing file is never opened here: closing a
        second descriptor of it drops the locks that SQLite holds on it elsewhere in this process."""
        if self.path.exists():
            return
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            if not self.path.parent.is_dir():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self.path.parent / ".gitignore").write_text("*\n")
            made = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if os.geteuid() == 0:  # a healer run by root must not lock out the owner of the store
                    owner = self.path.parent.stat()
                    os.fchown(made, owner.st_uid, owner.st_gid)
            finally:
                os.close(made)
            with self._opened(scratch) as connection:
                _fill(connection)
            with contextlib.suppress(FileExistsError):  # somebody else was first
                os.link(scratch, self.path)
        except OSError as error:
            raise LedgerError(
                f"{self.path}: cannot make the ledger here: {error.strerror}; make its folder writable "
                "for the healer, or name another store with --store"
            ) from error
        finally:
            with contextlib.suppress(OSError):  # it was never made
                scratch.unlink()

    @contextlib.contextmanager
    def _opened(self, path: Path | None = None) -> Iterator[sqlite3.Connection]:
        path = path or self.path
        mode = "ro" if self.read_only else "rw"
        unmerged = self.path.with_name(f"{self.path.name}-wal")
        if self.read_only and not os.access(self.path.parent, os.W_OK) and not unmerged.exists():
            mode = "ro&immutable=1"  # reading in WAL mode makes files, and here none can be made
        try:
            # Looked at and not opened: closing a descriptor of ours would drop the locks that SQLite has on it.
            if path.exists() and not path.is_file():
                raise LedgerError(
                    f"{path}: expected a ledger of qigheal, got what is no regular file; move it away to begin a "
                    "new one, or name another store with --store"
                )
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode={mode}", uri=True, timeout=self.busy_s, isolation_level=None
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
            finally:
                connection.close()  # takes back what was not committed
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY
            raise (LedgerBusy if busy else LedgerError)(
                f"{self.path}: the ledger cannot be {'read' if self.read_only else 'written'} now: {error}; "
                "see to its permissions, its folder's, and the space on the disk"
            ) from error
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.path}: expected a ledger of qigheal, got a damaged or foreign file: {error}; "
                "move it away to begin a new one, or name another store with --store"
            ) from error

    def _check(self, connection: sqlite3.Connection) -> None:
        """Refuse foreign and newer files before anything in them is touched; fill an empty one that lies here."""
        connection.execute("BEGIN")  # one view of all three: another process may be filling the file now
        application, schema, tables = _header(connection)
        connection.execute("COMMIT")
        if (application, schema, tables) == (0, 0, 0) and not self.read_only:
            application, schema, tables = _fill(connection)
        if application != APPLICATION:
            raise LedgerError(
                f"{self.path}: expected a ledger of qigheal, got an empty or foreign file; name another store"
            )
        if schema > SCHEMA:
            raise LedgerError(
                f"{self.path}: written by a newer qigheal (schema {schema}, this one reads up to {SCHEMA}); "
                "upgrade qigheal"
            )


def _fill(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Turn an empty database into a ledger, unless another process does so first; gives its header."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if not _header(connection)[2]:
        for statement in TABLES:
            connection.execute(statement)
    connection.execute("COMMIT")
    return _header(connection)


def _header(connection: sqlite3.Connection) -> tuple[int, int, int]:
    def one(query: str) -> int:
        return int(connection.execute(query).fetchone()[0])

    return (
        one("PRAGMA application_id"),
        one("PRAGMA user_version"),
        one("SELECT count(*) FROM sqlite_master"),
    )


def _highest(connection: sqlite3.Connection) -> int:
    """The highest number ever given to an entry, kept by SQLite even when rows are cut off."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()
    return int(row[0]) if row else 0


def _row(entry: Entry) -> tuple[Any, ...]:
    return (entry.seq, entry.at, entry.kind, entry.subject, entry.data, entry.previous, entry.digest)


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(**dict(zip(Entry.__struct_fields__, row, strict=True)))


def _missing(first: int, last: int) -> str:
    return f"entry {first} is missing" if first == last else f"entries {first} to {last} are missing"


def _edit(patch: HealingPatch) -> str:
    """Names the edit whatever commit it is made against."""
    return msgspec.structs.replace(patch, base="").fingerprint
