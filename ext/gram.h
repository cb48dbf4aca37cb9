/* Products over a whole window of rows, and the factors of what they make: what a baseline is learned with.

   No Python, no memory of its own. Rows are [n, k], one after another.

   Precision policy, beside that of sums.h. Each element of a Gram matrix has an accumulator of its own, which
   takes the rows in order and is added to the total after each QIG_SPAN rows: neither the width of the
   registers nor the shape of a tile shows in the bits, and the error does not grow with the window. Rows are
   taken about their mean before they are multiplied, never after. No threads; nothing is fused. */

#ifndef QIG_GRAM_H
#define QIG_GRAM_H

#include "detect.h"

enum { QIG_SPAN = 128, QIG_STRIP = 8 };

/* out += aᵀ·b of `n` rows of two strips, four of a's columns beside all eight of b's. m: columns of out. */
QIG_BODY void qig_tile(const double *a, const double *b, ptrdiff_t n, double *out, ptrdiff_t m)
{
    qig_four low[4] = {{0.0}}, high[4] = {{0.0}};
    for (ptrdiff_t t = 0; t < n; t++, a += QIG_STRIP, b += QIG_STRIP) {
        const qig_four first = *(const qig_four *)b, second = *(const qig_four *)(b + 4);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            const qig_four factor = {a[r], a[r], a[r], a[r]};
            low[r] += factor * first;
            high[r] += factor * second;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++, out += m) {
        *(qig_four *)out += low[r];
        *(qig_four *)(out + 4) += high[r];
    }
}

/* The same of two of a's columns, for registers of two components, half as many. */
QIG_BODY void qig_tile_plain(const double *a, const double *b, ptrdiff_t n, double *out, ptrdiff_t m)
{
    qig_two upper[4] = {{0.0}}, lower[4] = {{0.0}};
    for (ptrdiff_t t = 0; t < n; t++, a += QIG_STRIP, b += QIG_STRIP) {
        const qig_two first = {a[0], a[0]}, second = {a[1], a[1]};
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            const qig_two factor = *(const qig_two *)(b + 2 * c);
            upper[c] += first * factor;
            lower[c] += second * factor;
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        *(qig_two *)(out + 2 * c) += upper[c];
        *(qig_two *)(out + m + 2 * c) += lower[c];
    }
}

/* out = Σ (row − mean)·(row − mean)ᵀ, shape [m, m] with m the next multiple of QIG_STRIP, on and above the
   diagonal strips only; zeros beyond k. `packed` has room for QIG_SPAN·m values. */
QIG_BODY void qig_gram_body(const double *rows, const double *mean, ptrdiff_t n, ptrdiff_t k, double *packed,
                            double *out, int wide)
{
    const ptrdiff_t m = (k + QIG_STRIP - 1) / QIG_STRIP * QIG_STRIP;
    memset(out, 0, m * m * sizeof(double));
    memset(packed, 0, QIG_SPAN * m * sizeof(double));
    for (ptrdiff_t done = 0; done < n; done += QIG_SPAN) {
        const ptrdiff_t count = n - done < QIG_SPAN ? n - done : QIG_SPAN;
        /* Strip by strip, so that a tile reads what lies together. */
        for (ptrdiff_t t = 0; t < count; t++, rows += k)
            for (ptrdiff_t i = 0; i < k; i += QIG_STRIP)
                for (ptrdiff_t j = i; j < i + QIG_STRIP && j < k; j++)
                    packed[i * QIG_SPAN + t * QIG_STRIP + (j - i)] = rows[j] - mean[j];
        for (ptrdiff_t i = 0; i < m; i += QIG_STRIP)
            for (ptrdiff_t j = i; j < m; j += QIG_STRIP) {
                const double *a = packed + i * QIG_SPAN, *b = packed + j * QIG_SPAN;
                double *at = out + i * m + j;
                if (wide)
                    for (int r = 0; r < QIG_STRIP; r += 4)
                        qig_tile(a + r, b, count, at + r * m, m);
                else
                    for (int r = 0; r < QIG_STRIP; r += 2)
                        qig_tile_plain(a + r, b, count, at + r * m, m);
            }
    }
}

/* Σ over rows and over pairs i < j of (sᵢ·sⱼ)², s = (row − mean)·inverse. All terms are positive: the square
   of a row's sum less the sum of its squares would cancel. */
