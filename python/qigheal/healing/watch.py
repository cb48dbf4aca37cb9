"""The watch: what a merged change did to the live service.

Only snapshots of the merge commit itself are judged; what runs with other commits on top cannot be
put down to the change. The same snapshots give the same outcome however often and late one asks:
the first `watch_snapshots` of them decide. Nothing here reads a store, moves a branch or alerts.
"""

from __future__ import annotations

import math
import re
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from qigcore.rows import BIT, METRICS, Batch, FloatArray
from qigcore.trends import slope
from qigheal.errors import RepoError
from qigheal.records import BandOf, Change, Outcome, Target
from qigheal.settings import HealSettings

WINDOW: Final = 10
"""Snapshots of a running mean, and those that suffice for an early verdict."""

HELD: Final = 8
"""Of the first `WINDOW` snapshots, how many must each be worse for an early verdict.

A healthy snapshot lies outside a 3σ band with probability 0.0027. That 8 of 10 do by chance has a
probability below 1e-18 when snapshots are independent, and of at most 0.0034 however they hang
together (10/8 of 0.0027, by Markov's inequality); the early margin is asked for on top of it.
"""

EARLY_MARGIN: Final = 1.0
"""Half-widths of the band by which the early mean must be further out than before the merge."""

NOISE: Final = 3.0
"""Standard errors by which a mean must be further out than before to count as worse.

Where neighbours resemble one another (lag-one correlation r, learned with the baseline), a mean of n
snapshots has √((1 + r)/(1 − r)) times the standard error of independent ones. By simulation, an ill
service that nothing changed was called worse in 16 % of cases at r = 0.8 without this, and in 0.15 % with
it; independent ones in 0.08 %.
"""

ALIKE_MOST: Final = 0.95
"""The largest r that is believed. A baseline whose mean wanders gives nearly 1, and would excuse anything; at a
true 0.99 some 2 % of such services are still called worse."""

LATENCY_FACTOR: Final = 1.5
"""Live latency also follows the load: it counts only from this multiple of the latency before."""

REPAIRED_MAX: Final = 3
"""Of `WINDOW` snapshots in a row, how many may be unmeasurable."""

NAMES: Final = {
    "phi": "Φ",
    "kappa": "κ",
    "basin_drift": "drift",
    "errors": "error rate",
    "latency": "latency",
    "memory": "memory growth",
}
TWO_SIDED: Final = frozenset({"phi", "kappa"})
EARLY: Final = ("phi", "kappa", "basin_drift", "errors")
HARMFUL: Final = (*EARLY, "latency")

Bools = npt.NDArray[np.bool_]


class Ancestry(Protocol):
    """What the watch must know of the repository; `resolve` raises RepoError for what is not in it."""

    def resolve(self, ref: str, /) -> str: ...

    def is_ancestor(self, ancestor: str, descendant: str, /) -> bool: ...


def watch(
    change: Change, batch: Batch, target: Target, repo: Ancestry, *, now: float, settings: HealSettings
) -> Outcome:
    """What the live snapshots say of a merged change.

    batch: live snapshots since the merge in time order, their drift measured against the baseline
    that `target` was made from. Their code hashes may be abbreviated to 7 hex digits and more.
    now: Unix seconds.

    worse: a mean lies outside its band, and further out than `change.before` by more than its noise
        (after 10 snapshots already when 8 of them each do so, by far), or more than 3 of 10 snapshots
        cannot be measured. A falling drift, error rate or latency is no harm.
    contested: worse, with other commits on top of the change, live or on its target branch.
    confirmed: the mean of every metric it claims to heal lies in its band; where it claims none, the
        means of all do.
    unconfirmed: neither of these, or too few snapshots before the deadline.
    waiting: none of these yet.

    `within_snapshots` counts until a running mean of 10 was back in the bands, or had left them.
    Raises ValueError for a change that was not merged.
    """
    if not change.merge_commit:
        raise ValueError(f"change {change.id}: expected one that was merged, got one that is {change.state}")
    own, above = _by_code(change, batch, repo)
    wanted = settings.watch_snapshots
    judged = batch.take(np.flatnonzero(own)[:wanted])
    count = len(judged)
    late = now > change.merged_at + settings.watch_deadline_s
    harm = _harm(change, judged, target, final=late or count >= wanted)
    if harm is None and count < wanted:
        # The change itself may have run too briefly to tell; what runs on top of it still alarms.
        later = batch.take(np.flatnonzero(above)[:wanted])
        harm = _harm(change, later, target, final=len(later) >= wanted)
    code = change.merge_commit[:10]

    def outcome(
        state: Literal["waiting", "confirmed", "worse", "unconfirmed", "contested"],
        reason: str,
        within: int | None = None,
    ) -> Outcome:
        return Outcome(
            state=state, snapshots=count, observed=_means(judged), reason=reason, within_snapshots=within
        )

    if harm is not None:
        reason, within = harm
        if above.any() or _built_upon(change, repo):
            return outcome(
                "contested", f"{reason} since {code}; other commits lie on top: not taken back", within
            )
        return outcome("worse", f"{reason} since {code}", within)
    if count >= wanted:
        return outcome(*_healed(change, judged, target))
    if late:
        return outcome(
            "unconfirmed",
            f"{count} of {wanted} live snapshots of {code} came within {settings.watch_deadline_s:g} s of the "
            f"merge; {_instead(batch, own, above)}",
        )
    return outcome("waiting", f"{count} of {wanted} live snapshots of {code} so far")


