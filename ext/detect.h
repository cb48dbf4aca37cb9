/* One row of the sequential tests: residual, whitening, moving averages, bets; what _detectors.pyx calls.

   No Python, no limits decided, no memory of its own: all arrays are the caller's, padded with zeros to a
   multiple of QIG_ROWS components.

   Precision policy, beside that of sums.h. Every sum over components runs in eight accumulators in an order
   that the source fixes, nothing is fused, and so each instruction set gives the same bits. The moving
   averages forget: rounding does not add up over weeks. The wealth of the bets is reset with each alarm and
   never exceeds the run length times the number of bets by more than a factor of two. */

#ifndef QIG_DETECT_H
#define QIG_DETECT_H

#include "states.h"

enum { QIG_ROWS = 16 };

/* Deviation of an amplitude from where it is expected, and what of it the row before did not foretell, at most
   `reach` either way: a component that was never seen before is not to count for more than a large change.
   expected: center, with the season's part already in it. memory: the AR(1) coefficients, or NULL. spread:
   √(1 − memory²), for a row without a known predecessor. */
QIG_BODY void qig_residual_body(const double *unit, double scale, const double *expected, const double *memory,
                                const double *spread, const double *reach, int follows, double *deviation,
                                double *residual, ptrdiff_t n, int wide)
{
    (void)wide;
    for (ptrdiff_t i = 0; i < n; i++) {
        double now = unit[i] * scale - expected[i];
        double left = memory == NULL ? now : follows ? now - memory[i] * deviation[i] : now * spread[i];
        deviation[i] = now;
        left = left < reach[i] ? left : reach[i];
        residual[i] = left > -reach[i] ? left : -reach[i];
    }
}

/* Four components at once, and two where the processor has no more: GCC keeps the wide ones in memory there. At
   any address. */
typedef double qig_four __attribute__((vector_size(32), aligned(8), may_alias));
typedef double qig_two __attribute__((vector_size(16), aligned(8), may_alias));

/* x = L·residual for a lower triangular L, stored in bands of QIG_ROWS rows, each column by column up to the
   band's last diagonal element. m: components, padded. Written in fours, since GCC leaves the plain loop as it
   is; a band's sixteen sums stay in registers. */
QIG_BODY void qig_whitened_body(const double *bands, const double *residual, double *x, ptrdiff_t m, int wide)
{
    for (ptrdiff_t first = 0; first < m; first += QIG_ROWS) {
        if (wide) {
            qig_four a = {0.0}, b = {0.0}, c = {0.0}, d = {0.0};
            for (ptrdiff_t i = 0; i < first + QIG_ROWS; i++, bands += QIG_ROWS) {
                qig_four factor = {residual[i], residual[i], residual[i], residual[i]};
                a += *(const qig_four *)bands * factor;
                b += *(const qig_four *)(bands + 4) * factor;
                c += *(const qig_four *)(bands + 8) * factor;
                d += *(const qig_four *)(bands + 12) * factor;
            }
            *(qig_four *)(x + first) = a;
            *(qig_four *)(x + first + 4) = b;
            *(qig_four *)(x + first + 8) = c;
            *(qig_four *)(x + first + 12) = d;
            continue;
        }
        qig_two sum[QIG_ROWS / 2] = {{0.0}};
        for (ptrdiff_t i = 0; i < first + QIG_ROWS; i++, bands += QIG_ROWS) {
            qig_two factor = {residual[i], residual[i]};
            for (int j = 0; j < QIG_ROWS / 2; j++)
                sum[j] += *(const qig_two *)(bands + 2 * j) * factor;
        }
        for (int j = 0; j < QIG_ROWS / 2; j++)
            *(qig_two *)(x + first + 2 * j) = sum[j];
    }
}

QIG_BODY double qig_dot_body(const double *a, const double *b, ptrdiff_t m, int wide)
{
    double lane[QIG_LANES] = {0.0};
    (void)wide;
    for (ptrdiff_t i = 0; i < m; i += QIG_LANES)
        for (int j = 0; j < QIG_LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    return qig_folded(lane);
}

/* mean ← (1 − weight)·mean + weight·step·x; returns ‖mean‖². */
QIG_BODY double qig_averaged_body(double *mean, const double *x, double weight, double step, ptrdiff_t m, int wide)
{
    double lane[QIG_LANES] = {0.0}, keep = 1.0 - weight, take = weight * step;
    (void)wide;
    for (ptrdiff_t i = 0; i < m; i += QIG_LANES)
        for (int j = 0; j < QIG_LANES; j++) {
            double now = keep * mean[i + j] + take * x[i + j];
            mean[i + j] = now;
            lane[j] += now * now;
        }
    return qig_folded(lane);
}

/* Shiryaev–Roberts wealth of bets on each component: wealth ← (wealth + 1)·(1 + stake·gain), for both sides
   and `stakes` stakes, laid out [side][stake][m]. The gain of a bet on "up" is (z − bound)/(1 + bound) with
   z = clip(residual·inverse, −1, 1); on "down" −z takes the place of z. Returns the sum of all wealth; the
   padding has inverse 0 and weight 0, and is not counted. z is left in `score`. */
QIG_BODY double qig_bets_body(const double *residual, const double *inverse, const double *bounds,
                              const double *shares, const double *weight, const double *stake, int stakes,
                              double *wealth, double *score, ptrdiff_t m, int wide)
{
    double lane[QIG_LANES] = {0.0};
    (void)wide;
    for (ptrdiff_t i = 0; i < m; i++) {
        double z = residual[i] * inverse[i];
        z = z < 1.0 ? z : 1.0;
        score[i] = z > -1.0 ? z : -1.0;
    }
    for (int side = 0; side < 2; side++) {
        const double *bound = bounds + side * m, *share = shares + side * m;
        double sign = side ? -1.0 : 1.0;
        for (int k = 0; k < stakes; k++, wealth += m) {
            double at = stake[k];
            for (ptrdiff_t i = 0; i < m; i += QIG_LANES)
                for (int j = 0; j < QIG_LANES; j++) {
                    double gain = (sign * score[i + j] - bound[i + j]) * share[i + j];
                    double now = (wealth[i + j] + 1.0) * (1.0 + at * gain);
                    wealth[i + j] = now;
                    lane[j] += now * weight[i + j];
                }
        }
    }
    return qig_folded(lane);
}

QIG_DISPATCHED(void, qig_residual,
               (const double *unit, double scale, const double *expected, const double *memory,
                const double *spread, const double *reach, int follows, double *deviation, double *residual,
                ptrdiff_t n),
               unit, scale, expected, memory, spread, reach, follows, deviation, residual, n)
QIG_DISPATCHED(void, qig_whitened, (const double *bands, const double *residual, double *x, ptrdiff_t m),
               bands, residual, x, m)
QIG_DISPATCHED(double, qig_dot, (const double *a, const double *b, ptrdiff_t m), a, b, m)
QIG_DISPATCHED(double, qig_averaged, (double *mean, const double *x, double weight, double step, ptrdiff_t m),
               mean, x, weight, step, m)
QIG_DISPATCHED(double, qig_bets,
               (const double *residual, const double *inverse, const double *bounds, const double *shares,
                const double *weight, const double *stake, int stakes, double *wealth, double *score, ptrdiff_t m),
               residual, inverse, bounds, shares, weight, stake, stakes, wealth, score, m)

#endif
