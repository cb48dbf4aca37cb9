"""A recorded history replayed against other settings: how many alarms, when, and against which known events.

    records     what a replay is asked and what it says
    marks       the events that a person marks, from text and files
    poisson     how many false alarms a rate may show, exactly
    replaying   the pass over the rows, in bounded memory
    thinning    a long series for a picture, by its extremes
    picture     the picture

Nothing here learns a limit: it only says what a limit would have done. What chooses among several of them
on the same past has to be checked on another part of it (`docs/backtest.md`).
"""

from qigheal.backtest.marks import mark, read_marks
from qigheal.backtest.records import (
    Backtest,
    ByChange,
    ByRules,
    Detection,
    FalseAlarms,
    Learned,
    Mark,
    Outcome,
    Raised,
)
from qigheal.backtest.replaying import backtest, replay

__all__ = [
    "Backtest",
    "ByChange",
    "ByRules",
    "Detection",
    "FalseAlarms",
    "Learned",
    "Mark",
    "Outcome",
    "Raised",
    "backtest",
    "mark",
    "read_marks",
    "replay",
]
