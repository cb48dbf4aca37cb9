"""How many alerts of one kind may go out: at most so many in any stretch of time, and none is lost silently.

What is held back is counted. The next alert of the kind carries the count; if none comes, the newest of those held
back is told as soon as there is room. Pure functions: no clock, no file.
"""

from __future__ import annotations

from msgspec.structs import replace

from qigheal.alerts.records import Alert, Limit


def admit(
    limit: Limit, alert: Alert, now: float, *, most: int, within_s: float
) -> tuple[Limit, Alert | None]:
    """(The limit after it, the alert as it goes out now or None where it is held back)."""
    times = _recent(limit, now, within_s)
    if len(times) >= most:
        return Limit(times=times, held=limit.held + 1, last=alert), None
    return Limit(times=(*times, now)), replace(alert, held_back=limit.held)


def release(limit: Limit, now: float, *, most: int, within_s: float) -> tuple[Limit, Alert | None]:
    """The same for what was held back: its newest, which speaks for the others."""
    times = _recent(limit, now, within_s)
    if limit.last is None or len(times) >= most:
        return replace(limit, times=times), None
    return Limit(times=(*times, now)), replace(limit.last, held_back=limit.held - 1)


def _recent(limit: Limit, now: float, within_s: float) -> tuple[float, ...]:
    # A clock that was set back leaves times in the future; those further off than the stretch count no more.
    return tuple(at for at in limit.times if now - within_s < at <= now + within_s)
