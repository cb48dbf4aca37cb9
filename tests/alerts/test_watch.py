"""AlertWatch over a real store and ledger: who alerts, what survives, and that nothing blocks."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.alerts import Alert, AlertError, AlertSettings, AlertWatch, Webhook
from qigheal.alerts.keeping import LOCK, STATE, Keeper
from qigheal.alerts.records import Said
from qigheal.alerts.seeing import look
from qigheal.healing import phases
from qigheal.healing.ledger import Ledger
from qigheal.settings import HealSettings
from tests.alerts.places import PATIENCE_S, Deaf, Heard, Hook, Stuck, hooked
from tests.alerts.scenes import change
from tests.heal.toyhost import ToyHost

FAST = AlertSettings(retry_first_s=0.01, retry_most_s=0.02, review_after_s=0.0)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> ToyHost:
    host = ToyHost(tmp_path_factory.mktemp("alerts"))
    host.learn()
    host.live(1.0, 60, host.healthy)
    return host


@pytest.fixture
def toy(learned: ToyHost, tmp_path: Path) -> Iterator[ToyHost]:
    """A healthy service with a store of its own."""
    shared, clock = learned.store, learned.clock
    learned.store = tmp_path / "digits" / ".qigheal"
    learned.store.parent.mkdir()
    subprocess.run(["cp", "-r", shared, learned.store], check=True)
    yield learned
    learned.store, learned.clock = shared, clock


def watching(toy: ToyHost, *sinks: Any, **fields: Any) -> AlertWatch:
    return AlertWatch(toy.store, sinks, **{"settings": FAST, "clock": lambda: toy.clock, **fields})


def sicken(toy: ToyHost) -> None:
    toy.live(6.0, 40, "c" * 40)


def test_a_sick_service_and_its_change_reach_the_sink_once(toy: ToyHost) -> None:
    heard = Heard()
    watch = watching(toy, heard)
    assert watch.look() == ()
    sicken(toy)
    ledger = Ledger(toy.store / "ledger.db")
    ledger.record_change(change("open"), toy.clock)
    assert {alert.kind for alert in watch.look()} == {"degraded", "review"}
    assert watch.look() == ()
    assert watch.settle(PATIENCE_S)
    sick = next(alert for alert in heard.alerts if alert.kind == "degraded")
    assert sick.title.startswith("digits: critical: ")
    assert any("components that moved" in line for line in sick.lines)
    assert any(f"--store {toy.store}" in line for line in sick.lines)
    toy.live(1.0, 60, toy.healthy)
    assert watch.look() == ()
    toy.clock += 120
    assert [alert.kind for alert in watch.look()] == ["recovered"]
    watch.close()


def test_a_move_of_the_ledger_and_the_healers_own_breaker_are_told(
    toy: ToyHost, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watching(toy, Heard())
    watch.look()
    ledger = Ledger(toy.store / "ledger.db")
    toy.clock += 30
    phases.override(ledger, 3, actor="Ada", reason="a test", at=toy.clock)
    (told,) = watch.look()
    assert (told.kind, told.severity, told.title) == (
        "phase",
        "warning",
        "digits: the healer is in phase 3 by override; it was in 1",
    )
    assert watch.look() == ()
    toy.clock += 30
    HealSettings(breaker_rollbacks=1).save(toy.store)
    ledger.record_change(change("reverting"), toy.clock)
    assert [alert.kind for alert in watch.look()] == ["rollback", "breaker"]
    (toy.store / "healer.json").write_text("{")
    toy.clock += 30
    ledger.record_change(change("reverting", "4b"), toy.clock)
    assert [alert.kind for alert in watch.look()] == ["rollback"], "an alert fails for no settings"
    assert "healer.json: expected the settings" in caplog.text
    watch.close()


def test_what_is_old_in_a_ledger_that_could_not_be_read_at_first_is_not_told(toy: ToyHost) -> None:
    ledger = Ledger(toy.store / "ledger.db")
    phases.override(ledger, 3, actor="Ada", reason="a test", at=toy.clock)
    ledger.record_change(change("contested"), toy.clock)
    ledger.path.rename(toy.store / "aside")
    ledger.path.write_text("no ledger")
    watch = watching(toy, Heard())
    for _ in range(2):
        assert watch.look() == ()
    ledger.path.unlink()
    (toy.store / "aside").rename(ledger.path)
    toy.clock += 30
    assert watch.look() == ()
    ledger.record_change(change("contested", "4b"), toy.clock)
    assert [(alert.kind, alert.change) for alert in watch.look()] == [("contested", "4b")]
    watch.close()


@pytest.mark.parametrize("kind", ["change", "phase"])
def test_an_entry_of_a_later_version_is_said_and_hides_no_other(
    kind: str, toy: ToyHost, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watching(toy, Heard())
    watch.look()
    ledger = Ledger(toy.store / "ledger.db")
    ledger.append(kind, "x", {"to": "another universe"}, toy.clock)
    ledger.record_change(change("contested"), toy.clock)
    assert [alert.kind for alert in watch.look()] == ["contested"]
    assert f"entry 1 of the ledger ({kind} x)" in caplog.text
    assert watch.look() == ()
    watch.close()


def test_what_was_said_survives_a_restart_and_is_not_repeated(toy: ToyHost) -> None:
    first = Heard()
    with watching(toy, first, every_s=3600.0) as watch:
        sicken(toy)
        watch.look()
        assert watch.settle(PATIENCE_S)
    assert [alert.kind for alert in first.alerts] == ["degraded"]
    second = Heard()
    watch = watching(toy, second)
    assert watch.look() == ()
    assert watch.settle(PATIENCE_S)
    assert second.alerts == []
    watch.close()


def test_of_several_workers_one_alerts_and_another_takes_over(toy: ToyHost) -> None:
    heard = Heard("a"), Heard("b")
    one, two = (watching(toy, each) for each in heard)
    one.look()
    assert (one.leading, two.look(), two.leading) == (True, (), False)
    sicken(toy)
    assert two.look() == ()
    one.close()
    assert [alert.kind for alert in two.look()] == ["degraded"]
    assert two.settle(PATIENCE_S)
    two.close()
    assert tuple([a.kind for a in each.alerts] for each in heard) == ([], ["degraded"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # a thread of another test may linger
def test_a_child_of_a_fork_neither_alerts_nor_keeps_the_lock(toy: ToyHost) -> None:
    watch = watching(toy, Heard())
    watch.look()
    done, told = os.pipe()
    held, let = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(told, b"1" if watch.leading or watch.look() else b"0")
            os.close(let)
            os.read(held, 1)  # outlives the parent's watch
        finally:
            os._exit(0)
    try:
        assert os.read(done, 1) == b"0"
        watch.close()
        other = watching(toy, Heard())
        other.look()
        assert other.leading
        other.close()
    finally:
        os.close(let)
        os.waitpid(child, 0)
        for each in (done, told, held):
            os.close(each)


def test_a_sink_that_hangs_holds_up_no_other_and_closing_is_quick(toy: ToyHost) -> None:
    heard, stuck, deaf = Heard(), Stuck(), Deaf()
    watch = watching(toy, stuck, deaf, heard)
    sicken(toy)
    watch.look()
    assert stuck.taken.wait(PATIENCE_S)
    assert deaf.taken.wait(PATIENCE_S)
    assert not watch.settle(0.0)
    limit = time.monotonic() + PATIENCE_S
    while watch.pending["heard"] and time.monotonic() < limit:
        time.sleep(0.001)
    assert [alert.kind for alert in heard.alerts] == ["degraded"]
    assert watch.pending == {"stuck": 1, "deaf": 1, "heard": 0}
    closing = threading.Thread(target=watch.close)
    closing.start()
    closing.join(PATIENCE_S / 4)  # far more than a second, far less than the sinks would take
    assert not closing.is_alive()
    deaf.gone.set()
    again = Heard("stuck")
    after = watching(toy, again)
    after.look()
    assert after.settle(PATIENCE_S)
    assert [alert.kind for alert in again.alerts] == ["degraded"]
    after.close()


def test_failures_are_tried_again_and_final_ones_counted(
    toy: ToyHost, caplog: pytest.LogCaptureFixture
) -> None:
    weak, refused = Heard("weak", failing=5), Heard("refused", failing=1, again=False)
    watch = watching(toy, weak, refused)
    watch.look()
    sicken(toy)
    watch.look()
    assert watch.settle(PATIENCE_S)
    assert (weak.tries, len(weak.alerts)) == (6, 1)
    assert (refused.tries, len(refused.alerts)) == (1, 0)
    assert "given up: not now" in caplog.text
    Ledger(toy.store / "ledger.db").record_change(change("contested"), toy.clock)
    watch.look()
    assert watch.settle(PATIENCE_S)
    assert [alert.undelivered for alert in refused.alerts] == [1]
    Ledger(toy.store / "ledger.db").record_change(change("contested", "5e"), toy.clock)
    watch.look()
    assert watch.settle(PATIENCE_S)
    assert [alert.undelivered for alert in refused.alerts] == [1, 0]
    watch.close()


def test_an_alert_that_is_too_old_is_given_up(toy: ToyHost) -> None:
    never = Heard("never", failing=10**9)
    watch = watching(toy, never, settings=replace(FAST, give_up_after_s=60.0))
    sicken(toy)
    watch.look()
    toy.clock += 61
    assert watch.settle(PATIENCE_S)
    assert never.alerts == []
    assert watch.pending == {"never": 0}
    watch.close()


def test_a_full_queue_drops_the_oldest_and_says_so(toy: ToyHost) -> None:
    stuck = Stuck("place")
    watch = watching(toy, stuck, settings=replace(FAST, queue=2, most=100))
    watch.look()
    ledger = Ledger(toy.store / "ledger.db")
    for number in range(5):
        ledger.record_change(change("contested", f"{number}"), toy.clock)
    watch.look()
    assert watch.pending == {"place": 2}
    watch.close()
    heard = Heard("place")
    after = watching(toy, heard)
    after.look()
    assert after.settle(PATIENCE_S)
    assert [(alert.change, alert.undelivered) for alert in heard.alerts] == [("3", 3), ("4", 0)]
    after.close()


def test_more_than_the_limit_is_held_back_and_told_later(toy: ToyHost) -> None:
    heard = Heard()
    watch = watching(toy, heard, settings=replace(FAST, most=2, within_s=600.0))
    watch.look()
    ledger = Ledger(toy.store / "ledger.db")
    for number in range(6):
        ledger.record_change(change("contested", f"{number}"), toy.clock)
    watch.look()
    assert watch.settle(PATIENCE_S)
    assert [alert.change for alert in heard.alerts] == ["0", "1"]
    watch.close()
    toy.clock += 600
    watch = watching(toy, heard, settings=replace(FAST, most=2, within_s=600.0))
    watch.look()
    assert watch.settle(PATIENCE_S)
    assert [(alert.change, alert.held_back) for alert in heard.alerts[2:] if alert.kind == "contested"] == [
        ("5", 3)
    ]
    watch.close()


def test_what_is_delivered_during_a_look_stays_delivered(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, heard = Deaf("slow"), Heard()
    watch = watching(toy, slow, heard)
    sicken(toy)
    watch.look()
    assert slow.taken.wait(PATIENCE_S)

    def look_amid(*given: Any) -> Any:
        slow.gone.set()
        assert watch.settle(PATIENCE_S)
        return look(*given)

    monkeypatch.setattr("qigheal.alerts.watch.look", look_amid)
    watch.look()
    assert watch.settle(PATIENCE_S)
    assert (slow.sent, len(heard.alerts)) == (1, 1)
    watch.close()


@pytest.mark.parametrize("rows", [1, 5])
def test_another_ledger_in_the_same_place_is_noticed(toy: ToyHost, rows: int) -> None:
    watch = watching(toy, Heard())
    ledger = Ledger(toy.store / "ledger.db")
    for number in range(3):
        ledger.record_change(change("confirmed", f"{number}"), toy.clock)
    watch.look()
    for path in toy.store.glob("ledger.db*"):
        path.unlink()
    toy.clock += 60
    ids = [f"9{number}" for number in range(rows)]
    for each in ids:
        Ledger(toy.store / "ledger.db").record_change(change("contested", each), toy.clock + 1)
    toy.clock += 2
    assert [alert.change for alert in watch.look() if alert.kind == "contested"] == ids
    watch.close()


def test_a_store_that_is_not_there_yet_and_one_that_goes(toy: ToyHost, tmp_path: Path) -> None:
    watch = AlertWatch(tmp_path / "later", [Heard()])
    assert watch.look() == ()
    assert not (tmp_path / "later").exists()
    (tmp_path / "later").mkdir()
    watch.look()
    assert watch.leading
    (tmp_path / "later" / LOCK).unlink()  # as when the store is removed and made anew
    other = AlertWatch(tmp_path / "later", [Heard()])
    other.look()
    watch.look()
    assert (watch.leading, other.leading) == (False, True)
    watch.close()
    other.close()


def test_the_state_file_is_for_its_owner_and_holds_no_secret(toy: ToyHost) -> None:
    with hooked(*[(500, {})] * 1000) as hook:
        watch = watching(toy, Webhook(hook.url, headers={"X-Key": "SECRET"}))
        sicken(toy)
        watch.look()
        hook.next()
        watch.close()
    path = toy.store / STATE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert "degraded" in text
    assert "SECRET" not in text
    assert not list(toy.store.glob(".alerts*"))


def test_nothing_secret_is_logged(toy: ToyHost, caplog: pytest.LogCaptureFixture) -> None:
    class Careless(Heard):
        def send(self, alert: Alert, deadline_s: float, stop: threading.Event) -> None:
            raise ValueError("https://host/SECRET")

    caplog.set_level(logging.DEBUG)
    with hooked((404, {})) as hook:
        watch = watching(toy, Webhook(hook.url), Careless("careless"))
        sicken(toy)
        watch.look()
        hook.next()
        limit = time.monotonic() + PATIENCE_S
        while watch.pending["webhook 127.0.0.1"] and time.monotonic() < limit:
            time.sleep(0.001)
        watch.close()
    assert "the server answered 404" in caplog.text
    assert "the sink raised ValueError" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2}', b'{"outbox": 7}'])
def test_a_state_file_that_cannot_be_read_begins_anew(
    toy: ToyHost, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (toy.store / STATE).write_bytes(content)
    sicken(toy)
    watch = watching(toy, Heard())
    assert [alert.kind for alert in watch.look()] == ["degraded"]
    assert "begin anew" in caplog.text
    watch.close()


def test_a_full_disk_keeps_nobody_from_being_told(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    watch = watching(toy, heard)
    watch.look()

    def full(self: Keeper, said: Said) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "_save", full)
        sicken(toy)
        watch.look()
        assert watch.settle(PATIENCE_S)
        assert watch.look() == ()
    assert len(heard.alerts) == 1
    assert caplog.text.count("No space left") == 1
    watch.look()  # and it is kept as soon as it can be
    watch.close()
    assert watching(toy, Heard()).look() == ()


def test_a_mistake_in_a_look_does_not_reach_the_host(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watching(toy, Heard(), losses=lambda: 1 // 0)
    assert watch.look() == ()
    assert watch.look() == ()
    assert caplog.text.count("Traceback") == 1
    watch.close()


def test_two_sinks_of_one_name_and_what_is_no_sink(toy: ToyHost) -> None:
    watch = watching(toy, Heard("x"), Heard("x"))
    assert list(watch.pending) == ["x", "x #2"]
    with pytest.raises(AlertError, match="expected sinks"):
        watching(toy, "https://hooks.slack.com/SECRET")


KILLED = """
import os, sys
from qigheal.alerts import AlertSettings, AlertWatch, Webhook
store, url, now = sys.argv[1], sys.argv[2], float(sys.argv[3])
watch = AlertWatch(store, [Webhook(url)], settings=AlertSettings(every_s=0.01), clock=lambda: now)
watch.start()
print("up", flush=True)
sys.stdin.read()
"""


def killed_while_sending(toy: ToyHost, hook: Hook) -> dict[str, Any]:
    """What was posted by a process that was killed before the answer came."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(toy.store), hook.url, str(toy.clock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        posted = hook.next()
        process.send_signal(signal.SIGKILL)
    return posted


def test_killed_while_sending_it_is_sent_once_more_and_then_no_more(toy: ToyHost) -> None:
    sicken(toy)
    with hooked(Hook.hang, Hook.hang) as hook:
        first = killed_while_sending(toy, hook)
        second = killed_while_sending(toy, hook)
        assert first["alert"]["key"] == second["alert"]["key"]
        hook.gone.set()
        watch = watching(toy, Webhook(hook.url))
        watch.look()
        assert hook.next()["alert"]["key"] == first["alert"]["key"]
        assert watch.settle(PATIENCE_S)
        assert watch.look() == ()
        watch.close()
        assert watching(toy, Webhook(hook.url)).look() == ()
        assert hook.posted.empty()
