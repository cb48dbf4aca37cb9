from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from qigheal.errors import PatchError, ProbeError, RepoError, SandboxError
from qigheal.healing import judge
from qigheal.healing.trial import TESTS_SHOWN, TrialRun
from qigheal.host import Manifest
from qigheal.records import Answer, FileChange, Trial
from qigheal.sandbox import Completed
from qigheal.settings import HealSettings
from tests.heal.simulated import CHANGE, DIM, MANIFEST, SimulatedBench, SimulatedRepo, diagnosis, patch

SETTINGS = HealSettings(seed=3)


def run(bench: Any = None, repo: Any = None, settings: HealSettings = SETTINGS, **claims: Any) -> TrialRun:
    ticks = itertools.count()
    return TrialRun(
        patch(**claims),
        diagnosis("phi", latency=6.0),
        bench or SimulatedBench(),
        repo or SimulatedRepo(),
        settings,
        clock=lambda: float(next(ticks)),
    )


class Spy:
    """Writes down who is asked what, and may spoil an answer."""

    def __init__(self, probe: Any, side: str, seen: list[Any], spoil: Any) -> None:
        self.probe, self.side, self.seen, self.spoil = probe, side, seen, spoil

    def ask(self, batch: int, seed: int) -> Answer:
        self.seen.append((self.side, batch))
        return self.spoil(self.side, len(self.seen), self.probe.ask(batch, seed))

    def finish(self) -> None:
        self.spoil(self.side, "finish", None)
        self.probe.finish()


def spied(spoil: Any = lambda side, count, answer: answer) -> tuple[SimulatedBench, list[Any]]:
    seen: list[Any] = []
    return SimulatedBench(wrap=lambda probe, side: Spy(probe, side, seen, spoil)), seen


def completed(code: int = 0, output: str = "", killed_for: str | None = None) -> Completed:
    return Completed(code, output.encode(), b"", 1.0, 1.0, 10.0, "none", killed_for)


