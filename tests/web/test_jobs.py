"""Jobs: one at a time per store, each in a process of its own that outlives whoever began it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qigheal.api import jobs as jobs_module
from qigheal.api.exchange import Refused
from qigheal.api.jobs import KEPT, NICE, Jobs
from tests.test_inherited import SECRETS
from tests.web.conftest import Make
from tests.web.serving import HEAL, REVIEW, Web, access
from tests.web.stores import judge, ledger, opened, patch, recorded

# What a job runs here: it says what it was given, and ends when its pipe does.
PROGRAM = """
import json, os, sys
with open(sys.argv[1]) as pipe:
    told = pipe.read()
if told == "fail":
    sys.exit("qigheal: the host has no manifest; add one")
names = [name for name in os.environ if name.startswith("QIGHEAL_")]
print(json.dumps({"message": "done", "arguments": sys.argv[2:], "nice": os.nice(0), "environment": names}))
"""


class Pipe:
    """Holds a job until it is told how to end."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.program = (sys.executable, "-c", PROGRAM, str(path))

    def tell(self, word: str) -> None:
        with self.path.open("w") as pipe:  # waits until the job listens
            pipe.write(word)


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return Pipe(tmp_path / "pipe")


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("QIGHEAL_STORE", "/elsewhere")


def ended(jobs: Jobs | Web, identity: str) -> Any:
    """A job when it has ended; whoever waits here for ever is stopped by the test's own timeout."""
    while True:
        job: Any = jobs(f"jobs/{identity}").json if isinstance(jobs, Web) else jobs.get(identity).to_dict()
        if job["state"] != "running":
            return job
        time.sleep(0.02)


def test_a_pass_is_a_job(serve: Make, store: Path, pipe: Pipe) -> None:
    recorded(store, phi=0.2)
    web = serve(host=store.parent / "host", program=pipe.program)
    answer = web.post("heal", token=HEAL)
    assert answer.status == 202
    assert answer.json["triggered"]
    assert "Φ degraded" in answer.json["message"]
    begun = answer.json["job"]
    assert web(f"jobs/{begun['id']}").json == begun
    assert (begun["state"], begun["kind"]) == ("running", "heal")
    for other in (web, serve(host=store, program=pipe.program)):
        busy = other.post("heal", token=HEAL)
        assert (busy.status, busy.json["error"]) == (409, "busy")
        assert begun["id"] in busy.json["detail"]
    pipe.tell("end")
    job = ended(web, begun["id"])
    assert (job["state"], job["message"]) == ("done", "done")
    assert job["result"] == {
        "message": "done",
        "arguments": ["heal", str(store.parent / "host"), f"--store={store}", "--json"],
        "nice": NICE,
        "environment": ["QIGHEAL_STORE"],
    }
    assert job["ended_at"] >= job["started_at"]
    folder = store / "jobs"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_job_that_fails_says_why(serve: Make, store: Path, pipe: Pipe) -> None:
    recorded(store, phi=0.2)
    web = serve(host=store, program=pipe.program)
    begun = web.post("heal", token=HEAL).json["job"]
    pipe.tell("fail")
    job = ended(web, begun["id"])
    assert (job["state"], job["message"]) == ("failed", "the host has no manifest; add one")
    assert job["result"] is None
    assert web.post("heal", token=HEAL).status == 202
    pipe.tell("end")


def test_a_healthy_service_is_left_alone(serve: Make, store: Path) -> None:
    web = serve(host=store)
    for status in ("learning", "healthy"):
        answer = web.post("heal", token=HEAL)
        assert (answer.status, answer.json["triggered"], answer.json["job"]) == (200, False, None)
        assert web("health").json["status"] == status
        recorded(store)
    assert not (store / "jobs").exists()


def test_without_a_host_nothing_can_be_healed(web: Web, store: Path) -> None:
    recorded(store, phi=0.2)
    answer = web.post("heal", token=HEAL)
    assert (answer.status, answer.json["error"]) == (403, "no_host")
    assert "host=" in answer.json["detail"]


