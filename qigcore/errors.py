"""Every error that the core raises.

    QigcoreError
    ├── InvalidSnapshot     a reported value cannot be used (only under on_invalid="raise")
    ├── InvalidLimit        a limit that could never fire, or that contradicts another
    ├── InvalidBasin        a basin handed to the geometry is no point of it
    ├── TooLittleData       a statistic was asked of fewer values than it needs
    ├── BaselineError       a baseline file that cannot be read or does not fit
    ├── EstimatorError      an estimator file that cannot be read or is not what it says it is
    ├── DetectorBusy        two threads at one change detector
    ├── MissingExtra        an optional dependency is not installed
    └── HistoryError        a store that cannot be opened, read or written

Each message says what was expected, what came, where, and what to do about it.
"""


class QigcoreError(Exception):
    """Base of every error of the compiled core."""


class InvalidSnapshot(QigcoreError, ValueError):
    """A field of a snapshot is unusable; raised only when the host asked for `on_invalid="raise"`."""

    def __init__(self, field: str, expected: str, got: str) -> None:
        self.field = field
        self.expected = expected
        self.got = got
        super().__init__(f"{field}: expected {expected}, got {got}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.field, self.expected, self.got)


class InvalidLimit(QigcoreError, ValueError):
    """A limit or setting outside the range in which it means anything."""


class InvalidBasin(QigcoreError, ValueError):
    """A vector that is no point of the geometry it was handed to."""


class TooLittleData(QigcoreError, ValueError):
    """Fewer usable values than the statistic needs."""


class BaselineError(QigcoreError):
    """A baseline that cannot be read, or belongs to another geometry or dimension."""


class EstimatorError(QigcoreError):
    """An estimator's file that cannot be read, is of another kind, or does not match its fingerprint."""


class DetectorBusy(QigcoreError, RuntimeError):
    """A change detector was called while another thread's rows were being taken; nothing was changed."""


class MissingExtra(QigcoreError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs {package!r}; install it with: pip install 'qigheal[{extra}]'")


class HistoryError(QigcoreError):
    """A history store that cannot be opened, read or written."""