def test_a_trial_is_pairs_in_blocks_in_rounds() -> None:
    bench = SimulatedBench()
    with run(bench) as trial_run:
        trial = trial_run.measure(30)
    assert len(trial.pairs) == 30
    assert [pair.block for pair in trial.pairs] == [i // 2 for i in range(30)]
    assert [pair.round for pair in trial.pairs] == [i // 10 for i in range(30)]
    assert bench.started == ["before", "after", "before"] * 3
    assert bench.finished == 9
    assert all(pair.before.batch == pair.after.batch for pair in (*trial.pairs, *trial.control))
    assert len({pair.before.batch for pair in trial.pairs}) == 30
    assert trial.problems == trial.refusals == ()
    assert trial.named == ("phi",)
    assert trial.observed["latency"] == 6.0
    assert trial.sandbox_level == "namespaces"
    assert trial.seconds > 0


def test_the_control_answers_one_request_of_each_block_as_the_unpatched_side_did() -> None:
    with run() as trial_run:
        trial = trial_run.measure(20)
    assert [pair.block for pair in trial.control] == list(range(10))
    for against in trial.control:
        own = [pair for pair in trial.pairs if pair.block == against.block]
        assert against.before in [pair.before for pair in own]


def test_blocks_are_abba_or_baab_and_the_control_never_divides_them() -> None:
    bench, seen = spied()
    with run(bench, settings=replace(SETTINGS, warmup=0)) as trial_run:
        trial_run.measure(80)
    orders = set()
    for start in range(0, len(seen), 5):
        block = seen[start : start + 5]
        # before and control are the same code, told apart by the place: it stands first or last.
        last_pair, first_pair = block[:4], block[1:]
        four = first_pair if first_pair[1][1] == first_pair[0][1] else last_pair
        sides = "".join("A" if side == "before" else "B" for side, _ in four)
        batches = [batch for _, batch in four]
        assert batches == [batches[0]] * 2 + [batches[0] + 2] * 2
        orders.add((sides, four is first_pair))
    assert orders == {("ABBA", True), ("ABBA", False), ("BAAB", True), ("BAAB", False)}


def test_how_it_is_extended_changes_nothing() -> None:
    with run() as one, run() as other:
        once = one.measure(40)
        for pairs in (6, 14, 1, 18):
            parts = other.measure(pairs)
    assert replace(once, seconds=0.0) == replace(parts, seconds=0.0)


def test_warm_up_answers_are_asked_and_dropped() -> None:
    bench, seen = spied()
    with run(bench, settings=replace(SETTINGS, warmup=3)) as trial_run:
        trial = trial_run.measure(20)
    assert len(seen) == 2 * (3 * 3 + 5 * 5)
    warm = [batch for _, batch in seen[:9]]
    assert warm == [1, 1, 1, 3, 3, 3, 5, 5, 5]
    assert not set(warm) & {pair.before.batch for pair in trial.pairs}


def test_every_start_lives_as_long_as_a_strategy_needs_and_a_usual_one_longer() -> None:
    with run(batches_needed=25) as trial_run:
        trial = trial_run.measure(90)
    rounds = [pair.round for pair in trial.pairs]
    assert [rounds.count(number) for number in sorted(set(rounds))] == [36, 36, 18]


def test_odd_requests_are_rounded_up_and_the_ceiling_holds() -> None:
    with run(settings=replace(SETTINGS, max_pairs=80)) as trial_run:
        assert len(trial_run.measure(1).pairs) == 2
        assert len(trial_run.measure(500).pairs) == 80
        assert len(trial_run.measure(500).pairs) == 80


def test_the_seed_follows_from_settings_and_patch() -> None:
    seeds = {
        run().trial.seed,
        run(settings=replace(SETTINGS, seed=4)).trial.seed,
        run(diff="--- a/x\n+++ b/x\n").trial.seed,
    }
    assert len(seeds) == 3
    assert run().trial.seed == run().trial.seed


def test_a_trial_survives_its_way_through_the_ledger() -> None:
    with run() as trial_run:
        trial = trial_run.measure(4)
    assert msgspec.json.decode(msgspec.json.encode(trial), type=Trial) == trial


def outside(path: str, **changed: Any) -> FileChange:
    return replace(CHANGE, old_path=path, new_path=path, **changed)


@pytest.mark.parametrize(
    ("repo", "reason"),
    [
        (SimulatedRepo(error=PatchError("the diff does not apply to b")), "does not apply"),
        (SimulatedRepo(changed=(outside("Makefile"),)), "Makefile"),
        (SimulatedRepo(changed=(outside("other/x.py"),)), "not allowed"),
        (
            SimulatedRepo(changed=(outside("digits/a.py"),), files={"digits/a.py": b"def f(:\n"}),
            "digits/a.py:1: does not compile",
        ),
        (
            SimulatedRepo(changed=(outside("digits/a.py"),), files={"digits/a.py": b"a\0b"}),
            "digits/a.py.* does not compile",
        ),
    ],
)
def test_what_is_refused_is_not_measured(repo: SimulatedRepo, reason: str) -> None:
    bench = SimulatedBench(tests=completed())
    with run(bench, repo) as trial_run:
        trial = trial_run.measure(20)
    assert len(trial.refusals) == 1
    assert re.search(reason, trial.refusals[0])
    assert trial.pairs == ()
    assert trial.problems == ()
    assert bench.started == []
    assert trial.tests_passed is None


def test_good_python_and_deleted_files_compile() -> None:
    changed = (
        outside("digits/a.py"),
        FileChange(
            status="D", old_path="digits/b.py", new_path=None, old_mode="100644", new_mode="000000",
            added=0, deleted=3,
        ),
    )  # fmt: skip
    repo = SimulatedRepo(
        changed=changed, files={"digits/a.py": b'x = "\\d"\n', "digits/b.py": b""}
    )  # a warning, no error
    with run(repo=repo) as trial_run:
        assert trial_run.measure(2).refusals == ()


def test_another_interpreters_grammar_is_not_ours_to_judge() -> None:
    bench = SimulatedBench()
    bench.manifest = Manifest.parse(MANIFEST.replace("[patch]", 'interpreter = "/usr/bin/python9"\n[patch]'))
    repo = SimulatedRepo(changed=(outside("digits/a.py"),), files={"digits/a.py": b"match x = new syntax\n"})
    with run(bench, repo) as trial_run:
        assert trial_run.measure(2).refusals == ()


@pytest.mark.parametrize(
    ("done", "passed", "said"),
    [
        (completed(), True, ""),
        (completed(1, "1 failed"), False, "1 failed"),
        (completed(0, "half way", killed_for="timeout"), False, "killed for timeout"),
        (completed(1, "x" * 9000 + " the end"), False, "the end"),
        (None, None, ""),
    ],
)
def test_the_hosts_tests_run_once_before_anything_is_measured(
    done: Completed | None, passed: bool | None, said: str
) -> None:
    bench = SimulatedBench(tests=done)
    with run(bench) as trial_run:
        trial = trial_run.measure(20)
        trial = trial_run.measure(20)
    assert trial.tests_passed is passed
    assert said in trial.tests_output
    assert len(trial.tests_output) <= TESTS_SHOWN
    assert len(trial.pairs) == (0 if passed is False else 40)
    assert bench.started.count("after") == (0 if passed is False else 4)
    assert trial.tests_fail_anyway is (passed is False)  # this bench's tests end alike whatever runs


@pytest.mark.parametrize(("side", "failed"), [("after", "after"), ("before", "before")])
def test_a_probe_that_breaks_makes_the_trial_incomplete(side: str, failed: str) -> None:

    def spoil(who: str, number: Any, answer: Answer | None) -> Answer | None:
        if who == side and number in range(10, 15):
            raise ProbeError("answered out of turn")
        return answer

    bench, seen = spied(spoil)
    with run(bench) as trial_run:
        trial = trial_run.measure(20)
        count = len(seen)
        assert trial_run.measure(20) == replace(trial, seconds=trial_run.trial.seconds)
    assert len(trial.problems) == 1
    assert "answered out of turn" in trial.problems[0]
    assert trial.failed_side in ({"before", "control"} if failed == "before" else {"after"})
    assert trial.pairs == trial.control == ()  # the block it broke off in is not half counted
    assert len(seen) == count, "went on asking"


def test_what_was_measured_before_the_break_stays() -> None:
    def spoil(who: str, number: Any, answer: Answer | None) -> Answer | None:
        if who == "after" and isinstance(number, int) and number > 30:
            raise ProbeError("died")
        return answer

    bench, _ = spied(spoil)
    with run(bench) as trial_run:
        trial = trial_run.measure(20)
    assert len(trial.pairs) == 8
    assert len(trial.control) == 4


def test_a_probe_that_says_more_than_it_was_asked_is_seen_when_its_round_ends() -> None:
    def spoil(who: str, number: Any, answer: Answer | None) -> Answer | None:
        if number == "finish" and who == "after":
            raise ProbeError("answered twice")
        return answer

    bench, _ = spied(spoil)
    with run(bench) as trial_run:
        trial = trial_run.measure(20)
    assert trial.failed_side == "after"
    assert trial.problems == ("patched code: answered twice",)


@pytest.mark.parametrize("error", [SandboxError("bubblewrap went away"), OSError("no space"), RepoError("")])
def test_a_bench_that_fails_blames_no_side(error: Exception) -> None:
    class Failing(SimulatedBench):
        def probe(self, diff: str | None = None) -> Any:
            raise error

    with run(Failing()) as trial_run:
        trial = trial_run.measure(20)
    assert trial.problems == (str(error) or type(error).__name__,)
    assert trial.failed_side == ""


def test_a_repository_that_fails_is_a_problem_and_no_refusal() -> None:
    with run(repo=SimulatedRepo(error=RepoError("git: cannot fork"))) as trial_run:
        trial = trial_run.measure(20)
    assert trial.problems == ("git: cannot fork",)
    assert trial.refusals == ()


@pytest.mark.parametrize(
    ("basin", "said"),
    [
        ((0.5, 0.5), f"expected {DIM} numbers like the baseline, got 2"),
        ((-0.1,) * DIM, "weights of at least 0"),
    ],
)
def test_a_basin_that_cannot_be_compared_breaks_the_trial_off(basin: tuple[float, ...], said: str) -> None:
    def spoil(who: str, number: Any, answer: Answer | None) -> Answer | None:
        return replace(answer, basin=basin) if who == "after" and answer is not None else answer

    bench, _ = spied(spoil)
    with run(bench) as trial_run:
        trial = trial_run.measure(20)
    assert trial.failed_side == "after"
    assert said in trial.problems[0]


def test_processes_end_with_the_trial_whatever_happens() -> None:
    class Counting(SimulatedBench):
        alive = 0

        @contextlib.contextmanager
        def probe(self, diff: str | None = None) -> Iterator[Any]:
            with super().probe(diff) as probe:
                self.alive += 1
                try:
                    yield probe
                finally:
                    self.alive -= 1

    bench = Counting()
    trial_run = run(bench)
    with contextlib.suppress(KeyboardInterrupt), trial_run:
        trial_run.measure(4)
        assert bench.alive == 3
        raise KeyboardInterrupt
    assert bench.alive == 0


def test_tests_that_fail_with_the_patch_alone_are_told_from_those_that_always_fail() -> None:
    bench = SimulatedBench()
    bench.run_tests = lambda diff=None: completed(1 if diff else 0, "FAILED")  # type: ignore[method-assign]
    with run(bench) as trial_run:
        assert trial_run.trial.tests_passed is False
        assert trial_run.trial.tests_fail_anyway is False
    assert "fail with the patch: FAILED" in judge.verdict(trial_run.trial, SETTINGS).reason
    anyway = replace(trial_run.trial, tests_fail_anyway=True)
    assert "fail without the patch too: mend them first (FAILED)" in judge.verdict(anyway, SETTINGS).reason


# Request by request


def told(*digests: str | None) -> Any:
    """A probe that says of each request what it answered; None: it failed."""

    def spoil(side: str, count: Any, answer: Answer | None) -> Any:
        return answer and replace(answer, output_digests=digests)

    return spoil


@pytest.mark.parametrize(
    ("after", "answered", "changed"),
    [
        (("a", "b", "c", "d"), 2, 0),  # what failed may come out as it will
        (("a", None, "c", "e"), 2, 0),
        (("a", "b", "x", "d"), 2, 1),
        ((None, "b", "x", "d"), 1, 1),  # what fails now is an error, and counted as one
        ((None, "b", None, "d"), 0, 0),
        (("a", "b", "c"), 2, 2),  # another number of requests: none can be compared
        (None, 2, 2),
    ],
)
def test_requests_are_compared_one_by_one_where_the_probe_tells_of_each(
    after: Any, answered: int, changed: int
) -> None:
    sides = {"before": ("a", None, "c", None), "after": after}
    bench = SimulatedBench(
        wrap=lambda probe, side: Spy(probe, side, [], told(*sides[side]) if sides[side] else told_nothing)
    )
    with run(bench) as trial_run:
        trial = trial_run.measure(20)
    assert {(pair.answered, pair.changed) for pair in trial.pairs} == {(answered, changed)}
    assert {(pair.answered, pair.changed) for pair in trial.control} == {(2, 0)}
    # A batch may hold thousands: what comes of them is kept, and they are not.
    assert all(answer.output_digests is None for pair in trial.pairs for answer in (pair.before, pair.after))


def told_nothing(side: str, count: Any, answer: Answer | None) -> Any:
    return answer


def test_a_probe_that_tells_of_the_batch_alone_has_no_requests_to_compare() -> None:
    with run() as trial_run:
        trial = trial_run.measure(20)
    assert {(pair.answered, pair.changed) for pair in trial.pairs} == {(None, 0)}


# What is taken away

GUARDED = b"def pay(amount):\n    if amount <= 0:\n        raise ValueError(amount)\n    return amount\n"
OPEN = b"def pay(amount):\n    return amount\n"


class Rewritten(SimulatedRepo):
    """A repository in which one file is another in the patched tree."""

    def read(self, commit: str, path: str) -> bytes:
        return OPEN if commit == "tree" else GUARDED


@pytest.mark.parametrize("heals", [("errors",), ("latency",), ("phi",)])
def test_a_safe_patch_that_takes_a_raise_away_goes_on_and_says_so(heals: tuple[str, ...]) -> None:
    with run(repo=Rewritten(changed=(outside("digits/a.py"),)), heals=heals) as trial_run:
        trial = trial_run.trial
    assert trial.refusals == ()
    assert any("raise ValueError(amount) under if amount <= 0" in reason for reason in trial.loosens)


@pytest.mark.parametrize(
    ("left", "reserved"), [((), True), (("digits/*.py",), False), (("digits/b.py", "config/**"), True)]
)
def test_a_commit_is_taken_back_by_a_person_where_the_manifest_does_not_leave_it(
    left: tuple[str, ...], reserved: bool
) -> None:
    bench = SimulatedBench()
    bench.manifest = replace(bench.manifest, patch=replace(bench.manifest.patch, unattended_reverts=left))
    repo = SimulatedRepo(changed=(outside("digits/a.py"),), files={"digits/a.py": OPEN})
    for strategy in ("revert", "latency"):
        with run(bench, repo=repo, heals=("latency",), strategy=strategy) as trial_run:
            loosens = trial_run.trial.loosens
        assert [reason.partition(":")[0] for reason in loosens] == ["digits/a.py"] * (
            reserved and strategy == "revert"
        )


def test_one_that_is_not_safe_may_not_where_errors_are_healed() -> None:
    changed = (outside("digits/a.py"),)
    with run(repo=Rewritten(changed=changed), heals=("errors",), tier="guarded") as trial_run:
        trial = trial_run.trial
    assert "a raise is taken away in pay; to hide an error is not to heal it" in trial.refusals[0]
    assert trial.loosens == ()
