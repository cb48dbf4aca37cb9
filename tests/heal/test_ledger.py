from __future__ import annotations

import json
import math
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigcore.fitness import Fitness
from qigheal.errors import LedgerError
from qigheal.healing.ledger import GENESIS, SCHEMA, Entry, Ledger, canonical, digest_of
from qigheal.records import Change, ChangeState, HealingPatch, Verdict

DIFF = """\
diff --git a/config/model.toml b/config/model.toml
index 1111111..2222222 100644
--- a/config/model.toml
+++ b/config/model.toml
@@ -1,2 +1,2 @@
 [attention]
-temperature = 5
+temperature = 0.85
"""


def a_patch(base: str = "a" * 40, diff: str = DIFF) -> HealingPatch:
    return HealingPatch(
        strategy="attention", tier="safe", base=base, diff=diff, rationale="cooler", heals=("phi", "kappa")
    )


def a_verdict() -> Verdict:
    fitness = Fitness(point=0.75, low=0.7, high=0.8, components={"phi": 1.0, "basin": 0.5})
    return Verdict(
        decision="improved",
        accepted=True,
        fitness=fitness,
        guards=(),
        vetoes=(),
        pairs=20,
        sandbox_level="namespaces",
        reason="Φ is back in its band",
    )


def a_change(state: ChangeState, patch: HealingPatch | None = None, **fields: Any) -> Change:
    patch = patch or a_patch()
    return Change(
        id=patch.fingerprint,
        state=state,
        patch=patch,
        verdict=a_verdict(),
        branch=f"qigheal/attention-{patch.fingerprint}",
        target="main",
        opened_at=1000.0,
        **fields,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def tamper(ledger: Ledger, *statements: str) -> None:
    """What somebody with the file and SQLite could do."""
    connection = sqlite3.connect(ledger.path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def unguarded(*statements: str) -> tuple[str, ...]:
    return (
        *(f"DROP TRIGGER {name}" for name in ("entry_kept", "entry_stays", "entry_follows")),
        *statements,
    )


def filled(ledger: Ledger, count: int = 6) -> Ledger:
    for number in range(count):
        ledger.append("step", f"s{number % 2}", {"number": number}, 100.0 + number)
    return ledger


def test_entries_come_back_in_order_as_they_were_written(ledger: Ledger) -> None:
    written = [ledger.append("step", f"s{i}", {"i": i, "Φ": 0.1 + 0.2}, 1e9 + i / 3) for i in range(5)]
    assert list(ledger.entries()) == written
    assert [entry.seq for entry in written] == [1, 2, 3, 4, 5]
    assert json.loads(written[2].data) == {"i": 2, "Φ": 0.1 + 0.2}
    assert ledger.verify() == ()


def test_entries_are_chosen_by_kind_subject_and_number(ledger: Ledger) -> None:
    filled(ledger)
    ledger.append("other", "s1", None, 1.0)
    assert [entry.seq for entry in ledger.entries("step", "s1")] == [2, 4, 6]
    assert [entry.seq for entry in ledger.entries(subject="s1", after=4)] == [6, 7]
    assert ledger.entries("absent") == ()


def test_each_entry_names_the_digest_before_it(ledger: Ledger) -> None:
    assert ledger.head == GENESIS
    first = ledger.append("step", "a", {}, 1.0)
    second = ledger.append("step", "a", {}, 1.0)
    assert first.previous == GENESIS
    assert second.previous == first.digest
    assert ledger.head == second.digest
    assert first.digest != second.digest


def test_every_field_is_under_the_digest(ledger: Ledger) -> None:
    entry = ledger.append("step", "a", {"x": 1}, 1.0)
    assert digest_of(entry) == entry.digest
    other: dict[str, Any] = {
        "seq": 2, "at": 1.5, "kind": "stepa", "subject": "", "data": "{}", "previous": "f" * 64,
    }  # fmt: skip
    for field, value in other.items():
        assert digest_of(msgspec.structs.replace(entry, **{field: value})) != entry.digest, field
    # Without framing, kind "stepa" with subject "" would be kind "step" with subject "a".
    moved = msgspec.structs.replace(entry, kind="stepa", subject="")
    assert digest_of(moved) != entry.digest


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET data = '{}' WHERE seq = 2",
        "DELETE FROM entry WHERE seq = 6",
        "REPLACE INTO entry SELECT seq, at, kind, subject, '{}', previous, digest FROM entry WHERE seq = 2",
        "INSERT INTO entry SELECT 9, at, kind, subject, data, previous, digest FROM entry WHERE seq = 6",
        "INSERT INTO entry SELECT 0, at, kind, subject, data, previous, digest FROM entry WHERE seq = 1",
        "INSERT INTO entry SELECT 0, at, kind, subject, data, digest, digest FROM entry WHERE seq = 6",
        "REPLACE INTO entry SELECT 2, at, kind, subject, data, digest, digest FROM entry WHERE seq = 6",
    ],
)
def test_the_file_refuses_what_is_no_append(ledger: Ledger, statement: str) -> None:
    before = filled(ledger).entries()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        tamper(ledger, statement)
    assert ledger.entries() == before


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE entry SET data = '{}' WHERE seq = 3", ["entry 3 was altered"]),
        ("UPDATE entry SET at = at + 1 WHERE seq = 6", ["entry 6 was altered"]),
        ("DELETE FROM entry WHERE seq IN (2, 3)", ["entries 2 to 3 are missing"]),
        ("DELETE FROM entry WHERE seq = 1", ["entry 1 is missing"]),
        ("DELETE FROM entry WHERE seq > 4", ["entries 5 to 6 are missing"]),
        ("UPDATE entry SET previous = digest WHERE seq = 4", ["does not follow", "entry 4 was altered"]),
    ],
)
def test_verify_says_what_is_broken(ledger: Ledger, statement: str, expected: list[str]) -> None:
    filled(ledger)
    tamper(ledger, *unguarded(statement))
    found = ledger.verify()
    assert [line for line in found if line.startswith("the guard")] == list(found[:3])
    assert len(found) == 3 + len(expected)
    for line, words in zip(found[3:], expected, strict=True):
        assert words in line