def _by_code(change: Change, batch: Batch, repo: Ancestry) -> tuple[Bools, Bools]:
    """Which snapshots are of the merge commit itself, and which of commits that came after it."""
    kinds = {int(pointer): _kind(change, batch.names[pointer], repo) for pointer in np.unique(batch.code)}
    own = np.isin(batch.code, [pointer for pointer, kind in kinds.items() if kind == "own"])
    above = np.isin(batch.code, [pointer for pointer, kind in kinds.items() if kind == "above"])
    return own, above


def _kind(change: Change, code: str, repo: Ancestry) -> Literal["own", "above", "other"]:
    """How the code a snapshot names lies to the merge. Names other than hashes may move: "other"."""
    code = code.lower()
    if not re.fullmatch("[0-9a-f]{7,64}", code):
        return "other"
    if change.merge_commit.startswith(code):
        return "own"
    try:
        return "above" if repo.is_ancestor(change.merge_commit, repo.resolve(code)) else "other"
    except RepoError:
        return "other"


def _built_upon(change: Change, repo: Ancestry) -> bool:
    """Whether the target branch has gone on from the merge, or may have: where that cannot be told."""
    try:
        tip = repo.resolve(f"refs/heads/{change.target}")
    except RepoError:
        return False
    try:
        return tip != change.merge_commit and repo.is_ancestor(change.merge_commit, tip)
    except RepoError:
        return True


def _instead(batch: Batch, own: Bools, above: Bools) -> str:
    """What the live service ran in the meantime."""
    if above.any():
        return "other commits were deployed on top of it"
    others = {batch.names[pointer][:10] or "code without a hash" for pointer in np.unique(batch.code[~own])}
    return f"the service ran {', '.join(sorted(others))}" if others else "the service recorded nothing else"


def _harm(change: Change, judged: Batch, target: Target, *, final: bool) -> tuple[str, int] | None:
    """What got worse, in words, and by which snapshot; None when nothing did."""
    if len(judged) < WINDOW:
        return None
    if unmeasured := _unmeasured(change, judged):
        return f"more than {REPAIRED_MAX} of {WINDOW} snapshots cannot be measured", unmeasured
    for metric in EARLY:
        band = _band(metric, target)
        if band is not None and _worse_at_once(metric, band, change, judged.take(slice(0, WINDOW))):
            return _sentence(metric, judged.take(slice(0, WINDOW)), band), WINDOW
    if final:
        for metric in HARMFUL:
            band = _band(metric, target)
            if band is not None and _worse(metric, band, change, judged.values(metric)):
                out = _excess(metric, band, _running(judged, metric)) > _excess_before(metric, band, change)
                within = int(np.argmax(out)) + WINDOW if out.any() else len(judged)
                return _sentence(metric, judged, band), within
    return None


def _unmeasured(change: Change, judged: Batch) -> int:
    """The snapshot at which too many were repaired, 0 for never.

    A field that could not be measured before the merge either is none of the change's doing.
    """
    fields = 0
    for metric in HARMFUL:
        if not change.before or metric in change.before:
            fields |= BIT[METRICS[metric]]
    repaired = (judged.repaired & fields) != 0
    many = np.convolve(repaired, np.ones(WINDOW, int), "valid") > REPAIRED_MAX
    return int(np.argmax(many)) + WINDOW if many.any() else 0


def _worse_at_once(metric: str, band: BandOf, change: Change, first: Batch) -> bool:
    values = first.values(metric)
    before = _excess_before(metric, band, change)
    if int((_excess(metric, band, values) > before).sum()) < HELD:
        return False
    return float(_excess(metric, band, values.mean())) > before + EARLY_MARGIN


