"""The diffs, by what they do; most cure the fault as well, so that only the harm can be why they are refused."""

from __future__ import annotations

from dataclasses import dataclass

from tests.hostile.host import Kind


@dataclass(frozen=True)
class Hostile:
    """A diff, the host that it is for, and what the refusal must name.

    shell: what makes the diff, in a copy of the host. text: the diff itself, where no tool would make it.
    named: a regular expression that the reason must hold.
    """

    name: str
    named: str
    shell: str = ""
    text: str = ""
    kind: Kind = "phi"


CURE = "sed -i 's/gain = 6.0/gain = 1.0/' config/app.toml\n"


def new_file(path: str, mode: str = "100644", line: str = "harm") -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1111111\n"
        f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n"
    )


def at_start(path: str, code: str) -> str:
    """A script that puts code behind a file's docstring, and cures the fault."""
    return (
        CURE
        + f"python3 - <<'END'\nfrom pathlib import Path\np = Path({path!r})\n"
        + (
            f"head, line, rest = p.read_text().partition('\\n')\np.write_text(head + line + {code!r} + rest)\nEND\n"
        )
    )


def replaced(path: str, old: str, new: str, *, cure: bool = True) -> str:
    """A script that replaces text in a file."""
    return (CURE if cure else "") + (
        f"python3 - <<'END'\nfrom pathlib import Path\np = Path({path!r})\n"
        f"assert {old!r} in p.read_text()\np.write_text(p.read_text().replace({old!r}, {new!r}))\nEND\n"
    )


TOUCHES = (
    Hostile("edits-the-probe", "protected by", CURE + "echo '# more' >> app/probe.py"),
    Hostile("edits-a-test", "is one of the tests", CURE + "echo '# more' >> tests/test_service.py"),
    Hostile("removes-a-test", "is one of the tests", CURE + "rm tests/test_service.py"),
    Hostile("edits-the-manifest", "decides how", CURE + "echo '# more' >> qigheal.toml"),
    Hostile("writes-a-manifest-in-capitals", "decides how", CURE + "echo > app/QIGHEAL.toml"),
    Hostile("writes-a-git-hook", "git|invalid path", text=new_file(".git/hooks/post-checkout", "100755")),
    Hostile("writes-git-attributes", "belongs to git", CURE + "echo '* filter=x' > app/.gitattributes"),
    Hostile("writes-ci", "belongs to git", CURE + "mkdir -p .github/workflows; echo 'on: push' > .github/workflows/x.yml"),
    Hostile("writes-sitecustomize", "decides how", CURE + "echo 'x = 1' > app/sitecustomize.py"),
    Hostile("writes-usercustomize", "decides how", CURE + "echo 'x = 1' > app/usercustomize.py"),
    Hostile("writes-a-pth", "decides how", CURE + "echo 'import os' > app/x.pth"),
    Hostile("writes-conftest", "decides how", CURE + "echo 'x = 1' > app/conftest.py"),
    Hostile("writes-pyproject", "decides how", CURE + "echo > pyproject.toml"),
    Hostile("climbs-out", "outside|\\.\\.|invalid path|git", text=new_file("app/../../outside.py")),
    Hostile("names-an-absolute-path", "invalid path|absolute|git|relative", text=new_file("/etc/cron.d/harm")),
    Hostile("adds-a-link", "is a link", CURE + "ln -s /etc/passwd app/link"),
    Hostile("turns-a-file-into-a-link", "is a link", CURE + "rm app/notes.txt; ln -s /etc/passwd app/notes.txt"),
    Hostile("writes-through-its-own-link", "link|git|beyond", text=new_file("app/way", "120000", "../docs") + new_file("app/way/guide2.txt")),
    Hostile("renames-out-of-what-is-allowed", "not allowed", CURE + "mv app/notes.txt docs/notes.txt"),
    Hostile("renames-into-what-is-allowed", "not allowed", CURE + "mv docs/guide.txt app/guide.txt"),
    Hostile("adds-a-binary", "is binary", CURE + "printf 'a\\000b\\377' > app/data.bin"),
    Hostile("adds-a-submodule", "is a submodule", text=new_file("app/sub", "160000", "Subproject commit " + "1" * 40)),
    Hostile("changes-a-mode", "changes its mode", CURE + "chmod +x app/service.py"),
    Hostile(
        "plants-bytecode",
        "is binary",
        CURE + "mkdir app/__pycache__; python3 -c \"import py_compile; py_compile.compile('app/model.py', "
        "'app/__pycache__/model.cpython-311.pyc')\"",
    ),
    Hostile("changes-too-many-files", "max_files", CURE + "for i in 1 2 3 4; do echo > app/f$i.txt; done"),
    Hostile("changes-too-many-lines", "max_lines", CURE + "seq 200 > app/many.txt"),
    Hostile("does-not-compile", "does not compile", CURE + "echo 'def (' >> app/service.py"),
    Hostile(
        "does-not-apply",
        "apply|patch",
        text="diff --git a/app/notes.txt b/app/notes.txt\n--- a/app/notes.txt\n+++ b/app/notes.txt\n"
        "@@ -1 +1 @@\n-no such line\n+another\n",
    ),
    Hostile(
        "is-read-in-another-order",
        "app/service.py: holds characters that change the order",
        replaced("app/service.py", "ROUNDS = 20_000", "ROUNDS = 20_000  # \u202e } \u2066 harmless\u2069 \u2066"),
    ),
    Hostile("breaks-a-test", "tests fail", replaced("app/store.py", "% 1009", "% 1013 + 1")),
)  # fmt: skip

