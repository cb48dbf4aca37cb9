"""Makes a running service take up the code and configuration that are checked out now.

Safe to run twice, and when no service runs.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pid_file() -> Path:
    """Where the service leaves its process number: `$DIGITS_PID`, else `run/service.pid`."""
    return Path(os.environ.get("DIGITS_PID") or ROOT / "run" / "service.pid")


def running(path: Path) -> int | None:
    """Process number of the service that wrote `path`, None when it runs no more."""
    try:
        pid = int(path.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    # The number of a service that died may belong to another program by now.
    return pid if b"digits.service" in command else None


def main() -> int:
    pid = running(pid_file())
    if pid is None:
        print(f"no service runs (looked in {pid_file()}); the next one starts with the new code")
    else:
        os.kill(pid, signal.SIGHUP)
        print(f"service {pid} reloads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
