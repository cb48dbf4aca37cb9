"""Constants: the running coupling is no constant, and is not asked for where nothing was measured."""

from __future__ import annotations

import pytest

from qigcore.constants import running_coupling


def test_running_coupling() -> None:
    assert running_coupling(3) == 0.44
    assert [running_coupling(scale) for scale in (4, 5, 64)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("scale", [2, 0, -1, 3.0, True, "3"])
def test_nothing_was_measured_below_three(scale: object) -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        running_coupling(scale)  # type: ignore[arg-type]