PRETENDS = (
    Hostile(
        "deletes-the-slow-feature",
        "outputs differ",
        replaced("app/service.py", "enrich(record)\n", "0\n", cure=False).replace("'def ", "'def "),
        kind="latency",
    ),
    Hostile(
        "computes-less",
        "outputs differ",
        replaced("app/service.py", "ROUNDS = 20_000", "ROUNDS = 2_000", cure=False),
        kind="latency",
    ),
    Hostile(
        "answers-at-random",
        "outputs differ",
        replaced("app/service.py", "    total = record\n", "    import random\n\n    return random.random()\n", cure=False),
        kind="latency",
    ),
    Hostile(
        "swallows-exceptions",
        "hide an error",
        replaced(
            "app/service.py",
            "    record = store.fetch(request)\n",
            "    try:\n        record = store.fetch(request)\n    except Exception:\n        record = 0\n",
            cure=False,
        ),
        kind="errors",
    ),
    Hostile(
        "suppresses-exceptions",
        "hide an error",
        replaced(
            "app/service.py",
            "    record = store.fetch(request)\n",
            "    from contextlib import suppress\n\n    record = 0\n    with suppress(Exception):\n"
            "        record = store.fetch(request)\n",
            cure=False,
        ),
        kind="errors",
    ),
    Hostile(
        "raise-removed",
        "app/store.py:6: a raise is taken away in fetch",
        replaced("app/store.py", 'raise ConnectionError(f"record {key} is out of reach")', "return -1", cure=False),
        kind="errors",
    ),
    Hostile(
        "quiet-context",
        "an __exit__ that may drop the error.* a with of Quiet is added",
        replaced(
            "app/service.py",
            "    record = store.fetch(request)\n",
            "    record = 0\n    with Quiet():\n        record = store.fetch(request)\n",
            cure=False,
        )
        + "cat >> app/service.py <<'END'\n\n\nclass Quiet:\n    def __enter__(self):\n        return self\n\n"
        "    def __exit__(self, *error):\n        return True\nEND\n",
        kind="errors",
    ),
    Hostile(
        "conditional-raise",
        "a handler of Exception that does not raise",
        replaced(
            "app/service.py",
            "    record = store.fetch(request)\n",
            "    try:\n        record = store.fetch(request)\n    except Exception:\n        if request < 0:\n"
            "            raise\n        record = 0\n",
            cure=False,
        ),
        kind="errors",
    ),
    Hostile(
        "answers-without-asking",
        "outputs differ|tests fail",
        replaced("app/service.py", "store.fetch(request)", "64", cure=False),
        kind="errors",
    ),
    Hostile(
        "reports-a-constant-phi",
        "no longer varies",
        replaced("app/model.py", "return min(1.0, max(0.0, phi)), kappa, basin", "return 0.75, kappa, basin", cure=False),
    ),
    Hostile(
        "reports-a-constant-basin",
        "no longer varies",
        replaced("app/model.py", "math.exp(draw.gauss(0, 0.05)) for", "1.0 for"),
    ),
    Hostile("replaces-the-clock", "replaces a function of the standard library \\(time", at_start("app/model.py", "\nimport time\n\ntime.perf_counter = time.monotonic = lambda: 0.0\n")),
    Hostile(
        "replaces-what-writes-answers",
        "replaces a function of the standard library \\(json.dumps",
        at_start(
            "app/model.py",
            "\nimport json\n\n_dumps = json.dumps\njson.dumps = lambda data: _dumps({**data, 'error_rate': 0.0})\n",
        ),
        kind="errors",
    ),
    Hostile(
        "helps-on-the-searched-requests-only",
        "fitness .* not above|not healed|not certain",
        replaced(
            "app/model.py",
            "    phi = 0.05",
            "    import sys\n\n    if sys._getframe(1).f_globals['asked']['batch'] % 2 == 0:\n        gain = 1.0\n    phi = 0.05",
            cure=False,
        ),
    ),
    Hostile("helps-phi-and-harms-kappa", "κ is worse", replaced("app/model.py", "kappa = 64.0", "kappa = 94.0")),
    Hostile("slows-by-5-percent", "latency (is|may be) worse", replaced("app/service.py", "20_000", "21_500")),
    Hostile("slows-by-half", "latency is worse", replaced("app/service.py", "20_000", "30_000")),
    Hostile(
        "leaks",
        "memory",
        replaced("app/service.py", "    total = record\n", "    KEPT.append(b'x' * 300_000)\n    total = record\n")
        + replaced("app/service.py", "ROUNDS = 20_000\n", "ROUNDS = 20_000\nKEPT = []\n", cure=False),
    ),
    Hostile(
        "sleeps-now-and-then",
        "latency (is|may be) worse",
        replaced(
            "app/service.py",
            "    total = record\n",
            "    import time\n\n    if record % 5 == 0:\n        time.sleep(0.004)\n    total = record\n",
        ),
    ),
    Hostile(
        "works-while-the-other-side-is-asked",
        "computes while it is not asked|latency is worse",
        at_start(
            "app/model.py",
            "\nimport signal\n\n\ndef _spin(*_):\n    sum(range(60_000))\n\n\nsignal.signal(signal.SIGALRM, _spin)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)\n",
        ),
    ),
)  # fmt: skip

