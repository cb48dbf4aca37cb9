"""The demo's live service: the digits host as a process of its own, with its log kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from qigheal.errors import QighealError

RATE = 100


class LiveService:
    """Runs `python -m digits.service` in the host's folder until the `with` block ends."""

    def __init__(self, host: Path, store: Path) -> None:
        self.host = host
        self.store = store
        self.log = host.parent / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LiveService:
        # The service ends with the demo even where the demo is killed; without setpriv it then lives on.
        with_parent = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*with_parent, sys.executable, "-m", "digits.service", "--store", str(self.store)),
                    *("--rate", str(RATE)),
                ],
                cwd=self.host,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1000:].strip() or "it said nothing"

    def deploy(self) -> None:
        """Bring the service to what is checked out, by the host's own deploy command."""
        done = subprocess.run(
            [sys.executable, "-m", "digits.deploy"],
            cwd=self.host,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise QighealError(
                f"digits.deploy ended with {done.returncode}: {done.stderr.strip() or done.stdout}"
            )
