/* The loops over components: roots, sums of squares, squared chords; what states.h is made of.

   Each body is compiled for the plain processor and, on x86-64, once more for AVX2 with FMA; which of
   the two runs is settled when an extension is loaded. What AVX2 does in another way than the plain
   loop stands beside it, as `_wide`. No Python, no geometry, no state but that choice.

   Precision policy. Every sum runs in eight accumulators, over blocks of 128 terms whose totals are
   added with compensation; the order of additions is thus fixed by the source, and the error of a sum
   does not grow with dim. Nothing is fused but inside `qig_newton_roots`, which gives the correctly
   rounded roots that the processor's own instruction gives. So each instruction set gives the same
   bits, and the distance from a state to itself is exactly 0. */

#ifndef QIG_SUMS_H
#define QIG_SUMS_H

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define QIG_HAS_WIDE 1
#define QIG_WIDE __attribute__((target("avx2,fma")))
#else
#define QIG_HAS_WIDE 0
#endif
/* A body is inlined into each of its entries, and so compiled for the instruction set of each. */
#define QIG_BODY static inline __attribute__((always_inline))
#define QIG_ENTRY static __attribute__((noinline, unused))

enum { QIG_LANES = 8, QIG_BLOCK = 128 };

static int qig_wide = 0;
#if QIG_HAS_WIDE
/* Before the module's own code. QIGHEAL_SIMD=plain in the environment declines AVX2. */
__attribute__((constructor)) static void qig_choose(void)
{
    const char *asked = getenv("QIGHEAL_SIMD");
    __builtin_cpu_init();
    qig_wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && !(asked != NULL && strcmp(asked, "plain") == 0);
}
#endif

/* --- sums, block by block ---------------------------------------------------------------------------- */

QIG_BODY double qig_folded(const double *lane)
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* The end of a block, from component i on, which is a multiple of eight. */
QIG_BODY double qig_last_roots(const double *weights, double *roots, ptrdiff_t i, ptrdiff_t n, double *lane)
{
    for (int j = 0; i < n; i++, j++) {
        double root = sqrt(weights[i]);
        lane[j % QIG_LANES] += root * root;
        roots[i] = root;
    }
    return qig_folded(lane);
}

QIG_BODY double qig_roots_block(const double *weights, double *roots, ptrdiff_t n)
{
    double lane[QIG_LANES] = {0.0}, root[QIG_LANES];
    ptrdiff_t i = 0;
    for (; i + QIG_LANES <= n; i += QIG_LANES) {
        for (int j = 0; j < QIG_LANES; j++)
            root[j] = sqrt(weights[i + j]);
        for (int j = 0; j < QIG_LANES; j++)
            lane[j] += root[j] * root[j];
        for (int j = 0; j < QIG_LANES; j++)
            roots[i + j] = root[j];
    }
    return qig_last_roots(weights, roots, i, n, lane);
}

QIG_BODY double qig_squares_block(const double *values, ptrdiff_t n)
{
    double lane[QIG_LANES] = {0.0};
    ptrdiff_t i = 0;
    for (; i + QIG_LANES <= n; i += QIG_LANES)
        for (int j = 0; j < QIG_LANES; j++)
            lane[j] += values[i + j] * values[i + j];
    for (int j = 0; i < n; i++, j++)
        lane[j] += values[i] * values[i];
    return qig_folded(lane);
}

/* near: ‖a·scale_a − b·scale_b‖²; where `both` is said also far: ‖a·scale_a + b·scale_b‖². */
QIG_BODY void qig_gaps_block(const double *a, double scale_a, const double *b, double scale_b, ptrdiff_t n,
                             int both, double *near, double *far)
{
    double lane[QIG_LANES] = {0.0}, other[QIG_LANES] = {0.0}, step;
    ptrdiff_t i = 0;
    for (; i + QIG_LANES <= n; i += QIG_LANES) {
        for (int j = 0; j < QIG_LANES; j++) {
            step = a[i + j] * scale_a - b[i + j] * scale_b;
            lane[j] += step * step;
        }
        for (int j = 0; both && j < QIG_LANES; j++) {
            step = a[i + j] * scale_a + b[i + j] * scale_b;
            other[j] += step * step;
        }
    }
    for (int j = 0; i < n; i++, j++) {
        step = a[i] * scale_a - b[i] * scale_b;
        lane[j] += step * step;
        step = a[i] * scale_a + b[i] * scale_b;
        other[j] += step * step;
    }
    *near = qig_folded(lane);
    if (both)
        *far = qig_folded(other);
}

