"""Inline maths and the row's C layout, shared by the extensions.

Only C-level functions that need no Python object and no GIL: normalising a basin, measuring
between two, and the rule for flagged values. No numpy, no state, no errors raised: a basin that is
no point of its geometry comes back as NULL, and the caller says so in its own words.

Precision policy. Every sum runs in eight accumulators, over blocks of 512 terms whose totals are
added with compensation; the order of additions is thus fixed by the source, so that each
instruction set gives the same bits, and the error of a sum does not grow with dim. Weights are
never divided by their sum and then rooted; the roots are taken first, and the squares of the roots
are summed, which makes the amplitude a unit vector to the last bit or two. A NaN or a negative weight
turns that sum into NaN, an infinity turns it into infinity, so that the sum is also the check.
Sums outside [1e-280, 1e280] (denormal or huge weights, a legal scale) go through an exact rescaling
by a power of four.
"""

from libc.math cimport INFINITY, M_PI, asin, atan2, fabs, frexp, ldexp, sqrt
from libc.stdint cimport uint8_t, uint16_t

cdef struct Head:
    # qigcore.rows.HEAD, 88 bytes without padding; tests hold the two together.
    double timestamp
    double phi
    double kappa_eff
    double basin_drift
    double error_rate
    double avg_latency_ms
    double memory_mb
    double confidence
    double surprise
    double agency
    uint16_t repaired
    uint8_t regime
    uint8_t reserved
    uint16_t code
    uint16_t module

cdef enum Flag:
    # The bits of Head.repaired, as in qigcore.rows.REPAIRABLE.
    PHI = 1
    KAPPA = 2
    BASIN = 4
    ERRORS = 8
    LATENCY = 16
    MEMORY = 32
    CONFIDENCE = 64
    SURPRISE = 128
    AGENCY = 256

cdef enum Geometry:
    SIMPLEX = 0
    SPHERE = 1

cdef enum:
    LANES = 8
    BLOCK = 512

cdef inline bint measured(const Head* row, int flag) noexcept nogil:
    """The rule for flagged values: only what the host reported itself enters a statistic."""
    return (row.repaired & flag) == 0

cdef inline double folded(const double* lane) noexcept nogil:
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]))

cdef inline void add(double* total, double* lost, double part) noexcept nogil:
    # Neumaier's compensated sum; `lost` collects what rounding dropped.
    cdef double together = total[0] + part
    if fabs(total[0]) >= fabs(part):
        lost[0] += (total[0] - together) + part
    else:
        lost[0] += (part - together) + total[0]
    total[0] = together

cdef inline double roots_block(const double* weights, double* roots, Py_ssize_t n) noexcept nogil:
    cdef double lane[LANES]
    cdef double root[LANES]
    cdef double last
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    for j in range(LANES):
        lane[j] = 0.0
    while i + LANES <= n:
        for j in range(LANES):
            root[j] = sqrt(weights[i + j])
        for j in range(LANES):
            lane[j] += root[j] * root[j]
        for j in range(LANES):
            roots[i + j] = root[j]
        i += LANES
    while i < n:
        last = sqrt(weights[i])
        lane[i % LANES] += last * last
        roots[i] = last
        i += 1
    return folded(lane)

cdef inline double squares_block(const double* values, Py_ssize_t n) noexcept nogil:
    cdef double lane[LANES]
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    for j in range(LANES):
        lane[j] = 0.0
    while i + LANES <= n:
        for j in range(LANES):
            lane[j] += values[i + j] * values[i + j]
        i += LANES
    while i < n:
        lane[i % LANES] += values[i] * values[i]
        i += 1
    return folded(lane)

cdef inline double gap_block(
    const double* a, double scale_a, const double* b, double scale_b, double sign, Py_ssize_t n
) noexcept nogil:
    cdef double lane[LANES]
    cdef double step
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t j
    scale_b = sign * scale_b
    for j in range(LANES):
        lane[j] = 0.0
    while i + LANES <= n:
        for j in range(LANES):
            step = a[i + j] * scale_a - b[i + j] * scale_b
            lane[j] += step * step
        i += LANES
    while i < n:
        step = a[i] * scale_a - b[i] * scale_b
        lane[i % LANES] += step * step
        i += 1
    return folded(lane)

