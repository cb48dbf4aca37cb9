"""What the extensions share: the row's C layout, the rule for flagged values, the kernels of states.h.

Only C-level functions that need no Python object and no GIL. No numpy, no state, no errors raised: a
basin that is no point of its geometry comes back as NULL, and the caller says so in its own words.
"""

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

cdef extern from "states.h" nogil:
    enum:
        SIMPLEX "QIG_SIMPLEX"
        SPHERE "QIG_SPHERE"
        LANES "QIG_LANES"
        GROUP "QIG_GROUP"
    bint WIDE "qig_wide"  # whether AVX2 was found and not declined; settled before a module's own code runs

    const double* prepared "qig_prepared"(
        const double* basin, double* scratch, Py_ssize_t n, int geometry, double* scale
    ) noexcept
    const double* taken "qig_taken"(
        const double* basin, double* copy, double* scratch, Py_ssize_t n, int geometry, double* scale
    ) noexcept
    double apart "qig_apart"(
        const double* a, double scale_a, const double* b, double scale_b, Py_ssize_t n, int geometry
    ) noexcept
    Py_ssize_t measured_rows "qig_measured"(
        const double* rows, bint units, Py_ssize_t n, Py_ssize_t dim, const double* target, int geometry,
        double* out, double* scratch
    ) noexcept
    double squares_of "qig_squares"(const double* values, Py_ssize_t n) noexcept

cdef inline bint measured(const Head* row, int flag) noexcept nogil:
    """The rule for flagged values: only what the host reported itself enters a statistic."""
    return (row.repaired & flag) == 0