#if QIG_HAS_WIDE
/* Four roots without the divider: an estimate of 1/√x from the bits of x (Lomont 2003, "Fast Inverse Square
   Root") goes from 5 bits to 20 by a minimax cubic; one step of third order brings √x and 1/(2√x) to full
   length together; the exact remainder x − g² sets the last bit right (Markstein 1990, "Computation of
   elementary functions on the IBM RISC System/6000 processor"). What precedes the last rounding is off by
   less than 2^-100, so that it can only go wrong where a root lies that near to halfway between two doubles:
   the tests try each such root. Zeros stay zeros. `odd` gets the sign of lanes set that are negative, or
   below 2^-900 and not 0, for which this does not hold. */
QIG_WIDE static inline __m256d qig_newton_roots(__m256d x, __m256d *odd)
{
    const __m256d half = _mm256_set1_pd(0.5), one = _mm256_set1_pd(1.0);
    const __m256i bits = _mm256_castpd_si256(x);
    const __m256i low = _mm256_sub_epi64(bits, _mm256_set1_epi64x(0x07b0000000000000));
    const __m256i zero = _mm256_add_epi64(bits, _mm256_set1_epi64x(-1));
    __m256d y, e, p, g, h, r, s;
    *odd = _mm256_or_pd(*odd, _mm256_or_pd(x, _mm256_castsi256_pd(_mm256_andnot_si256(zero, low))));
    y = _mm256_castsi256_pd(_mm256_sub_epi64(_mm256_set1_epi64x(0x5fe6eb50c7b537a9), _mm256_srli_epi64(bits, 1)));
    e = _mm256_fnmadd_pd(_mm256_mul_pd(x, y), y, one);
    p = _mm256_fmadd_pd(_mm256_set1_pd(0.31259888141971937), e, _mm256_set1_pd(0.3762834548939988));
    p = _mm256_fmadd_pd(p, e, _mm256_set1_pd(0.5000014994128871));
    p = _mm256_fmadd_pd(p, e, _mm256_set1_pd(0.9999992478959159));
    y = _mm256_mul_pd(y, p);
    g = _mm256_mul_pd(x, y);
    h = _mm256_mul_pd(half, y);
    r = _mm256_fnmadd_pd(g, h, half);
    s = _mm256_mul_pd(r, _mm256_fmadd_pd(_mm256_set1_pd(1.5), r, one));
    g = _mm256_fmadd_pd(g, s, g);
    h = _mm256_fmadd_pd(h, s, h);
    return _mm256_fmadd_pd(_mm256_fnmadd_pd(g, g, x), h, g);
}

QIG_WIDE static inline double qig_folded_wide(__m256d low, __m256d high)
{
    const __m256d pairs = _mm256_hadd_pd(low, high);
    const __m128d fours = _mm_add_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd(pairs, 1));
    return _mm_cvtsd_f64(fours) + _mm_cvtsd_f64(_mm_unpackhi_pd(fours, fours));
}

/* The divider takes 3 cycles a root whatever the width of its instruction, so half of the roots go past it.
   The last eight do not: nothing waits behind the divider there, and it answers sooner. */
QIG_WIDE static inline double qig_roots_wide(const double *weights, double *roots, ptrdiff_t n)
{
    __m256d low = _mm256_setzero_pd(), high = low, odd = low, a, b;
    double lane[QIG_LANES];
    ptrdiff_t i = 0;
#pragma GCC unroll 4
    for (; i + QIG_LANES < n; i += QIG_LANES) {
        a = _mm256_sqrt_pd(_mm256_loadu_pd(weights + i));
        b = qig_newton_roots(_mm256_loadu_pd(weights + i + 4), &odd);
        low = _mm256_add_pd(low, _mm256_mul_pd(a, a));
        high = _mm256_add_pd(high, _mm256_mul_pd(b, b));
        _mm256_storeu_pd(roots + i, a);
        _mm256_storeu_pd(roots + i + 4, b);
    }
    if (_mm256_movemask_pd(odd))
        return qig_roots_block(weights, roots, n);
    if (i + QIG_LANES == n) {
        a = _mm256_sqrt_pd(_mm256_loadu_pd(weights + i));
        b = _mm256_sqrt_pd(_mm256_loadu_pd(weights + i + 4));
        _mm256_storeu_pd(roots + i, a);
        _mm256_storeu_pd(roots + i + 4, b);
        return qig_folded_wide(_mm256_add_pd(low, _mm256_mul_pd(a, a)), _mm256_add_pd(high, _mm256_mul_pd(b, b)));
    }
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    return qig_last_roots(weights, roots, i, n, lane);
}

