"""What an alert is, how alerting is set, and what is kept of what was said.

Only data. What stands in the state file (`Said` and below) is only appended to, with defaults, and holds no
address, no password and no figure that JSON cannot say.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from qigheal.errors import QighealError
from qigheal.records import Record, Severity, Share

Kind = Literal[
    "degraded",  # the severity rose
    "recovered",
    "review",  # a change waits for a person
    "rollback",  # begun, and done
    "contested",
    "unconfirmed",
    "breaker",
    "phase",  # the healer may do more, or less
    "silent",  # no snapshots come
    "losses",
    "test",
]
Weight = Literal["info", "warning", "critical"]


class AlertError(QighealError, ValueError):
    """Alerts that cannot be sent as asked; one line: what, where, remedy. Never quotes an address or a secret."""


class Moved(Record, frozen=True):
    """One thing that is wrong, as `qigheal.records.Finding` has it; a figure that no number can say is None."""

    kind: str
    metric: str
    value: float | None
    limit: float | None
    severity: Severity
    message: str
    since: float | None = None  # Unix seconds
    snapshots: int = 0
    components: tuple[Share, ...] = ()


class Alert(Record, frozen=True):
    """One thing to be told.

    key: the same for the same thing; a receiver that gets one twice may drop the second. title: one line of 80
    characters at most. lines: the rest. All text is one line each, without control characters.
    """

    key: str
    kind: Kind
    subject: str  # "service", "monitor", "history", "recording", "healing", or a change's id
    severity: Weight
    title: str
    at: float  # Unix seconds
    service: str
    lines: tuple[str, ...] = ()
    since: float | None = None  # when it began
    findings: tuple[Moved, ...] = ()
    change: str = ""
    state: str = ""  # the change's
    held_back: int = 0  # alerts of this kind that the rate limit kept, since the last one
    undelivered: int = 0  # alerts that this place never got, since the last one


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How alerts are told.

    every_s: seconds between looks; more is told later.
    most, within_s: alerts of one kind within so many seconds; the others are counted, and the last of them is
        told as soon as there is room.
    recover_after_s: how long a service must be well before that is told; more hides longer spells of flapping.
    silent_after: usual intervals without a snapshot that are told as silence, and at least silent_floor_s.
    review_after_s: how long a change must be open before it is said to wait: the loop approves some by itself.
    deadline_s: seconds for one attempt at one place.
    retry_first_s, retry_most_s: the wait after a failed attempt, doubled each time, with jitter.
    give_up_after_s: age of an alert that is no longer tried.
    queue: alerts that wait for one place at most; the oldest are dropped, and counted.
    """

    every_s: float = 30.0
    most: int = 10
    within_s: float = 3600.0
    recover_after_s: float = 120.0
    silent_after: int = 5
    silent_floor_s: float = 300.0
    review_after_s: float = 5.0
    deadline_s: float = 20.0
    retry_first_s: float = 2.0
    retry_most_s: float = 300.0
    give_up_after_s: float = 86_400.0
    queue: int = 100

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            whole = name in ("most", "silent_after", "queue")
            low = 1 if whole else 0.0
            right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not right or not low <= value <= 1e9:
                what = "a whole number from 1" if whole else "a number of seconds from 0"
                raise AlertError(f"{name}: expected {what} to 1e9, got {value!r}")
        for name in ("every_s", "within_s", "deadline_s"):
            if not getattr(self, name) > 0.0:
                raise AlertError(f"{name}: expected more than 0 seconds, got {getattr(self, name)!r}")


class Episode(Record, frozen=True):
    """A time in which the service is unwell."""

    severity: Severity  # the worst that was told
    since: float
    title: str
    clean_since: float | None = None  # it looks well since; not told yet


class Note(Record, frozen=True):
    """As much of a change as later alerts say of it."""

    state: str
    at: float  # when it entered that state
    strategy: str
    files: tuple[str, ...]
    told: bool = False  # that it waits for a review
    taken_back: float | None = None  # when that began


class Limit(Record, frozen=True):
    """How much of one kind went out lately, and what was held back since the last of it."""

    times: tuple[float, ...] = ()
    held: int = 0
    last: Alert | None = None  # the newest of those held back


class Said(Record, frozen=True):
    """Everything that must survive a restart."""

    version: int = 1
    looked_at: float = 0.0
    ledger_seq: int = 0
    ledger_digest: str = ""
    episode: Episode | None = None
    silent_since: float | None = None  # time of the last snapshot before a silence that was told
    damage: dict[str, int] = msgspec.field(default_factory=dict)
    losses: int = 0
    notes: dict[str, Note] = msgspec.field(default_factory=dict)
    breaker: bool = False
    keys: tuple[str, ...] = ()  # of the newest alerts
    limits: dict[str, Limit] = msgspec.field(default_factory=dict)
    outbox: dict[str, tuple[Alert, ...]] = msgspec.field(default_factory=dict)  # by the sink's name
    undelivered: dict[str, int] = msgspec.field(default_factory=dict)
    ledger_unmet: bool = False  # it could not be read at any look so far, nor what is old in it be told apart


def number(value: float) -> float | None:
    """What JSON can say of a figure."""
    return float(value) if math.isfinite(value) else None
