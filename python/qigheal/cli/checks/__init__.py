"""What `qigheal doctor` looks at, one finding a line: the machine, a store, a host. Nothing is changed.

A room here looks and reports; what is printed stands in `show_doctor`, and nothing is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from qigcore.errors import QigcoreError
from qigheal.errors import QighealError
from qigheal.records import Record

State = Literal["ok", "warn", "fail"]


class Check(Record, frozen=True):
    """One thing that was looked at. `remedy`: what to do about it, "" where nothing is to be done."""

    name: str
    state: State
    found: str
    remedy: str = ""


Look = Callable[[], Iterable[Check]]


def looked_at(looks: Iterable[tuple[str, Look]]) -> Iterator[Check]:
    """All findings; what keeps one look from being taken is a finding itself, and the others go on."""
    for name, look in looks:
        try:
            yield from look()
        except (QighealError, QigcoreError) as error:
            yield Check(name=name, state="fail", found=one_line(error), remedy="see to what it says")
        except OSError as error:
            found = f"{error.filename or name}: {error.strerror or error}"
            yield Check(name=name, state="fail", found=found, remedy="see that it is there and may be read")
        # The files are others': the remaining looks are worth more than a traceback.
        except Exception as error:
            found = ": ".join(filter(None, (type(error).__name__, one_line(error))))
            remedy = "see to the files that this looks at; where they are as they should be, report it"
            yield Check(name=name, state="fail", found=found, remedy=remedy)


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def worst(found: Iterable[Check]) -> State:
    """The state of the whole."""
    states = {check.state for check in found}
    return "fail" if "fail" in states else "warn" if "warn" in states else "ok"
