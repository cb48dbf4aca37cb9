/* States, the angles between them, and the choice of instructions: what numeric.pxd declares to Cython.

   No Python, no errors raised: a basin that is no point of its geometry comes back as NULL.

   Precision policy, beside that of sums.h. Weights are never divided by their sum and then rooted; the
   roots are taken first, and the squares of the roots are summed, which makes the amplitude a unit
   vector to the last bit or two. A NaN or a negative weight turns that sum into NaN, an infinity turns
   it into infinity, so that the sum is also the check. Sums outside [1e-280, 1e280] (denormal or huge
   weights, a legal scale) go through an exact rescaling by a power of four. Angles come from chords,
   never from the arccos of a dot product, which is off by 1e-8 near 0. */

#ifndef QIG_STATES_H
#define QIG_STATES_H

#include "sums.h"

enum { QIG_SIMPLEX = 0, QIG_SPHERE = 1 };
enum { QIG_GROUP = 8 };

/* --- angles ------------------------------------------------------------------------------------------ */

/* asin(x)/x − 1 of x = √t, for t up to 1/4: a minimax polynomial, off by less than 4e-18. */
QIG_BODY double qig_excess(double t)
{
    double t2 = t * t, t4 = t2 * t2;
    double first = (0.16666666666666669 + 0.0749999999999824 * t) + (0.04464285714672422 + 0.03038194411089703 * t) * t2;
    double second =
        (0.022372174011373806 + 0.01735236832282161 * t) + (0.01397156576208011 + 0.011475820500106133 * t) * t2;
    double third = (0.010344116816839641 + 0.005368239314425456 * t)
        + (0.0176380566217018 - 0.015213833789366495 * t) * t2 + 0.028999475504909007 * t4;
    return t * (first + second * t4 + third * (t4 * t4));
}

/* 4·asin(‖a − b‖/2), which equals 2·arccos Σ√(pᵢqᵢ), from near = ‖a − b‖². Up to 2π/3 (`close`) as it
   stands; beyond, the asin of the cosine, which is small there and loses nothing to cancellation. */
QIG_BODY double qig_simplex_angle(double near, int close)
{
    double cosine = 1.0 - 0.5 * near;
    double x = close ? 0.5 * sqrt(near) : cosine;
    double part = x + x * qig_excess(close ? 0.25 * near : cosine * cosine);
    double radians = close ? 4.0 * part : M_PI - 2.0 * part;
    return radians < M_PI ? radians : M_PI;
}

QIG_BODY int qig_is_close(double near) { return near <= 1.0; }

/* 2·atan2(‖a − b‖, ‖a + b‖) (Kahan 2006, "How Futile are Mindless Assessments of Roundoff", §12 "Mangled
   Angles") from the squares of both: within π/3 of either end (`outer`) by the shorter chord, between by the
   cosine. Ratios of both, so that a length that is off by a bit does not show. */
QIG_BODY double qig_sphere_angle(double near, double far, int outer)
{
    double ratio = (outer ? (near < far ? near : far) : far - near) / (near + far);
    double x = outer ? sqrt(ratio) : ratio;
    double part = x + x * qig_excess(outer ? ratio : ratio * ratio);
    double end = near < far ? 2.0 * part : M_PI - 2.0 * part;
    return outer ? end : M_PI_2 - part;
}

QIG_BODY int qig_is_outer(double near, double far) { return (near < far ? near : far) <= 0.25 * (near + far); }

/* --- states ------------------------------------------------------------------------------------------ */

QIG_BODY int qig_is_safe(double total) { return (1e-280 <= total) & (total <= 1e280); }