def test_an_entry_forged_with_a_digest_of_its_own_is_found_by_the_next(ledger: Ledger) -> None:
    entry = filled(ledger).entries()[2]
    forged = msgspec.structs.replace(entry, data='{"number":99}')
    changed = f"data = '{forged.data}', digest = '{digest_of(forged)}'"
    tamper(ledger, *unguarded(f"UPDATE entry SET {changed} WHERE seq = 3"))  # noqa: S608
    assert ledger.verify()[3:] == ("entry 4 does not follow the one before it",)


def test_rows_cut_off_leave_a_gap_that_later_entries_do_not_fill(ledger: Ledger) -> None:
    filled(ledger)
    tamper(ledger, "DROP TRIGGER entry_stays", "DELETE FROM entry WHERE seq > 4")
    assert ledger.append("step", "a", {}, 1.0).seq == 7
    assert "entries 5 to 6 are missing" in ledger.verify()


def test_a_damaged_page_is_reported_not_raised(ledger: Ledger) -> None:
    filled(ledger, 400)
    size = ledger.path.stat().st_size
    with ledger.path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 8192)
    assert ledger.verify()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        ledger = filled(Ledger(tmp_path / "store" / "ledger.db"))
    finally:
        os.umask(old)
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    assert ledger.path.parent.stat().st_mode & 0o777 == 0o700
    assert (ledger.path.parent / ".gitignore").read_text() == "*\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_root_makes_the_file_for_the_owner_of_the_store(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    ledger = filled(Ledger(tmp_path / "ledger.db"))
    assert (ledger.path.stat().st_uid, ledger.path.stat().st_gid) == (65534, 65534)
    assert ledger.path.stat().st_mode & 0o777 == 0o600


