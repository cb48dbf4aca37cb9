"""What healthy looks like, learned from a window of healthy snapshots and kept in a file of its own.

A baseline holds the centre and the spread of the basins and a band for every metric. It decides no
severity (`rules` does) and knows no store: it is a file that may be copied, compared and shared.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np

from qigcore import geometry as _geometry
from qigcore._rules import growth
from qigcore.calibration.record import Calibration
from qigcore.constants import BASIN_DRIFT_MAX, KAPPA_STAR, PHI_MIN
from qigcore.errors import BaselineError, InvalidLimit, TooLittleData
from qigcore.regular import read_regular, write_whole
from qigcore.rows import METRICS, REGIMES, Batch, FloatArray

Geometry = Literal["simplex", "sphere"]

MIN_ROWS = 30
"""Fewer usable snapshots than this say nothing about a spread."""

MIN_GROWTHS = 10
"""A band of memory growth needs this many stretches of ten usable readings."""

RARE_BREAKDOWN = 0.1
"""Above this share of healthy snapshots in the breakdown regime, being in it says nothing."""

WIDTH = 3.0
"""Half-width of a band in standard deviations: of 1000 healthy normal values, 3 lie outside."""

GROWTH_WIDTH = 4.7
"""The same for memory growth, which is far from normal: the smaller slope of two halves, or 0.

For steady memory with independent normal noise it is 0 half of the time, so that its sd is only 0.43 of
the sd of one half's slope. 4.7 of them are two of those: both halves exceed that at 1 position in 2,000,
and one of the five positions that a rule looks at in about 1 of 400. (3 of them: 1 of 20.)
"""

GROWTH_SHORT = 20.0
"""A band learned from n stretches of ten is wider by the factor 1 + 20/n.