BEGINNER = """
import os, sys
from pathlib import Path
from qigheal.api.jobs import Jobs
store, *program = sys.argv[1:]
print(Jobs(Path(store), program=program).start("heal", []).id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_job_outlives_the_worker_that_began_it(tmp_path: Path, pipe: Pipe) -> None:
    began = subprocess.run(
        [sys.executable, "-c", BEGINNER, str(tmp_path), *pipe.program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert began.returncode == -signal.SIGKILL
    identity = began.stdout.decode().strip()
    jobs = Jobs(tmp_path, program=pipe.program)
    assert jobs.running() == identity
    with pytest.raises(Refused, match=identity):
        jobs.start("heal", [])
    pipe.tell("end")
    assert ended(jobs, identity)["state"] == "done"


def test_a_job_that_is_killed_has_failed(tmp_path: Path, pipe: Pipe) -> None:
    jobs = Jobs(tmp_path, program=pipe.program)
    before = set(jobs_module._CHILDREN)
    job = jobs.start("heal", [])
    (child,) = jobs_module._CHILDREN - before
    os.kill(child, signal.SIGKILL)
    told = ended(jobs, job.id)
    assert (told["state"], "killed" in told["message"]) == ("failed", True)
    while child in jobs_module._CHILDREN:
        jobs_module.reap()
        time.sleep(0.02)
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)
    assert jobs.running() is None


def test_jobs_do_not_pile_up(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, program=(sys.executable, "-S", "-c", "print('{}')"))
    (tmp_path / "jobs").mkdir()
    for number in range(KEPT + 5):
        name = tmp_path / "jobs" / f"{number:016x}.json"
        name.write_text(json.dumps({"id": f"{number:016x}", "kind": "heal", "started_at": number}))
        name.with_suffix(".out").write_text("{}")
        os.utime(name, (number, number))
    (tmp_path / "jobs" / ".half").write_text("")
    job = jobs.start("heal", [])
    ended(jobs, job.id)
    names = {path.name for path in (tmp_path / "jobs").iterdir()}
    assert len([name for name in names if name.endswith(".json")]) == KEPT
    assert not {".half", "0000000000000000.json", "0000000000000000.out"} & names
    assert jobs.get(f"{KEPT:016x}").state == "done"


@pytest.mark.parametrize("identity", ["0" * 16, "../lock", "lock", "%2e%2e", "x" * 300, "0" * 15 + "\n"])
def test_unknown_jobs(web: Web, identity: str) -> None:
    assert web(f"jobs/{identity}".replace("\n", "%0a")).status == 404


def test_a_store_that_takes_no_job_says_so(serve: Make, store: Path) -> None:
    recorded(store, phi=0.2)
    (store / "jobs").write_text("")
    answer = serve(host=store).post("heal", token=HEAL)
    assert (answer.status, answer.json["error"]) == (409, "store_unusable")


@pytest.mark.parametrize("approve", [True, False])
def test_a_review_is_a_job(serve: Make, store: Path, pipe: Pipe, approve: bool) -> None:
    change = opened(ledger(store), patch())
    web = serve(host=store / "host", program=pipe.program)
    seen = web(f"patches/{change.id}").json["fingerprint"]
    body = {"approve": approve, "fingerprint": seen, "reviewer": "--apply", "reason": "-x\nÅ"}
    answer = web.post(f"patches/{change.id}/review", token=REVIEW, body=body)
    assert answer.status == 202
    again = web.post(f"patches/{change.id}/review", token=REVIEW, body=body)
    assert (again.status, again.json["error"]) == (409, "busy")
    pipe.tell("end")
    job = ended(web, answer.json["id"])
    assert job["kind"] == "review"
    assert job["result"]["arguments"] == [
        "review",
        change.id,
        "--approve" if approve else "--reject",
        f"--host={store / 'host'}",
        f"--store={store}",
        "--reviewer=--apply",
        "--reason=-x\nÅ",
        "--json",
    ]


def test_the_reviewer_reaches_the_ledger(serve: Make, store: Path) -> None:
    """By the real command line, of a patch that was only measured: nothing is merged, so no host is needed."""
    book = ledger(store)
    judge(book, patch())
    identity = patch().fingerprint
    web = serve()
    body = {
        "approve": True,
        "fingerprint": web(f"patches/{identity}").json["fingerprint"],
        "reviewer": "Ada --json",
        "reason": "looks right",
    }
    answer = web.post(f"patches/{identity}/review", token=REVIEW, body=body)
    assert answer.status == 202
    job = ended(web, answer.json["id"])
    assert job["state"] == "done", job
    assert job["message"] == "the patch is approved; nothing was merged"
    (entry,) = book.entries("review")
    assert json.loads(entry.data) == {"approved": True, "reviewer": "Ada --json", "reason": "looks right"}
    known = web("patches").json["patches"][0]
    assert (known["reviewer"], known["waits_for_review"]) == ("Ada --json", False)
    late = web.post(f"patches/{identity}/review", token=REVIEW, body=body)
    assert (late.status, late.json["error"]) == (409, "changed")


def test_limits_of_acts_are_of_all_workers(serve: Make, store: Path) -> None:
    recorded(store)
    options: Any = {"host": store, "access": access(heals_per_minute=1)}
    assert [serve(**options).post("heal", token=HEAL).status for _ in range(2)] == [200, 429]


def test_a_pass_on_what_is_no_repository_fails_and_says_so(serve: Make, store: Path, tmp_path: Path) -> None:
    """By the real command line."""
    recorded(store, phi=0.2)
    (tmp_path / "host").mkdir()
    web = serve(host=tmp_path / "host")
    job = ended(web, web.post("heal", token=HEAL).json["job"]["id"])
    assert job["state"] == "failed"
    assert "host" in job["message"]
    assert "Traceback" not in job["message"]
