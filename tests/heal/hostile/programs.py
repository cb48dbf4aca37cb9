"""All hostile programs."""

from __future__ import annotations

from tests.heal.hostile.reaching import REACHING
from tests.heal.hostile.rights import RIGHTS
from tests.heal.hostile.staying import STAYING
from tests.heal.hostile.taking import TAKING

PROGRAMS = [*REACHING, *RIGHTS, *TAKING, *STAYING]