Neighbouring stretches share nine readings, so n of them tell an sd only as well as some n/10 would. With
this, simulated hosts (normal readings, independent or with a lag-one correlation of 0.5) of 100 and of 300
snapshots are told of growth in less than 0.5 % of checks, and the independent ones of 30 in 0.5 %.
"""

TESTED = ("phi", "kappa", "latency", "errors")
"""Figures that the change tests look at, beside drift and the components."""

HUGE = 1e30
"""Figures beyond have a band but no change test: fourth powers of them near overflow."""

LARGEST = 1e100
"""Nothing is learned of a metric that goes beyond: no host measures it, and squares of it near overflow."""

_NAMES = {
    "phi": "Φ",
    "kappa": "κ",
    "basin_drift": "drift",
    "latency": "latency",
    "errors": "errors",
    "memory": "memory",
}


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The healthy range of one metric: mean ± 3 sd, sd floored, clipped to where the metric can lie.

    Of memory growth it is mean ± 4.7 (1 + 20/n) sd, n = count, and no less than 3 floors: see GROWTH_WIDTH.

    Floors of sd, so that a steady signal does not alarm on its last digit: Φ 0.005; κ the larger of
    1 % of its mean and 0.01; drift 0.01 rad; latency the larger of 20 % of its mean and 0.05 ms;
    errors 0.002; memory growth 0.1 MB per snapshot.
    """

    mean: float
    sd: float  # as measured, before the floor
    low: float
    high: float
    constant: bool  # one value throughout: it carries no information about its own noise
    autocorrelation: float  # at lag 1; 0 for a constant
    count: int  # values it was learned from


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A host's healthy state.

    basin: the Fréchet mean as a unit amplitude vector, length dim (for the simplex its squares are
        the probabilities; `point` gives them).
    variance: mean squared distance from it, rad².
    component_mean, component_sd: per component of the amplitudes, length dim.
    bands: by key of `rows.METRICS`; "memory" is growth in MB per snapshot. Learned from basins
        alone, it holds "basin_drift" only.
    breakdown_share: part of the healthy snapshots in the breakdown regime, 0 to 1.
    count, skipped: snapshots used, and those left out because a value in them was repaired. trimmed: those left
        out because they were of another state; `notes` says which.
    created: Unix seconds. notes: facts about the host that are no fault.
    """

    VERSION: ClassVar[int] = 2

    version: int = 2
    geometry: Geometry
    dim: int
    count: int
    skipped: int
    created: float
    code_hash: str
    basin: tuple[float, ...]
    variance: float
    component_mean: tuple[float, ...]
    component_sd: tuple[float, ...]
    bands: dict[str, Band]
    breakdown_share: float
    drift_ceiling: float  # radians that the drift limit never exceeds
    notes: tuple[str, ...] = ()
    calibration: Calibration | None = None  # None: too few snapshots, or a file of version 1
    trimmed: int = 0  # snapshots left out because they were of another state

    def __post_init__(self) -> None:
        lengths = {len(self.basin), len(self.component_mean), len(self.component_sd)}
        if lengths != {self.dim}:
            raise BaselineError(f"expected {self.dim} components (dim), got {sorted(lengths)}")
        if not abs(math.hypot(*self.basin) - 1.0) < 5e-7:
            raise BaselineError("basin: expected a vector of unit length")
        if self.geometry == "simplex" and min(self.basin) < 0.0:
            raise BaselineError("basin: expected amplitudes of at least 0, for the simplex")
        if "basin_drift" not in self.bands or not self.bands.keys() <= METRICS.keys():
            raise BaselineError(
                f"bands: expected 'basin_drift' and others of {', '.join(METRICS)}, got {', '.join(self.bands)}"
            )
        for name, band in self.bands.items():
            if not band.low < band.high:
                raise BaselineError(f"bands.{name}: expected low below high, got {band.low} and {band.high}")
        if self.calibration is not None and len(self.calibration.center) != self.dim:
            raise BaselineError(
                f"calibration.center: expected {self.dim} components (dim), got {len(self.calibration.center)}"
            )
        if not 0.0 < self.drift_ceiling < math.pi:
            raise BaselineError(f"drift_ceiling: expected radians between 0 and π, got {self.drift_ceiling}")

    @property
    def drift_limit(self) -> float:
        """Radians beyond which a drift is no longer healthy: the band's edge, never above the ceiling."""
        return min(self.bands["basin_drift"].high, self.drift_ceiling)

    @property
    def point(self) -> FloatArray:
        """The centre as a basin that a host could report: probabilities, or a unit vector. Shape [dim]."""
        return _geometry.from_amplitudes(np.array(self.basin), self.geometry)

    @classmethod
    def learn(
        cls,
        window: Batch | Sequence[Any] | FloatArray,
        *,
        geometry: Geometry = "simplex",
        drift_ceiling: float = BASIN_DRIFT_MAX,
        phi_min: float = PHI_MIN,
        kappa_star: float = KAPPA_STAR,
        kappa_tolerance: float = 10.0,
        error_rate_max: float = 0.05,
        latency_max_ms: float = 2000.0,
        created: float | None = None,
    ) -> Self:
        """From healthy snapshots: a `Batch`, a sequence of `GeometricSnapshot`, or basins of shape [n, dim].

        Repaired values, and basins that are no point of the geometry, are left out. phi_min to
        latency_max_ms judge nothing: where the healthy host lies beyond one of them, `notes` says so.

        Raises TooLittleData with fewer than 30 usable snapshots, InvalidLimit for a ceiling outside (0, π).
        """
        if not 0.0 < drift_ceiling < math.pi:
            raise InvalidLimit(
                f"drift_ceiling: expected radians above 0 and below π (the largest distance), got {drift_ceiling!r}"
            )
        from qigcore.calibration import learning  # not for a process that only loads one
        from qigcore.calibration.window import Window, settled

        given = Window.of(window)
        good = _points(given.basins, geometry)
        _enough(int(good.sum()), given.basins, geometry)
        amplitudes, basin, drifts = _states(given.basins, good, geometry)
        tested = [name for name in TESTED if name in given.columns and _largest(given.columns[name]) <= HUGE]
        figures = {name: given.columns[name] for name in tested}
        state = settled(amplitudes, {**figures, "basin_drift": drifts}, given.times)
        trimmed = len(state.keep) - int(state.keep.sum())
        if trimmed:
            given, good = given.only(state.keep), good[state.keep]
            amplitudes, basin, drifts = _states(given.basins, good, geometry)
        basins, columns = given.basins, given.columns
        bands, missing = {}, []
        for name, values in {**columns, "basin_drift": drifts[good]}.items():
            if name not in METRICS:
                continue
            if (largest := _largest(values)) > LARGEST:
                missing.append(f"{_NAMES[name]} went up to {largest:.3g}: too large to learn a band from")
                continue
            series = growth(np.ascontiguousarray(values)) if name == "memory" else values
            series = series[np.isfinite(series)]
            if len(series) >= (MIN_GROWTHS if name == "memory" else MIN_ROWS):
                bands[name] = _band(name, series)
            else:
                missing.append(f"too few usable values of {_NAMES[name]} to learn a band ({len(series)})")
        regimes = columns.get("regime", np.empty(0))
        regimes = regimes[np.isfinite(regimes)]
        share = float(np.mean(regimes == REGIMES.index("breakdown"))) if len(regimes) else 0.0
        limits = {
            "phi": phi_min,
            "kappa": (kappa_star, kappa_tolerance),
            "errors": error_rate_max,
            "latency": latency_max_ms,
        }
        whole = good.copy()
        for values in columns.values():
            whole &= np.isfinite(values)
        calibration = learning.calibrate(
            amplitudes,
            {**{name: columns[name] for name in tested}, "basin_drift": drifts},
            given.times,
            state,
            interval_s=given.interval_s,
        )
        usable = int(good.sum())
        return cls(
            geometry=geometry,
            dim=basins.shape[1],
            count=usable,
            skipped=len(basins) - int(whole.sum()),
            created=time.time() if created is None else created,
            code_hash=given.code_hash,
            basin=tuple(basin.tolist()),
            variance=float(np.mean(drifts[good] ** 2)),
            component_mean=tuple(amplitudes[good].mean(axis=0).tolist()),
            component_sd=tuple(amplitudes[good].std(axis=0, ddof=1).tolist()),
            bands=bands,
            breakdown_share=share,
            drift_ceiling=drift_ceiling,
            notes=(*_notes(bands, columns, share, drift_ceiling, limits), *missing, *state.reasons),
            trimmed=trimmed,
            calibration=calibration,
        )

    def save(self, path: str | os.PathLike[str], *, replace: bool = True) -> None:
        """Write it as JSON by an atomic rename; FileExistsError when it exists and `replace` is False."""
        write_whole(path, msgspec.json.format(msgspec.json.encode(self)) + b"\n", replace=replace)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, in this version or an earlier one; raises BaselineError otherwise."""
        remedy = "delete the file to have a new one learned"
        try:
            data = read_regular(path)
        except OSError as error:
            raise BaselineError(
                f"{path}: a baseline cannot be read there: {error.strerror}; name its file, "
                "or a store that has learned one"
            ) from error
        try:
            version = msgspec.json.decode(data, type=_Versioned).version
            if not 1 <= version <= cls.VERSION:
                raise BaselineError(
                    f"expected a baseline of version 1 to {cls.VERSION}, got version {version}; "
                    f"read it with the version of qigheal that wrote it"
                )
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, RecursionError, BaselineError) as error:
            raise BaselineError(f"{path}: {error}; {remedy}") from error


class _Versioned(msgspec.Struct):
    version: int


def _largest(values: FloatArray) -> float:
    return float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))


def _enough(usable: int, basins: FloatArray, geometry: Geometry) -> None:
    """Raise TooLittleData that says how many snapshots are missing."""
    if usable >= MIN_ROWS:
        return
    hint = "; the simplex takes no negative weights, signed states need geometry='sphere'"
    negative = geometry == "simplex" and bool((basins < 0.0).any())
    raise TooLittleData(
        f"a baseline needs {MIN_ROWS} snapshots with a usable basin, got {usable} of {len(basins)}: "
        f"{MIN_ROWS - usable} more{hint if negative else ''}"
    )


def _states(basins: FloatArray, good: Any, geometry: Geometry) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(Amplitudes [n, dim], their Fréchet mean [dim], distances from it [n]); NaN in the rows that are not good."""
    points = np.ascontiguousarray(basins[good])
    amplitudes, drifts = np.full(basins.shape, np.nan), np.full(len(basins), np.nan)
    amplitudes[good] = _geometry.amplitudes(points, geometry)
    mean = _geometry.frechet_mean(points, geometry=geometry)
    drifts[good] = _geometry.distances(points, _geometry.from_amplitudes(mean, geometry), geometry)
    return amplitudes, mean, drifts


