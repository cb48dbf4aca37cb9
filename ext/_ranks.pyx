"""Loops over pairs of values, for the rank statistics in `qigcore.trends`.

Precision policy. Slopes are quotients of differences, each rounded once; signs and ties compare the
values as they are. Counts are exact integers.
"""

cimport numpy as cnp

import numpy as np

cnp.import_array()


def pair_slopes(const double[::1] places, const double[::1] values):
    """Slope between each two points, float64, shape=[n (n − 1) / 2].

    places : shape=[n], strictly increasing. values : shape=[n], of at most half the largest float.
    """
    cdef Py_ssize_t n = values.shape[0]
    cdef cnp.ndarray made = np.empty(n * (n - 1) // 2)
    cdef double* slopes = <double*>cnp.PyArray_DATA(made)
    cdef Py_ssize_t i, j, row
    cdef double value, place
    with nogil:
        row = 0
        for i in range(n - 1):
            value = values[i]
            place = places[i]
            for j in range(i + 1, n):
                slopes[row + j - i - 1] = (values[j] - value) / (places[j] - place)
            row += n - 1 - i
    return made


def concordance(const double[::1] values):
    """Kendall's S: pairs that rise less pairs that fall. values : shape=[n], finite."""
    cdef Py_ssize_t n = values.shape[0]
    cdef long long total = 0
    cdef int row
    cdef Py_ssize_t i, j
    cdef double value
    with nogil:
        for i in range(n - 1):
            value = values[i]
            row = 0
            for j in range(i + 1, n):
                row += (values[j] > value) - (values[j] < value)
            total += row
    return total


def lagged_products(const double[::1] values):
    """Sum of v[i] v[i + k] over i for each lag k from 0 to n − 1, shape=[n]. values : shape=[n]."""
    cdef Py_ssize_t n = values.shape[0]
    cdef cnp.ndarray made = np.zeros(n)
    cdef double* sums = <double*>cnp.PyArray_DATA(made)
    cdef Py_ssize_t i, k
    cdef double value
    with nogil:
        for i in range(n):  # by value, not by lag: the inner sums are independent of one another
            value = values[i]
            for k in range(n - i):
                sums[k] += value * values[i + k]
    return made
