"""The machine and the installation: versions, compiled modules, extras, isolation, clock, environment."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Final

from qigheal.cli.checks import Check, one_line
from qigheal.errors import MissingExtra, SandboxError

COMPILED: Final = (
    "_codec", "_detectors", "_estimators", "_geometry", "_ranks", "_recorder", "_rules", "_streams"
)  # fmt: skip
LIBRARIES: Final = ("numpy", "msgspec", "zstandard", "prometheus-client")
TOOLS: Final = {
    "git": "the healer works on git repositories; install git",
    "bwrap": "full isolation of what the healer measures; install bubblewrap",
    "setpriv": "full isolation; it is part of util-linux",
    "prlimit": "limits on what the healer measures; it is part of util-linux",
}
EXTRAS: Final = {
    "heal": "strategies that propose patches",
    "cli": "the command line",
    "serve": "the sidecar, qigheal serve",
    "fastapi": "monitoring of a FastAPI service by one call",
    "flask": "the same for Flask",
    "dashboard": "charts of the dashboard",
    "alerts": "alerts by more ways than log, webhook and e-mail",
    "otel": "export of the figures by OpenTelemetry",
    "export": "export of the history as Parquet and Arrow",
    "github": "changes as pull requests on GitHub",
    "demo": "qigheal demo, and pictures of a replay",
}
"""What each extra adds; those for building and testing the package are not told of."""

TOKENS: Final = ("QIGHEAL_READ_TOKEN", "QIGHEAL_TOKEN", "QIGHEAL_REVIEW_TOKEN")
SHOWN: Final = ("QIGHEAL_STORE",)
"""Variables whose value is no secret: of all others only the name is told."""

STEP_S: Final = 0.5


def versions() -> Iterator[Check]:
    """Python, the package, its libraries and the programs that it starts."""
    yield Check(name="python", state="ok", found=f"{platform.python_version()} at {sys.executable}")
    yield Check(name="system", state="ok", found=f"{platform.system()} {platform.release()}, {_processors()}")
    try:
        yield Check(name="qigheal", state="ok", found=metadata.version("qigheal"))
    except metadata.PackageNotFoundError:
        yield Check(name="qigheal", state="ok", found="run from its source, not installed")
    for name in LIBRARIES:
        try:
            yield Check(name=name, state="ok", found=metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(
                name=name, state="fail", found="not installed", remedy=f"install it with: pip install {name}"
            )
    for name, why in TOOLS.items():
        yield _tool(name, why)


def _processors() -> str:
    count = len(os.sched_getaffinity(0))
    return f"{count} processor{'' if count == 1 else 's'}"


def _tool(name: str, why: str) -> Check:
    if (path := shutil.which(name)) is None:
        return Check(name=name, state="warn", found="not on PATH", remedy=f"needed for {why}")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
        first = next(iter((done.stdout or done.stderr).splitlines()), "")
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        return Check(name=name, state="warn", found=f"{path} does not answer: {error}", remedy=why)
    return Check(name=name, state="ok", found=f"{first.strip()[:80]} at {path}")


def compiled() -> Iterator[Check]:
    """Whether the compiled core is there and fits this Python."""
    broken = []
    for name in COMPILED:
        try:
            import_module(f"qigcore.{name}")
        except ImportError as error:
            broken.append(f"qigcore.{name}: {one_line(error)}")
    if broken:
        remedy = "install the package again for this Python, or build it in its source: make build"
        yield Check(name="compiled core", state="fail", found="; ".join(broken), remedy=remedy)
    else:
        yield Check(name="compiled core", state="ok", found=f"{len(COMPILED)} modules")


def extras(*, healing: bool = False) -> Iterator[Check]:
    """Which extras are installed, and what the others would add. None of them is needed by the monitor.

    healing: whether a host is to be healed from here, which takes the extra for it.
    """
    try:
        listed = metadata.requires("qigheal") or []
    except metadata.PackageNotFoundError:
        yield Check(
            name="extras", state="ok", found="run from its source: which belong together is not known"
        )
        if healing:
            yield from _unequipped()
        return
    needed: dict[str, list[str]] = {}
    for requirement in listed:
        if found := re.match(r"\s*([A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['\"]([^'\"]+)", requirement):
            needed.setdefault(found[2], []).append(found[1])
    for extra, adds in EXTRAS.items():
        if extra not in needed:
            continue
        missing = [name for name in needed[extra] if not _installed(name)]
        if missing and extra == "heal" and healing:
            found_text = (
                f"not installed ({', '.join(missing)}): no patch can be searched for or measured here"
            )
            remedy = f"pip install 'qigheal[{extra}]'"
            yield Check(name=f"extra {extra}", state="fail", found=found_text, remedy=remedy)
        elif missing:
            found_text = f"not installed ({', '.join(missing)}): would add {adds}"
            remedy = f"if wanted: pip install 'qigheal[{extra}]'"
            yield Check(name=f"extra {extra}", state="ok", found=found_text, remedy=remedy)
        else:
            yield Check(name=f"extra {extra}", state="ok", found=f"installed: {adds}")


def _unequipped() -> Iterator[Check]:
    from qigheal.healing.measuring import equipped

    try:
        equipped()
    except MissingExtra as error:
        remedy = f"pip install 'qigheal[{error.extra}]'"
        yield Check(name=f"extra {error.extra}", state="fail", found=one_line(error), remedy=remedy)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def sandbox(*, needed: bool) -> Iterator[Check]:
    """The isolation that can be had here, tried by a command that does nothing."""
    from qigheal.sandbox import Sandbox

    try:
        box = Sandbox("auto")
        with tempfile.TemporaryDirectory(prefix="qigheal-doctor-") as folder:
            Path(folder).chmod(0o755)  # the user inside is another
            box.run(["python", "-c", "pass"], tree=Path(folder), timeout_s=60)
    except SandboxError as error:
        remedy = "without it nothing is healed here; watching goes on all the same"
        yield Check(name="sandbox", state="fail" if needed else "warn", found=one_line(error), remedy=remedy)
        return
    found = f"level {box.level}: {box.note}"
    if box.level == "namespaces":
        yield Check(name="sandbox", state="ok", found=found)
    else:
        remedy = "install bubblewrap: phase 4 and diffs of others need the whole isolation"
        yield Check(name="sandbox", state="warn", found=found, remedy=remedy)


def clock(began: tuple[float, float]) -> Iterator[Check]:
    """The time zone, and whether the wall clock was set while this ran. `began`: (wall, monotonic) seconds."""
    now = datetime.now().astimezone()
    yield Check(name="time zone", state="ok", found=f"{now.tzname()}, UTC{now:%z}")
    if time.time() < 1.6e9:
        remedy = "set it: snapshots are ordered by it"
        yield Check(name="clock", state="fail", found=f"the wall clock says {now:%Y-%m-%d}", remedy=remedy)
        return
    step = (time.time() - began[0]) - (time.monotonic() - began[1])
    if abs(step) > STEP_S:
        found = f"the wall clock was set by {step:+.1f} s while this ran"
        remedy = "let it be slewed and not stepped: snapshots are ordered by it"
        yield Check(name="clock", state="warn", found=found, remedy=remedy)
    else:
        yield Check(name="clock", state="ok", found="the wall clock keeps pace with the monotonic one")


def environment() -> Iterator[Check]:
    """Which variables of this package are set. Of secrets the name alone."""
    names = sorted(name for name in os.environ if name.startswith("QIGHEAL_"))
    said = [f"{name}={os.environ[name]}" if name in SHOWN else name for name in names]
    yield Check(name="environment", state="ok", found=", ".join(said) or "no QIGHEAL_ variable is set")
    tokens = [os.environ[name] for name in TOKENS if os.environ.get(name)]
    if len(tokens) != len(set(tokens)):
        found = "two of the tokens for the web interface are the same"
        remedy = "give each its own: who may read should not be able to merge"
        yield Check(name="tokens", state="warn", found=found, remedy=remedy)