/* `qig_prepared` for sums that left the safe range: exact, by a power of four, or NULL. */
QIG_ENTRY const double *qig_rescaled(const double *basin, double *scratch, ptrdiff_t n, int geometry, double *scale)
{
    double largest = 0.0, total;
    int exponent;
    for (ptrdiff_t i = 0; i < n; i++) {
        double size = fabs(basin[i]);
        if (!(size < INFINITY) || (geometry == QIG_SIMPLEX && basin[i] < 0.0))
            return NULL;
        largest = size > largest ? size : largest;
    }
    if (largest == 0.0)
        return NULL;
    frexp(largest, &exponent);
    exponent -= exponent & 1; /* an even power, whose root is exact */
    for (ptrdiff_t i = 0; i < n; i++)
        scratch[i] = ldexp(basin[i], -exponent);
    total = geometry == QIG_SIMPLEX ? qig_roots(scratch, scratch, n, 0) : qig_squares_of(scratch, n);
    *scale = 1.0 / sqrt(total);
    return scratch;
}

QIG_BODY const double *qig_prepared_body(const double *basin, double *scratch, ptrdiff_t n, int geometry,
                                         double *scale, int wide)
{
    double total = geometry == QIG_SIMPLEX ? qig_roots(basin, scratch, n, wide) : qig_squares_of(basin, n);
    if (!qig_is_safe(total))
        return qig_rescaled(basin, scratch, n, geometry, scale);
    *scale = 1.0 / sqrt(total);
    return geometry == QIG_SIMPLEX ? scratch : basin;
}

#if QIG_HAS_WIDE
QIG_WIDE static inline ptrdiff_t qig_copy_wide(double *copy, const double *values, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256d four = _mm256_loadu_pd(values + i);
        __asm__("" : "+x"(four));
        _mm256_storeu_pd(copy + i, four);
    }
    return i;
}
#endif

/* Copies in loads and stores of the width in which the copy is read back at once. memcpy's are wider and
   overlap, and what spans two of them cannot be handed on before it has reached the cache: 35 ns in 64
   components. The empty statements keep the compiler from making a memcpy of it. */
QIG_BODY void qig_copy(double *copy, const double *values, ptrdiff_t n, int wide)
{
#if QIG_HAS_WIDE
    ptrdiff_t i = 0;
    if (wide)
        i = qig_copy_wide(copy, values, n);
    for (; i + 2 <= n; i += 2) {
        __m128d two = _mm_loadu_pd(values + i);
        __asm__("" : "+x"(two));
        _mm_storeu_pd(copy + i, two);
    }
    if (i < n)
        copy[i] = values[i];
#else
    (void)wide;
    memcpy(copy, values, n * sizeof(double));
#endif
}

QIG_BODY const double *qig_taken_body(const double *basin, double *copy, double *scratch, ptrdiff_t n, int geometry,
                                      double *scale, int wide)
{
    qig_copy(copy, basin, n, wide);
    return qig_prepared_body(copy, scratch, n, geometry, scale, wide);
}

QIG_BODY double qig_apart_body(const double *a, double scale_a, const double *b, double scale_b, ptrdiff_t n,
                               int geometry, int wide)
{
    double near, far;
    if (geometry == QIG_SIMPLEX) {
        qig_gaps_of(a, scale_a, b, scale_b, n, 0, &near, &far, wide);
        return qig_is_close(near) ? qig_simplex_angle(near, 1) : qig_simplex_angle(near, 0);
    }
    qig_gaps_of(a, scale_a, b, scale_b, n, 1, &near, &far, wide);
    return qig_is_outer(near, far) ? qig_sphere_angle(near, far, 1) : qig_sphere_angle(near, far, 0);
}

/* Eight rows stage by stage, so that they fill one another's waiting times and share the angle's
   instructions. Returns 0 where one of them has to be looked at by itself. */
