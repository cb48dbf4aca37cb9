"""Why nothing came of a pass: what strategies say is heard, kept short and printable, and written down once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from qigheal.healing import phases
from qigheal.healing.asking import NOT_AGAIN, in_vain
from qigheal.healing.bench import Bench
from qigheal.reasons import MOST_EACH, MOST_TEXT, Reasons, heard, log
from qigheal.records import Diagnosis, HealingPatch, HealResult, Reason
from qigheal.repo import Repo
from tests.heal.test_engine import engine, harmful, sick
from tests.heal.toyhost import ToyHost


@pytest.fixture
def toy(tmp_path: Path) -> ToyHost:
    host = ToyHost(tmp_path)
    sick(host)
    return host


class Saying:
    """A strategy that says the same each time, and proposes what it is given."""

    name, tier, metrics = "saying", "safe", ("phi", "basin_drift")

    def __init__(self, *said: str, diff: str = "") -> None:
        self.said, self.diff, self.asked = said, diff, 0

    def propose(self, diagnosis: Diagnosis, bench: Bench, repo: Repo) -> Iterator[HealingPatch]:
        self.asked += 1
        for text in self.said:
            log.info("saying: %s", text)
        if self.diff:
            yield HealingPatch(
                strategy=self.name,
                tier="safe",
                base=bench.base,
                diff=self.diff,
                rationale="a try",
                heals=("phi",),
            )


def asked(monkeypatch: pytest.MonkeyPatch, *strategies: Saying, left_out: tuple[str, ...] = ()) -> None:
    monkeypatch.setattr("qigheal.healing.engine.askable", lambda *_: (strategies, left_out))


def test_reasons_are_heard_whatever_the_log_is_set_to(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "qigheal"):
        log.info("before")
        with heard() as said:
            log.info("of %d and %s", 3, "four")
            log.debug("too small a matter")
            try:
                raise ValueError("no licence")
            except ValueError:
                log.exception("strategy %s failed", "acme")
        log.info("after")
    assert said == ["of 3 and four", "strategy acme failed: ValueError: no licence"]
    assert [record.message for record in caplog.records] == ["strategy acme failed"]
    assert caplog.records[0].filename == "test_reasons.py", "the log says where it was said"


def test_what_another_thread_says_is_not_heard() -> None:
    with heard() as said:
        thread = threading.Thread(target=log.info, args=("elsewhere",))
        thread.start()
        thread.join()
        log.info("here")
    assert said == ["here"]


def test_reasons_are_short_printable_and_not_too_many() -> None:
    reasons = Reasons()
    reasons.add(
        "latency", ["latency: a\x1b[2Jb\nc\ud800\u202ed", "latency: a\x1b[2Jb\nc\ud800\u202ed", "x" * 5000]
    )
    first, second = reasons.all()
    assert first == Reason(strategy="latency", text="a\ufffd[2Jb c\ufffd\ufffdd")
    assert len(second.text) == MOST_TEXT
    reasons.add("latency", map(str, range(MOST_EACH)))
    reasons.add("memory", ["the last"])
    *_, more, last = reasons.all()
    assert len(reasons.of("latency")) == MOST_EACH + 1
    assert more.text == "and 2 more, which the log has at level info"
    assert last == Reason(strategy="memory", text="the last")
    assert msgspec.json.decode(msgspec.json.encode(last), type=Reason) == last


def test_the_result_says_why_each_strategy_had_no_patch(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking, silent = Saying("no lever", "nothing else"), Saying()
    silent.name = "silent"
    asked(monkeypatch, speaking, silent, left_out=("acme",))
    result = engine(toy).check_and_heal()
    assert result.message == "unhealthy; no strategy has a patch for this"
    assert [(reason.strategy, reason.text) for reason in result.reasons] == [
        ("acme", "not asked, as the sandbox is only partial"),
        ("saying", "no lever"),
        ("saying", "nothing else"),
        ("silent", "has no patch for this, and does not say why"),
    ]
    assert msgspec.json.decode(msgspec.json.encode(result), type=HealResult) == result


def test_a_strategy_that_is_named_and_cannot_heal_it_says_so(toy: ToyHost) -> None:
    result = engine(toy).check_and_heal(strategy="memory")
    (reason,) = result.reasons
    assert reason.strategy == "memory"
    assert reason.text.startswith("heals memory; unwell is ")


def test_a_proposal_that_is_not_accepted_is_told_of_with_its_reason(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    healer = engine(toy)
    asked(monkeypatch, Saying("not the best", diff=harmful(toy, healer).replace("app.toml", "none.toml")))
    result = healer.check_and_heal()
    (verdict,) = result.verdicts
    (patch,) = result.patches
    assert verdict.decision == "refused"
    other, refused = result.reasons
    assert (other.text, other.patch) == ("not the best", "")
    assert refused.text.startswith(f"{patch.fingerprint} is not accepted: the patch is refused: ")
    assert refused.patch == patch.fingerprint
    again = healer.check_and_heal(again=False)
    assert again.verdicts == ()
    assert again.reasons[1].patch == patch.fingerprint
    assert "was measured 1 times, last: refused; " in again.reasons[1].text


def test_the_loop_knows_the_reasons_of_the_answer_that_it_does_not_ask_for_again(
    toy: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying = Saying("no lever")
    asked(monkeypatch, saying)
    healer = engine(toy)
    first = healer.check_and_heal(again=False)
    saying.said = ("another word for it",)
    assert healer.check_and_heal(again=False).reasons == first.reasons
    assert saying.asked == 1
    healer.check_and_heal()
    assert len(healer.ledger.entries("asked")) == 1, "other words are no other answer"
    (vain,) = in_vain(healer.ledger)
    assert (vain.strategy, vain.answer.reasons) == ("saying", ("no lever",))


def test_a_strategy_is_asked_again_by_another_version(toy: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    saying = Saying("no lever")
    asked(monkeypatch, saying)
    healer = engine(toy)
    assert healer.check_and_heal().reasons
    (entry,) = healer.ledger.entries("asked")
    other = toy.break_it(6.5)  # a little worse in the same metrics
    toy.live(6.5, 60, other)
    written = {"base": other, "metrics": entry.read(phases.Asked).metrics, "patches": 0}
    healer.ledger.append("asked", "saying", written, healer.clock())
    result = healer.check_and_heal(again=False)
    assert saying.asked == 2
    assert [reason.text for reason in result.reasons] == ["no lever"]
    assert healer.ledger.entries("asked")[-1].read(phases.Asked).reasons == ("no lever",)
    bare = msgspec.structs.replace(healer.ledger.entries("asked")[-1].read(phases.Asked), reasons=())
    healer.ledger.append("asked", "saying", bare, healer.clock())
    assert [reason.text for reason in healer.check_and_heal(again=False).reasons] == [NOT_AGAIN]
    assert saying.asked == 2
