from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qigcore._jit import Kernel, jit
from qigcore.errors import MissingExtra

ROOT = Path(__file__).resolve().parent.parent.parent


def add(a: float, b: float) -> float:
    """Adds."""
    return a + b


def test_a_kernel_compiles_on_its_first_call_and_keeps_its_name() -> None:
    kernel = jit(add)
    assert kernel.__name__ == "add"
    assert kernel.__doc__ == "Adds."
    assert kernel.twin is add
    assert kernel(1.0, 2.0) == 3.0
    assert kernel(3.0, 4.0) == 7.0


def test_without_numba_the_first_call_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def none(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "numba":
            raise ImportError("No module named 'numba'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", none)
    kernel = jit(add)
    with pytest.raises(MissingExtra, match=r"pip install 'qigheal\[heal\]'"):
        kernel(1.0, 2.0)


def test_a_cache_that_cannot_be_written_is_done_without() -> None:
    class FullDisk(Kernel[..., float]):
        def _compile(self, *, cache: bool) -> Any:
            def writes(*args: float) -> float:
                raise OSError(28, "No space left on device")

            return writes if cache else self.twin

    kernel = FullDisk(add)
    assert kernel(1.0, 2.0) == 3.0
    assert kernel(2.0, 2.0) == 4.0


def test_without_any_writable_folder_kernels_still_work() -> None:
    code = (
        "import numpy as np\n"
        "from qigcore._resample import resample\n"
        "one = np.ones\n"
        "print(resample(one((2, 2, 1)), one((2, 2, 3)), one(2), one(3) / 3**0.5, 3, 1).shape)\n"
    )
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": "/proc/nowhere",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'python'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "(3, 2, 2)", done.stderr


def test_nothing_compiles_and_numba_stays_away_until_a_score_is_asked_for() -> None:
    code = "import sys, qigcore.fitness, qigcore._resample; print('numba' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'python'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "False", done.stderr
