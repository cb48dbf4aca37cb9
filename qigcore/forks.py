"""What a forked child has to make anew: objects of a kind, told of the fork as long as they are there.

What they do about it is theirs. An import registers nothing; the first object of a kind does.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Forks(Generic[T]):
    """The objects of one kind that are there, weakly held.

    child: called with each of them in a forked child, where other threads are no more: a lock that one of them held is
        held for ever. parent: the same in the process that forked; None: nothing.
    """

    def __init__(self, child: Callable[[T], None], parent: Callable[[T], None] | None = None) -> None:
        self._child = child
        self._parent = parent
        self._there: weakref.WeakSet[T] = weakref.WeakSet()
        self._registered = False

    def watch(self, one: T) -> None:
        """Tell this one too, of every fork from now on."""
        self._there.add(one)
        if not self._registered:
            self._registered = True
            if self._parent is None:
                os.register_at_fork(after_in_child=self.in_child)
            else:
                os.register_at_fork(after_in_parent=self.in_parent, after_in_child=self.in_child)

    def in_child(self) -> None:
        for one in list(self._there):
            self._child(one)

    def in_parent(self) -> None:
        if self._parent is not None:
            for one in list(self._there):
                self._parent(one)
