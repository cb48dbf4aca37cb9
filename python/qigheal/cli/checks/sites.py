"""What a manifest declares under [sites], held against the repository: whether each name means something there.

A name of a package that the repository does not hold is believed where its code or its requirements name that
package. Nothing is imported.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from pathlib import Path

from qigheal.cli.checks import Check
from qigheal.host import Manifest

REMEDY = "write it as package.module:function or package.module:Class.method, where it is defined"
NAMES = "name it as package.module.Class, where it is defined; one of Python's own by its name alone"


def declared(place: Path, manifest: Manifest) -> Iterator[Check]:
    """A warning for each call or error that [sites] declares and that cannot be found."""
    from qigheal.healing.strategies.repeating.definitions import Definitions
    from qigheal.healing.strategies.repeating.dependencies import packages

    if not (manifest.sites.idempotent or manifest.sites.transient):
        return
    definitions = Definitions(place)
    known = {name.lower().replace("-", "_") for name in packages(place, definitions)}

    def unheard(dotted: str) -> bool:
        top = dotted.partition(".")[0]
        heard = top in sys.stdlib_module_names or top.lower() in known
        return definitions.external(dotted) and not heard

    for name in manifest.sites.idempotent:
        dotted = name.replace(":", ".")
        if unheard(dotted):
            found = (
                f"idempotent {name!r}: no package {dotted.partition('.')[0]!r} is held, imported or required"
            )
        elif not definitions.external(dotted) and definitions.function(dotted) is None:
            found = f"idempotent {name!r} names no single function of the repository"
        else:
            continue
        yield Check(name="sites", state="warn", found=found, remedy=REMEDY)
    for name in manifest.sites.transient:
        if "." not in name:
            own = getattr(builtins, name, None)
            missing = not (isinstance(own, type) and issubclass(own, BaseException))
        else:
            missing = unheard(name) or not (definitions.external(name) or definitions.defines_class(name))
        if missing:
            yield Check(
                name="sites",
                state="warn",
                found=f"transient {name!r} names no error that is known",
                remedy=NAMES,
            )
