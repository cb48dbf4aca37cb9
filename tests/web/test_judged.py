"""What the ledger says: patches, one patch with its proof, what may be reviewed, the phase."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qigheal.api.unchanged import Unchanged
from qigheal.healing.audit import Standing, standing
from qigheal.healing.ledger import Ledger
from qigheal.healing.phases import Review
from qigheal.records import Evaluation
from qigheal.settings import HealSettings
from tests.web.conftest import Make
from tests.web.serving import REVIEW, Web
from tests.web.stores import PATCH, VERDICT, judge, ledger, opened, patch, recorded

REFUSED = replace(VERDICT, decision="worse", accepted=False, fitness=None, reason="slower")


@pytest.fixture
def book(store: Path) -> Ledger:
    """Three patches: one measured and good, one measured and bad, one opened."""
    made = ledger(store)
    judge(made, patch(1), at=1.0)
    judge(made, patch(2), REFUSED, at=2.0)
    judge(made, patch(3), at=3.0)
    opened(made, patch(3), at=4.0)
    return made


def body(**changes: Any) -> dict[str, Any]:
    return {"approve": True, "fingerprint": "x", "reviewer": "Ada"} | changes


def test_patches_newest_first(web: Web, book: Ledger) -> None:
    found = web("patches").json["patches"]
    assert [one["id"] for one in found] == [patch(number).fingerprint for number in (3, 2, 1)]
    assert [one["state"] for one in found] == ["open", "measured", "measured"]
    assert [one["waits_for_review"] for one in found] == [True, False, True]
    assert [one["fitness"] for one in found] == [0.75, None, 0.75]
    assert [one["decision"] for one in found] == ["improved", "worse", "improved"]
    assert (
        found[0] | {"strategy": "attention", "tier": "safe", "files": ["model.toml"], "at": 4.0} == found[0]
    )


def test_patches_follow_the_ledger(web: Web, book: Ledger) -> None:
    assert len(web("patches").json["patches"]) == 3
    opened(book, patch(3), at=5.0, state="rejected", reviewer="Eve", reason="<b>no</b>")
    first = web("patches").json["patches"][0]
    assert (first["state"], first["waits_for_review"]) == ("rejected", False)
    assert (first["reviewer"], first["reason"]) == ("Eve", "<b>no</b>")


def test_one_patch(web: Web, book: Ledger) -> None:
    found = web(f"patches/{patch(3).fingerprint}").json
    assert found["patch"]["diff"] == patch(3).diff
    assert found["change"]["state"] == "open"
    (judged,) = found["judged"]
    assert judged["verdict"]["reason"] == VERDICT.reason
    assert "no proof was kept" in judged["problem"]
    assert web("patches/" + "0" * 16).status == 404
    assert web(f"patches/{patch(3).fingerprint[:8]}").status == 404


def test_what_was_put_through_without_a_trial_is_there(web: Web, store: Path) -> None:
    opened(ledger(store), patch(), verdict=None, state="watching")
    (one,) = web("patches").json["patches"]
    assert (one["state"], one["decision"], one["fitness"]) == ("watching", None, None)
    assert web(f"patches/{patch().fingerprint}").json["judged"] == []


def test_a_diff_of_others_waits_for_nobody(web: Web, store: Path) -> None:
    ledger(store).append("evaluation", PATCH.fingerprint, Evaluation(patch=PATCH, verdict=VERDICT), 1.0)
    (one,) = web("patches").json["patches"]
    assert (one["state"], one["waits_for_review"]) == ("measured", False)


@pytest.mark.parametrize("how", ["head", "state", "judged again", "reviewed"])
def test_a_patch_that_moved_on_is_another(web: Web, book: Ledger, how: str) -> None:
    one = patch(1 if how == "reviewed" else 3)
    path = f"patches/{one.fingerprint}"
    seen = web(path).json["fingerprint"]
    assert web(path).json["fingerprint"] == seen
    if how == "head":
        opened(book, one, head="2" * 40)
    elif how == "state":
        opened(book, one, state="approved")
    elif how == "judged again":
        judge(book, one)
    else:
        book.append("review", one.fingerprint, Review(approved=True, reviewer="Eve"), 9.0)
    assert web(path).json["fingerprint"] != seen
    answer = web.post(f"{path}/review", token=REVIEW, body=body(fingerprint=seen))
    assert (answer.status, answer.json["error"]) == (409, "changed")
    assert web(path).json["fingerprint"] not in answer.json["detail"]  # whoever wants it has to look


def test_what_waits_for_no_review_is_not_reviewed(web: Web, book: Ledger) -> None:
    path = f"patches/{patch(2).fingerprint}"
    seen = web(path).json["fingerprint"]
    answer = web.post(f"{path}/review", token=REVIEW, body=body(fingerprint=seen))
    assert (answer.status, answer.json["error"]) == (409, "not_waiting")


def test_an_open_change_needs_the_host(web: Web, book: Ledger) -> None:
    path = f"patches/{patch(3).fingerprint}"
    seen = web(path).json["fingerprint"]
    answer = web.post(f"{path}/review", token=REVIEW, body=body(fingerprint=seen))
    assert (answer.status, answer.json["error"]) == (403, "no_host")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "truncated"),
        (b"[]", "array"),
        (b"\xff", ""),
        (b"[" * 30_000, ""),
        (body(approve="yes"), "approve"),
        (body(reviewer=""), "reviewer"),
        (body(reviewer="  "), "reviewer"),
        (body(reviewer="Ada\n"), "reviewer"),
        (body(reviewer="A\0da"), "reviewer"),
        (body(reason="\0"), "reason"),
        (body(reason="x" * 2001), "reason"),
        (body(more=1), "more"),
        ({"approve": True}, "fingerprint"),
        (
            b'{"approve": true, "approve": false, "fingerprint": "0", "reviewer": "Ada"}',
            "approve: expected once",
        ),
        (b'{"approve": true, "fingerprint": "0", "reviewer": "Ada", "revie\\u0077er": "Eve"}', "reviewer"),
    ],
)
def test_a_bad_body(web: Web, book: Ledger, sent: Any, says: str) -> None:
    answer = web.post(f"patches/{patch(3).fingerprint}/review", token=REVIEW, body=sent)
    assert (answer.status, answer.json["error"]) == (422, "invalid")
    assert says in answer.json["detail"]


def test_a_large_body(web: Web, book: Ledger) -> None:
    answer = web.post(f"patches/{patch(3).fingerprint}/review", token=REVIEW, body=b" " * 70_000)
    assert (answer.status, answer.json["error"]) == (413, "too_large")


def test_unknown_patches_are_not_reviewed(web: Web, book: Ledger) -> None:
    for one in ("0" * 16, "--help", "x"):
        assert web.post(f"patches/{one}/review", token=REVIEW, body=body()).status == 404


def test_nothing_is_reviewed_on_a_broken_chain(serve: Make, store: Path, book: Ledger) -> None:
    with sqlite3.connect(store / "ledger.db") as connection:
        connection.execute("DROP TRIGGER entry_kept")
        connection.execute("UPDATE entry SET at = 7.0 WHERE seq = 1")
    connection.close()
    web = serve(host=store)
    assert "chain is broken" in web("patches").json["notes"][0]
    path = f"patches/{patch(3).fingerprint}"
    seen = web(path).json["fingerprint"]
    answer = web.post(f"{path}/review", token=REVIEW, body=body(fingerprint=seen))
    assert (answer.status, answer.json["error"]) == (409, "store_unusable")
    assert not (store / "jobs").exists()


def test_without_a_store_it_is_the_first_phase(web: Web, store: Path) -> None:
    answer = web("phase")
    assert (answer.status, answer.json["phase"]) == (200, 1)
    assert {line["name"]: line["found"] for line in answer.json["criteria"]}["snapshots"] == "0"
    assert not store.exists()


def test_the_phase(web: Web, store: Path) -> None:
    recorded(store)
    for made in (False, True):  # without a ledger as with an empty one, which reading does not make
        if made:
            ledger(store)
        found = web("phase").json
        assert (found["phase"], found["gate"], found["breaker_open"]) == (1, "1→2", False)
        assert {line["name"] for line in found["missing"]} >= {"snapshots", "baseline learned"}
        assert len(found["criteria"]) > 10
        assert (store / "ledger.db").exists() == made


def test_the_phase_goes_by_the_settings_of_the_healer(web: Web, store: Path) -> None:
    recorded(store)
    opened(ledger(store), patch(1), at=time.time())
    made = ledger(store)
    change = made.changes()[patch(1).fingerprint]
    made.record_change(replace(change, state="reverting"), time.time())
    assert not web("phase").json["breaker_open"]
    HealSettings(breaker_rollbacks=1).save(store)
    assert web("phase").json["breaker_open"]
    (store / "healer.json").write_text("{")
    answer = web("phase")
    assert (answer.status, answer.json["error"]) == (409, "store_unusable")
    assert "healer.json: expected the settings" in answer.json["detail"]


@pytest.fixture
def held(store: Path, book: Ledger) -> Iterator[sqlite3.Connection]:
    """A ledger that another connection keeps for itself."""
    connection = sqlite3.connect(store / "ledger.db", isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    yield connection
    connection.close()


def test_a_ledger_that_another_holds_is_not_waited_for_long(
    web: Web, store: Path, held: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def connect(*given: Any, **how: Any) -> sqlite3.Connection:
        waits.append(how["timeout"])
        return sqlite3.Connection(*given, **how | {"timeout": 0.05})

    monkeypatch.setattr(sqlite3, "connect", connect)
    recorded(store, 5)
    path = f"patches/{patch(3).fingerprint}"
    answers = [web("patches"), web(path), web("phase"), web.post(f"{path}/review", token=REVIEW, body=body())]
    assert [(each.status, each.json["error"]) for each in answers] == [(409, "store_busy")] * 4
    assert max(waits) <= 1.0
    held.close()
    assert len(web("patches").json["patches"]) == 3
    assert web("phase").status == 200


def test_whoever_waited_for_what_failed_does_not_try_again(tmp_path: Path) -> None:
    known, entered, fail = Unchanged(tmp_path), threading.Event(), threading.Event()
    tried: list[int] = []
    failed: list[str] = []

    def make() -> None:
        tried.append(1)
        entered.set()
        assert fail.wait(60.0)
        raise OSError("held")

    def ask() -> None:
        try:
            known.get(("patches", None), (), make)
        except OSError as error:
            failed.append(str(error))

    first = threading.Thread(target=ask)
    first.start()
    assert entered.wait(60.0)
    waiting = [threading.Thread(target=ask) for _ in range(5)]
    arrived = threading.Semaphore(0)
    lock = known._locks["patches"]

    class Counted:
        def __enter__(self) -> None:
            arrived.release()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    known._locks["patches"] = Counted()  # type: ignore[assignment]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert arrived.acquire(timeout=60.0)
    fail.set()
    for thread in (first, *waiting):
        thread.join()
    assert (failed, len(tried)) == (["held"] * 6, 1)
    ask()
    assert len(tried) == 2  # for whoever comes later it is tried anew


def test_the_list_reads_the_ledger_once(web: Web, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that looked up each patch by itself would take a thousand times as long for a thousand of them."""
    read: list[int] = []

    def counted(one: Ledger) -> list[Standing]:
        read.append(1)
        return standing(one)

    monkeypatch.setattr("qigheal.healing.audit.standing", counted)
    for _ in range(3):
        assert web("patches").status == 200
    assert len(read) == 1
    judge(book, patch(4))
    assert len(web("patches").json["patches"]) == 4
    assert len(read) == 2
