"""The package's log on standard error, for a command that was asked to be verbose.

Where nothing is asked, logging is left as it is. What is logged stands in the rooms below.
"""

from __future__ import annotations

import logging
import sys

from qigheal.cli.show import plain


class Plain(logging.Formatter):
    """Lines without what a terminal would obey: a log quotes code, commits and probes of others."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def log_to_stderr() -> None:
    """Write what the logger `qigheal` has from level info on, with its time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain("%(asctime)s %(levelname)-7s %(message)s"))
    logger = logging.getLogger("qigheal")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
