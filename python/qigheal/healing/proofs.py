"""Proof bundles: one file for each trial that was judged, with all that it takes to judge it again.

A bundle is `<fingerprint>-<n>.qproof` in the folder `proofs` of a store: the JSON of a `Proof`, compressed
by zstd. It holds the diff, the strategy's evidence, the diagnosis, every answer of both sides, the seed, the
settings and the verdict. Nothing here judges, and no ledger is known here: whoever writes the verdict down
writes the bundle's SHA-256 beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import zstandard
from msgspec.structs import replace

from qigcore.regular import read_regular
from qigheal.errors import LedgerError
from qigheal.records import Diagnosis, Record, Trial, Verdict
from qigheal.settings import HealSettings

FOLDER: Final = "proofs"
SUFFIX: Final = ".qproof"

MOST_BYTES: Final = 64_000_000
"""Of the JSON of one bundle: 20 times that of the longest trial with 64 components. A larger one is not kept."""

MOST_EVIDENCE: Final = 1_000_000
"""Bytes of JSON of a strategy's evidence; more is left out, and its size said."""

LEVEL: Final = 9


class Proof(Record, frozen=True):
    """All that a verdict rests on. Fields are only appended, with defaults."""

    trial: Trial  # with its patch, the patch's evidence, every pair, and the seed
    verdict: Verdict
    diagnosis: Diagnosis
    settings: HealSettings
    versions: dict[str, str]
    at: float  # Unix seconds
    schema: int = 1


class Kept(NamedTuple):
    """A bundle's file name and the SHA-256 of the file, in hex; both empty when none was kept."""

    bundle: str = ""
    digest: str = ""


def keep(folder: Path, proof: Proof) -> Kept:
    """Write a bundle; when this returns it is on the disk. One that would be too large is not kept.

    Raises LedgerError when it cannot be written: without its proof a verdict is not to be written either.
    """
    encoded = msgspec.json.encode(_bounded(proof))
    if len(encoded) > MOST_BYTES:
        return Kept()
    content = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(encoded)
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _give(folder, folder.parent)
        name = _place(folder, proof.trial.patch.fingerprint, content)
    except OSError as error:
        raise LedgerError(
            f"{folder}: the proof of a verdict cannot be written here: {error.strerror}; see to the folder's "
            "permissions and the space on the disk"
        ) from error
    return Kept(name, hashlib.sha256(content).hexdigest())


def read(folder: Path, kept: Kept) -> Proof:
    """The proof in a bundle whose digest is known. Raises LedgerError when it is missing, altered or unreadable."""
    if "/" in kept.bundle or not kept.bundle.endswith(SUFFIX):
        raise LedgerError(f"expected the name of a bundle, the ledger has {kept.bundle!r}")
    try:
        content = read_regular(folder / kept.bundle, MOST_BYTES + 1)
    except OSError as error:
        raise LedgerError(
            f"bundle {kept.bundle}: expected it in {folder}, and it cannot be read: {error.strerror}"
        ) from error
    if hashlib.sha256(content).hexdigest() != kept.digest:
        raise LedgerError(f"bundle {kept.bundle} was altered: its digest is not the one in the ledger")
    try:
        # The frame says how large its content is, and decompressing makes room for all that it says.
        if not 0 <= zstandard.frame_content_size(content) <= MOST_BYTES:
            raise ValueError(f"content of more than {MOST_BYTES} bytes, or of none that is said")
        return msgspec.json.decode(zstandard.ZstdDecompressor().decompress(content), type=Proof)
    except (zstandard.ZstdError, ValueError, RecursionError) as error:
        raise LedgerError(
            f"bundle {kept.bundle}: expected a proof, got something else: {error}; a later version of qigheal "
            "may have written it: upgrade"
        ) from error


def versions() -> dict[str, str]:
    """What measured and judged: the packages, the interpreter, git and the kernel."""
    return {
        **{name: version_of(name) for name in ("qigheal", "numpy", "numba", "msgspec")},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "git": _git(),
    }


def version_of(name: str) -> str:
    """The installed version of a package, or the words "not installed"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def _git() -> str:
    if (git := shutil.which("git")) is None:
        return "not installed"
    done = subprocess.run([git, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("git version ")


def _bounded(proof: Proof) -> Proof:
    """The proof with no more evidence than a bundle takes, and none that JSON cannot hold."""
    patch = proof.trial.patch
    left: dict[str, Any]
    try:
        size = len(msgspec.json.encode(patch.evidence))
        if size <= MOST_EVIDENCE:
            return proof
        left = {"left_out": f"{size} bytes"}
    except (TypeError, ValueError, RecursionError) as error:  # from a strategy of somebody else
        left = {"left_out": str(error)}
    return replace(proof, trial=replace(proof.trial, patch=replace(patch, evidence=left)))


def _place(folder: Path, fingerprint: str, content: bytes) -> str:
    """Put the file in its place whole, under the first number that is free."""
    scratch = folder / f".{fingerprint}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _give(scratch, folder)
        number = 1
        while True:
            name = f"{fingerprint}-{number}{SUFFIX}"
            try:
                os.link(scratch, folder / name)
                break
            except FileExistsError:
                number += 1
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return name


def _give(made: Path, parent: Path) -> None:
    """A healer run by root must not lock out the owner of the store."""
    if os.geteuid() == 0:
        owner = parent.stat()
        os.chown(made, owner.st_uid, owner.st_gid)
