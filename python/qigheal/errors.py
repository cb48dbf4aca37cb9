"""Every error that the Python layer raises; those of the core stand in `qigcore.errors`.

    QighealError
    ├── MissingExtra       an optional dependency is not installed
    ├── ManifestError      `qigheal.toml` is missing or says something unusable
    ├── RepoError          git could not do what was asked
    │   ├── PatchError     a diff does not apply, or touches what it may not
    │   └── Blocked        a branch cannot be moved now; everything is as it was
    ├── SandboxError       no isolation could be had, or an assertion inside it failed
    ├── ProbeError         a probe process did not keep the protocol
    ├── LedgerError        the ledger cannot be written, or its chain is broken
    │   └── LedgerBusy     another process holds the ledger; asking again later may do
    ├── PhaseError         the phase does not allow this, or a gate is not met
    ├── MarksError         marked events that cannot be read
    ├── ChainError         (integrations.qigchain) an object that is no chain, or has self-healing already
    ├── StateError         (integrations.chain.statedir) a folder of the earlier modules that cannot be read
    ├── RoiError           (roi) rates that make no sense
    └── EngineError        the chain cannot run: no store, no baseline, another healer at work

Each message says what was expected, what came, where, and what to do about it.
"""


class QighealError(Exception):
    """Base of every error of the Python layer."""


class MissingExtra(QighealError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs {package!r}; install it with: pip install 'qigheal[{extra}]'")


class ManifestError(QighealError):
    """The host's manifest is missing or unusable; one line: what, where, remedy."""


class RepoError(QighealError):
    """A git operation failed."""


class PatchError(RepoError):
    """A diff that does not apply, or that touches what it may not."""


class Blocked(RepoError):
    """A branch is not moved now, because somebody's work is in the way; asking again later may do."""


class SandboxError(QighealError):
    """Isolation is not available at the level asked for, or did not hold when it was tested."""


class ProbeError(QighealError):
    """A probe hung, died, or answered what the protocol does not allow."""


class LedgerError(QighealError):
    """The ledger cannot be opened or written, or its hash chain is broken."""


class LedgerBusy(LedgerError):
    """Another process holds the ledger, and held it for as long as was to be waited."""


class PhaseError(QighealError):
    """The present phase does not allow the action, or a gate's evidence is missing."""


class EngineError(QighealError):
    """The healing chain cannot run as asked."""


class MarksError(QighealError, ValueError):
    """Events that a person marked, and that make no sense; one line: what, where, remedy."""
