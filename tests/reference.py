"""Naive twins: each kernel once more, as slowly and as plainly as its formula reads.

Nothing here is shared with the package but its frozen records and its layout of rows.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from scipy import stats

from qigcore.rows import BIT, REPAIRABLE
from qigcore.rules import Rule
from qigcore.trends import Slope


def rule_statistic(rows: list[dict[str, float]], rule: Rule) -> float:
    """The figure of one rule over ten rows, as the docstring of `Rule` says it."""
    bit = BIT["phi"] if rule.column == "regime" else BIT.get(rule.column, 0)
    values = [float(row[rule.column]) if not int(row["repaired"]) & bit else math.nan for row in rows]
    usable = [value for value in values if not math.isnan(value)]
    if rule.statistic == "repaired10":
        return sum(1 for row in rows if row["repaired"])
    if rule.statistic == "count10":
        return sum(1 for v in usable if (v > rule.limit if rule.side == "above" else v < rule.limit))
    if rule.statistic == "last":
        return values[-1]
    if rule.statistic == "mean10":
        return math.fsum(usable) / len(usable) if usable else math.nan
    slopes = []
    for half in (values[:5], values[5:]):
        known = [(x, y) for x, y in enumerate(half) if not math.isnan(y)]
        if len(known) < 3:
            return math.nan
        slopes.append(float(np.polyfit(*np.array(known).T, 1)[0]))
    return 0.0 if (slopes[0] > 0) != (slopes[1] > 0) else min(slopes, key=abs)


def rule_fires(rows: list[dict[str, float]], rule: Rule) -> bool:
    value = rule_statistic(rows, rule)
    if rule.statistic in ("count10", "repaired10"):
        return value > rule.count
    return value > rule.limit if rule.side == "above" else value < rule.limit


def rule_history(rows: list[dict[str, float]], rule: Rule) -> list[bool]:
    """Whether the rule counts as firing at each position: held for five positions after it fires."""
    raw = [end >= 9 and rule_fires(rows[end - 9 : end + 1], rule) for end in range(len(rows))]
    return [any(raw[max(0, end - 4) : end + 1]) for end in range(len(rows))]


# --- geometry ---------------------------------------------------------------------------------------


def exact_distance(p: Iterable[float], q: Iterable[float], geometry: str) -> float:
    """The distance of two states from its definition: the arccos of a cosine, in 60 digits."""
    with mpmath.workdps(60):
        a, b = ([mpmath.mpf(float(value)) for value in state] for state in (p, q))
        if geometry == "simplex":
            overlap = mpmath.fsum(mpmath.sqrt(x * y) for x, y in zip(a, b, strict=True))
            return float(2 * mpmath.acos(min(1, overlap / mpmath.sqrt(mpmath.fsum(a) * mpmath.fsum(b)))))
        cosine = mpmath.fdot(a, b) / mpmath.sqrt(mpmath.fdot(a, a) * mpmath.fdot(b, b))
        return float(mpmath.acos(max(-1, min(1, cosine))))


def gradient_mean(units: np.ndarray, weights: np.ndarray, steps: int = 300) -> np.ndarray:
    """The Karcher mean of unit vectors by short gradient steps from the first row, dot products and all."""
    mean = units[0]
    for _ in range(steps):
        pull = np.zeros_like(mean)
        for unit, weight in zip(units, weights / weights.sum(), strict=True):
            cosine = float(np.clip(unit @ mean, -1.0, 1.0))
            across = unit - cosine * mean
            if np.linalg.norm(across) > 0:
                pull += weight * math.acos(cosine) * across / np.linalg.norm(across)
        length = float(np.linalg.norm(pull))
        if length > 0:
            mean = math.cos(0.5 * length) * mean + math.sin(0.5 * length) * pull / length
    return mean


# --- trends -----------------------------------------------------------------------------------------


def exact_line(values: Iterable[float]) -> tuple[float, float, float]:
    """Least-squares slope, its standard error and the mean, in fractions; skips what is not finite."""
    points = [(Fraction(x), Fraction(y)) for x, y in enumerate(values) if math.isfinite(y)]
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    across = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / across
    left = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return float(slope), math.sqrt(left / across / (n - 2)), float(mean_y)


def corrected_line(values: Iterable[float]) -> tuple[float, float, float, float]:
    """Standard error, autocorrelation, effective number and t, as the docstring of `slope` says them."""
    y = np.array(list(values))
    x = np.flatnonzero(np.isfinite(y))
    slope, independent, mean = exact_line(y)
    residuals = y - mean - slope * (np.arange(len(y)) - x.mean())
    n, squares = len(x), math.fsum(residuals[x] ** 2)
    pairs = [p for p in residuals[1:] * residuals[:-1] if math.isfinite(p)]
    r, effective = math.nan, float(n)
    if n >= 10 and len(pairs) >= 9:
        r = math.fsum(pairs) / squares * (n - 1) / len(pairs)
        r = min(max((n * r + 2) / (n - 4), -1.0), 1.0)
        effective = max(n * (1 - max(r, 0.0)) / (1 + max(r, 0.0)), 3.0)
    error = math.sqrt(squares / (effective - 2) / sum((x - x.mean()) ** 2))
    t = float(stats.t.ppf(0.975, effective - 2))
    lag = 3 if n >= 40 else 1
    steps = sorted(d * d for d in residuals[lag:] - residuals[:-lag] if math.isfinite(d))
    free = len(steps) - lag - 1
    if free >= 5:
        walk = math.fsum(steps[:-lag]) / free / lag * 1.2 * (n * n + 1) / (n * (n * n - 1))
        bound, t_bound = max(independent, math.sqrt(walk)), float(stats.t.ppf(0.975, n - 2))
        if t_bound * bound < t * error:
            error, t = min(error, bound), t_bound * bound / min(error, bound)
    return error, r, effective, t


def autoregression(n: int, rho: float, series: int, seed: int) -> np.ndarray:
    """Stationary Gaussian AR(1) series, shape [series, n], with innovations of sd 1."""
    rows = np.random.default_rng(seed).normal(size=(series, n))
    rows[:, 0] /= math.sqrt(1.0 - rho * rho)
    for i in range(1, n):
        rows[:, i] += rho * rows[:, i - 1]
    return rows


def fieller_set(values: Iterable[float], limit: float, line: Slope, at: np.ndarray) -> np.ndarray:
    """Whether the line may be at the limit, at places `at` counted from the newest value."""
    y = np.array(list(values))
    x = np.flatnonzero(np.isfinite(y))
    slope, intercept = np.polyfit(x, y[x], 1)
    across = np.sum((x - x.mean()) ** 2)
    place = len(y) - 1 + at
    error = line.stderr * np.sqrt(across / line.effective + (place - x.mean()) ** 2)
    return np.abs(intercept + slope * place - limit) <= line.t * error


def concordant_less_discordant(values: list[float]) -> int:
    return sum((b > a) - (b < a) for a, b in itertools.combinations(values, 2))


def hamed_rao_factor(values: list[float], slope: float) -> float:
    """Equation 21 of Hamed and Rao with significant lags only, from ranks by their definition."""
    n = len(values)
    left = [value - slope * i for i, value in enumerate(values)]
    ranks = [1 + sum(b < a for b in left) + (sum(b == a for b in left) - 1) / 2 - (n + 1) / 2 for a in left]
    total, squares = 0.0, sum(rank * rank for rank in ranks)
    for lag in range(1, n if squares else 1):
        r = sum(ranks[i] * ranks[i + lag] for i in range(n - lag)) / squares
        if abs(r) > 1.959963984540054 / math.sqrt(n):
            total += (n - lag) * (n - lag - 1) * (n - lag - 2) * r
    return max(1.0, 1 + 2 / (n * (n - 1) * (n - 2)) * total)


# --- recorder ---------------------------------------------------------------------------------------


class ListRecorder:
    """The ring as a list of dicts, with the repair rules as `Recorder` words them; simplex only."""

    def __init__(self, dim: int, capacity: int) -> None:
        self.dim, self.capacity = dim, capacity
        self.rows: list[dict[str, object]] = []
        self.invalid: dict[str, int] = {}
        self.good: dict[str, float] = dict.fromkeys(REPAIRABLE, 0.0)
        self.basin = [1.0 / dim] * dim
        self.reference: list[float] | None = None

    def record(self, phi: float, kappa_eff: float, basin: list[float], *service: float) -> float:
        given = dict(zip(("phi", "kappa_eff"), (phi, kappa_eff), strict=True))
        given.update(zip(("error_rate", "avg_latency_ms", "memory_mb"), service, strict=True))
        flags = 0
        row: dict[str, object] = {}
        for name, value in given.items():
            top = 1.0 if name in ("phi", "error_rate") else math.inf
            bottom = -math.inf if name == "kappa_eff" else 0.0
            if math.isfinite(value) and bottom <= value <= top:
                self.good[name] = row[name] = value
                continue
            flags |= BIT[name]
            clip = top == 1.0 and math.isfinite(value)
            row[name] = min(max(value, 0.0), 1.0) if clip else self.good[name]
        usable = (
            len(basin) == self.dim
            and all(math.isfinite(x) and x >= 0 for x in basin)
            and math.fsum(basin) > 0
        )
        if usable:
            self.basin = basin
            if self.reference is None:
                self.reference = basin
        else:
            flags |= BIT["basin_coords"]
        row["basin"] = self.basin
        drift = 0.0 if self.reference is None else exact_distance(self.basin, self.reference, "simplex")
        row.update(basin_drift=drift, repaired=flags)
        row["regime"] = 0 if row["phi"] < 0.3 else 1 if row["phi"] < 0.8 else 2  # type: ignore[operator]
        for name in REPAIRABLE:
            if flags & BIT[name]:
                self.invalid[name] = self.invalid.get(name, 0) + 1
        self.rows = [*self.rows, row][-self.capacity :]
        return drift


# --- the history ------------------------------------------------------------------------------------


def merged_rows(writers: list[list[float]]) -> list[int]:
    """Rows of several writers in order of (key, writer, place), each labelled 1000 * writer + place."""
    rows = [(key, rank, place) for rank, keys in enumerate(writers) for place, key in enumerate(keys)]
    return [1000 * rank + place for _, rank, place in sorted(rows)]


# --- fitness and bounds -----------------------------------------------------------------------------


def drawn_blocks(blocks: int, resample: int, seed: int) -> list[int]:
    """Which blocks a resample holds, by splitmix64 in whole numbers of any size."""
    found = []
    for draw in range(blocks):
        x = (seed + (resample * blocks + draw + 1) * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        x ^= x >> 31
        found.append((x >> 32) * blocks // 2**32)
    return found


def resampled_sides(
    rows: list[list[list[float]]],
    units: list[list[list[float]]],
    blocks: list[int],
    target: list[float],
    resample: int,
    seed: int,
) -> list[list[float]]:
    """Of one resample, for both sides: the mean of every column, and the chord from target to mean.

    rows and units: [side][answer][column or component]; blocks: the block of each answer.
    """
    names = sorted(set(blocks))
    chosen = [names[position] for position in drawn_blocks(len(names), resample, seed)]
    answers = [i for name in chosen for i, block in enumerate(blocks) if block == name]
    found = []
    for side in range(2):
        columns = [
            math.fsum(rows[side][i][c] for i in answers) / len(answers) for c in range(len(rows[0][0]))
        ]
        mean = [math.fsum(units[side][i][c] for i in answers) for c in range(len(target))]
        length = math.sqrt(math.fsum(value * value for value in mean))
        chord = math.dist([value / length for value in mean], target)
        found.append([*columns, chord])
    return found


def signed_rank_tail(values: list[float], shift: float) -> float:
    """P(rank sum of the values above `shift` as large as this, or larger), by trying all signs."""
    order = sorted(range(len(values)), key=lambda i: abs(values[i] - shift))
    signs = [values[i] > shift for i in order]
    seen = sum(rank for rank, above in enumerate(signs, 1) if above)
    larger = 0
    for number in range(2 ** len(values)):
        larger += sum(rank for rank in range(1, len(values) + 1) if number >> (rank - 1) & 1) >= seen
    return larger / 2 ** len(values)


def holm_rejects(tails: list[float], level: float) -> set[int]:
    """Holm's procedure as his paper words it: step down from the smallest, stop at the first kept."""
    rejected: set[int] = set()
    for step, i in enumerate(sorted(range(len(tails)), key=lambda i: tails[i])):
        if tails[i] > level / (len(tails) - step):
            break
        rejected.add(i)
    return rejected


