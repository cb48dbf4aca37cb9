"""`qigheal watch`: a store as it changes, live in a terminal, or as lines for scripts."""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from qigcore.durations import seconds
from qigcore.errors import InvalidLimit
from qigcore.history import History
from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY, show, show_watch, sparks
from qigheal.cli.options import Store, named
from qigheal.cli.watching import Feed, Scene, Watched
from qigheal.health import remeasure

LOOK_S = 0.1
"""How often keys and the window's size are looked at."""

FIRST_S = 5.0
"""How long a first frame waits for the snapshots that are there already."""


def duration(text: str) -> float:
    """Seconds of what a person types; at least a tenth of one."""
    try:
        found = float(text) if text.replace(".", "", 1).isdigit() else seconds(text, "--every")
    except InvalidLimit as error:
        raise typer.BadParameter(str(error)) from None
    if not 0.1 <= found <= 86_400.0:
        raise typer.BadParameter(f"expected from 0.1 s to a day, got {text}")
    return found


def watch(
    store: Store = None,
    every: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="How often to look: 1s, 500 ms as 0.5s.")
    ] = "1s",  # type: ignore[assignment]  # typer hands the default to the parser
    once: Annotated[
        bool, typer.Option("--once", help="One frame of what is there now, and no more.")
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document a snapshot, a line each; with --once a single one."),
    ] = False,
) -> int:
    """Watch a service live: state, figures with their limits, components that moved, changes and phase.

    In a terminal q or Ctrl-C ends it, with exit code 0. Where the output is no terminal, each new snapshot is
    printed as a line, with --json as a JSON document. With --once the exit code is that of status.

    Example: qigheal watch --store /var/lib/digits/.qigheal --every 2s
    """
    place = named(store)
    if once:
        return _once(place, json=json)
    try:
        if json or not sys.stdout.isatty():
            _lines(place, every, json=json)
        else:
            _live(place, every)
    except KeyboardInterrupt:
        pass
    return FINE


def _once(place: Path, *, json: bool) -> int:
    watched = Watched(place)
    found = watched.standing.last()
    watched.take(found.batch)
    scene = watched.scene(time.time())
    if json:
        show.document(scene)
    else:
        show.console.print(show_watch.Frame(scene, blocks=_blocks()))
    if scene.report.state == "learning":
        return NOTHING_TO_SAY
    return FINE if scene.report.healthy else UNHEALTHY


def _blocks() -> bool:
    return sparks.drawable(sys.stdout.encoding)


def _lines(place: Path, every: float, *, json: bool) -> None:
    watched = Watched(place)
    first = watched.standing.last()
    watched.take(first.batch)
    start = None if watched.newest is None else math.nextafter(watched.newest, math.inf)
    blocks = _blocks()
    with History.read_only(place) as history:
        for batch in history.follow(poll_s=every, start=start):
            watched.take(batch)
            baseline = watched.standing.baseline
            report = watched.scene(time.time()).report
            shown = batch if baseline is None else remeasure(batch, baseline)
            if json:
                for row in show_watch.documents(shown, report):
                    print(msgspec.json.encode(row).decode())
            else:
                for text in show_watch.lines(shown, report, blocks=blocks):
                    print(show.plain(text))
            sys.stdout.flush()


def _live(place: Path, every: float) -> None:
    from rich.live import Live

    watched = Watched(place)
    feed = Feed(place, watched.start, min(every, 1.0))
    feed.start()
    console, blocks = show.console, _blocks()
    try:
        with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
            hint = "q quits" if keys is not None else "Ctrl-C quits"
            scene: Scene | None = None
            drawn_at, drawn_size = -math.inf, console.size
            wait_s = FIRST_S if watched.newest is not None else 0.0
            while True:
                for batch in feed.taken(wait_s):
                    watched.take(batch)
                wait_s = 0.0
                if time.monotonic() - drawn_at >= every or scene is None:
                    scene = watched.scene(time.time())
                    drawn_at = time.monotonic()
                elif console.size == drawn_size:
                    if _pressed(keys, LOOK_S) in ("q", "Q", "\x03"):
                        return
                    continue
                drawn_size = console.size
                frame = show_watch.Frame(scene, blocks=blocks, keys=hint, height=drawn_size.height)
                live.update(frame, refresh=True)
    finally:
        feed.stop.set()
        feed.join(timeout=5.0)


@contextmanager
def _keys() -> Iterator[int | None]:
    """Standard input as keys that come one by one, unseen; None where it is no terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield terminal
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _pressed(terminal: int | None, wait_s: float) -> str:
    """The key pressed within that time, or none."""
    if terminal is None:
        time.sleep(wait_s)
        return ""
    ready, _, _ = select.select([terminal], [], [], wait_s)
    return os.read(terminal, 1).decode("ascii", "replace") if ready else ""
