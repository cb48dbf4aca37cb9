"""What the bench makes trees of, its requests and tests, and the users it runs as."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from qigheal.errors import PatchError, RepoError
from qigheal.healing.bench import WARM_UP, Bench
from qigheal.sandbox import Sandbox
from tests.heal.isolated import isolated
from tests.heal.ordinary_user import run_as_ordinary_user
from tests.heal.probed_host import MANIFEST, WORSE, Host


class TestTrees:
    def test_a_diff_and_a_commit(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            worse = host.commit({"app/model.py": "LEVEL = 0.5\n"})
            for name, phi in ((None, 0.75), (WORSE, 0.25), (worse, 0.5), ("main", 0.5)):
                with bench.probe(name) as probe:
                    assert probe.ask(1, 1).phi == phi
                assert bench.tree(name) == bench.tree(name)

    def test_is_readable_for_others_whatever_the_umask(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            before = os.umask(0o077)
            try:
                bench.tree(WORSE)
            finally:
                os.umask(before)
            with bench.probe(WORSE) as probe:
                assert probe.ask(1, 1).phi == 0.25

    def test_a_tree_does_not_bring_what_measures_it(self, host: Host) -> None:
        """Also where a commit removed or added some of it."""
        with host.bench_in_git() as bench:
            (host.folder / "tests" / "test_model.py").unlink()
            changed = host.commit(
                {
                    "qigheal.toml": "[probe]\ncommand = ['true']\n",
                    "app/probe.py": "print('mine')\n",
                    "data/requests.txt": "easier\n",
                    "data/more.txt": "easier still\n",
                    "sitecustomize.py": "import sys\n",
                    "app/other.py": "kept = True\n",
                    "app/model.py": "LEVEL = 0.5\n",
                }
            )
            base, tree = bench.tree(), bench.tree(changed)
            names = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()}
            assert names == {p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file()} | {
                "app/other.py"
            }
            for name in ("qigheal.toml", "app/probe.py", "data/requests.txt", "tests/test_model.py"):
                assert (tree / name).read_bytes() == (base / name).read_bytes()
            assert (tree / "app/model.py").read_text() == "LEVEL = 0.5\n"

    def test_what_names_no_tree(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            with pytest.raises(PatchError):
                bench.tree(WORSE.replace("0.75", "0.9"))
            with pytest.raises(RepoError):
                bench.tree("no-such-branch")


class TestTests:
    def test_pass_and_fail_on_a_copy(self, host: Host) -> None:
        with host.bench_in_git() as bench:
            good, bad = bench.run_tests(), bench.run_tests(WORSE)
            assert good is not None
            assert bad is not None
            assert (good.returncode, bad.returncode) == (0, 1), good.stderr
            assert b"0.25 != 0.75" in bad.stderr
            assert not (bench.tree() / "written").exists()

    def test_a_host_without_tests(self, host: Host) -> None:
        manifest = '[probe]\ncommand = ["python", "-m", "app.probe"]\n'
        with host.bench(**{"qigheal.toml": manifest}) as bench:
            assert bench.run_tests() is None

    def test_that_run_for_too_long(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qigheal.healing.bench.TESTS_TIMEOUT_S", 0.5)
        with host.bench(**{"tests/test_model.py": "import time; time.sleep(600)\n"}) as bench:
            done = bench.run_tests()
            assert done is not None
            assert done.killed_for == "timeout"


class TestRequests:
    @pytest.fixture
    def bench(self, host: Host) -> Iterator[Bench]:
        with host.bench_in_git() as bench:
            yield bench

    def test_sets_are_disjoint_and_the_same_each_time(self, bench: Bench) -> None:
        search, trial = bench.search_requests(500), bench.trial_requests(500)
        assert not {batch for batch, _ in search} & {batch for batch, _ in trial}
        assert len({batch for batch, _ in search + trial}) == 1000
        assert len({seed for _, seed in search + trial}) == 1000
        assert all(0 <= seed < 2**31 for _, seed in search + trial)
        assert search == bench.search_requests(500)
        assert bench.search_requests(400, start=100) == search[100:]
        assert bench.trial_requests(400, start=100) == trial[100:]

    def test_batches_are_the_first_search_requests(self, bench: Bench) -> None:
        answers = bench.batches(WORSE, 5)
        assert [(answer.batch, answer.phi) for answer in answers] == [
            (b, 0.25) for b, _ in bench.search_requests(5)
        ]
        seeds = [round(answer.error_rate * 2**32) for answer in answers]
        assert seeds == [seed for _, seed in bench.search_requests(5)]

    def test_batches_leave_out_the_start(self, host: Host) -> None:
        probe = f"""
            for n, line in enumerate(sys.stdin):
                time.sleep(0.4 if n < {WARM_UP} else 0)
                answer()
        """
        with host.bench(probe) as bench:
            assert max(answer.wall_ms for answer in bench.batches(None, 3)) < 400


def test_another_interpreter(host: Host) -> None:
    other = shutil.which("python3", path="/usr/bin")
    if other is None:
        pytest.skip("there is only one Python here")
    probe = "for line in sys.stdin: answer(output_digest=sys.prefix)"
    manifest = MANIFEST.format(timeout=20).replace("[tests]", f'interpreter = "{other}"\n[tests]')
    with host.bench(probe, **{"qigheal.toml": manifest}) as bench, bench.probe() as running:
        assert running.ask(1, 1).output_digest == "/usr"


AS_USER = """
import json, os, sys
from pathlib import Path
from qigheal.errors import ProbeError
from qigheal.healing.bench import Bench
from qigheal.host import Manifest
from qigheal.sandbox import Sandbox

class FilesRepo:
    root = Path("/")
    def export(self, commit, dest):
        for name, text in files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_text(text)

files = json.loads(sys.argv[2])
os.mkdir("work")
told = []
with Bench(FilesRepo(), Manifest.parse(files["qigheal.toml"]), Sandbox(sys.argv[1]), "base", Path("work")) as bench:
    with bench.probe() as probe:
        told.append(probe.ask(1, 1).phi)
        try:
            probe.ask(2, 2)
        except ProbeError as error:
            told.append(str(error))
    told.append(bench.run_tests().returncode)
print(json.dumps([os.getuid(), bench.level, told, os.listdir("work")]))
"""


@pytest.mark.parametrize("level", ["namespaces", "partial", "none"])
def test_as_an_ordinary_user(tmp_path: Path, level: Literal["namespaces", "partial", "none"]) -> None:
    if level != "none" and isinstance(missing := isolated(level), str):
        pytest.skip(missing)
    host = Host(tmp_path, tmp_path, Sandbox("none"))
    host.timeout = 1.5
    files = host.files("sys.stdin.readline()\nanswer()\ntime.sleep(600)")
    folder = tmp_path / "user"
    script = f"import os; os.chdir({str(folder)!r})\n{AS_USER}"
    user, used, told, left = json.loads(run_as_ordinary_user(script, folder, level, json.dumps(files)))
    assert user != 0
    assert (used, left) == (level, [])
    assert told[0] == 0.75
    assert "no answer within 1.5 s" in told[1]
    assert told[2] == 0


def test_close_removes_only_its_own(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", tmp_path, Sandbox("none"))
    (tmp_path / "other").write_text("kept")
    with host.bench() as bench:
        place = bench.tree()
        assert place.is_dir()
    assert not place.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other"]
