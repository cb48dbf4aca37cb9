"""A run length from whichever way it was stated: snapshots, time, or a probability within a horizon."""

from __future__ import annotations

import math
import numbers

from qigcore.calibration.record import Calibration
from qigcore.durations import seconds, shown
from qigcore.errors import InvalidLimit


def run_length_of(
    learned: Calibration,
    average_run_length: float | None = None,
    *,
    false_alarm_every: str | float | None = None,
    horizon: str | int | None = None,
    alpha: float | None = None,
    interval_s: float | None = None,
) -> float:
    """Healthy snapshots to a false alarm, from whichever way it was stated; 10,000 where none was.

    For `horizon` and `alpha` it is horizon/alpha: both tests alarm with a probability of at most 1 over the run
    length at each snapshot (the charts), or of n over it within n (the bets; Ville's inequality).
    """
    stated = [average_run_length is not None, false_alarm_every is not None, horizon is not None]
    if sum(stated) > 1 or (alpha is None) != (horizon is None):
        said = ", ".join(
            f"{name}={shown(value)}"
            for name, value in (
                ("average_run_length", average_run_length),
                ("false_alarm_every", false_alarm_every),
                ("horizon", horizon),
                ("alpha", alpha),
            )
        )
        raise InvalidLimit(
            f"expected one of average_run_length, false_alarm_every, or horizon together with alpha, got {said}"
        )
    interval = learned.interval_s if interval_s is None else interval_s

    def snapshots(text: str | float, name: str) -> float:
        duration = seconds(text, name)
        if interval is None or not 0.0 < interval < math.inf:
            raise InvalidLimit(
                f"{name}: the time between snapshots is not known (the baseline was learned without times); "
                f"say it with interval_s, or state average_run_length in snapshots; got interval_s={interval!r}"
            )
        return duration / interval

    value: float = 1e4
    if average_run_length is not None:
        value = average_run_length
    elif false_alarm_every is not None:
        value = snapshots(false_alarm_every, "false_alarm_every")
    elif horizon is not None and alpha is not None:
        if not isinstance(alpha, numbers.Real) or not 0.0 < alpha < 1.0:
            raise InvalidLimit(f"alpha: expected a probability between 0 and 1, got {alpha!r}")
        whole = isinstance(horizon, numbers.Integral) and not isinstance(horizon, bool)
        if whole and not 1 <= int(horizon) <= 10**15:
            raise InvalidLimit(f"horizon: expected 1 to 1e15 snapshots, got {shown(horizon)}")
        value = (int(horizon) if whole else snapshots(horizon, "horizon")) / alpha
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 10.0 <= value <= 1e15:
        raise InvalidLimit(
            f"average_run_length: expected 10 to 1e15 snapshots between false alarms, got {shown(value)}"
        )
    return float(value)
