"""`GeometricSnapshot`; included by `_recorder.pyx`, which fills it from a row without its constructor."""

cdef extern from *:
    """
    /* The classes are public as qigcore.recorder's; pickles and reprs name that module. */
    #define QIG_RENAME(type, name) (((PyTypeObject *)(type))->tp_name = (name))
    """
    void QIG_RENAME(object, const char*)

cdef tuple SNAPSHOT_FIELDS = (
    "timestamp", "phi", "kappa_eff", "basin_coords", "basin_drift", "confidence", "surprise", "agency",
    "regime", "code_hash", "module_name", "error_rate", "avg_latency_ms", "memory_mb", "repaired",
)


@cython.final
@cython.freelist(16)
@cython.no_gc
cdef class GeometricSnapshot:
    """One moment of a service: what it reported, and how far it had drifted.

    Immutable; owns its values. Equal where all fields are (two missing figures count as equal).

    Parameters
    ----------
    timestamp : float, datetime or str
        Unix seconds, or ISO 8601; without an offset it is local time.
    phi : float
        Integration Φ, 0 to 1.
    kappa_eff : float
        Coupling κ.
    basin_coords : array-like, shape=[dim]
        The state as reported, at any positive scale.
    basin_drift : float
        Radians from the reference.
    confidence, surprise, agency : float or None
        NaN or None: not reported.
    regime : {"linear", "geometric", "breakdown"} or None
        None: from Φ, with the bounds that `qigcore.constants` names.
    code_hash, module_name : str
    error_rate : float
        Fraction of requests, 0 to 1.
    avg_latency_ms, memory_mb : float
    repaired : iterable of str
        Names of fields that were unusable and hold the last good value.

    Raises
    ------
    InvalidSnapshot
        A field is unusable; it names the field, what was expected and what came.
    """

    cdef readonly double timestamp
    cdef readonly double phi
    cdef readonly double kappa_eff
    cdef readonly double basin_drift
    cdef readonly double confidence
    cdef readonly double surprise
    cdef readonly double agency
    cdef readonly double error_rate
    cdef readonly double avg_latency_ms
    cdef readonly double memory_mb
    cdef readonly str regime
    cdef readonly str code_hash
    cdef readonly str module_name
    cdef bytes _basin
    cdef int _repaired

    def __cinit__(self):
        self._basin = None

    def __init__(
        self, *, timestamp, phi, kappa_eff, basin_coords, basin_drift=0.0, confidence=None, surprise=None,
        agency=None, regime=None, code_hash="", module_name="", error_rate=0.0, avg_latency_ms=0.0,
        memory_mb=0.0, repaired=(),
    ):
        if self._basin is not None:
            raise TypeError("a GeometricSnapshot is immutable")
        self.timestamp = _moment(timestamp)
        if self.timestamp != self.timestamp:
            raise InvalidSnapshot("timestamp", TIMESTAMPS, _seen(timestamp))
        self.phi = _within("phi", phi, 0.0, 1.0)
        self.kappa_eff = _within("kappa_eff", kappa_eff, -INFINITY, INFINITY)
        self.basin_drift = _within("basin_drift", basin_drift, 0.0, INFINITY)
        self.confidence = _optional("confidence", confidence)
        self.surprise = _optional("surprise", surprise)
        self.agency = _optional("agency", agency)
        self.error_rate = _within("error_rate", error_rate, 0.0, 1.0)
        self.avg_latency_ms = _within("avg_latency_ms", avg_latency_ms, 0.0, INFINITY)
        self.memory_mb = _within("memory_mb", memory_mb, 0.0, INFINITY)
        if regime is None:
            linear_below, breakdown_from = _constants.LINEAR_BELOW, _constants.BREAKDOWN_FROM
            regime = REGIME_NAMES[0 if self.phi < linear_below else 1 if self.phi < breakdown_from else 2]
        if not isinstance(regime, str) or regime not in REGIME_NAMES:
            raise InvalidSnapshot("regime", f"one of {', '.join(REGIME_NAMES)}", _seen(regime))
        self.regime = regime
        self.code_hash = _text("code_hash", code_hash)
        self.module_name = _text("module_name", module_name)
        self._repaired = 0
        try:
            names = tuple(repaired)
        except Exception:
            raise InvalidSnapshot("repaired", "a list of names", _seen(repaired)) from None
        for name in names:
            if not isinstance(name, str) or name not in FIELD_NAMES:
                raise InvalidSnapshot("repaired", f"names among {', '.join(FIELD_NAMES)}", _seen(name))
            self._repaired |= 1 << FIELD_NAMES.index(name)
        components = _components(basin_coords, _length(basin_coords))
        if components is None or not np.isfinite(components).all() or not components.any():
            raise InvalidSnapshot("basin_coords", "finite components, not all 0", _seen(basin_coords))
        self._basin = components.tobytes()

    @property
    def basin_coords(self):
        """The state as reported: float64, shape [dim], read-only."""
        return np.frombuffer(self._basin or b"")

    @property
    def repaired(self):
        """Names of the fields that were unusable and hold the last good value."""
        if self._repaired == 0:
            return ()
        return tuple([name for i, name in enumerate(FIELD_NAMES) if self._repaired >> i & 1])

    def to_dict(self):
        """The fields as JSON takes them: ISO 8601 with the offset of UTC, lists, None for not reported."""
        return {
            "timestamp": datetime.fromtimestamp(self.timestamp, timezone.utc).isoformat(),
            "phi": self.phi,
            "kappa_eff": self.kappa_eff,
            "basin_coords": self.basin_coords.tolist(),
            "basin_drift": self.basin_drift,
            "confidence": _or_none(self.confidence),
            "surprise": _or_none(self.surprise),
            "agency": _or_none(self.agency),
            "regime": self.regime,
            "code_hash": self.code_hash,
            "module_name": self.module_name,
            "error_rate": self.error_rate,
            "avg_latency_ms": self.avg_latency_ms,
            "memory_mb": self.memory_mb,
            "repaired": list(self.repaired),
        }

    @classmethod
    def from_dict(cls, fields, /):
        """The inverse of `to_dict`; reads files of the earlier modules too, and ignores other keys.

        Needed are timestamp, phi, kappa_eff and basin_coords. Raises InvalidSnapshot.
        """
        if not isinstance(fields, Mapping):
            raise InvalidSnapshot("fields", "a mapping", _seen(fields))
        known = {name: fields[name] for name in SNAPSHOT_FIELDS if name in fields}
        for name in ("timestamp", "phi", "kappa_eff", "basin_coords"):
            if name not in known:
                raise InvalidSnapshot(name, "a value", "nothing")
        return cls(**known)

    cdef tuple _scalars(self):
        return (
            self.timestamp, self.phi, self.kappa_eff, self.basin_drift, _or_none(self.confidence),
            _or_none(self.surprise), _or_none(self.agency), self.error_rate, self.avg_latency_ms,
            self.memory_mb, self.regime, self.code_hash, self.module_name, self._repaired,
        )

    def __eq__(self, other):
        cdef GeometricSnapshot that
        if not isinstance(other, GeometricSnapshot):
            return NotImplemented
        that = other
        return self._scalars() == that._scalars() and (
            self._basin == that._basin or np.array_equal(self.basin_coords, that.basin_coords)
        )

    def __hash__(self):
        return hash(self._scalars())

    def __copy__(self):
        return self

    def __deepcopy__(self, memo, /):
        return self

    def __reduce__(self):
        fields = self.to_dict()
        fields.update(timestamp=self.timestamp, basin_coords=self.basin_coords)
        return GeometricSnapshot.from_dict, (fields,)

    def __repr__(self):
        moment = datetime.fromtimestamp(self.timestamp, timezone.utc).isoformat(timespec="milliseconds")
        marks = f"dim={len(self.basin_coords)}" + (f", repaired={self.repaired!r}" if self._repaired else "")
        return (
            f"GeometricSnapshot({moment}, phi={self.phi:.4g}, kappa_eff={self.kappa_eff:.4g}, "
            f"basin_drift={self.basin_drift:.4g}, regime={self.regime!r}, {marks})"
        )


cdef Py_ssize_t _length(object basin):
    try:
        return len(basin)
    except Exception:
        return 0


cdef GeometricSnapshot _snapshot_of(const Head* row, const double* components, Py_ssize_t dim, list names):
    cdef GeometricSnapshot made = GeometricSnapshot.__new__(GeometricSnapshot)
    made._basin = PyBytes_FromStringAndSize(<const char*>components, dim * sizeof(double))
    made.timestamp = row.timestamp
    made.phi = row.phi
    made.kappa_eff = row.kappa_eff
    made.basin_drift = row.basin_drift
    made.confidence = row.confidence
    made.surprise = row.surprise
    made.agency = row.agency
    made.error_rate = row.error_rate
    made.avg_latency_ms = row.avg_latency_ms
    made.memory_mb = row.memory_mb
    made._repaired = row.repaired
    made.regime = REGIME_NAMES[row.regime]
    made.code_hash = names[row.code]
    made.module_name = names[row.module]
    return made