QIG_BODY double qig_pairs_body(const double *rows, const double *mean, const double *inverse, ptrdiff_t n,
                               ptrdiff_t k, int wide)
{
    QigSum total = {0.0, 0.0};
    (void)wide;
    for (ptrdiff_t t = 0; t < n; t++, rows += k) {
        double lane[QIG_LANES] = {0.0}, within[QIG_LANES] = {0.0}, between = 0.0, before = 0.0;
        ptrdiff_t i = 0;
        for (; i + QIG_LANES <= k; i += QIG_LANES)
            for (int j = 0; j < QIG_LANES; j++) {
                double score = (rows[i + j] - mean[i + j]) * inverse[i + j], square = score * score;
                within[j] += square * lane[j];
                lane[j] += square;
            }
        for (int j = 0; i < k; i++, j++) {
            double score = (rows[i] - mean[i]) * inverse[i], square = score * score;
            within[j] += square * lane[j];
            lane[j] += square;
        }
        for (int j = 0; j < QIG_LANES; j++) {
            between += lane[j] * before;
            before += lane[j];
        }
        qig_add(&total, qig_folded(within) + between);
    }
    return total.total + total.lost;
}

/* Per column: lag = Σ (row[t] − after)·(row[t−1] − before), power = Σ (row[t−1] − before)², from zeros. */
QIG_BODY void qig_lagged_body(const double *rows, const double *before, const double *after, ptrdiff_t n,
                              ptrdiff_t k, double *restrict lag, double *restrict power, int wide)
{
    (void)wide;
    for (ptrdiff_t t = 1; t < n; t++, rows += k)
        for (ptrdiff_t i = 0; i < k; i++) {
            double gone = rows[i] - before[i];
            lag[i] += (rows[k + i] - after[i]) * gone;
            power[i] += gone * gone;
        }
}

/* The lower Cholesky factor L of a symmetric [m, m], m a multiple of QIG_LANES, in its first k rows and
   columns, row by row (Golub and Van Loan 2013, §4.2); reads on and below the diagonal. `factor` begins as
   zeros. Returns k, or the row whose pivot is not positive. */
QIG_BODY ptrdiff_t qig_cholesky_body(const double *matrix, double *factor, ptrdiff_t k, ptrdiff_t m, int wide)
{
    for (ptrdiff_t i = 0; i < k; i++) {
        double *row = factor + i * m, pivot;
        for (ptrdiff_t j = 0; j <= i; j++) {
            /* What stands beyond column j is 0 in row i, so that whole lanes may be taken. */
            ptrdiff_t width = (j + QIG_LANES - 1) / QIG_LANES * QIG_LANES;
            double left = matrix[i * m + j] - qig_dot_body(row, factor + j * m, width, wide);
            if (j < i)
                row[j] = left / factor[j * m + j];
            else if (!((pivot = sqrt(left)) > 0.0) || !(pivot < INFINITY))
                return i;
            else
                row[j] = pivot;
        }
    }
    return k;
}

/* The inverse of a lower triangular [m, m] in its first k rows and columns, by forward substitution, a row at
   a time; `inverse` begins as zeros. */
QIG_BODY void qig_inverted_body(const double *factor, double *inverse, ptrdiff_t k, ptrdiff_t m, int wide)
{
    (void)wide;
    for (ptrdiff_t i = 0; i < k; i++) {
        double *restrict row = inverse + i * m;
        const double pivot = factor[i * m + i];
        for (ptrdiff_t j = 0; j < i; j++) {
            const double times = factor[i * m + j], *above = inverse + j * m;
            for (ptrdiff_t c = 0; c <= j; c++)
                row[c] -= times * above[c];
        }
        for (ptrdiff_t c = 0; c < i; c++)
            row[c] /= pivot;
        row[i] = 1.0 / pivot;
    }
}

QIG_DISPATCHED(void, qig_gram,
               (const double *rows, const double *mean, ptrdiff_t n, ptrdiff_t k, double *packed, double *out),
               rows, mean, n, k, packed, out)
QIG_DISPATCHED(double, qig_pairs,
               (const double *rows, const double *mean, const double *inverse, ptrdiff_t n, ptrdiff_t k),
               rows, mean, inverse, n, k)
QIG_DISPATCHED(void, qig_lagged,
               (const double *rows, const double *before, const double *after, ptrdiff_t n, ptrdiff_t k, double *lag,
                double *power),
               rows, before, after, n, k, lag, power)
QIG_DISPATCHED(ptrdiff_t, qig_cholesky, (const double *matrix, double *factor, ptrdiff_t k, ptrdiff_t m),
               matrix, factor, k, m)
QIG_DISPATCHED(void, qig_inverted, (const double *factor, double *inverse, ptrdiff_t k, ptrdiff_t m),
               factor, inverse, k, m)

#endif
