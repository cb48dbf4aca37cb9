"""Which segments count, where compaction put one in the place of several. No file is opened here.

A segment that took over the rows of others names them in its header. For a while all lie in the folder.
"""

from __future__ import annotations

from collections.abc import Iterable

from qigcore.history.segment import Header


class Standing:
    """What one reader has settled of the segments it met.

    A segment that took over the rows of others stands for them, unless it met some of them before: then
    they go on, and it is passed over.
    """

    def __init__(self) -> None:
        self._met: set[int] = set()
        self._left: set[int] = set()

    def left(self, headers: Iterable[Header]) -> set[int]:
        """The identities of segments that are not to be read, among these and all that came before."""
        fresh = {header.segment: header for header in headers}
        for identity in self._met | self._left:
            fresh.pop(identity, None)
        within = {other for header in fresh.values() for other in header.replaces}
        waiting = [identity for identity in fresh if identity not in within]
        while waiting:
            identity = waiting.pop()
            replaces = fresh[identity].replaces
            if self._met.isdisjoint(replaces):
                self._leave(replaces, fresh)
            else:
                self._left.add(identity)
                waiting += [other for other in replaces if other in fresh]
            self._met.add(identity)
        return self._left

    def _leave(self, identities: Iterable[int], fresh: dict[int, Header]) -> None:
        """These are not read, nor those whose rows they had taken over themselves."""
        waiting = list(identities)
        while waiting:
            identity = waiting.pop()
            if identity not in self._left:
                self._left.add(identity)
                waiting += fresh[identity].replaces if identity in fresh else []
