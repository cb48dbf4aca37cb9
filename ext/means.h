/* The steps of a Karcher mean: weighted sums over states and over their log maps, as the states come.

   No Python, no errors raised. Nothing of the size of the rows is kept: amplitudes are made anew in each
   pass, eight at a time, which costs less than reading them back from memory would.

   Precision policy, beside that of states.h. Log maps are summed as weighted chords, so that near rows do
   not cancel. Rows are added in the order they come, 256 to a partial sum, so that the error does not grow
   with their number as a running sum's would; the grouping is fixed by the row's index alone. */

#ifndef QIG_MEANS_H
#define QIG_MEANS_H

#include "states.h"

enum { QIG_PART = 256 };

/* What a pass works in: `sum` and `part` have room for dim values, `scratch` for QIG_GROUP rows. */
typedef struct {
    double *sum, *part, *scratch;
    ptrdiff_t refused; /* the first row that is no state, or -1 */
    int antipode;      /* whether a row of positive weight lies opposite the mean */
} QigPass;

/* θ/sin θ of the angle θ between amplitudes, from the squares of chord and sum. */
QIG_BODY double qig_stretch(double near, double far, int geometry)
{
    double angle = geometry == QIG_SIMPLEX ? 0.5 * qig_simplex_angle(near, qig_is_close(near))
                                           : qig_sphere_angle(near, far, qig_is_outer(near, far));
    double sine = 0.5 * sqrt(near * far);
    return near > 1e-300 ? angle / sine : 1.0;
}

/* Amplitudes of up to eight rows as vectors and scales; how many were made before one that is no state. */
QIG_BODY ptrdiff_t qig_units(const double *rows, ptrdiff_t count, ptrdiff_t dim, int geometry, double *scratch,
                             const double **vector, double *scale, int wide)
{
    int safe = 1;
    for (ptrdiff_t r = 0; r < count; r++) {
        const double *row = rows + r * dim;
        scale[r] = geometry == QIG_SIMPLEX ? qig_roots(row, scratch + r * dim, dim, wide) : qig_squares_of(row, dim);
        vector[r] = geometry == QIG_SIMPLEX ? scratch + r * dim : row;
        safe &= qig_is_safe(scale[r]);
    }
    for (ptrdiff_t r = 0; r < count; r++)
        if (safe)
            scale[r] = 1.0 / sqrt(scale[r]);
        else if ((vector[r] = qig_prepared_body(rows + r * dim, scratch + r * dim, dim, geometry, scale + r, wide))
                 == NULL)
            return r;
    return count;
}

/* Adds w·(x − from) of up to eight rows, `from` times `less`; less = 0 leaves x alone. */
QIG_BODY void qig_gather(double *part, const double **vector, const double *scale, const double *weight,
                         ptrdiff_t count, ptrdiff_t dim, const double *from, double less)
{
    for (ptrdiff_t r = 0; r < count; r++) {
        const double *x = vector[r];
        for (ptrdiff_t j = 0; j < dim; j++)
            part[j] += weight[r] * (x[j] * scale[r] - less * from[j]);
    }
}

/* Into pass->sum: with `mean`, Σ w·log_mean(x); without (first pass), Σ w·x. `shares` NULL: each 1/n. */
QIG_BODY void qig_pass_body(const double *rows, const double *shares, ptrdiff_t n, ptrdiff_t dim, int geometry,
                            const double *mean, QigPass *pass, int wide)
{
    const double *vector[QIG_GROUP], *from = mean == NULL ? pass->sum : mean;
    double scale[QIG_GROUP], weight[QIG_GROUP], near = 0.0, far = 0.0, back = 0.0, own = 0.0;
    double *sum = pass->sum, *part = pass->part;
    ptrdiff_t made;
    pass->refused = -1;
    pass->antipode = 0;
    for (ptrdiff_t j = 0; j < dim; j++)
        sum[j] = part[j] = 0.0;
    for (ptrdiff_t i = 0; i < n; i += QIG_GROUP) {
        ptrdiff_t count = n - i < QIG_GROUP ? n - i : QIG_GROUP;
        made = qig_units(rows + i * dim, count, dim, geometry, pass->scratch, vector, scale, wide);
        if (made < count) {
            pass->refused = i + made;
            return;
        }
        for (ptrdiff_t r = 0; r < count; r++)
            weight[r] = shares == NULL ? 1.0 / (double)n : shares[i + r];
        for (ptrdiff_t r = 0; mean != NULL && r < count; r++) {
            qig_gaps_of(vector[r], scale[r], mean, 1.0, dim, geometry == QIG_SPHERE, &near, &far, wide);
            if (geometry == QIG_SIMPLEX)
                far = 4.0 - near;
            if (weight[r] == 0.0)
                continue;
            if (far < 1e-24) {
                pass->antipode = 1;
                return;
            }
            /* log = θ/sin θ · (x − cos θ · mean), with cos θ = 1 − near/2 */
            weight[r] *= qig_stretch(near, far, geometry);
            own += weight[r] * 0.5 * near;
        }
        qig_gather(part, vector, scale, weight, count, dim, from, mean == NULL ? 0.0 : 1.0);
        if ((i + QIG_GROUP) % QIG_PART == 0 || i + count == n) {
            for (ptrdiff_t j = 0; j < dim; j++) {
                sum[j] += part[j];
                part[j] = 0.0;
            }
            back += own;
            own = 0.0;
        }
    }
    for (ptrdiff_t j = 0; mean != NULL && j < dim; j++)
        sum[j] += back * mean[j];
}
QIG_DISPATCHED(void, qig_pass,
               (const double *rows, const double *shares, ptrdiff_t n, ptrdiff_t dim, int geometry,
                const double *mean, QigPass *pass),
               rows, shares, n, dim, geometry, mean, pass)

#endif