def rounded(value: float) -> float:
    """A float64 with 14 significant bits, ties to even; the spacing of denormals is fixed."""
    if not math.isfinite(value) or value == 0.0:
        return value
    mantissa, exponent = math.frexp(value)
    exponent = max(exponent, -1021)
    mantissa = math.ldexp(value, -exponent)
    try:
        near = math.ldexp(float(round(mantissa * 2**14)), exponent - 14)
    except OverflowError:
        near = math.ldexp(float(math.trunc(mantissa * 2**14)), exponent - 14)
    return math.copysign(near, value)


def microseconds(seconds: float) -> int:
    """The whole number nearest to the exact product, half cases to even."""
    return round(Fraction(seconds) * 1_000_000)


def ordered(value: float) -> int:
    """The bits of a float64 as a whole number of the same order: -1 is -0.0."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits) if bits < 1 << 63 else -1 - (int(bits) - (1 << 63))


def unpacked(body: bytes, planes: bytes, rows: int, width: int) -> list[list[int]]:
    """The whole numbers of a packed column, as docs/history-format.md says it, a bit string at a time."""

    def taken(data: bytes, at: int, count: int, bits: int) -> tuple[list[int], int]:
        end = at + (count * bits + 7) // 8
        whole = int.from_bytes(data[at:end], "little")
        return [(whole >> (i * bits)) % (1 << bits) for i in range(count)], end

    def unzigzag(value: int) -> int:
        return -(value + 1) // 2 if value % 2 else value // 2

    kind, form = body[0] % 16, body[0] // 16
    least, low_bits, base_shift, base_bits, pace_bits = body[1:6]
    lows, at = taken(body, 6, width, low_bits)
    bases, at = taken(body, at, width, base_bits)
    paces, at = taken(body, at, width, pace_bits)
    parts = []
    for low in lows:
        part, at = taken(body, at, rows, least + low)
        parts.append(part)
    if form == 9:
        count = int.from_bytes(body[at : at + 4], "little")
        places, end = taken(body, at + 5, count, (width * rows - 1).bit_length())
        highs, _ = taken(body, end, count, body[at + 4])
        for place, high in zip(places, highs, strict=True):
            parts[place // rows][place % rows] += high << (least + lows[place // rows])
    else:
        for place, byte in enumerate(planes):
            plane, rest = divmod(place, width * rows)
            which, row = divmod(rest, rows)
            parts[which][row] += byte << (least + lows[which] + 8 * plane)
    numbers = []
    for part, base, pace in zip(parts, bases, paces, strict=True):
        start = unzigzag(base) << base_shift
        column, before = [], start - unzigzag(pace)
        for residual in part:
            number = unzigzag(residual) + (before + unzigzag(pace) if kind == 1 else start)
            before = (number + 2**63) % 2**64 - 2**63
            column.append(before)
        numbers.append(column)
    return numbers


def state(direction: list[int], geometry: str) -> list[float]:
    """The state in the direction of whole numbers: weights that sum to 1, or a unit vector."""
    total = sum(q * q for q in direction)
    if geometry == "simplex":
        return [q * q / total for q in direction]
    return [q / math.sqrt(total) for q in direction]


# --- calibration ------------------------------------------------------------------------------------


def season_at(table: np.ndarray, begin: int, moment: float) -> np.ndarray:
    """Offsets at one moment, on the line between the two nearest centres of hours, in fractions."""
    bins = len(table)
    hours = (Fraction(moment) - begin) / 3600 - Fraction(1, 2)
    low = math.floor(hours)
    part = float(hours - low)
    return (1.0 - part) * table[low % bins] + part * table[(low + 1) % bins]


# --- estimators -------------------------------------------------------------------------------------


def splitmix(value: int) -> int:
    """SplitMix64's first output from a state of `value`."""
    z = (value + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def bin_of_text(text: str, seed: int, dim: int) -> int:
    found = 0xCBF29CE484222325
    for byte in text.encode():
        found = ((found ^ byte) * 0x100000001B3) % 2**64
    return (splitmix(found ^ splitmix(seed)) >> 32) * dim >> 32


def exact_entropy(weights: Iterable[float]) -> float:
    with mpmath.workdps(40):
        exact = [mpmath.mpf(float(weight)) for weight in weights]
        shares = [weight / mpmath.fsum(exact) for weight in exact if weight > 0]
        return float(-mpmath.fsum(share * mpmath.log(share) for share in shares))


def softmax(logits: Iterable[float]) -> list[float]:
    with mpmath.workdps(40):
        powers = [mpmath.exp(mpmath.mpf(float(each))) for each in logits]
        return [float(power / mpmath.fsum(powers)) for power in powers]


def request_weights(n: int, memory: int) -> list[float]:
    """What each of n requests counts in the average after the last: a plain mean that turns exponential."""
    weights: list[float] = []
    for i in range(1, n + 1):
        gain = max(1 / i, 2 / (memory + 1))
        weights = [weight * (1 - gain) for weight in weights] + [gain]
    return weights


def soft_assignment(x: np.ndarray, centroids: np.ndarray, temperature: float) -> list[float]:
    """By squared distances of unit vectors, in float64."""
    unit = x.astype(float) / np.linalg.norm(x.astype(float))
    return softmax([-float(((unit - c) ** 2).sum()) / temperature for c in centroids.astype(float)])


def unexplained(correlation: np.ndarray) -> float:
    """Geometric mean over i of 1 − Rᵢ², the part of component i that those before it do not explain."""
    left = [
        1.0 - float(correlation[i, :i] @ np.linalg.solve(correlation[:i, :i], correlation[:i, i]))
        for i in range(1, len(correlation))
    ]
    return math.exp(math.fsum(math.log(each) for each in left) / len(left))


# --- counts of rare events --------------------------------------------------------------------------


def poisson_cdf(count: int, mean: float) -> float:
    """P(N ≤ count) of a Poisson variable, term by term."""
    return math.fsum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(count + 1))


