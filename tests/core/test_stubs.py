"""The stubs of the extensions say what the extensions do."""

import subprocess
import sys
from pathlib import Path

import pytest

import qigcore

# stubtest compares with the slot's (*args, **kwargs); the stub names the keywords that the type takes.
ALLOWED = r"qigcore\._recorder\.GeometricSnapshot\.__init__"

STUBS = sorted(f"qigcore.{stub.stem}" for stub in Path(qigcore.__file__).parent.glob("_*.pyi"))


@pytest.mark.skipif(not STUBS, reason="the stubs are not beside the package")
def test_stubs_agree_with_the_extensions(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED + "\n")
    command = [sys.executable, "-m", "mypy.stubtest", *STUBS, "--allowlist", str(allowed)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
