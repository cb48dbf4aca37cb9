"""What hosts report: one full snapshot as a mapping, and what nobody expects."""

import decimal
import math

import numpy as np

NAN = math.nan

FULL = {
    "phi": 0.7,
    "kappa_eff": 64.0,
    "basin_coords": [1.0, 2.0, 3.0, 4.0],
    "confidence": 0.9,
    "surprise": 0.2,
    "agency": 0.3,
    "error_rate": 0.01,
    "avg_latency_ms": 5.0,
    "memory_mb": 100.0,
    "module_name": "chain",
    "timestamp": 1.7e9,
}


class Hostile:
    """Raises at everything a conversion might touch."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __float__(self):
        raise ZeroDivisionError

    __index__ = __len__ = __iter__ = __array__ = __repr__ = __str__ = __float__


NOT_NUMBERS = [
    None,
    "0.5",
    b"0.5",
    True,
    np.True_,
    NAN,
    math.inf,
    -math.inf,
    1j,
    np.complex128(0.5),
    np.str_("0.5"),
    np.array([0.5]),
    np.array("0.5"),
    np.array(True),
    np.array(0.5j),
    [0.5],
    {},
    object(),
    Hostile(),
    10**400,
    -(10**400),
    decimal.Decimal("NaN"),
    np.datetime64(1, "s"),
    np.timedelta64(1, "s"),
    print,
]

NOT_BASINS = [
    None,
    0.5,
    "abcd",
    b"abcd",
    [],
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    np.ones((1, 4)),
    np.ones((4, 1)),
    np.array(1.0),
    [0, 0, 0, 0],
    [1, 1, 1, NAN],
    [1, 1, 1, math.inf],
    [1, 1, 1, -1e-300],
    ["1", "1", "1", "1"],
    [1, 1, 1, "1"],
    [1, 1, 1, None],
    [1, 1, 1, 1j],
    [True, True, False, True],
    [[1], [1, 2], 3, 4],
    {1, 2, 3, 4},
    {"a": 1},
    iter([1, 2, 3, 4]),
    Hostile(),
    [1, 1, 1, Hostile()],
    np.array([1, 1, 1, 1], dtype="M8[s]"),
    np.ma.masked_equal([1.0, 2.0, 3.0, 4.0], 3.0),
    [10**400] * 4,
    np.full(4, np.longdouble("1e4000")),
    np.zeros(4),
    -np.ones(4),
    np.full(4, NAN),
    np.full(4, -math.inf),
    np.ones(5),
    np.ones(0),
    np.zeros(4, [("a", float)]),
    [np.ones(1)] * 4,
]
