"""What a patch makes the program do beyond computing is seen, named, and refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from qigheal.healing.inspection import MARK, looked_into
from qigheal.healing.inspection.conduct import Conduct, objections

QUIET = "import json, math, os\nprint(json.dumps(math.pi))\n"


def conduct(folder: Path, program: str) -> Conduct:
    (folder / "program.py").write_text(textwrap.dedent(program))
    command = looked_into(["python", "program.py"], "audit", {})
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=folder, capture_output=True, check=False, timeout=60
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    return msgspec.json.decode(line.removeprefix(MARK), type=Conduct)


@pytest.mark.parametrize(
    ("deed", "named"),
    [
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "opens a socket (('127.0.0.1', 9))"),
        ("import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))", "opens a socket"),
        ("import socket; socket.socket().bind(('127.0.0.1', 0))", "opens a socket"),
        ("import os\nif not os.fork(): os._exit(0)", "starts a process"),
        ("import subprocess; subprocess.run(['true'])", "starts a program (true"),
        ("import os; os.system('true')", "starts a program"),
        ("import os; os.kill(os.getpid(), 0)", "sends a signal"),
        ("import ctypes; ctypes.CDLL(None)", "loads native code"),
        ("import threading; threading.Thread(target=print).start()", "starts a thread"),
        ("open('/etc/hostname').close()", "reads a file elsewhere (/etc/hostname)"),
        ("open('../outside').close()", "reads a file elsewhere"),
        ("open('written', 'w').close()", "writes a file (written)"),
        ("import os; os.close(os.open('written', os.O_CREAT | os.O_RDWR))", "writes a file (written)"),
        ("import os; os.mkdir('made')", "makes a folder (made)"),
        ("import os; os.getenv('TOKEN')", "reads an environment variable (TOKEN)"),
        ("from os import environ; environ.get('TOKEN')", "reads an environment variable (TOKEN)"),
        ("import os; dict(os.environ)", "reads every environment variable"),
        ("import os; os.environ.setdefault('A', 'b')", "sets an environment variable (A)"),
        (
            "import time; time.perf_counter = lambda: 0.0",
            "replaces a function of the standard library (time.",
        ),
        ("import json; json.dumps = str", "replaces a function of the standard library (json.dumps)"),
        ("import builtins; builtins.open = print", "replaces a function of the standard library"),
        ("import sys; sys.settrace(None)", "looks into frames"),
        (
            "import atexit, os; atexit.register(os.system, 'true')",
            "registers something for its end (posix.system)",
        ),
        (
            "from atexit import register\n@register\ndef late(): pass",
            "registers something for its end (__main__.late)",
        ),
        ("import gc; gc.disable()", "turns the garbage collector off"),
        ("import gc; gc.set_threshold(0)", "turns the garbage collector off"),
    ],
)
def test_a_new_deed_is_named(tmp_path: Path, deed: str, named: str) -> None:
    before = conduct(tmp_path, QUIET)
    after = conduct(tmp_path, f"{QUIET}try:\n{textwrap.indent(deed, '    ')}\nexcept OSError: pass\n")
    assert any(sentence.startswith(named) for sentence in objections(before, after)), objections(
        before, after
    )


def test_computing_is_no_deed(tmp_path: Path) -> None:
    more = (
        "import asyncio, collections, concurrent.futures.thread, dataclasses, decimal, gc, logging, random, re, time\n"
        "asyncio.run(asyncio.sleep(0)); gc.disable(); gc.enable()\n"
    )
    assert objections(conduct(tmp_path, QUIET), conduct(tmp_path, QUIET + more)) == ()


def test_what_the_unpatched_code_does_as_well_is_no_objection(tmp_path: Path) -> None:
    deed = (
        "open('/etc/hostname').close()\nimport threading; threading.Thread(target=print).start()\n"
        "import atexit, gc; atexit.register(print); gc.disable()\n"
    )
    assert objections(conduct(tmp_path, deed), conduct(tmp_path, QUIET + deed)) == ()


def test_the_environment_works_as_before(tmp_path: Path) -> None:
    program = """
    import os, subprocess, sys
    os.environ["SAID"] = "so"
    assert os.environ.pop("SAID") == "so" and "SAID" not in os.environ
    os.environ.update(SAID="again")
    out = subprocess.run([sys.executable, "-c", "import os; print(os.environ['SAID'])"], capture_output=True)
    assert out.stdout == b"again\\n", out
    assert os.environ.copy()["SAID"] == "again"
    open("/dev/null", "w").write("good")
    """
    seen = conduct(tmp_path, program).seen
    assert "SAID" in seen["sets an environment variable"]
    assert "/dev/null" in seen["writes a file"]  # so it went to its end


def test_text_of_the_program_is_shown_without_control_characters(tmp_path: Path) -> None:
    after = conduct(tmp_path, "import os\nos.getenv('\\x1b[31mred\\n' + 500 * 'a')\n")
    [sentence] = objections(conduct(tmp_path, QUIET), after)
    assert sentence.isprintable()
    assert len(sentence) < 300


def test_what_is_registered_for_the_end_still_runs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import atexit\natexit.register(print, 'the', 'end', sep='-')\n")
    command = looked_into(["python", "program.py"], "audit", {})
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=tmp_path, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.endswith(b"the-end\n")