def test_a_file_held_by_another_says_so(ledger: Ledger) -> None:
    ledger.busy_s = 0.05
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="cannot be written now"):
        ledger.append("step", "a", {}, 1.0)
    assert ledger.entries() == (), "readers are not held up"
    holder.close()


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


def test_reading_only(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match=r"no ledger here.*qigheal heal"):
        Ledger(tmp_path / "absent.db", read_only=True)
    assert not (tmp_path / "absent.db").exists()
    filled(ledger)
    reader = Ledger(ledger.path, read_only=True)
    assert reader.entries() == ledger.entries()
    assert reader.verify() == ()
    with pytest.raises(LedgerError, match="reading only"):
        reader.append("step", "a", {}, 1.0)
    ledger.append("step", "later", {}, 1.0)
    assert reader.head == ledger.head


def test_reading_where_nothing_can_be_written(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(ledger)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert len(Ledger(ledger.path, read_only=True).entries()) == 6


@pytest.mark.parametrize("read_only", [False, True])
def test_foreign_files_are_refused_in_one_line_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    text = tmp_path / "notes.db"
    text.write_text("no database at all, but long enough to be taken for one\n" * 40)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    for path in (text, other):
        content = path.read_bytes()
        with pytest.raises(LedgerError) as caught:
            Ledger(path, read_only=read_only)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == content


def test_a_newer_schema_is_refused(ledger: Ledger) -> None:
    tamper(ledger, f"PRAGMA user_version = {SCHEMA + 1}")
    for read_only in (False, True):
        with pytest.raises(LedgerError, match=r"newer qigheal.*upgrade"):
            Ledger(ledger.path, read_only=read_only)


def test_a_place_that_cannot_hold_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "ledger.db", tmp_path):
        with pytest.raises(LedgerError) as caught:
            Ledger(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [math.nan, {"x": [1.0, math.inf]}, {"x": object()}, "\udc80"],
    ids=["nan", "inf", "object", "surrogate"],
)
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(ledger: Ledger, data: Any) -> None:
    with pytest.raises(LedgerError):
        ledger.append("step", "a", data, 1.0)
    with pytest.raises(LedgerError):
        ledger.append("step", "\udc80", {}, 1.0)
    with pytest.raises(LedgerError):
        ledger.append("step", "a", {}, math.nan)
    assert ledger.entries() == ()


def test_numpy_scalars_are_numbers(ledger: Ledger) -> None:
    change = a_change("merging", before={"phi": np.float64(0.25)})
    ledger.record_change(change, 1.0)
    assert ledger.changes()[change.id].before == {"phi": 0.25}
    assert canonical({"n": np.int64(3)}) == '{"n":3}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_canonical_json_round_trips_and_knows_no_order(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text
    if isinstance(value, dict):
        assert canonical(dict(reversed(list(value.items())))) == text


def test_changes_fold_into_the_latest_in_order_of_appearance(ledger: Ledger) -> None:
    second = a_patch(diff=DIFF.replace("0.85", "0.9"))
    ledger.record_change(a_change("opening"), 1.0)
    ledger.record_change(a_change("opening", second), 2.0)
    ledger.record_change(a_change("open", before={"phi": 0.04}), 3.0)
    changes = ledger.changes()
    assert [change.state for change in changes.values()] == ["open", "opening"]
    assert list(changes) == [a_patch().fingerprint, second.fingerprint]
    assert changes[a_patch().fingerprint] == a_change("open", before={"phi": 0.04})


def test_a_change_that_this_version_cannot_read_is_named(ledger: Ledger) -> None:
    record = a_change("open").to_dict() | {"state": "teleported"}
    ledger.append("change", str(record["id"]), record, 1.0)
    with pytest.raises(LedgerError, match=r"entry 1 of the ledger.*upgrade"):
        ledger.changes()
    assert ledger.verify() == ()