QIG_WIDE static inline void qig_gaps_wide(const double *a, double scale_a, const double *b, double scale_b,
                                          ptrdiff_t n, int both, double *near, double *far)
{
    const __m256d by_a = _mm256_set1_pd(scale_a), by_b = _mm256_set1_pd(scale_b);
    __m256d low = _mm256_setzero_pd(), high = low, other_low = low, other_high = low;
    __m256d a_low, a_high, b_low, b_high, step_low, step_high;
    if (n % QIG_LANES) {
        qig_gaps_block(a, scale_a, b, scale_b, n, both, near, far);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i += QIG_LANES) {
        a_low = _mm256_mul_pd(_mm256_loadu_pd(a + i), by_a);
        a_high = _mm256_mul_pd(_mm256_loadu_pd(a + i + 4), by_a);
        b_low = _mm256_mul_pd(_mm256_loadu_pd(b + i), by_b);
        b_high = _mm256_mul_pd(_mm256_loadu_pd(b + i + 4), by_b);
        step_low = _mm256_sub_pd(a_low, b_low);
        step_high = _mm256_sub_pd(a_high, b_high);
        low = _mm256_add_pd(low, _mm256_mul_pd(step_low, step_low));
        high = _mm256_add_pd(high, _mm256_mul_pd(step_high, step_high));
        if (both) {
            step_low = _mm256_add_pd(a_low, b_low);
            step_high = _mm256_add_pd(a_high, b_high);
            other_low = _mm256_add_pd(other_low, _mm256_mul_pd(step_low, step_low));
            other_high = _mm256_add_pd(other_high, _mm256_mul_pd(step_high, step_high));
        }
    }
    *near = qig_folded_wide(low, high);
    if (both)
        *far = qig_folded_wide(other_low, other_high);
}
#else
#define qig_roots_wide qig_roots_block
#define qig_gaps_wide qig_gaps_block
#endif

/* --- sums of any length ------------------------------------------------------------------------------ */

typedef struct {
    double total, lost;
} QigSum;

/* Neumaier's compensated sum; `lost` collects what rounding dropped. */
QIG_BODY void qig_add(QigSum *sum, double part)
{
    double together = sum->total + part;
    if (fabs(sum->total) >= fabs(part))
        sum->lost += (sum->total - together) + part;
    else
        sum->lost += (part - together) + sum->total;
    sum->total = together;
}

/* Writes √weights and returns the sum of the squares of the roots. */
QIG_BODY double qig_roots(const double *weights, double *roots, ptrdiff_t n, int wide)
{
    QigSum sum = {0.0, 0.0};
    if (n <= QIG_BLOCK)
        return wide ? qig_roots_wide(weights, roots, n) : qig_roots_block(weights, roots, n);
    for (ptrdiff_t i = 0; i < n; i += QIG_BLOCK) {
        ptrdiff_t m = n - i < QIG_BLOCK ? n - i : QIG_BLOCK;
        qig_add(&sum, wide ? qig_roots_wide(weights + i, roots + i, m) : qig_roots_block(weights + i, roots + i, m));
    }
    return sum.total + sum.lost;
}

QIG_BODY double qig_squares_of(const double *values, ptrdiff_t n)
{
    QigSum sum = {0.0, 0.0};
    if (n <= QIG_BLOCK)
        return qig_squares_block(values, n);
    for (ptrdiff_t i = 0; i < n; i += QIG_BLOCK)
        qig_add(&sum, qig_squares_block(values + i, n - i < QIG_BLOCK ? n - i : QIG_BLOCK));
    return sum.total + sum.lost;
}

QIG_BODY void qig_gaps_of(const double *a, double scale_a, const double *b, double scale_b, ptrdiff_t n, int both,
                          double *near, double *far, int wide)
{
    QigSum nears = {0.0, 0.0}, fars = {0.0, 0.0};
    for (ptrdiff_t i = 0; i < n; i += QIG_BLOCK) {
        ptrdiff_t m = n - i < QIG_BLOCK ? n - i : QIG_BLOCK;
        if (wide)
            qig_gaps_wide(a + i, scale_a, b + i, scale_b, m, both, near, far);
        else
            qig_gaps_block(a + i, scale_a, b + i, scale_b, m, both, near, far);
        if (n <= QIG_BLOCK)
            return;
        qig_add(&nears, *near);
        if (both)
            qig_add(&fars, *far);
    }
    *near = nears.total + nears.lost;
    if (both)
        *far = fars.total + fars.lost;
}

#endif
