"""A chain has itself healed, by a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from qigheal.inherited import GITHUB
from qigheal.integrations.chain import childheal
from tests.chains import (
    BASIN,
    Chain,
    Result,
    classes_as_before,  # noqa: F401  # by being here it is around every test
    monitored,
    step,
)
from tests.heal.toyhost import ToyHost
from tests.test_inherited import SECRETS


def test_manual_heal_says_how_to_enable_it(tmp_path: Path) -> None:
    chain = monitored(Chain())
    said = asyncio.run(chain.self_healing.manual_heal())
    assert said["triggered"] is False
    assert "host=... and store=..." in said["message"]
    chain.self_healing.remove()
    chain = monitored(Chain(), store=tmp_path / "s")
    assert "with host=...," in asyncio.run(chain.self_healing.manual_heal())["message"]
    chain.self_healing.remove()


def healer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Any:
    """A chain whose healer is this program."""
    monkeypatch.setattr(childheal, "command", lambda host, store: [sys.executable, "-c", code, host, store])
    return monitored(Chain(), store=tmp_path / "s", host=tmp_path)


def test_manual_heal_gives_what_the_healer_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, json; print(json.dumps({'triggered': True, 'message': str(os.nice(0))})); raise SystemExit(2)"
    chain = healer(tmp_path, monkeypatch, code)
    before = os.nice(0)
    assert asyncio.run(chain.self_healing.manual_heal())["triggered"] is True
    assert os.nice(0) == before
    chain.self_healing.remove()


def test_a_healer_gets_no_secret_but_githubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, GITHUB):
        monkeypatch.setenv(name, "secret")
    code = "import os, json; print(json.dumps({n: 1 for n, v in os.environ.items() if v == 'secret'}))"
    chain = healer(tmp_path, monkeypatch, code)
    assert asyncio.run(chain.self_healing.manual_heal()) == {GITHUB: 1}
    chain.self_healing.remove()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import sys; print('x\\nqigheal: no manifest', file=sys.stderr); sys.exit(69)",
            "69: qigheal: no manifest",
        ),
        ("print('not json')", "exit code 0"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_a_healer_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    chain = healer(tmp_path, monkeypatch, code)
    said = asyncio.run(chain.self_healing.manual_heal())
    assert said["triggered"] is False
    assert told in said["message"]
    chain.self_healing.remove()


def test_start_heals_while_the_chain_is_not_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "healed"
    chain = healer(tmp_path, monkeypatch, f"open({str(mark)!r}, 'a').write('x'); print('{{}}')")

    async def use() -> None:
        monitor, looked = chain.self_healing.monitor, asyncio.Event()
        check = monitor.check_health
        monkeypatch.setattr(monitor, "check_health", lambda: looked.set() or check(), raising=False)
        await chain.self_healing.start(3600, heal_every_seconds=0.01)
        for _ in range(2):  # the second look is after what came of the first
            looked.clear()
            await looked.wait()
        assert not mark.exists()
        for _ in range(20):
            chain.answers = [Result([step(phi_after=0.1)])]
            chain.run(BASIN)
        while not mark.exists():
            await asyncio.sleep(0.01)
        await chain.self_healing.stop()

    asyncio.run(asyncio.wait_for(use(), 120))
    chain.self_healing.remove()


def test_the_healer_reads_what_a_chain_stored(tmp_path: Path) -> None:
    toy = ToyHost(tmp_path)
    chain = monitored(Chain(), store=tmp_path / "chain", host=toy.path, flush_every_s=5.0)
    for _ in range(30):
        chain.run(BASIN)
    said = asyncio.run(chain.self_healing.manual_heal())
    assert said["triggered"] is False
    assert said["message"]
    chain.self_healing.remove()


def test_stop_ends_the_healer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "begun"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    chain = healer(tmp_path, monkeypatch, code)

    async def use() -> None:
        first = asyncio.create_task(chain.self_healing.manual_heal())
        while not mark.exists() or not mark.read_text():
            await asyncio.sleep(0.01)
        assert "under way" in (await chain.self_healing.manual_heal())["message"]
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(asyncio.wait_for(use(), 120))
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    chain.self_healing.remove()


def test_the_real_healer_is_found() -> None:
    argv = childheal.command(Path("host"), Path("store"))
    assert argv[1:4] == ["-P", "-m", "qigheal"]

    async def use() -> dict[str, Any]:
        return await childheal.heal([*argv[:4], "heal", "/nowhere/at/all", "--json"])

    said = asyncio.run(use())
    assert said["triggered"] is False
    assert "exit code 69: qigheal:" in said["message"]