QIG_BODY int qig_group(const double *rows, int units, ptrdiff_t dim, const double *target, int geometry, double *out,
                       double *scratch, int wide)
{
    double scale[QIG_GROUP], near[QIG_GROUP], far[QIG_GROUP];
    const double *vectors = !units && geometry == QIG_SIMPLEX ? scratch : rows;
    int safe = 1;
    for (int r = 0; r < QIG_GROUP; r++)
        scale[r] = units ? 1.0
            : geometry == QIG_SIMPLEX ? qig_roots(rows + r * dim, scratch + r * dim, dim, wide)
                                      : qig_squares_of(rows + r * dim, dim);
    for (int r = 0; r < QIG_GROUP; r++)
        safe &= qig_is_safe(scale[r]);
    if (!safe)
        return 0;
    for (int r = 0; r < QIG_GROUP; r++)
        scale[r] = 1.0 / sqrt(scale[r]);
    if (geometry == QIG_SIMPLEX) {
        for (int r = 0; r < QIG_GROUP; r++)
            qig_gaps_of(vectors + r * dim, scale[r], target, 1.0, dim, 0, near + r, far + r, wide);
        for (int r = 0; r < QIG_GROUP; r++)
            out[r] = qig_simplex_angle(near[r], qig_is_close(near[r]));
    } else {
        for (int r = 0; r < QIG_GROUP; r++)
            qig_gaps_of(vectors + r * dim, scale[r], target, 1.0, dim, 1, near + r, far + r, wide);
        for (int r = 0; r < QIG_GROUP; r++)
            out[r] = qig_sphere_angle(near[r], far[r], qig_is_outer(near[r], far[r]));
    }
    return 1;
}

QIG_BODY ptrdiff_t qig_measured_body(const double *rows, int units, ptrdiff_t n, ptrdiff_t dim, const double *target,
                                     int geometry, double *out, double *scratch, int wide)
{
    ptrdiff_t i = 0;
    while (i < n) {
        ptrdiff_t stop = n - i < QIG_GROUP ? n : i + QIG_GROUP;
        if (stop - i == QIG_GROUP
            && qig_group(rows + i * dim, units, dim, target, geometry, out + i, scratch, wide)) {
            i = stop;
            continue;
        }
        for (; i < stop; i++) {
            double scale = 1.0;
            const double *row = rows + i * dim;
            if (!units && (row = qig_prepared_body(row, scratch, dim, geometry, &scale, wide)) == NULL)
                return i;
            out[i] = qig_apart_body(row, scale, target, 1.0, dim, geometry, wide);
        }
    }
    return n;
}

/* --- entries ----------------------------------------------------------------------------------------- */

#if QIG_HAS_WIDE
#define QIG_DISPATCHED(type, name, parameters, ...)                                      \
    QIG_ENTRY type name##_plain parameters { return name##_body(__VA_ARGS__, 0); }       \
    QIG_WIDE QIG_ENTRY type name##_avx2 parameters { return name##_body(__VA_ARGS__, 1); } \
    static inline type name parameters { return qig_wide ? name##_avx2(__VA_ARGS__) : name##_plain(__VA_ARGS__); }
#else
#define QIG_DISPATCHED(type, name, parameters, ...) \
    static inline type name parameters { return name##_body(__VA_ARGS__, 0); }
#endif

/* A vector that times `scale` is the amplitude of `basin`; NULL where that is no state. `scratch` has room
   for n values and may hold the result; `basin` is left as it is. */
QIG_DISPATCHED(const double *, qig_prepared,
               (const double *basin, double *scratch, ptrdiff_t n, int geometry, double *scale),
               basin, scratch, n, geometry, scale)

/* `qig_prepared` of a copy of `basin`, which other threads may be writing to. */
QIG_DISPATCHED(const double *, qig_taken,
               (const double *basin, double *copy, double *scratch, ptrdiff_t n, int geometry, double *scale),
               basin, copy, scratch, n, geometry, scale)

/* Radians between two prepared states, in [0, π]. */
QIG_DISPATCHED(double, qig_apart,
               (const double *a, double scale_a, const double *b, double scale_b, ptrdiff_t n, int geometry),
               a, scale_a, b, scale_b, n, geometry)

/* Radians from each row to the amplitude `target`, the same as by the two above; returns how many rows were
   measured before one that is no state. `units`: the rows are amplitudes themselves. `scratch` has room for
   QIG_GROUP rows. */
QIG_DISPATCHED(ptrdiff_t, qig_measured,
               (const double *rows, int units, ptrdiff_t n, ptrdiff_t dim, const double *target, int geometry,
                double *out, double *scratch),
               rows, units, n, dim, target, geometry, out, scratch)

static inline double qig_squares(const double *values, ptrdiff_t n) { return qig_squares_of(values, n); }

#endif
