"""Turning what a host reports into doubles; included by `_recorder.pyx`.

Conversion may run the host's code and may not fail: what cannot be used comes back as NaN or None,
and the recorder decides what that means. Only BaseExceptions that are no Exceptions pass through.
"""

# Years 1 to 9999, as ISO 8601 has them, less a day at each end: every local time can write those too.
cdef double EARLIEST = -62135596800.0 + 86400.0
cdef double LATEST = 253402300799.0 - 86400.0
cdef str TIMESTAMPS = "Unix seconds or ISO 8601, from 0001-01-02 to 9999-12-30"
cdef str MODULES = f"text of at most {LONGEST_NAME} characters, {LAST_MODULE} different ones at most"


cdef struct Sample:
    double timestamp  # NaN: now
    double phi
    double kappa_eff
    double error_rate
    double avg_latency_ms
    double memory_mb
    double confidence
    double surprise
    double agency
    double drift  # filled in by Recorder._write
    int given  # which of confidence, surprise and agency the host reported, as bits
    uint16_t module


cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(dict given, object key)  # leaves its error to the caller
    void raise_pending "PyErr_Occurred"() except *


# Components that any basin has at most; see qigheal.settings.
cdef Py_ssize_t MOST = 65536

# Stands for a field that a mapping does not have.
cdef object NOTHING = object()


cdef inline double _number(object value) except? -1.0:
    """`value` as a double; NaN for whatever is no real number, booleans and text included."""
    if PyFloat_Check(value):
        return PyFloat_AS_DOUBLE(value)
    return _odd_number(value)


cdef double _odd_number(object value) except? -1.0:
    if value is None or value is NOTHING:
        return NAN
    try:
        if PyLong_CheckExact(value):
            return PyLong_AsDouble(value)
        if isinstance(value, (bool, complex, str, bytes)):
            return NAN
        # On request numpy makes a float of text, truth values, complex numbers and one-element arrays.
        if isinstance(value, (np.generic, np.ndarray)) and (value.ndim or value.dtype.kind not in "fiu"):
            return NAN
        if isinstance(value, np.ndarray) and _masked(value):
            return NAN
        return <double>value
    except Exception:
        return NAN


cdef double _moment(object value) except? -1.0:
    """Unix seconds from a number, a datetime or ISO 8601 (naive ones are local time); NaN if unusable."""
    cdef double seconds
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            value = value.timestamp()
    except Exception:
        return NAN
    seconds = _number(value)
    return seconds if EARLIEST <= seconds < LATEST else NAN


cdef inline double _now() noexcept nogil:
    # Whole microseconds, so that a timestamp survives being written as ISO 8601.
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <double>(<int64_t>now.tv_sec * 1000000 + <int64_t>now.tv_nsec // 1000) / 1e6


cdef inline bint _plain(object basin, Py_ssize_t dim):
    """Whether the components can be read where they stand."""
    return (
        cnp.PyArray_CheckExact(basin)
        and cnp.PyArray_TYPE(<cnp.ndarray>basin) == cnp.NPY_DOUBLE
        and cnp.PyArray_NDIM(<cnp.ndarray>basin) == 1
        and cnp.PyArray_DIM(<cnp.ndarray>basin, 0) == dim
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>basin)
    )


cdef inline bint _single(cnp.ndarray basin, Py_ssize_t dim):
    """Whether it is the float32 that models compute in."""
    return (
        cnp.PyArray_TYPE(basin) == cnp.NPY_FLOAT
        and cnp.PyArray_NDIM(basin) == 1
        and cnp.PyArray_DIM(basin, 0) == dim
        and cnp.PyArray_ISCARRAY_RO(basin)
    )


cdef object _components(object basin, Py_ssize_t dim):
    """float64 components of whatever the host reported, shape [dim]; None where they cannot be had."""
    cdef cnp.ndarray made
    cdef double* out
    cdef cnp.npy_intp size = dim
    cdef Py_ssize_t i
    if cnp.PyArray_CheckExact(basin) and _single(<cnp.ndarray>basin, dim):
        made = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_DOUBLE)
        out = <double*>cnp.PyArray_DATA(made)
        for i in range(dim):
            out[i] = (<const float*>cnp.PyArray_DATA(<cnp.ndarray>basin))[i]
        return made
    if type(basin) is list and len(<list>basin) == dim:
        made = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_DOUBLE)
        out = <double*>cnp.PyArray_DATA(made)
        for i in range(dim):
            item = (<list>basin)[i]
            if not PyFloat_Check(item):
                break
            out[i] = PyFloat_AS_DOUBLE(item)
        else:
            return made
    try:
        if hasattr(basin, "__len__") and len(basin) != dim:
            return None  # before anything is made of it: a range may claim more than memory holds
        array = _array(basin, dim)
        if array is None or array.shape != (dim,) or array.dtype.kind not in "fiu":
            return None
        with np.errstate(all="ignore"):
            # Copied in one step, and looked at again: another thread may be resizing the host's array.
            copied = np.array(array, np.float64, order="C")
        return copied if copied.shape == (dim,) else None
    except Exception:
        return None


