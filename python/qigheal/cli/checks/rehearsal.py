"""A host's probe and tests, started once as the healer starts them: in the sandbox, on the commit, with its limits.

What a trial would need of them is looked at, not what they measure: nothing is learned or kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qigheal.cli.checks import Check, one_line
from qigheal.errors import ProbeError, SandboxError
from qigheal.healing.bench import Bench
from qigheal.host import Manifest
from qigheal.records import Answer
from qigheal.repo import Repo
from qigheal.sandbox import Sandbox

SHORT_MS, LONG_MS = 2.0, 1000.0
"""Times of an answer beyond which trials are lost in noise, or take hours."""

MOST_SHOWN = 200

BY_HAND = "start it by hand in a fresh clone, with env -i, and type a question; see the manual on the probe"
UNSEEN = (
    "report a digest of what was put out: without it no trial can show that a patch leaves the answers as they "
    "were, and one for errors, latency or memory waits for a person in every phase"
)
TESTS = "they would fail with every patch: mend them, or name under [tests] command those that pass in the sandbox"


def probe(place: Path) -> Iterator[Check]:
    """One answer after the first, which measures the start."""
    try:
        with _bench(place) as bench, bench.probe() as started:
            for request in bench.search_requests(2):
                answer = started.ask(*request)
            started.finish()
    except ProbeError as error:
        yield Check(name="probe", state="fail", found=one_line(error), remedy=BY_HAND)
        return
    except SandboxError as error:
        remedy = "see to the sandbox first: nothing is measured without it"
        yield Check(name="probe", state="warn", found=f"not started: {one_line(error)}", remedy=remedy)
        return
    yield Check(name="probe", state="ok", found=_figures(answer))
    if answer.wall_ms < SHORT_MS or answer.wall_ms > LONG_MS:
        remedy = "put more or fewer requests in a batch: 10 to 100 ms an answer is good"
        yield Check(
            name="probe time", state="warn", found=f"{answer.wall_ms:.3g} ms an answer", remedy=remedy
        )
    if answer.output_digest is None:
        said = "its answers hold no output_digest"
        yield Check(name="probe output", state="warn", found=said, remedy=UNSEEN)


def tests(place: Path) -> Iterator[Check]:
    """The tests of the commit as it is; nothing where the manifest names none."""
    try:
        with _bench(place) as bench:
            done = bench.run_tests()
    except SandboxError as error:
        remedy = "see to the sandbox first: nothing is tested without it"
        yield Check(name="tests", state="warn", found=f"not run: {one_line(error)}", remedy=remedy)
        return
    if done is None:
        return
    if done.killed_for:
        said = f"were ended after {done.wall_s:.0f} s, for {done.killed_for}"
        yield Check(name="tests", state="fail", found=said, remedy=TESTS)
    elif done.returncode:
        printed = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
        last = printed[-1].strip()[:MOST_SHOWN] if printed else "they print nothing"
        said = f"fail without any patch, with exit code {done.returncode}: {last}"
        yield Check(name="tests", state="fail", found=said, remedy=TESTS)
    else:
        yield Check(name="tests", state="ok", found=f"pass in {done.wall_s:.1f} s")


@contextmanager
def _bench(place: Path) -> Iterator[Bench]:
    """The bench of the commit that is checked out, with folders of its own."""
    repo = Repo(place)
    head = repo.head()
    with (
        tempfile.TemporaryDirectory(prefix="qigheal-doctor-") as folder,
        Bench(repo, Manifest.at(repo, head), Sandbox("auto"), head, Path(folder)) as bench,
    ):
        yield bench


def _figures(answer: Answer) -> str:
    return (
        f"Φ {answer.phi:.4g}, κ {answer.kappa_eff:.4g}, a basin of {len(answer.basin)}, errors "
        f"{answer.error_rate:.2%}; {answer.wall_ms:.3g} ms and {answer.rss_mb:.0f} MB by the healer's own measure"
    )
