"""Runs the code of one page of the documentation, in the working folder, in one namespace.

Started as a process of its own with the page's blocks as JSON on standard input, since a page may start threads,
set signal handlers and hold files open. Ends with 0 when every block ran, else with 1 and the reason on
standard error. Commands may end with 0, 1 or 2, which are answers; what lies above is an error.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import linecache
import os
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any

ANSWERS = (0, 1, 2)


def main() -> int:
    job = json.load(sys.stdin)
    shim = Path("bin")
    shim.mkdir(exist_ok=True)
    program = shim / "qigheal"
    program.write_text(f"#!{sys.executable}\nfrom qigheal.cli import main\nmain()\n")
    program.chmod(0o755)
    os.environ["PATH"] = f"{shim.resolve()}{os.pathsep}{os.environ['PATH']}"
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    for step in job["steps"]:
        where = f"{job['page']}:{step['line']}"
        if "python" in step:
            try:
                execute(step["python"], where, vars(module))
            except BaseException:
                traceback.print_exc()
                return 1
        for command in step.get("commands", ()):
            ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
            if ended.returncode not in ANSWERS or "Traceback" in ended.stderr:
                print(f"{where}: {command}: ended with {ended.returncode}: {ended.stderr}", file=sys.stderr)
                return 1
    return 0


def execute(text: str, where: str, namespace: dict[str, Any]) -> None:
    """One block; `await` may stand at its top level."""
    linecache.cache[where] = (len(text), None, text.splitlines(keepends=True), where)
    code = compile(text, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)  # noqa: S307
    if inspect.iscoroutine(result):
        asyncio.run(result)


if __name__ == "__main__":
    sys.exit(main())
