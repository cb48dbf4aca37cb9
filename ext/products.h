/* Products of one embedding with many centroids: the loop behind `qigcore.estimators.embeddings`.

   Precision policy. An embedding is scaled to length 1 in double and rounded once to float32; products and
   their sums over QIG_RUN components are float32, the sums of those runs double. Each centroid has an
   accumulator of its own, which takes the components in order, so that the order of additions does not
   depend on the width of the registers: each instruction set gives the same bits. A cosine is off by at
   most 64·2^-24 + 2^-23 < 4e-6, for unit vectors of any length. */

#ifndef QIG_PRODUCTS_H
#define QIG_PRODUCTS_H

#include "states.h"

enum { QIG_COLUMNS = 64, QIG_RUN = 64 };

#if QIG_HAS_WIDE
/* Eight accumulators of eight floats stay in registers for the whole run: the compiler's own version of the
   loop below keeps them in memory. */
QIG_WIDE static inline void qig_run_wide(const float *x, const float *columns, ptrdiff_t n, float *sums)
{
    __m256 sum[8], one;
    for (int k = 0; k < 8; k++)
        sum[k] = _mm256_setzero_ps();
    for (ptrdiff_t i = 0; i < n; i++) {
        one = _mm256_broadcast_ss(x + i);
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++)
            sum[k] = _mm256_add_ps(sum[k], _mm256_mul_ps(one, _mm256_load_ps(columns + i * QIG_COLUMNS + 8 * k)));
    }
    for (int k = 0; k < 8; k++)
        _mm256_storeu_ps(sums + 8 * k, sum[k]);
}
#endif

QIG_BODY void qig_run_plain(const float *x, const float *columns, ptrdiff_t n, float *sums)
{
    for (int half = 0; half < QIG_COLUMNS; half += 32) { /* 32 floats fill half of the plain registers */
        float sum[32] = {0.0f};
        for (ptrdiff_t i = 0; i < n; i++)
            for (int k = 0; k < 32; k++)
                sum[k] += x[i] * columns[i * QIG_COLUMNS + half + k];
        for (int k = 0; k < 32; k++)
            sums[half + k] = sum[k];
    }
}

/* out[k] = Σᵢ x[i]·columns[i][k] for the QIG_COLUMNS columns of each of `blocks` blocks, which begin at multiples
   of 64 bytes. */
QIG_BODY void qig_products_body(const float *x, const float *columns, ptrdiff_t n, ptrdiff_t blocks, double *out,
                                int wide)
{
    float sums[QIG_COLUMNS];
    for (ptrdiff_t b = 0; b < blocks; b++, columns += n * QIG_COLUMNS, out += QIG_COLUMNS) {
        for (int k = 0; k < QIG_COLUMNS; k++)
            out[k] = 0.0;
        for (ptrdiff_t i = 0; i < n; i += QIG_RUN) {
            ptrdiff_t m = n - i < QIG_RUN ? n - i : QIG_RUN;
#if QIG_HAS_WIDE
            if (wide)
                qig_run_wide(x + i, columns + i * QIG_COLUMNS, m, sums);
            else
#endif
                qig_run_plain(x + i, columns + i * QIG_COLUMNS, m, sums);
            for (int k = 0; k < QIG_COLUMNS; k++)
                out[k] += (double)sums[k];
        }
    }
    (void)wide;
}
QIG_DISPATCHED(void, qig_products,
               (const float *x, const float *columns, ptrdiff_t n, ptrdiff_t blocks, double *out),
               x, columns, n, blocks, out)

/* x at length 1 in float32, or 0 where that does not exist (a NaN, an infinity, zeros only). Lengths outside
   the safe range are found by way of the largest component. */
#define QIG_UNIT(name, type)                                                              \
    QIG_ENTRY int name(const type *x, float *unit, ptrdiff_t n)                           \
    {                                                                                     \
        double lane[QIG_LANES] = {0.0}, shrink = 1.0, total, scale;                       \
        for (int turn = 0; turn < 2; turn++) {                                            \
            ptrdiff_t i = 0;                                                              \
            memset(lane, 0, sizeof lane);                                                 \
            for (; i + QIG_LANES <= n; i += QIG_LANES)                                    \
                for (int j = 0; j < QIG_LANES; j++)                                       \
                    lane[j] += ((double)x[i + j] * shrink) * ((double)x[i + j] * shrink); \
            for (int j = 0; i < n; i++, j++)                                              \
                lane[j] += ((double)x[i] * shrink) * ((double)x[i] * shrink);             \
            total = qig_folded(lane);                                                     \
            if (qig_is_safe(total)) {                                                     \
                scale = 1.0 / sqrt(total);                                                \
                for (i = 0; i < n; i++)                                                   \
                    unit[i] = (float)(((double)x[i] * shrink) * scale);                   \
                return 1;                                                                 \
            }                                                                             \
            double largest = 0.0;                                                         \
            for (i = 0; i < n; i++) {                                                     \
                if (!(fabs((double)x[i]) < INFINITY))                                     \
                    return 0;                                                             \
                largest = fabs((double)x[i]) > largest ? fabs((double)x[i]) : largest;    \
            }                                                                             \
            if (largest == 0.0)                                                           \
                return 0;                                                                 \
            int exponent;                                                                 \
            frexp(largest, &exponent);                                                    \
            shrink = ldexp(1.0, exponent < -1000 ? 1000 : 1 - exponent);                  \
        }                                                                                 \
        return 0;                                                                         \
    }
QIG_UNIT(qig_unit_of_floats, float)
QIG_UNIT(qig_unit_of_doubles, double)

#endif
