"""Upper tails: of the normal law, and of a scaled χ² that is given by its mean and variance.

SciPy is no dependency of a service, and these run when a detector is made: some hundred float operations.
"""

from __future__ import annotations

import math


def normal_isf(tail: float) -> float:
    """The value that a standard normal one exceeds with probability `tail`, 0 < tail < 1.

    Newton's steps on log tail, which is concave. (The module statistics has it too, and with it loads random
    numbers and a fork handler into a process that serves.)
    """
    if tail > 0.5:
        return -normal_isf(1.0 - tail)
    wanted = math.log(tail)
    x = math.sqrt(max(-2.0 * math.log(2.0 * tail), 0.0))
    for _ in range(60):
        above = 0.5 * math.erfc(x * math.sqrt(0.5))
        density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        step = (math.log(above) - wanted) * above / density
        x += step
        if abs(step) < 1e-14 * (1.0 + abs(x)):
            break
    return x


def log_gamma_tail(shape: float, x: float) -> float:
    """log P(X > x) of a gamma variable of unit scale: the logarithm of the regularised upper incomplete gamma.

    By the series below shape + 1 and Legendre's continued fraction beyond (Press et al., Numerical Recipes,
    3rd edition, §6.2), where it keeps its relative precision however small the tail is.
    """
    if x <= 0.0:
        return 0.0
    front = shape * math.log(x) - x - math.lgamma(shape)
    if x < shape + 1.0:
        term = total = 1.0 / shape
        n = shape
        while term > total * 1e-17:
            n += 1.0
            term *= x / n
            total += term
        return math.log1p(-min(math.exp(front) * total, 1.0 - 1e-16))
    tiny = 1e-300
    b = x + 1.0 - shape
    c, d = 1.0 / tiny, 1.0 / b
    h = d
    for i in range(1, 10_000):
        a = -i * (i - shape)
        b += 2.0
        d = a * d + b
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = b + a / c
        c = c if abs(c) > tiny else tiny
        h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front + math.log(h)


def scaled_chi2_isf(mean: float, variance: float, tail: float, skewness: float = 0.0) -> float:
    """What a scaled χ² variable of this mean and variance exceeds with probability `tail`, 0 < tail < 1.

    A sum of weighted squares of normal variables has nearly this law (Satterthwaite 1946; Box 1954, theorem
    3.1): scale variance/(2·mean), degrees of freedom 2·mean²/variance. Its skewness is then 2·sd/mean; where the
    sum's is larger the law is shifted as well, to have that one (Pearson's type III; Imhof 1961, §4).
    """
    sd = math.sqrt(variance)
    shape = 4.0 / max(skewness, 2.0 * sd / mean) ** 2
    wanted = math.log(tail)
    # Wilson and Hilferty's cube root is near; from there Newton's steps on log tail, which is concave in x.
    third = 1.0 / (9.0 * shape)
    x = shape * max(1.0 - third + normal_isf(tail) * math.sqrt(third), 1e-3) ** 3
    for _ in range(60):
        log_tail = log_gamma_tail(shape, x)
        density = (shape - 1.0) * math.log(x) - x - math.lgamma(shape)
        step = (log_tail - wanted) * math.exp(log_tail - density)
        x = max(x + step, 0.25 * x)
        if abs(step) < 1e-10 * x:
            break
    return mean + sd * (x - shape) / math.sqrt(shape)