def _worse(metric: str, band: BandOf, change: Change, values: FloatArray) -> bool:
    """Whether the mean is further out than before, beyond the noise of both means."""
    if len(values) < WINDOW:
        return False
    mean = float(values.mean())
    if metric == "latency" and mean < LATENCY_FACTOR * change.before.get("latency", band.mean):
        return False
    healthy = max(band.sd, band.half_width / 3)  # what the mean before the merge is taken to vary by
    alike = min(max(band.autocorrelation, 0.0), ALIKE_MOST)
    error = math.sqrt((float(values.var(ddof=1)) + healthy**2) / len(values) * (1 + alike) / (1 - alike))
    further = float(_excess(metric, band, mean)) - _excess_before(metric, band, change)
    return further > NOISE * error / band.half_width


def _healed(
    change: Change, judged: Batch, target: Target
) -> tuple[Literal["confirmed", "unconfirmed"], str, int | None]:
    """Whether what the change claims to heal is back in its bands, and within how many snapshots."""
    claimed = change.patch.heals or tuple(m for m in METRICS if _band(m, target) and len(judged.values(m)))
    means = _means(judged)
    back = np.ones(max(0, len(judged) - WINDOW + 1), bool)
    said: list[str] = []
    missed: list[str] = []
    for metric in claimed:
        band = _band(metric, target)
        name = NAMES.get(metric, metric)
        if band is None or metric not in means:
            missed.append(f"{name} has no healthy band or was not measured")
        elif _excess(metric, band, means[metric]) > 0:
            missed.append(_sentence(metric, judged, band))
        else:
            said.append(_sentence(metric, judged, band))
            if metric != "memory":
                back &= _excess(metric, band, _running(judged, metric)) <= 0
    if missed:
        return "unconfirmed", "; ".join(missed), None
    within = int(np.argmax(back)) + WINDOW if back.any() else len(judged)
    return "confirmed", "; ".join(said), within


def _band(metric: str, target: Target) -> BandOf | None:
    """The healthy range by which a live metric is judged; None where nothing was learned of it."""
    band = target.bands.get(metric)
    if metric == "basin_drift":
        low = 0.0 if band is None else min(band.low, target.drift_limit / 2)
        high = target.drift_limit
        return BandOf(
            mean=(low + high) / 2 if band is None else band.mean,
            sd=(high - low) / 6 if band is None else band.sd,
            low=low,
            high=high,
            autocorrelation=0.0 if band is None else band.autocorrelation,
        )
    return band


def _excess(metric: str, band: BandOf, value: FloatArray | float) -> FloatArray:
    """Half-widths of the band beyond its edge, 0 inside; of one-sided metrics beyond the upper edge."""
    values = np.asarray(value, float)
    beyond = values - band.high
    if metric in TWO_SIDED:
        beyond = np.maximum(beyond, band.low - values)
    excess: FloatArray = np.maximum(beyond / band.half_width, 0.0)
    return excess


def _excess_before(metric: str, band: BandOf, change: Change) -> float:
    before = change.before.get(metric)
    return 0.0 if before is None else float(_excess(metric, band, before))


def _running(judged: Batch, metric: str) -> FloatArray:
    """Means of each `WINDOW` snapshots in a row, shape [n - WINDOW + 1]; NaN where none is usable."""
    column = METRICS[metric]
    good = judged.good(column)
    ones = np.ones(WINDOW)
    counts = np.convolve(good, ones, "valid")
    sums = np.convolve(np.where(good, judged.columns[column], 0.0), ones, "valid")
    means: FloatArray = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means


def _means(judged: Batch) -> dict[str, float]:
    """Mean of each metric over what was measured of it; of memory the growth, MB per snapshot."""
    measured = {metric: judged.values(metric) for metric in METRICS}
    found = {m: float(values.mean()) for m, values in measured.items() if len(values) and m != "memory"}
    if len(measured["memory"]) >= WINDOW:
        in_time = np.where(judged.good("memory_mb"), judged.memory_mb, np.nan)
        found["memory"] = slope(in_time).slope
    return found


def _sentence(metric: str, judged: Batch, band: BandOf) -> str:
    value = _means(judged).get(metric, math.nan)
    inside = "in" if _excess(metric, band, value) <= 0 else "outside"
    span = f"{band.low:.4g} to {band.high:.4g}" if metric in TWO_SIDED else f"up to {band.high:.4g}"
    return f"{NAMES[metric]} {value:.4g} is {inside} its healthy band ({span}) over {len(judged)} snapshots"