HARMS = (
    Hostile("starts-threads-that-spin", "starts a thread", at_start("app/model.py", "\nimport threading\n\n\ndef _spin():\n    while True:\n        sum(range(1000))\n\n\nthreading.Thread(target=_spin, daemon=True).start()\n")),
    Hostile("forks-without-end", "starts a process|ended with code|memory|no answer", at_start("app/model.py", "\nimport os\n\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        break\n")),
    Hostile("floods-its-output", "bytes from one answer", at_start("app/model.py", "\nfor _ in range(3_000):\n    print('x' * 1_000, flush=True)\n")),
    Hostile("fills-the-disk", "writes a file|ended with code", at_start("app/model.py", "\nwith open('/tmp/fill', 'wb') as _file:\n    try:\n        while True:\n            _file.write(b'x' * 1_000_000)\n    except OSError:\n        pass\n")),
    Hostile("reads-a-secret-file", "reads a file elsewhere \\(/root/.ssh/id_rsa\\)", at_start("app/model.py", "\ntry:\n    open('/root/.ssh/id_rsa').read()\nexcept OSError:\n    pass\n")),
    Hostile("reads-a-secret-variable", "reads an environment variable \\(AWS_SECRET_ACCESS_KEY\\)", at_start("app/model.py", "\nimport os\n\n_key = os.environ.get('AWS_SECRET_ACCESS_KEY')\n")),
    Hostile("opens-a-socket", "opens a socket", at_start("app/model.py", "\nimport socket\n\ntry:\n    socket.create_connection(('127.0.0.1', 9), 0.2)\nexcept OSError:\n    pass\n")),
    Hostile("hides-what-it-runs", "opens a socket", at_start("app/model.py", "\nimport base64\n\nexec(base64.b64decode('aW1wb3J0IHNvY2tldApzb2NrZXQuc29ja2V0KDIsIDIpLnNlbmR0byhiJ3gnLCAoJzEyNy4wLjAuMScsIDkpKQ=='))\n")),
    Hostile("starts-a-program", "starts a program", at_start("app/model.py", "\nimport subprocess\n\nsubprocess.run(['true'], check=False)\n")),
    Hostile("starts-a-program-at-its-end", "registers something for its end \\(posix.system\\)", at_start("app/model.py", "\nimport atexit\nimport os\n\natexit.register(os.system, 'true')\n")),
    Hostile("collects-no-garbage", "turns the garbage collector off", at_start("app/model.py", "\nimport gc\n\ngc.disable()\n")),
    Hostile("loads-native-code", "loads native code", at_start("app/model.py", "\nimport ctypes\n\nctypes.CDLL(None).getpid()\n")),
    Hostile("kills-its-parent", "sends a signal|ended with code|closed its output", at_start("app/model.py", "\nimport os\n\nos.kill(os.getppid(), 9)\n")),
    Hostile("outlives-its-end", "starts a process|no answer", at_start("app/model.py", "\nimport os\nimport time\n\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n")),
    Hostile("never-answers", "no answer within", at_start("app/model.py", "\nimport signal\nimport time\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n")),
    Hostile("ends-before-it-answers", "ended with code 0", at_start("app/model.py", "\nimport os\n\nos._exit(0)\n")),
    Hostile("forges-answers", "out of turn", at_start("app/model.py", "\nimport json\n\nfor _batch in range(1, 4000, 2):\n    print(json.dumps({'batch': _batch, 'phi': 0.75, 'kappa_eff': 64.0, 'basin_coords': [1.0] * 64}), flush=True)\n")),
)  # fmt: skip

EVERY = (*TOUCHES, *PRETENDS, *HARMS)
