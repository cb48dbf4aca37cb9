"""What a patch makes a program do that it did not do before, beyond computing.

A sandbox keeps a patch from doing harm while it is measured; it does not say what the patch will do where
nothing confines it. So both sides are watched once, by the instrument `audit`, and what only the patched
side does is named. A program that hides what it does until it is live is not seen by this.
"""

from __future__ import annotations

import msgspec

SHOWN = 3
"""Details named of one kind of deed."""


class Conduct(msgspec.Struct, frozen=True):
    """What the instrument `audit` saw: details by kind of deed, what was replaced, and whether garbage is
    still collected at the end."""

    seen: dict[str, tuple[str, ...]]
    replaced: tuple[str, ...]
    collects: bool = True


def objections(before: Conduct, after: Conduct) -> tuple[str, ...]:
    """What the patched side does and the unpatched one does not, one sentence for each kind."""
    found = []
    for kind, details in sorted(after.seen.items()):
        known = set(before.seen.get(kind, ()))
        new = [detail for detail in details if detail not in known]
        if new:
            found.append(f"{kind}{_named(new)}, which the unpatched code does not do")
    new = [name for name in after.replaced if name not in set(before.replaced)]
    if new:
        found.append(f"replaces a function of the standard library{_named(new)}")
    if before.collects and not after.collects:
        found.append("turns the garbage collector off")
    return tuple(found)


def _named(details: list[str]) -> str:
    named = [detail for detail in details[:SHOWN] if detail]
    more = len(details) - len(named) if named else 0
    return f" ({', '.join(named)}{f', and {more} more' if more > 0 else ''})" if named else ""
