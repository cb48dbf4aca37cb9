"""The loops that turn columns of a sealed block into whole numbers and those into few bytes, and back.

No file, no frame and no compressor is known here: `qigcore.history.columns` puts the parts together.
Reading never trusts a length that stands in the bytes: what does not fit raises ValueError.

Precision policy. Figures go to whole numbers and back bit for bit. Only `round_heads` and `quantised`
lose anything: the one rounds to 14 significant bits and to microseconds; the other rounds amplitudes to
whole numbers of a scale at which the row, measured with its own rounding errors, lies within 1e-4 rad.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport fabs, isfinite, log2, rint, sqrt
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from numeric cimport SIMPLEX, SPHERE, Head, prepared

import numpy as np

from qigcore.rows import HEAD as _HEAD

cdef extern from *:
    """
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define little_endian(word) __builtin_bswap64(word)
    #else
    #define little_endian(word) (word)
    #endif
    """
    uint64_t little_endian(uint64_t word) nogil
    int __builtin_clzll(unsigned long long) nogil
    int __builtin_ctzll(unsigned long long) nogil

cnp.import_array()

include "series.pxi"

cdef enum:
    LANES = 8         # sums at once, in an order that no compiler changes
    TILE = 8          # rows turned from rows to columns at once: one cache line of each column
    TRIES = 8        # scales tried for a row before it gets a finer one
    MOST = 1 << 28    # numbers of a column that are read
    REFINEMENTS = 40  # more than it takes to reach the step at which no row can fail

cdef uint64_t SIGN = <uint64_t>1 << 63
cdef uint64_t INFINITE = <uint64_t>0x7FF << 52
cdef int DROPPED = 39             # bits of a float64 below its 14 significant ones
cdef double LATEST = 8589934592.0  # 2^33 seconds: up to there whole microseconds survive float64
cdef double RADIANS = 1e-4 * (1 - 1e-9)  # asked for, less what rounding of the reader's own sums may add
cdef double MAGIC = 6755399441055744.0   # 1.5·2^52: adding and subtracting it rounds to whole numbers
cdef double APART = 2e-4          # relative step between tried scales: another rounding, the same state
cdef double NOISE = 16.0          # mean change between rows, in steps, from which such scales cost nothing


cdef inline uint64_t bits_of(double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return bits


cdef inline double of_bits(uint64_t bits) noexcept nogil:
    cdef double value
    memcpy(&value, &bits, 8)
    return value


cdef inline double rounded(double value) noexcept nogil:
    cdef uint64_t bits = bits_of(value)
    cdef uint64_t kept
    if (bits & ~SIGN) >= INFINITE:
        return value
    kept = (bits + (<uint64_t>1 << (DROPPED - 1)) - 1 + ((bits >> DROPPED) & 1)) >> DROPPED << DROPPED
    if (kept & ~SIGN) >= INFINITE:
        kept = bits >> DROPPED << DROPPED
    return of_bits(kept)


cdef inline double to_micros(double seconds) noexcept nogil:
    """seconds·1e6, the exact product, as a whole number: half cases to even. |seconds| is below LATEST."""
    cdef double product = seconds * 1e6
    cdef double whole = rint(product)
    cdef double over = product - whole
    cdef double head, error
    if fabs(over) != 0.5:  # then the product's own rounding crossed no half
        return whole
    # What that rounding lost, exactly (Dekker 1971): 1e6 has 14 significant bits, the head 24, the rest 29.
    head = <double><float>seconds
    error = (head * 1e6 - product) + (seconds - head) * 1e6
    return whole + 2.0 * over if over * error > 0.0 else whole


def round_heads(cnp.ndarray heads not None):
    """Round every figure of heads [n] of HEAD in place, and the timestamps to microseconds."""
    cdef Py_ssize_t i, n
    cdef Head* rows
    cdef double* figure
    cdef int j
    if heads.dtype != _HEAD or heads.ndim != 1 or not cnp.PyArray_ISCARRAY(heads):
        raise ValueError("expected contiguous, writable heads [n] of HEAD")
    n = len(heads)
    rows = <Head*>cnp.PyArray_DATA(heads)
    with nogil:
        for i in range(n):
            if fabs(rows[i].timestamp) < LATEST:
                rows[i].timestamp = to_micros(rows[i].timestamp) / 1e6
            figure = &rows[i].phi
            for j in range(9):
                figure[j] = rounded(figure[j])


cdef cnp.ndarray _matrix(object values):
    """A float64 matrix [n, width] with at least one entry, contiguous."""
    cdef cnp.ndarray made = np.ascontiguousarray(values, "=f8")
    if made.ndim != 2 or made.size == 0:
        raise ValueError(f"expected an array [n, width] that is not empty, got shape {list(values.shape)}")
    return made


cdef cnp.ndarray _series(cnp.ndarray values):
    if cnp.PyArray_TYPE(values) != cnp.NPY_INT64 or values.ndim != 2 or not cnp.PyArray_ISCARRAY_RO(values):
        raise ValueError("expected a contiguous int64 array [width, n]")
    if values.size == 0:
        raise ValueError("expected numbers, got none")
    return values


def ordered(object values not None):
    """Floats [n, width] as whole numbers of the same order: (numbers [width, n], bits dropped, all alike).

    The bits dropped are the lowest ones that are 0 in every value; sign and magnitude become one number.
    """
    cdef cnp.ndarray matrix = _matrix(values)
    cdef Py_ssize_t n = cnp.PyArray_DIM(matrix, 0)
    cdef Py_ssize_t width = cnp.PyArray_DIM(matrix, 1)
    cdef cnp.ndarray made = np.empty((width, n), np.int64)
    cdef const double* source = <const double*>cnp.PyArray_DATA(matrix)
    cdef int64_t* out = <int64_t*>cnp.PyArray_DATA(made)
    cdef uint64_t united = 0, different = 0, bits
    cdef uint64_t first = bits_of(source[0])
    cdef Py_ssize_t start, i, j
    cdef int shift
    with nogil:
        for i in range(n * width):
            bits = bits_of(source[i])
            united |= bits
            different |= bits ^ first
        shift = __builtin_ctzll(united) if united else 0
        start = 0
        while start < n:
            for j in range(width):
                for i in range(start, min(start + TILE, n)):
                    bits = bits_of(source[i * width + j])
                    if bits & SIGN:
                        bits = ~(bits ^ SIGN)
                    out[j * n + i] = <int64_t>bits >> shift
            start += TILE
    return made, shift, different == 0


def unordered(cnp.ndarray numbers not None, int shift):
    """The inverse of `ordered`: floats [n, width]."""
    cdef cnp.ndarray made
    cdef Py_ssize_t width, n, start, i, j
    cdef const int64_t* source
    cdef double* out
    cdef int64_t number
    cdef uint64_t bits
    _series(numbers)
    if not 0 <= shift <= 63:
        raise ValueError(f"expected 0 to 63 dropped bits, got {shift}")
    width, n = cnp.PyArray_DIM(numbers, 0), cnp.PyArray_DIM(numbers, 1)
    made = np.empty((n, width))
    source = <const int64_t*>cnp.PyArray_DATA(numbers)
    out = <double*>cnp.PyArray_DATA(made)
    with nogil:
        start = 0
        while start < n:
            for j in range(width):
                for i in range(start, min(start + TILE, n)):
                    number = source[j * n + i]
                    if number < 0:
                        bits = (<uint64_t>~number << shift) | SIGN
                    else:
                        bits = <uint64_t>number << shift
                    out[i * width + j] = of_bits(bits)
            start += TILE
    return made


def micros(object times not None):
    """Timestamps [n] as microseconds [1, n]; None where that would lose a bit."""
    cdef cnp.ndarray matrix = _matrix(np.reshape(times, (1, -1)))
    cdef Py_ssize_t n = cnp.PyArray_DIM(matrix, 1)
    cdef cnp.ndarray made = np.empty((1, n), np.int64)
    cdef const double* source = <const double*>cnp.PyArray_DATA(matrix)
    cdef int64_t* out = <int64_t*>cnp.PyArray_DATA(made)
    cdef Py_ssize_t i
    for i in range(n):
        if not fabs(source[i]) < LATEST:
            return None
        out[i] = <int64_t>to_micros(source[i])
        if bits_of(<double>out[i] / 1e6) != bits_of(source[i]):
            return None
    return made


def seconds(cnp.ndarray numbers not None):
    """The inverse of `micros`: timestamps [n]."""
    cdef cnp.ndarray made = np.empty(_series(numbers).size)
    cdef const int64_t* source = <const int64_t*>cnp.PyArray_DATA(numbers)
    cdef double* out = <double*>cnp.PyArray_DATA(made)
    cdef Py_ssize_t i
    for i in range(numbers.size):
        out[i] = <double>source[i] / 1e6
    return made


cdef bint attempt(
    const double* source, double scale, double inverse, double limit, double* out, Py_ssize_t n
) noexcept nogil:
    """Round source·scale, a vector of length `inverse`, to whole numbers; is its direction kept?

    The rounding errors d give the angle: tan θ = ‖d across the vector‖ / (its length + d along it).
    """
    cdef double square[LANES]
    cdef double along[LANES]
    cdef double exact, whole, error, parallel
    cdef double total = 0, dot = 0
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    for j in range(LANES):
        square[j] = 0.0
        along[j] = 0.0
    while i + LANES <= n:
        for j in range(LANES):
            exact = source[i + j] * scale
            whole = (exact + MAGIC) - MAGIC
            error = whole - exact
            square[j] += error * error
            along[j] += error * exact
            out[i + j] = whole
        i += LANES
    while i < n:
        exact = source[i] * scale
        whole = (exact + MAGIC) - MAGIC
        error = whole - exact
        square[0] += error * error
        along[0] += error * exact
        out[i] = whole
        i += 1
    for j in range(LANES):
        total += square[j]
        dot += along[j]
    parallel = dot / inverse
    inverse += parallel
    return total - parallel * parallel <= limit * limit * inverse * inverse


cdef bint quantise_row(
    const double* basin, double* scratch, Py_ssize_t n, int kind, double step, int tries, double limit, double* out
) noexcept nogil:
    """Whole numbers in the direction of a basin's amplitude; False where that is no state.

    A reader takes the direction alone, so that the scale is free: where rounding at one scale strays too
    far, a scale that differs by parts in ten thousand rounds anew, and a finer one always does it.
    """
    cdef double scale = 0
    cdef double inverse = 1 / step
    cdef double finer
    cdef const double* source = prepared(basin, scratch, n, kind, &scale)
    cdef int i
    if source == NULL:
        return False
    for i in range(tries):
        finer = inverse * (1 + APART * ((i + 1) // 2 if i & 1 else -(i // 2)))
        if attempt(source, scale * finer, finer, limit, out, n):
            return True
    for i in range(REFINEMENTS):
        inverse *= 1.04
        if attempt(source, scale * inverse, inverse, limit, out, n):
            return True
    return False


cdef bint quantise(
    const double* basins, Py_ssize_t n, Py_ssize_t dim, int kind, bint noisy, double* room, int64_t* out
) noexcept nogil:
    """Every row, into columns [dim][n]. `room` holds TILE + 1 rows.

    The mean square error of a row is dim·step²/12, and its standard deviation 0.894/√dim of that. Where
    scales are tried, the step is such that half of the tries fail, else such that hardly a row does.
    """
    cdef double limit = RADIANS / 2 if kind == SIMPLEX else RADIANS
    cdef double spread = 0.894 / sqrt(<double>dim)
    cdef double step = limit * sqrt(12.0 / dim / (1 if noisy else 1 + 3.3 * spread))
    cdef int tries = TRIES if noisy else 1
    cdef double* scratch = room + TILE * dim
    cdef Py_ssize_t start, i, j, rows
    start = 0
    while start < n:
        rows = min(<Py_ssize_t>TILE, n - start)
        for i in range(rows):
            if not quantise_row(
                basins + (start + i) * dim, scratch, dim, kind, step, tries, limit, room + i * dim
            ):
                return False
        for j in range(dim):
            for i in range(rows):
                out[j * n + start + i] = <int64_t>room[i * dim + j]
        start += TILE
    return True


cdef double restlessness(const int64_t* numbers, Py_ssize_t width, Py_ssize_t n) noexcept nogil:
    """Mean change from row to row."""
    cdef double total = 0
    cdef Py_ssize_t i, j
    for j in range(width):
        for i in range(1, n):
            total += fabs(<double>(numbers[j * n + i] - numbers[j * n + i - 1]))
    return total / (width * n)


cdef int _kind(object geometry) except -1:
    if geometry == "simplex":
        return SIMPLEX
    if geometry == "sphere":
        return SPHERE
    raise ValueError(f"geometry: expected 'simplex' or 'sphere', got {geometry!r}")


def quantised(object basins not None, object geometry):
    """Basins [n, dim] as whole numbers [dim, n] in the direction of their amplitudes, within 1e-4 rad.

    None where a row is no state of the geometry.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray matrix = _matrix(basins)
    cdef Py_ssize_t n = cnp.PyArray_DIM(matrix, 0)
    cdef Py_ssize_t dim = cnp.PyArray_DIM(matrix, 1)
    cdef cnp.ndarray made = np.empty((dim, n), np.int64)
    cdef const double* source = <const double*>cnp.PyArray_DATA(matrix)
    cdef int64_t* out = <int64_t*>cnp.PyArray_DATA(made)
    cdef double* room = <double*>malloc((TILE + 1) * dim * sizeof(double))
    cdef bint good
    if room == NULL:
        raise MemoryError
    with nogil:
        good = quantise(source, n, dim, kind, False, room, out)
        if good and restlessness(out, dim, n) > NOISE:
            good = quantise(source, n, dim, kind, True, room, out)
        free(room)
    return made if good else None