def test_fields_and_kinds_of_a_later_version_are_kept(ledger: Ledger) -> None:
    record = a_change("open").to_dict() | {"colour": "blue"}
    ledger.append("change", str(record["id"]), record, 1.0)
    ledger.append("premonition", "x", {"soon": True}, 2.0)
    assert list(ledger.changes().values()) == [a_change("open")]
    assert json.loads(ledger.entries("premonition")[0].data) == {"soon": True}


def test_verdicts_come_back_with_their_patch(ledger: Ledger) -> None:
    ledger.append("verdict", a_patch().fingerprint, {"patch": a_patch(), "verdict": a_verdict()}, 7.0)
    assert ledger.verdicts() == [(a_patch(), a_verdict(), 7.0)]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("open", False), ("confirmed", False), ("unconfirmed", False), ("contested", False),
     ("rejected", True), ("reverting", True), ("rolled_back", True)],
)  # fmt: skip
def test_quarantine(ledger: Ledger, state: ChangeState, expected: bool) -> None:
    ledger.record_change(a_change("open"), 1.0)
    ledger.record_change(a_change(state), 2.0)
    assert ledger.quarantined(a_patch().fingerprint) is expected
    assert ledger.quarantined(a_patch()) is expected
    # The revert moved the base; the same edit on it is the same patch, other edits are not.
    assert ledger.quarantined(a_patch(base="b" * 40, diff=DIFF.replace("2222222", "3333333"))) is expected
    assert not ledger.quarantined(a_patch(diff=DIFF.replace("0.85", "0.9")))
    assert not ledger.quarantined("0" * 16)


def _append_many(path: Path, name: str, count: int) -> None:
    for number in range(count):
        Ledger(path).append("step", name, {"number": number}, 1.0)


def _make(path: Path, together: Any) -> None:
    together.wait()
    Ledger(path).append("step", str(os.getpid()), {}, 1.0)


def test_several_processes_make_it_at_once(tmp_path: Path) -> None:
    """Opening while another fills the file was at times called a foreign file, or a locked one."""
    context = multiprocessing.get_context("spawn")
    for attempt in range(2):
        path, together = tmp_path / f"{attempt}.db", context.Barrier(4)
        makers = [context.Process(target=_make, args=(path, together)) for _ in range(4)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()
        assert [maker.exitcode for maker in makers] == [0, 0, 0, 0]
        assert len(Ledger(path).entries()) == 4
        assert Ledger(path).verify() == ()
    assert not list(tmp_path.glob(".*")), "a maker left its scratch file"


def test_several_processes_append_to_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, str(i), 15)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    ledger = Ledger(path)
    assert ledger.verify() == ()
    for name in "012":
        numbers = [json.loads(entry.data)["number"] for entry in ledger.entries(subject=name)]
        assert numbers == list(range(15))


def test_a_killed_writer_leaves_whole_entries_and_every_one_it_was_told_of(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    program = textwrap.dedent("""
        import sys
        from qigheal.healing.ledger import Ledger
        ledger = Ledger(sys.argv[1])
        while True:
            print(ledger.append("step", "a", {"filling": "x" * 3000}, 1.0).seq, flush=True)
    """)
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    told = 0
    while told < 20:
        told = int(writer.stdout.readline())
    writer.kill()
    told = int([str(told).encode(), *writer.stdout.read().split()][-1])
    writer.stdout.close()
    writer.wait()
    ledger = Ledger(path)
    assert ledger.verify() == ()
    assert len(ledger.entries()) in (told, told + 1)
    assert ledger.append("step", "b", {}, 2.0).seq == len(ledger.entries())


def test_entries_read_as_the_record_asked_for(ledger: Ledger) -> None:
    entry = ledger.append("verdict", "x", {"patch": 1}, 1.0)
    with pytest.raises(LedgerError, match="expected a Verdict"):
        entry.read(Verdict)
    assert isinstance(entry, Entry)
