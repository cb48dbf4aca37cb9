"""Why a strategy leaves something alone: said once, kept by the log and by whoever asked the strategy.

Strategies say their reasons to `log`, as to any logger. `heard` listens meanwhile, and `Reasons` keeps what a pass
heard as records that may be shown: short, printable, and no more than a person reads. Nothing here decides what is
proposed, or is written anywhere.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from qigheal.records import Reason

MOST_EACH: Final = 12
"""Reasons of one strategy that are kept; how many more there were stands in a last one."""

MOST_TEXT: Final = 300

_LISTENING: Final[ContextVar[list[str] | None]] = ContextVar("qigheal_reasons", default=None)


class Told(logging.LoggerAdapter[logging.Logger]):
    """The package's logger, whose messages from level info on are also heard, whatever level it is set to."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        heard = _LISTENING.get()
        if heard is not None and level >= logging.INFO:
            failure = sys.exc_info()[1] if kwargs.get("exc_info") else None
            text = str(msg) % args if args else str(msg)
            heard.append(f"{text}: {type(failure).__name__}: {failure}" if failure is not None else text)
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)


log: Final = Told(logging.getLogger("qigheal"), {})


@contextmanager
def heard() -> Iterator[list[str]]:
    """Listens: what strategies say in this thread meanwhile, in their words."""
    said: list[str] = []
    token = _LISTENING.set(said)
    try:
        yield said
    finally:
        _LISTENING.reset(token)


class Reasons:
    """Why nothing came of a pass so far, by strategy in the order in which they were asked."""

    def __init__(self) -> None:
        self._found: dict[str, list[Reason]] = {}
        self._dropped: dict[str, int] = {}

    def add(self, strategy: str, texts: Iterable[str], *, patch: str = "") -> None:
        """Keep what a strategy said, or what was said of its `patch`. The same text is kept once."""
        found = self._found.setdefault(strategy, [])
        for text in texts:
            reason = Reason(strategy=strategy, text=_line(text.removeprefix(f"{strategy}: ")), patch=patch)
            if reason in found:
                continue
            if len(found) < MOST_EACH:
                found.append(reason)
            else:
                self._dropped[strategy] = self._dropped.get(strategy, 0) + 1

    def of(self, strategy: str) -> tuple[str, ...]:
        """What is kept of one strategy."""
        return tuple(reason.text for reason in self._told(strategy))

    def all(self) -> tuple[Reason, ...]:
        return tuple(reason for strategy in self._found for reason in self._told(strategy))

    def _told(self, strategy: str) -> list[Reason]:
        found = self._found.get(strategy, [])
        if more := self._dropped.get(strategy, 0):
            return [
                *found,
                Reason(strategy=strategy, text=f"and {more} more, which the log has at level info"),
            ]
        return found


def _line(text: str) -> str:
    """One printable line: what stands in it came from a host's code, commits and probe."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return plain if len(plain) <= MOST_TEXT else f"{plain[: MOST_TEXT - 4]} ..."