def _points(basins: FloatArray, geometry: Geometry) -> Any:
    """Which rows are points of the geometry, bool [n]."""
    good = np.isfinite(basins).all(axis=1) & (basins != 0.0).any(axis=1)
    if geometry == "simplex":
        good &= ~(basins < 0.0).any(axis=1)
    return good


def _band(name: str, values: FloatArray) -> Band:
    mean = float(np.mean(values))
    centred = values - mean
    power = float(np.sum(centred * centred))
    sd = math.sqrt(power / (len(values) - 1))
    constant = sd <= 1e-12 * max(1.0, abs(mean))
    floor = {
        "phi": 0.005,
        "kappa": max(0.01 * abs(mean), 0.01),
        "basin_drift": 0.01,
        "latency": max(0.2 * mean, 0.05),
        "errors": 0.002,
        "memory": 0.1,
    }[name]
    width = GROWTH_WIDTH * (1.0 + GROWTH_SHORT / len(values)) if name == "memory" else WIDTH
    half = max(width * sd, WIDTH * floor)
    low, high = mean - half, mean + half
    if name not in ("kappa", "memory"):
        low = max(low, 0.0)
    if name in ("phi", "errors"):
        high = min(high, 1.0)
    return Band(
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        constant=constant,
        autocorrelation=0.0 if constant else float(np.sum(centred[1:] * centred[:-1])) / power,
        count=len(values),
    )