def states(cnp.ndarray numbers not None, object geometry):
    """States [n, dim] from whole numbers [dim, n]: weights that sum to 1, or unit vectors.

    With S the sum of a row's squares: q²/S for the simplex, q/√S for the sphere. ValueError where S is 0.
    """
    cdef int kind = _kind(geometry)
    cdef cnp.ndarray made
    cdef Py_ssize_t dim, n, start, i, j
    cdef const int64_t* source
    cdef double* out
    cdef double* row
    cdef double total
    cdef bint good = True
    _series(numbers)
    dim, n = cnp.PyArray_DIM(numbers, 0), cnp.PyArray_DIM(numbers, 1)
    made = np.empty((n, dim))
    source = <const int64_t*>cnp.PyArray_DATA(numbers)
    out = <double*>cnp.PyArray_DATA(made)
    with nogil:
        start = 0
        while start < n:
            for j in range(dim):
                for i in range(start, min(start + TILE, n)):
                    out[i * dim + j] = <double>source[j * n + i]
            for i in range(start, min(start + TILE, n)):
                row = out + i * dim
                total = 0
                if kind == SIMPLEX:
                    for j in range(dim):
                        row[j] = row[j] * row[j]
                        total += row[j]
                else:
                    for j in range(dim):
                        total += row[j] * row[j]
                if not total > 0:
                    good = False
                    break
                if kind == SPHERE:
                    total = sqrt(total)
                for j in range(dim):
                    row[j] = row[j] / total
            if not good:
                break
            start += TILE
    if not good:
        raise ValueError("a state without weight")
    return made


