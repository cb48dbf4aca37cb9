"""`qigheal watch`: frames for terminals of every size, lines for scripts, and a clean end."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from qigcore.history import History
from qigcore.rows import HEAD
from qigheal.cli import show_watch, sparks
from qigheal.cli.watching import Healing, Scene, Watched
from qigheal.records import Change, HealingPatch
from tests.heal.toyhost import ToyHost
from tests.test_cli import qigheal

COMMAND = [sys.executable, "-c", "from qigheal.cli import main; main()", "watch"]
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy = ToyHost(tmp_path_factory.mktemp("toy"))
    toy.learn()
    toy.live(1.0, 60, toy.healthy)
    return toy.store


@pytest.fixture
def store(learned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned, tmp_path / "store"))


def more(store: Path, count: int, *, phi: float = 0.75, module: str = "", at: float | None = None) -> None:
    heads = np.zeros(count, HEAD)
    heads["timestamp"] = (time.time() if at is None else at) + np.arange(count) * 1e-3
    heads["phi"], heads["kappa_eff"], heads["avg_latency_ms"], heads["memory_mb"] = phi, 64.0, 5.0, 100.0
    heads["module"] = 1
    with History(store) as history:
        history.append_rows(heads, np.ones((count, 64)), ("", module))


@pytest.fixture(scope="module")
def scene(learned: Path) -> Scene:
    watched = Watched(learned)
    watched.take(watched.standing.last().batch)
    return watched.scene(1.7e9 + 400)


def drawn(
    scene: Scene, width: int, height: int | None, *, blocks: bool = True, colour: bool = False
) -> list[str]:
    out = io.StringIO()
    kind = "truecolor" if colour else None
    console = Console(file=out, width=width, force_terminal=colour, color_system=kind, emoji=False)  # type: ignore[arg-type]
    console.print(show_watch.Frame(scene, blocks=blocks, height=height, keys="q quits"))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (200, 60), (120, 40), (80, 12), (40, 24), (20, 5), (10, 3), (1, 1)]
)
def test_a_frame_fits_every_terminal(scene: Scene, width: int, height: int) -> None:
    lines = drawn(scene, width, height)
    assert len(lines) <= height
    assert all(len(line) <= max(width, show_watch.LEAST_WIDTH) for line in lines)


def test_80_by_24_shows_everything(scene: Scene) -> None:
    text = "\n".join(drawn(scene, 80, 24))
    assert "healthy after 360 snapshots" in text
    for name in ("Φ", "κ", "drift", "latency", "errors", "memory", "moved most", "phase 1", "steady"):
        assert name in text
    assert re.search(r"at most 0\.0\d\d", text)
    assert re.search(r"0\.7\d\d–0\.7\d\d", text)
    assert set(text) & set(sparks.BLOCKS[1:])


def test_a_tall_terminal_gets_taller_charts(scene: Scene) -> None:
    low, tall = drawn(scene, 100, 16), drawn(scene, 100, 50)
    assert len(tall) == len(low) + 12


def test_ascii_and_no_colour_say_the_same(scene: Scene) -> None:
    text = "\n".join(drawn(scene, 80, 24, blocks=False))
    text.encode("ascii")
    assert "Phi" in text
    assert "kappa" in text
    assert "\033" not in text
    assert "\033[" in "\n".join(drawn(scene, 80, 24, colour=True))


def test_what_is_wrong_is_said_in_words_since_when_and_where(store: Path) -> None:
    more(store, 20, phi=0.2)
    watched = Watched(store)
    watched.take(watched.standing.last().batch)
    text = "\n".join(drawn(watched.scene(time.time()), 100, 30))
    assert text.splitlines()[1].startswith("critical after 380 snapshots")
    assert re.search(r"^  critical since [0-9-]*[ ]?\d\d:\d\d:\d\d: Φ degraded", text, re.M)
    assert re.search(r"^Φ +0\.200!", text, re.M)


def test_text_of_others_is_only_text(scene: Scene) -> None:
    patch = HealingPatch(
        strategy="[red]x\033[2J", tier="review", base="0" * 40, diff="", rationale="", heals=()
    )
    change = Change(
        id="ab12", state="open", patch=patch, verdict=None, branch="b", target="main", opened_at=1.0,
        reason="a\nb\r\033]0;t\a[/]",
    )  # fmt: skip
    odd = msgspec.structs.replace(
        scene, store="\033[31mplace", healing=Healing(phase=3, means="review", changes=(change,))
    )
    for colour in (False, True):
        lines = drawn(odd, 120, 30, colour=colour)
        text = re.sub(r"\033\[[0-9;]*m", "", "\n".join(lines))
        assert "\033" not in text
        assert "\a" not in text
        assert "[red]x" in text
        assert "[/]" in text
        assert sum("change ab12" in line for line in lines) == 1


def test_snapshots_are_taken_in_time_order_and_the_oldest_go(store: Path) -> None:
    watched = Watched(store)
    newest = watched.newest
    assert newest is not None
    for batch in (watched.standing.last(360).batch, watched.standing.last(40).batch):
        watched.take(batch)  # the second has rows that are older than the newest
    assert len(watched.batch) == 400
    assert (np.diff(watched.batch.timestamp) >= 0).all()
    for _ in range(3):
        watched.take(watched.standing.last(360).batch)
    assert len(watched.batch) == 1000


def test_charts_of_numbers() -> None:
    assert sparks.line([0, 1, 2, 3, 4, 5, 6, 7], 8, 1, 0, 7, blocks=True) == ["▁▂▃▄▅▆▇█"]
    assert sparks.line([0, float("nan"), 7], 8, 1, 0, 7, blocks=False) == ["_ #"]
    assert sparks.line([0, 7], 2, 2, 0, 7, blocks=True) == [" █", "▁█"]
    assert sparks.line([5, 5], 2, 1, 5, 5, blocks=True) == ["▅▅"]
    assert sparks.thinned([1, 3, 5, 7], 2) == [2.0, 6.0]
    assert sparks.span([1.0, 2.0], 3.0, 100.0, None) == (1.0, 3.0)
    assert sparks.span([0.0], 0.05) == (0.0, 0.05)
    assert sparks.span([float("nan")]) == (0.0, 1.0)
    assert [sparks.bar(part, 2, blocks=True) for part in (0, 0.25, 1, 9)] == ["", "▌", "██", "██"]
    assert not sparks.drawable("ascii")
    assert not sparks.drawable(None)
    assert sparks.drawable("utf-8")


def test_once_in_a_pipe(store: Path, tmp_path: Path) -> None:
    with History(store) as living:
        living.append(living.last(1))
        said = qigheal("watch", "--once", "--store", store, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "healthy after 361 snapshots" in said.stdout
    more(store, 20, phi=0.2)
    said = qigheal("watch", "--once", "--json", "--store", store, cwd=tmp_path)
    assert said.returncode == 1, said.stderr
    document = json.loads(said.stdout)
    assert document["report"]["severity"] == "critical"
    assert len(document["series"]["phi"]) == 240
    assert document["healing"]["phase"] == 1


def test_once_of_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = qigheal("watch", "--once", "--store", "empty", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (2, "")
    assert "no snapshots are stored here yet" in said.stdout


@pytest.mark.parametrize("arguments", [("--every", "0"), ("--every", "soon"), ("--every", "1y")])
def test_a_wrong_interval_is_an_error_of_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = qigheal("watch", *arguments, cwd=tmp_path)
    assert said.returncode == 64
    assert len(said.stderr.splitlines()) == 1


def started(store: Path, *arguments: str, out: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [*COMMAND, "--store", str(store), "--every", "0.1s", *arguments],
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_lines_for_scripts_as_they_come(store: Path, number: signal.Signals) -> None:
    with started(store, "--json") as watching:
        assert watching.stdout is not None
        found: list[dict[str, object]] = []
        while not found:  # the first ones may be there before it looks
            more(store, 1, module="\033[2J\n[red]")
            ready, _, _ = select.select([watching.stdout], [], [], 0.5)
            if ready:
                found.append(json.loads(watching.stdout.readline()))
            assert watching.poll() is None
        assert found[0]["phi"] == pytest.approx(0.75, rel=1e-4)
        assert found[0]["status"] in ("healthy", "warning", "critical")
        assert "basin_coords" not in found[0]
        watching.send_signal(number)
        _, complaint = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == (0 if number == signal.SIGINT else 143), complaint
    assert complaint == ""


class Terminal:
    """A terminal of a size, with a command in it."""

    def __init__(self, store: Path, rows: int, columns: int, **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(rows, columns)
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        path = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [*COMMAND, "--store", str(store), "--every", "0.3s"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**kept, "PYTHONPATH": path, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no threads here
        )
        os.close(theirs)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, there: Callable[[str], bool]) -> str:
        """What was printed, once that is so."""
        until = time.monotonic() + PATIENCE_S
        while not there(self.seen):
            assert time.monotonic() < until, plain_lines(self.seen)[-30:]
            ready, _, _ = select.select([self.ours], [], [], 1.0)
            if ready:
                try:
                    self.seen += os.read(self.ours, 65536).decode("utf-8", "replace")
                except OSError:
                    assert there(self.seen), plain_lines(self.seen)[-30:]
        return self.seen

    def ended(self) -> int:
        """The exit code; what it still prints is taken meanwhile."""
        until = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < until
            over = self.process.poll() is not None  # looked at first: what it printed before is then there
            if select.select([self.ours], [], [], 0.0 if over else 0.1)[0]:
                try:
                    self.seen += os.read(self.ours, 65536).decode("utf-8", "replace")
                    continue
                except OSError:  # nobody has the other end any more
                    self.process.wait(PATIENCE_S)
                    return self.process.returncode
            if over:
                return self.process.returncode


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*arguments: object, **environment: str) -> Terminal:
        made.append(Terminal(*arguments, **environment))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        os.close(each.ours)


LEFT = "\033[?1049l"
"""What puts the terminal back to what it showed before."""


def test_live_in_a_terminal_resized_and_ended_by_a_key(
    store: Path, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal(store, 24, 80)
    shown.until(lambda text: " after 360 snapshots" in text)
    assert "q quits" in shown.seen
    more(store, 1)
    shown.until(lambda text: "after 361 snapshots" in text)
    assert max(len(line) for line in plain_lines(shown.seen)) <= 80
    shown.resize(30, 150)
    shown.until(lambda text: any(len(line) > 100 for line in plain_lines(text)))
    os.write(shown.ours, b"q")
    assert shown.ended() == 0
    assert LEFT in shown.seen


def plain_lines(text: str) -> list[str]:
    return [re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+|\033\[H", text)]


def test_ctrl_c_ends_it_cleanly_and_no_colour_is_none(store: Path, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(store, 24, 80, NO_COLOR="1", PYTHONIOENCODING="ascii")
    shown.until(lambda text: " after 360 snapshots" in text)
    os.write(shown.ours, b"\x03")
    assert shown.ended() == 0
    assert "Traceback" not in shown.seen
    assert "interrupted" not in shown.seen
    assert LEFT in shown.seen
    assert "Phi" in shown.seen
    assert not re.search(r"\033\[[0-9;]*3[0-9]m", shown.seen)


def test_sigterm_puts_the_terminal_back(store: Path, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(store, 24, 80)
    shown.until(lambda text: " after 360 snapshots" in text)
    shown.process.terminate()
    assert shown.ended() == 143
    assert LEFT in shown.seen


def test_a_store_that_goes_away_ends_it_with_one_line(store: Path, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(store, 24, 80)
    shown.until(lambda text: " after 360 snapshots" in text)
    store.rename(store.with_name("elsewhere"))
    assert shown.ended() == 69
    after = shown.seen.rpartition(LEFT)[2]
    assert "qigheal: " in after
    assert "Traceback" not in shown.seen