cdef inline double roots_of(const double* weights, double* roots, Py_ssize_t n) noexcept nogil:
    """Writes √weights and returns the sum of the squares of the roots."""
    cdef double total, lost
    cdef Py_ssize_t start
    if n <= BLOCK:
        return roots_block(weights, roots, n)
    total = lost = 0.0
    start = 0
    while start < n:
        add(&total, &lost, roots_block(weights + start, roots + start, min(BLOCK, n - start)))
        start += BLOCK
    return total + lost

cdef inline double squares_of(const double* values, Py_ssize_t n) noexcept nogil:
    """Sum of squares."""
    cdef double total, lost
    cdef Py_ssize_t start
    if n <= BLOCK:
        return squares_block(values, n)
    total = lost = 0.0
    start = 0
    while start < n:
        add(&total, &lost, squares_block(values + start, min(BLOCK, n - start)))
        start += BLOCK
    return total + lost

cdef inline double gap(
    const double* a, double scale_a, const double* b, double scale_b, double sign, Py_ssize_t n
) noexcept nogil:
    """‖a·scale_a − sign·b·scale_b‖², for sign 1 or −1."""
    cdef double total, lost
    cdef Py_ssize_t start
    if n <= BLOCK:
        return gap_block(a, scale_a, b, scale_b, sign, n)
    total = lost = 0.0
    start = 0
    while start < n:
        add(&total, &lost, gap_block(a + start, scale_a, b + start, scale_b, sign, min(BLOCK, n - start)))
        start += BLOCK
    return total + lost

cdef inline const double* rescaled(
    const double* basin, double* scratch, Py_ssize_t n, int geometry, double* scale
) noexcept nogil:
    """`prepared` for sums that left the safe range: exact, by a power of four, or NULL."""
    cdef double largest = 0.0
    cdef double size, total
    cdef int exponent
    cdef Py_ssize_t i
    for i in range(n):
        size = fabs(basin[i])
        if not size < INFINITY or (geometry == SIMPLEX and basin[i] < 0.0):
            return NULL
        if size > largest:
            largest = size
    if largest == 0.0:
        return NULL
    frexp(largest, &exponent)
    exponent -= exponent & 1  # an even power, whose root is exact
    for i in range(n):
        scratch[i] = ldexp(basin[i], -exponent)
    if geometry == SIMPLEX:
        total = roots_of(scratch, scratch, n)
    else:
        total = squares_of(scratch, n)
    scale[0] = 1.0 / sqrt(total)
    return scratch

cdef inline const double* prepared(
    const double* basin, double* scratch, Py_ssize_t n, int geometry, double* scale
) noexcept nogil:
    """A vector that times `scale` is the amplitude of `basin`; NULL where that is no state.

    `scratch` has room for n values and may hold the result; `basin` is left as it is.
    """
    cdef double total
    if geometry == SIMPLEX:
        total = roots_of(basin, scratch, n)
        if 1e-280 <= total <= 1e280:
            scale[0] = 1.0 / sqrt(total)
            return scratch
    else:
        total = squares_of(basin, n)
        if 1e-280 <= total <= 1e280:
            scale[0] = 1.0 / sqrt(total)
            return basin
    return rescaled(basin, scratch, n, geometry, scale)

cdef inline double apart(
    const double* a, double scale_a, const double* b, double scale_b, Py_ssize_t n, int geometry
) noexcept nogil:
    """Radians between two prepared states, in [0, π].

    Simplex: 4·asin(‖a − b‖/2), which equals 2·arccos Σ√(pᵢqᵢ); sphere: 2·atan2(‖a − b‖, ‖a + b‖)
    (Kahan 2006, "How Futile are Mindless Assessments of Roundoff", §12 "Mangled Angles"). Neither loses
    digits near 0, as the arccos of a dot product does.
    """
    cdef double near = sqrt(gap(a, scale_a, b, scale_b, 1.0, n))
    cdef double radians
    if geometry == SIMPLEX:
        radians = 4.0 * asin(0.5 * near)
    else:
        radians = 2.0 * atan2(near, sqrt(gap(a, scale_a, b, scale_b, -1.0, n)))
    return radians if radians < M_PI else M_PI
