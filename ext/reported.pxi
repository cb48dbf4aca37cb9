"""Turning what a host reports into doubles; included by `_recorder.pyx`.

Conversion may run the host's code and may not fail: what cannot be used comes back as NaN or None,
and the recorder decides what that means. Only BaseExceptions that are no Exceptions pass through.
"""

# Seconds of the years 1 and 10000, between which a timestamp can be written as ISO 8601.
cdef double EARLIEST = -62135596800.0
cdef double LATEST = 253402300800.0


# Stands for a field that a mapping does not have.
cdef object NOTHING = object()


cdef double _number(object value) except? -1.0:
    """`value` as a double; NaN for whatever is no real number, booleans and text included."""
    cdef double number
    if PyFloat_Check(value):
        return PyFloat_AS_DOUBLE(value)
    if PyLong_CheckExact(value):
        number = PyLong_AsDouble(value)
        if number == -1.0 and PyErr_Occurred():
            PyErr_Clear()
            return NAN
        return number
    if value is None or value is NOTHING:
        return NAN
    try:
        # numpy turns a one-element array, a truth value or a complex number into a float on request.
        if isinstance(value, (bool, np.bool_, complex, np.complexfloating)):
            return NAN
        if isinstance(value, np.ndarray) and (value.ndim or value.dtype.kind not in "fiu"):
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


cdef object _components(object basin, Py_ssize_t dim):
    """float64 components of whatever the host reported, shape [dim]; None where they cannot be had."""
    cdef cnp.ndarray made
    cdef double* out
    cdef cnp.npy_intp size = dim
    cdef Py_ssize_t i
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
        if isinstance(basin, np.ma.MaskedArray) and np.ma.getmaskarray(basin).any():
            return None
        array = np.asarray(basin)
        if array.shape != (dim,):
            return None
        if array.dtype.kind == "O":
            return np.array([_number(item) for item in array])
        if array.dtype.kind not in "fiu":
            return None
        with np.errstate(all="ignore"):
            return np.require(array, np.float64, ("C", "A"))
    except Exception:
        return None


cdef inline const double* _doubles(object components) noexcept:
    if components is None:
        return NULL
    return <const double*>cnp.PyArray_DATA(<cnp.ndarray>components)


cdef str _seen(object value):
    """What came, in a few words, for an error message; never fails."""
    try:
        if value is NOTHING:
            return "nothing"
        if value is None or isinstance(value, (int, float, str)):
            text = repr(value)
            return text if len(text) <= 60 else text[:57] + "..."
        array = np.asarray(value)
        if array.ndim == 0:
            return f"{type(value).__name__}"
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            return f"an array of {array.dtype}, shape {list(array.shape)}"
        for position, component in enumerate(array.tolist()):
            if not -INFINITY < component < INFINITY or component < 0.0:
                return f"{component!r} at position {position} of {len(array)}"
        return f"{len(array)} components" + ("" if array.any() else ", all 0")
    except Exception:
        return type(value).__name__


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
