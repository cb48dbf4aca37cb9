"""A history replayed against other settings: counts, delays, honest rates, and the command as a user meets it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from qigcore.baseline import Baseline
from qigcore.errors import BaselineError, InvalidLimit, TooLittleData
from qigcore.history import History
from qigcore.rows import HEAD, Batch
from qigcore.rules import severities
from qigheal.backtest import Backtest, ByChange, ByRules, Mark, backtest, mark, read_marks, replay
from qigheal.backtest.poisson import interval, judged, sentence
from qigheal.backtest.replaying import series_names
from qigheal.backtest.thinning import BINS, Thinned
from qigheal.errors import MarksError
from qigheal.health import remeasure, rules_for
from qigheal.settings import MonitorSettings
from tests import reference

T0 = 1_767_225_600.0
MINUTE = 60.0
LEARNED, COUNT = 600, 4000
BAD = range(2000, 2200)
INCIDENT = Mark(start=T0 + MINUTE * BAD.start, end=T0 + MINUTE * BAD.stop, label="bad deploy")
QUIET = Mark(start=T0 + MINUTE * 3000, end=T0 + MINUTE * 3010, label="harmless")
VARIANTS = (
    ByChange(false_alarm_every="7d"),
    ByChange(average_run_length=1e6),
    ByRules(),
    ByRules(rules="absolute", phi_min=0.62),
)


def made() -> Batch:
    """4,000 minutes of a service; for 200 of them its state and its Φ are elsewhere."""
    rng = np.random.default_rng(5)
    healthy = rng.dirichlet(np.full(64, 2.0))
    moved = healthy * np.where(np.arange(64) < 8, 2.5, 1.0)
    basins = rng.dirichlet(500.0 * healthy, COUNT)
    basins[BAD.start : BAD.stop] = rng.dirichlet(500.0 * moved / moved.sum(), len(BAD))
    heads = np.zeros(COUNT, HEAD)
    heads["timestamp"] = T0 + MINUTE * np.arange(COUNT)
    heads["phi"] = rng.normal(0.75, 0.01, COUNT)
    heads["phi"][BAD.start : BAD.stop] -= 0.15
    heads["kappa_eff"] = rng.normal(64.0, 1.0, COUNT)
    heads["avg_latency_ms"] = np.exp(rng.normal(1.6, 0.1, COUNT))
    heads["memory_mb"] = 100.0 + rng.normal(0.0, 0.2, COUNT)
    heads["regime"] = 1
    for name in ("confidence", "surprise", "agency"):
        heads[name] = np.nan
    return Batch.of_rows(heads, basins, ("",))


@pytest.fixture(scope="module")
def rows() -> Batch:
    return made()


@pytest.fixture(scope="module")
def baseline(rows: Batch) -> Baseline:
    return Baseline.learn(rows.take(slice(LEARNED)), created=T0 + MINUTE * LEARNED)


@pytest.fixture(scope="module")
def store(rows: Batch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backtest") / "store"
    with History(path) as history:
        history.append(rows)
    return path


@pytest.fixture(scope="module")
def found(store: Path) -> Backtest:
    window = (T0, T0 + MINUTE * LEARNED)
    return backtest(store, variants=VARIANTS, learn=window, marks=(INCIDENT, QUIET))[0]


def test_the_incident_is_found_and_the_quiet_event_is_not(found: Backtest) -> None:
    for outcome in found.outcomes:
        incident, quiet = outcome.detections
        assert incident.state == "detected", outcome.name
        assert incident.delay_s is not None
        assert 0.0 <= incident.delay_s <= 10 * MINUTE
        assert incident.delay_snapshots == incident.delay_s / MINUTE + 1
        assert incident.critical_s is not None
        assert incident.critical_s >= incident.delay_s
        assert quiet.state == "missed"
        (raised,) = [each for each in outcome.raised if each.marks == (0,)]
        assert raised.severity == "critical"
        assert raised.row == BAD.start - LEARNED + incident.delay_snapshots - 1
        assert raised.ended_at is not None
        assert 0.0 <= raised.ended_at - T0 - MINUTE * BAD.stop <= 60 * MINUTE


def test_what_is_learned_from_is_not_judged(found: Backtest, store: Path) -> None:
    assert found.learned is not None
    assert found.learned.snapshots == LEARNED
    assert found.snapshots == COUNT - LEARNED
    assert found.first == T0 + MINUTE * LEARNED
    with pytest.raises(InvalidLimit, match="nothing is judged on what it was learned from"):
        backtest(store, variants=VARIANTS, learn=(T0, T0 + 36_000.0), start=T0 + 35_000.0)
    with pytest.raises(TooLittleData, match="no snapshots"):
        backtest(store, variants=VARIANTS, learn=(0.0, 60.0))
    with pytest.raises(TooLittleData, match="needs 30"):
        backtest(store, variants=VARIANTS, learn=(T0, T0 + 10 * MINUTE))
    with pytest.raises(BaselineError, match="fewer than a detector needs"):
        backtest(store, variants=VARIANTS, learn=(T0, T0 + 60 * MINUTE))


def test_time_and_exposure_add_up(found: Backtest) -> None:
    assert found.watched_s == (COUNT - LEARNED - 1) * MINUTE
    windows = len(BAD) + 61 + 10 + 61  # the hour after an event counts for it, its last minute included
    for outcome in found.outcomes:
        alarmed = outcome.in_alarm_snapshots
        assert outcome.in_alarm_s == alarmed * MINUTE  # each alarm ended before the history did
        assert not outcome.lasts
        inside = sum(
            int((min(each.ended_at or math.inf, T0 + MINUTE * (BAD.stop + 60)) - each.timestamp) / MINUTE)
            for each in outcome.raised
            if each.marks
        )
        assert outcome.false.snapshots <= COUNT - LEARNED - windows
        assert outcome.false.snapshots >= COUNT - LEARNED - windows - (alarmed - inside) - 2
        assert outcome.false.count == sum(not each.marks for each in outcome.raised)


def test_rules_are_those_of_the_service(found: Backtest, rows: Batch, baseline: Baseline) -> None:
    replayed = remeasure(rows.take(slice(LEARNED, None)), baseline)
    severity = severities(replayed.heads(), rules_for(MonitorSettings(), baseline))
    starts = np.flatnonzero(np.diff(np.concatenate([[0], np.minimum(severity, 1)]).astype(int)) == 1)
    (learned,) = [each for each in found.outcomes if each.name == "learned rules"]
    assert [each.row for each in learned.raised] == starts.tolist()
    assert learned.in_alarm_snapshots == int((severity > 0).sum())
    assert learned.critical == sum(each.severity == "critical" for each in learned.raised) > 0
    assert "phi_low" in next(each for each in learned.raised if each.marks).findings


def cuts(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch), size):
        yield batch.take(slice(start, start + size))


@pytest.mark.parametrize(("size", "chunk"), [(1, 1), (13, 13), (256, 4096), (997, 14), (4000, 1)])
def test_results_do_not_depend_on_batches(
    size: int, chunk: int, rows: Batch, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = rows.take(slice(LEARNED, 2400))
    variants = VARIANTS[1:] if size == 1 else VARIANTS
    marks = (INCIDENT, Mark(start=T0 + MINUTE * 2100), Mark(start=0.0))

    def run(batches: Iterator[Batch]) -> tuple[Backtest, Thinned]:
        thinned = Thinned(series_names(variants))
        return replay(batches, variants=variants, baseline=baseline, marks=marks, thinned=thinned), thinned

    whole, drawn = run(iter([part]))
    monkeypatch.setattr("qigheal.backtest.replaying.CHUNK", chunk)
    pieces, redrawn = run(cuts(part, size))
    assert msgspec.json.encode(pieces) == msgspec.json.encode(whole)
    for name in drawn.names:
        one, other = drawn.series(name), redrawn.series(name)
        for k in (0, 1, 3):  # times and extremes are the same to the last bit, sums are rounded
            np.testing.assert_array_equal(one[k], other[k])
        np.testing.assert_allclose(one[2], other[2], rtol=1e-12)
    states = [each.state for each in whole.outcomes[0].detections]
    assert states == ["detected", "already", "unseen"]


def test_memory_is_bounded_by_the_chunk(rows: Batch, baseline: Baseline) -> None:
    largest = 0

    def endless() -> Iterator[Batch]:
        nonlocal largest
        import gc

        for _ in range(60):
            yield rows.take(slice(LEARNED, LEARNED + 1000))
            gc.collect(0)
            largest = max(largest, sum(len(each) for each in gc.get_objects() if type(each) is Batch))

    made = replay(endless(), variants=(ByRules(basin_drift_max=0.2),), baseline=baseline)
    assert made.snapshots == 60_000
    assert largest < 30_000
    assert len(made.outcomes[0].raised) <= 1000


def test_gaps_are_not_watched(rows: Batch, baseline: Baseline) -> None:
    shifted = rows.take(slice(LEARNED, LEARNED + 1000))
    times = shifted.timestamp.copy()
    times[500:] += 30 * 86_400.0
    gapped = Batch({**shifted.columns, "timestamp": times}, shifted.names)
    found = replay([gapped], variants=(ByRules(),), baseline=baseline)
    assert found.gaps == 1
    assert found.watched_s == 998 * MINUTE
    assert found.outcomes[0].false.seconds <= found.watched_s


def test_an_alarm_without_a_marked_event_is_false(store: Path) -> None:
    marks = (Mark(start=T0 + MINUTE * 3500, end=T0 + MINUTE * 3600),)
    window = (T0, T0 + MINUTE * LEARNED)
    made, used = backtest(store, variants=(ByChange(average_run_length=1e6),), learn=window, marks=marks)
    (outcome,) = made.outcomes
    assert outcome.false.count == outcome.alarms >= 1
    assert outcome.detections[0].state == "missed"
    assert used is not None
    assert used.created == window[1]


def test_a_limit_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="no effect on learned rules"):
        ByRules(phi_min=0.7)
    with pytest.raises(InvalidLimit, match="basin_drift_max"):
        ByRules(basin_drift_max=4.0).applied(MonitorSettings())


def test_a_baseline_from_the_same_rows_is_told(rows: Batch, baseline: Baseline) -> None:
    made = replay([rows], variants=VARIANTS[:1], baseline=baseline)
    assert any("600 of 4,000 snapshots are older than the baseline" in note for note in made.notes)


def test_another_interval_is_told(rows: Batch, baseline: Baseline) -> None:
    part = rows.take(slice(LEARNED, None))
    times = T0 + MINUTE * LEARNED + 15.0 * np.arange(len(part))
    made = replay(
        [Batch({**part.columns, "timestamp": times}, part.names)], variants=VARIANTS[:1], baseline=baseline
    )
    assert any("here one came every 15 s" in note for note in made.notes)


def test_processes_are_merged_and_told(rows: Batch, baseline: Baseline, tmp_path: Path) -> None:
    code = (
        "import sys; from qigcore.history import History; import numpy as np; from qigcore.rows import HEAD\n"
        "heads = np.zeros(50, HEAD); heads['timestamp'] = float(sys.argv[2]) + np.arange(50)\n"
        "h = History(sys.argv[1]); h.append_rows(heads, np.full((50, 64), 1 / 64), ('',)); h.close()"
    )
    for start in ("1000", "1000.5"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "s"), start], check=True)
    made, _ = backtest(tmp_path / "s", variants=(ByRules(rules="absolute"),))
    assert made.writers == 2
    assert made.snapshots == 100
    assert any("2 processes" in note for note in made.notes)


# --- rates ------------------------------------------------------------------------------------------


@given(st.integers(0, 5000))
def test_the_interval_is_exact(count: int) -> None:
    low, high = interval(count)
    assert low == pytest.approx(chi2.ppf(0.025, 2 * count) / 2 if count else 0.0, rel=1e-9)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2, rel=1e-9)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 30])
def test_the_interval_is_its_naive_twin(count: int) -> None:
    low, high = interval(count)
    assert reference.poisson_cdf(count, high) == pytest.approx(0.025, rel=1e-9)
    if count:
        assert 1.0 - reference.poisson_cdf(count - 1, low) == pytest.approx(0.025, rel=1e-9)


@pytest.mark.parametrize(
    ("count", "snapshots", "verdict", "said"),
    [
        (
            0,
            4_320,
            "too short",
            "this past is too short to tell; up to 37 times the stated rate would fit it",
        ),
        (2, 59_040, "too short", "0.18 to 5.3 times the stated rate would fit it"),
        (20, 864_000, "agrees", "in keeping with it"),
        (20, 86_400, "more", "more than stated"),
        (0, 432_000, "fewer", "fewer than stated (up to 0.37 times the stated rate)"),
    ],
)
def test_a_rate_is_judged_by_what_the_past_can_tell(
    count: int, snapshots: int, verdict: str, said: str
) -> None:
    found = judged(count, 0, snapshots, snapshots * MINUTE, 43_200.0)
    assert found.verdict == verdict
    assert said in sentence(found, "one in 30d")
    assert "no events are marked" in sentence(found, "one in 30d", marked=False)


def test_the_interval_covers() -> None:
    """Of a Poisson count with a known mean, at least 95 % of intervals hold it."""
    counts = np.random.default_rng(11).poisson(3.0, 4000)
    bounds = {count: interval(count) for count in set(counts.tolist())}
    held = np.mean([bounds[count][0] <= 3.0 <= bounds[count][1] for count in counts.tolist()])
    assert held >= 0.95


# --- events -----------------------------------------------------------------------------------------


def test_events_from_text() -> None:
    assert mark("1000") == Mark(start=1000.0)
    assert mark("1000..2000=a = b") == Mark(start=1000.0, end=2000.0, label="a = b")
    assert mark("2026-01-01T00:00+00:00..2026-01-01T01:00+00:00").end == T0 + 3600.0
    for text in ("", "=x", "soon", "2000..1000", "1000..", "nan", "1..inf"):
        with pytest.raises(MarksError):
            mark(text)


def test_events_from_files(tmp_path: Path) -> None:
    wanted = (Mark(start=1000.0, end=2000.0, label="a, b"), Mark(start=T0))
    path = tmp_path / "events"
    path.write_text('\ufefflabel,start,end,who\n"a, b",1000,2000,me\n\n,2026-01-01T00:00+00:00,,\n')
    assert read_marks(path) == wanted
    path.write_text('[{"start": 1000, "end": 2e3, "label": "a, b"}, {"start": "2026-01-01T00:00+00:00"}]')
    assert read_marks(path) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "start, end, label"),
        ("start,end\n", "got none"),
        ("begin,end\n1,2\n", "start, end, label"),
        ("start,end\n1,2,3\n", "line 2: expected 2 cells"),
        ("start,end\n5,2\n", "line 2: expected an end after"),
        ("start\nyesterday\n", "line 2, start"),
        ("[1]", "event 1: expected an object"),
        ('{"start": 1}', "a list of objects"),
        ('[{"start": true}]', "event 1, start"),
        ('[{"start": 1e999}]', "event 1, start"),
        ('[{"start": 1, "label": 3}]', "label: expected text"),
        ('[{"start": 1, "lable": "x"}]', "lable"),
        ("[" * 100_000, "expected JSON"),
        ("start\n" + "1\n" * 10_001, "at most 10000"),
        ("start\n" + "9" * 5000, "line 2, start"),
    ],
)
def test_bad_events_are_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text(text)
    with pytest.raises(MarksError) as caught:
        read_marks(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_events_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(b"start\n\xff\xfe")
    for path in (tmp_path / "events", tmp_path / "missing", tmp_path):
        with pytest.raises(MarksError):
            read_marks(path)


# --- thinning ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(-1e3, 1e3)), min_size=1, max_size=200))
def test_extremes_and_means_survive_thinning(points: list[tuple[float, float]]) -> None:
    times, values = np.sort([t for t, _ in points]), np.array([v for _, v in points])
    thinned = Thinned(("x",))
    for place in range(len(times)):
        thinned.add(times[place : place + 1], {"x": values[place : place + 1]})
    at, low, mean, high = (each[~np.isnan(each)] for each in thinned.series("x"))
    assert low.min() == values.min()
    assert high.max() == values.max()
    assert len(at) <= min(BINS, len(points))
    assert ((low - 1e-9 <= mean) & (mean <= high + 1e-9)).all()


# --- the command ------------------------------------------------------------------------------------


def qigheal(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from qigheal.cli import main; main()", "backtest", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TZ": "UTC", "PYTHONIOENCODING": "utf-8"},
    )


LEARN = ("--learn", f"{T0}..{T0 + MINUTE * LEARNED}")


def test_the_command_from_end_to_end(store: Path, tmp_path: Path) -> None:
    hostile = "[red]\x1b]0;title\x07[/]"
    events = tmp_path / "events.json"
    events.write_text(
        json.dumps([{"start": INCIDENT.start, "end": INCIDENT.end, "label": f"{hostile} $x_{{$"}])
    )
    before = sorted(store.iterdir())
    said = qigheal(
        store, *LEARN, "--false-alarm-every", "7d", "--false-alarm-every", "30d", "--drift-max", "1.5",
        "--events", events, "--event", f"{QUIET.start}..{QUIET.end}=[bold]quiet", "--picture", "out.png",
        cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert sorted(store.iterdir()) == before
    for text in (
        "3,400 snapshots from 2026-01-01 10:00:00+00:00",
        "none of them is replayed",
        "changes, one in 7d",
        "changes, one in 30d",
        "learned rules, basin_drift_max 1.5",
        "1 of 2",
        "too short to tell",
        "[red]",
        "[bold]quiet",
        "check it on a part",
    ):
        assert text in said.stdout
    assert "\x1b" not in said.stdout
    assert "\x07" not in said.stdout
    data = (tmp_path / "out.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 30_000


def test_json_is_one_document(store: Path, tmp_path: Path) -> None:
    said = qigheal(store, *LEARN, "--event", f"{INCIDENT.start}..{INCIDENT.end}", "--json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert [each["name"] for each in found["outcomes"]] == ["changes, one in 30d", "learned rules"]
    assert found["outcomes"][0]["detections"][0]["state"] == "detected"
    assert found["outcomes"][0]["false"]["verdict"] == "too short"
    assert not any(found["damage"][name] for name in found["damage"])


def test_the_store_s_own_baseline_and_none(rows: Batch, baseline: Baseline, tmp_path: Path) -> None:
    place = tmp_path / "s"
    with History(place) as history:
        history.append(rows)
    without = json.loads(qigheal(place, "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in without["outcomes"]] == ["absolute rules"]
    asked = qigheal(place, "--false-alarm-every", "7d", cwd=tmp_path)
    assert asked.returncode == 69
    assert "there is none" in asked.stderr
    baseline.save(place / "baseline.json")
    with_it = json.loads(qigheal(place, "--json", "--phi-min", "0.7", cwd=tmp_path).stdout)
    names = [each["name"] for each in with_it["outcomes"]]
    assert names == ["changes, one in 30d", "learned rules", "absolute rules, phi_min 0.7"]
    assert any("older than the baseline" in note for note in with_it["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--start", "2030-01-01"], 2, ""),
        (["--event", "yesterday"], 64, "yesterday"),
        (["--event", "2000..1000"], 64, "after the start"),
        (["--learn", "2026-01-01"], 64, "START..END"),
        (["--false-alarm-every", "often"], 64, "often"),
        (["--within", "-3"], 64, "within"),
        (["--start", "soon"], 64, "soon"),
        (["--events", "nowhere.csv"], 69, "nowhere.csv"),
        (["--drift-max", "4"], 64, "basin_drift_max"),
        (["--baseline", "nowhere.json"], 69, "nowhere.json"),
        ([*LEARN, "--baseline", "x"], 64, "both"),
        ([*LEARN, "--start", str(T0)], 69, "nothing is judged"),
        (["--learn", "0..10"], 69, "no snapshots lie in the window"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, said: str, store: Path, tmp_path: Path) -> None:
    done = qigheal(store, *arguments, cwd=tmp_path)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (code > 2)


def test_no_store(tmp_path: Path) -> None:
    assert qigheal("nowhere", cwd=tmp_path).returncode == 69
