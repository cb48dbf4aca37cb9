"""Published figures and conventions that the defaults rest on, each with its standing.

A figure's standing matters more than its digits. `TABLE` holds all of them, with unit and source; the
plain names below it are for use in arithmetic and come from it, so that no figure is written twice.
Nothing that is computed stands here, and nothing here treats a hypothesis as a law.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from types import MappingProxyType
from typing import Final, Literal

import msgspec

Standing = Literal["validated", "hypothesis", "preliminary", "convention"]

STANDINGS: Final[Mapping[Standing, str]] = MappingProxyType(
    {
        "validated": "measured more than once, from data that anybody can have; no entry has this standing",
        "preliminary": "reported as measured, on too little or without the data: it may change",
        "hypothesis": "a proposed explanation that nothing here tests or relies on",
        "convention": "chosen for use; another figure could serve as well",
    }
)
"""What each standing means."""

_PACKET = "source document"
_CORRECTION = "source document, its own corrections"
_OWN = "this project"


class Constant(msgspec.Struct, frozen=True):
    """One figure.

    value: in `unit` ("1" for a plain number). uncertainty: the ± that was reported with it, if any; which kind
    of error that is was not. source: who says so. note: what the figure is, and what is not known of it.
    """

    value: float
    unit: str
    source: str
    standing: Standing
    note: str
    uncertainty: float | None = None


TABLE: Final[Mapping[str, Constant]] = MappingProxyType(
    {
        "PHI_MIN": Constant(
            0.65, "1", _PACKET, "convention", "integration Φ below which a service is called degraded"
        ),
        "BASIN_DRIFT_MAX": Constant(
            2.0,
            "rad",
            _PACKET,
            "convention",
            "drift from the reference above which a service is called degraded",
        ),
        "FITNESS_THRESHOLD": Constant(
            0.6, "1", _PACKET, "convention", "score above which a patch is called safe to apply"
        ),
        "LINEAR_BELOW": Constant(
            0.30, "1", _OWN, "convention", "integration Φ below which the regime is called linear"
        ),
        "BREAKDOWN_FROM": Constant(
            0.80,
            "1",
            _OWN,
            "convention",
            "integration Φ from which the regime is called breakdown; the earlier modules' bound of 0.70 called "
            "every healthy service broken, for healthy Φ is about 0.75",
        ),
        "BASIN_DIM": Constant(
            64, "1", _CORRECTION, "convention", "components of a basin: a pragmatic choice, and a setting"
        ),
        "KAPPA_STAR": Constant(
            64.21,
            "1",
            _PACKET,
            "preliminary",
            "coupling κ*, reported without data; used here as the centre of a warning band alone, which a "
            "learned band replaces; that the coupling stays there is a hypothesis",
        ),
        "KAPPA_7": Constant(
            53.08,
            "1",
            _CORRECTION,
            "preliminary",
            "coupling κ₇: rests on one seed; used nowhere",
            uncertainty=4.26,
        ),
        "BETA_3_TO_4": Constant(
            0.44, "1", _CORRECTION, "preliminary", "running coupling β from lattice scale 3 to 4"
        ),
        "BETA_FROM_4": Constant(
            0.0, "1", _CORRECTION, "preliminary", "running coupling β from lattice scale 4 on: about 0"
        ),
        "E8_RANK_SQUARED": Constant(
            8.0**2,
            "1",
            _CORRECTION,
            "hypothesis",
            "the E8 link: that κ* lies near 8² is a coincidence until shown otherwise; used nowhere",
        ),
    }
)
"""Every figure by its name."""

PHI_MIN: Final = TABLE["PHI_MIN"].value
BASIN_DRIFT_MAX: Final = TABLE["BASIN_DRIFT_MAX"].value
FITNESS_THRESHOLD: Final = TABLE["FITNESS_THRESHOLD"].value
LINEAR_BELOW: Final = TABLE["LINEAR_BELOW"].value
BREAKDOWN_FROM: Final = TABLE["BREAKDOWN_FROM"].value
BASIN_DIM: Final = int(TABLE["BASIN_DIM"].value)
KAPPA_STAR: Final = TABLE["KAPPA_STAR"].value


def running_coupling(scale: int) -> float:
    """β from lattice scale L to L + 1: it runs, and is no constant; standing: preliminary.

    Known are the step from L = 3 to 4, and that β is about 0 from L = 4 on (the source document's
    corrections). Below L = 3 nothing was measured, so asking raises ValueError, as for what is no integer.
    """
    try:
        step = index(scale)  # of numpy's integers as well
    except TypeError:
        step = 0
    if step < 3:
        raise ValueError(
            f"scale: expected an integer of at least 3 (nothing was measured below), got {scale!r}"
        )
    return TABLE["BETA_3_TO_4" if step == 3 else "BETA_FROM_4"].value