# --- detection --------------------------------------------------------------------------------------


def exact_amplitude(basin: Iterable[float], geometry: str) -> np.ndarray | None:
    """The unit vector of a state, by sums of which none can overflow; None where it is no state."""
    values = [float(value) for value in basin]
    if not all(map(math.isfinite, values)) or not any(values):
        return None
    if geometry == "simplex" and min(values) < 0.0:
        return None
    largest = max(map(abs, values))
    shares = np.array([value / largest for value in values])
    weights = np.sqrt(shares) if geometry == "simplex" else shares
    return np.asarray(weights / math.sqrt(math.fsum(weights * weights)))


def ar1_residual(now: Any, before: Any, memory: Any) -> Any:
    """What the value before did not foretell; without one, the value at the residuals' spread."""
    return now * np.sqrt(1.0 - memory * memory) if before is None else now - memory * before


def sr_step(wealth: Any, stake: Any, gain: Any) -> Any:
    """One step of a Shiryaev–Roberts sum: a new bet of 1 is laid with each row, and all of them stake."""
    return (wealth + 1.0) * (1.0 + stake * gain)


def shrunk_covariance(rows: np.ndarray, floor: float) -> np.ndarray:
    """Schäfer and Strimmer (2005), §2.4, entry by entry: r* = r·(1 − λ), λ = Σ var(r)/Σ r²."""
    n, k = rows.shape
    sd = [max(float(np.std(rows[:, i], ddof=1)), floor) for i in range(k)]
    score = [(rows[:, i] - rows[:, i].mean()) / sd[i] for i in range(k)]
    r, spread = np.eye(k), 0.0
    for i in range(k):
        for j in range(k):
            if i != j:
                r[i, j] = float(np.sum(score[i] * score[j])) / (n - 1)
                spread += (float(np.mean((score[i] * score[j]) ** 2)) - r[i, j] ** 2) / n
    keep = 1.0 - min(1.0, max(1.0 / n, spread / float(np.sum((r - np.eye(k)) ** 2))))
    return np.array(
        [[sd[i] * sd[j] * (r[i, j] * keep if i != j else 1.0) for j in range(k)] for i in range(k)]
    )


def exact_gram(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Each element from exactly summed products of what each row is off by."""
    columns = (rows - mean).T
    return np.array(
        [
            [float(sum(Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True))) for b in columns]
            for a in columns
        ]
    )


def squared_pairs(rows: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> float:
    scores = ((rows - mean) * inverse).tolist()
    return math.fsum((a * b) ** 2 for row in scores for a, b in itertools.combinations(row, 2))


def lagged(column: list[float], before: float, after: float) -> tuple[float, float]:
    pairs = [(x - before, y - after) for x, y in itertools.pairwise(column)]
    return math.fsum(x * y for x, y in pairs), math.fsum(x * x for x, _ in pairs)