def pack(cnp.ndarray numbers not None):
    """Series [width, n] of whole numbers as (body, planes): the planes go to an entropy coder."""
    cdef Py_ssize_t width, n, i, size
    cdef int plane
    cdef Layout found
    cdef const int64_t* source = <const int64_t*>cnp.PyArray_DATA(_series(numbers))
    cdef cnp.ndarray room, chosen, gathered, high
    cdef int64_t* bases
    cdef int* lows
    cdef uint8_t* target
    cdef uint64_t* above
    cdef char* out
    width, n = cnp.PyArray_DIM(numbers, 0), cnp.PyArray_DIM(numbers, 1)
    chosen, high = np.empty(3 * width, np.int64), np.empty((width, n), np.uint64)
    bases = <int64_t*>cnp.PyArray_DATA(chosen)
    lows = <int*>(bases + 2 * width)
    above = <uint64_t*>cnp.PyArray_DATA(high)
    with nogil:
        size = planned(source, width, n, above, &found, bases, bases + width, lows)
    gathered = np.zeros(size + SPARE, np.uint8)
    target = <uint8_t*>cnp.PyArray_DATA(gathered)
    with nogil:
        filled(source, width, n, &found, bases, bases + width, lows, target, above)
    body = PyBytes_FromStringAndSize(<char*>target, size)
    if found.planes == PATCHES:
        size = LISTED + octets(found.count, found.place_bits) + octets(found.count, found.patch_bits)
        gathered = np.zeros(size, np.uint8)
        target = <uint8_t*>cnp.PyArray_DATA(gathered)
        patched(&found, above, n, target)
        body += PyBytes_FromStringAndSize(<char*>target, size)
    planes = PyBytes_FromStringAndSize(NULL, plane_bytes(&found, width, n))
    out = PyBytes_AS_STRING(planes)
    with nogil:
        for plane in range(plane_bytes(&found, width, n) // (width * n)):
            for i in range(width * n):
                out[plane * width * n + i] = <char>(above[i] >> (8 * plane))
    return body, planes


cdef int _check_size(Py_ssize_t rows, Py_ssize_t width) except -1:
    if rows <= 0 or width <= 0 or width > MOST // rows:
        raise ValueError(f"expected rows and width above 0 and at most {MOST} numbers, got {rows} and {width}")
    return 0


def layout(bytes body not None, Py_ssize_t rows, Py_ssize_t width):
    """Of a packed body: (where the entropy coder's bytes begin, how many bytes they must become)."""
    cdef Layout found
    _check_size(rows, width)
    if not understood(<const uint8_t*>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), width, rows, &found):
        raise ValueError(f"no packed body of {width} x {rows} numbers")
    return found.end, plane_bytes(&found, width, rows)


def unpack(bytes body not None, bytes planes not None, Py_ssize_t rows, Py_ssize_t width):
    """The inverse of `pack`: whole numbers [width, rows]. Raises ValueError where the lengths are wrong."""
    cdef Layout found
    cdef cnp.ndarray made
    cdef int64_t* out
    cdef bint good
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(body)
    cdef const uint8_t* above = <const uint8_t*>PyBytes_AS_STRING(planes)
    _check_size(rows, width)
    if not understood(data, PyBytes_GET_SIZE(body), width, rows, &found):
        raise ValueError(f"no packed body of {width} x {rows} numbers")
    if PyBytes_GET_SIZE(planes) != plane_bytes(&found, width, rows):
        raise ValueError(f"expected {plane_bytes(&found, width, rows)} bytes of planes, got {len(planes)}")
    made = np.empty((width, rows), np.int64)
    out = <int64_t*>cnp.PyArray_DATA(made)
    with nogil:
        good = restore(data, &found, above, width, rows, out)
    if not good:
        raise ValueError(f"a patch outside of {width} x {rows} numbers")
    return made