cdef object _array(object basin, Py_ssize_t most):
    """What the host reported as an array, numbers of other makes as float64; None for what is none.

    `most`: components that are looked at. Memory that an object only claims to have, by
    `__array_interface__` or `__array_struct__`, is not read: nobody checks the claim, and a wrong one
    would end the process.
    """
    if isinstance(basin, np.ndarray):
        array = basin
    elif isinstance(basin, (str, bytes, bytearray)):
        return None
    elif isinstance(basin, (list, tuple)):
        return _converted(basin, most)
    elif PyObject_CheckBuffer(basin):
        array = np.asarray(basin)
    elif hasattr(basin, "__array__"):
        array = basin.__array__()
        if not isinstance(array, np.ndarray):
            return None
    elif isinstance(basin, Sequence):
        return _converted(basin, most)
    else:
        return None
    if array.dtype.kind == "O" and array.ndim == 1:
        return _converted(array, most)
    return None if _masked(array) else array


cdef bint _masked(object array) except -1:
    ma = sys.modules.get("numpy.ma")  # where nobody loaded it, there are no masks
    return ma is not None and isinstance(array, ma.MaskedArray) and bool(ma.getmaskarray(array).any())


cdef object _converted(object items, Py_ssize_t most):
    return np.array([_number(item) for item in islice(items, most + 1)], np.float64)


cdef inline const double* _doubles(object components) noexcept:
    if components is None:
        return NULL
    return <const double*>cnp.PyArray_DATA(<cnp.ndarray>components)


cdef str _seen(object value):
    """What came, in a few words, for an error message; never fails."""
    try:
        if value is None or value is NOTHING or isinstance(value, (int, float, str)):
            return _brief(value)
        if not isinstance(value, np.ndarray) and len(value) > MOST:
            return f"{type(value).__name__} of {len(value)}"
        array = _array(value, MOST)
        if array is None or array.ndim == 0:
            return f"{type(value).__name__}"
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            return f"an array of {array.dtype}, shape {list(array.shape)}"
        listed = value if isinstance(value, (list, tuple)) else array.tolist()
        for position, (component, item) in enumerate(zip(array.tolist(), listed)):
            if not -INFINITY < component < INFINITY or component < 0.0:
                return f"{_brief(item)} at position {position} of {len(array)}"
        return f"{len(array)} components" + ("" if array.any() else ", all 0")
    except Exception:
        return type(value).__name__


cdef str _brief(object value):
    if value is NOTHING:
        return "nothing"
    if isinstance(value, str):
        value = str.__str__(value)[:60]  # before it is written out: it may be a whole page
    elif isinstance(value, float):
        value = PyFloat_AS_DOUBLE(value)
    elif value is not None and not isinstance(value, int):
        return type(value).__name__
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


cdef double _within(str name, object value, double low, double high) except? -1.0:
    cdef double number = _number(value)
    if not (low <= number <= high and isfinite(number)):
        expected = "a finite number"
        if isfinite(high):
            expected += f" from {low:g} to {high:g}"
        elif isfinite(low):
            expected += f" of at least {low:g}"
        raise InvalidSnapshot(name, expected, _seen(value))
    return number


cdef double _optional(str name, object value) except? -1.0:
    if value is None or isinstance(value, float) and value != value:
        return NAN
    return _within(name, value, -INFINITY, INFINITY)


cdef object _or_none(double value):
    return None if value != value else value


cdef str _text(str name, object value):
    if not isinstance(value, str):
        raise InvalidSnapshot(name, "text", _seen(value))
    return str(value)


cdef object _refusal(int flags, tuple values, Py_ssize_t dim, int geometry):
    """The error for the first field that was flagged; `values` are what the host gave, in order of bits."""
    cdef int bit = 0
    while not flags >> bit & 1:
        bit += 1
    if 1 << bit == BASIN:
        kind = "non-negative weights" if geometry == SIMPLEX else "components"
        expected = f"{dim} finite {kind}, not all 0"
    elif 1 << bit in (PHI, ERRORS):
        expected = "a number from 0 to 1"
    elif 1 << bit in (LATENCY, MEMORY):
        expected = "a finite number of at least 0"
    else:
        expected = "a finite number"
    return InvalidSnapshot(FIELD_NAMES[bit], expected, _seen(values[bit]))


cdef object _field(dict given, str name, object missing):
    cdef PyObject* found = PyDict_GetItemWithError(given, name)
    if found != NULL:
        return <object>found
    # Only a key of the host's own, equal to none and failing to say so, leads here with an error.
    if PyErr_Occurred() != NULL and PyErr_ExceptionMatches(Exception):
        PyErr_Clear()
    raise_pending()
    return missing


cdef dict _gathered(object state, dict fields):
    """The known fields of any mapping, with keywords over them; what cannot be read is not there."""
    cdef dict given = {}
    if state is not None:
        for name in CAPTURED:
            try:
                value = state.get(name, NOTHING)
            except Exception:
                continue
            if value is not NOTHING:
                given[name] = value
    given.update(fields)
    return given


cdef tuple CAPTURED = (*FIELD_NAMES, "module_name", "timestamp")


cdef inline double _held(double value, bint flagged, double* good) noexcept nogil:
    if flagged:
        return good[0]
    good[0] = value
    return value


cdef inline double _clipped(double value, bint flagged, double* good) noexcept nogil:
    if flagged and isfinite(value):
        return 1.0 if value > 1.0 else 0.0
    return _held(value, flagged, good)