def _notes(
    bands: dict[str, Band],
    columns: dict[str, FloatArray],
    breakdown_share: float,
    drift_ceiling: float,
    limits: dict[str, Any],
) -> list[str]:
    """What the source document's absolute limits would have said of this healthy host, and what was constant."""
    notes = []

    def met(values: FloatArray, within: Any, text: str, mean: float, unit: str = "") -> None:
        share = float(np.mean(within[np.isfinite(values)]))
        often = "never met" if share == 0.0 else f"met in {share:.0%} of healthy snapshots only:"
        if share < 0.5:
            notes.append(f"host {often} {text} (healthy mean {mean:.3g}{unit})")

    if phi := bands.get("phi"):
        met(columns["phi"], columns["phi"] >= limits["phi"], f"Φ ≥ {limits['phi']:g}", phi.mean)
    if kappa := bands.get("kappa"):
        star, tolerance = limits["kappa"]
        near = np.abs(columns["kappa"] - star) <= tolerance
        met(columns["kappa"], near, f"κ within {tolerance:g} of {star:g}", kappa.mean)
    if errors := bands.get("errors"):
        within = columns["errors"] <= limits["errors"]
        met(columns["errors"], within, f"error rate ≤ {limits['errors']:g}", errors.mean)
    if latency := bands.get("latency"):
        within = columns["latency"] <= limits["latency"]
        met(columns["latency"], within, f"latency ≤ {limits['latency']:g} ms", latency.mean, " ms")
    if phi and phi.low <= 0.0:
        notes.append("healthy Φ reaches 0: a low Φ is no finding here")
    if errors and errors.mean > limits["errors"]:
        notes.append(
            f"error rate {errors.mean:.1%} while healthy was learned, above {limits['errors']:.3g}: the baseline "
            "was learned while the service failed; learn again with set_baseline()"
        )
    elif errors and errors.high >= 1.0:
        notes.append("healthy error rates reach 1: errors are no finding here")
    if breakdown_share > RARE_BREAKDOWN:
        notes.append(
            f"{breakdown_share:.0%} of healthy snapshots lie in the breakdown regime: it is no finding here"
        )
    if bands["basin_drift"].high > drift_ceiling:
        notes.append(
            f"healthy drift reaches {bands['basin_drift'].high:.3g} rad; "
            f"its limit stays at the ceiling of {drift_ceiling:g}"
        )
    if (memory := bands.get("memory")) and memory.mean > 0.3:
        notes.append(f"memory grew {memory.mean:.3g} MB per snapshot while healthy was learned")
    if constant := [f"{_NAMES[name]} ({band.mean:.4g})" for name, band in bands.items() if band.constant]:
        notes.append(f"constant while healthy was learned: {', '.join(constant)}")
    return notes
