"""Makes the demo's host: a git repository with a service that recognises handwritten digits.

The files come from the folder `digits-host` beside this module, the images from scikit-learn. Nothing is
downloaded, and the same versions of the libraries give the same commit. What becomes of the
repository afterwards is none of this module's business.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qigheal.errors import MissingExtra, RepoError

TEMPLATE = Path(__file__).with_name("digits-host")
KEYS = 1200
CLUSTERS = 64
SEED = 42
AUTHOR = ("Digits", "digits@localhost")
DATE = "2024-02-29T12:00:00+00:00"  # one date for all, so that the commit depends on the files alone


@dataclass(frozen=True, slots=True)
class DemoHost:
    """A freshly made host: its folder, and the commit in which all is well."""

    path: Path
    healthy: str


def make_host(folder: Path) -> DemoHost:
    """Make the host's repository in `folder`, which must be new or empty, on branch `main`.

    Raises MissingExtra without scikit-learn, and RepoError when the folder holds something or git fails.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RepoError(f"{folder}: expected a new or an empty folder for the demo host, found files")
    images = _images()
    shutil.copytree(
        TEMPLATE,
        folder,
        dirs_exist_ok=True,
        copy_function=shutil.copyfile,  # not the modes: an installed package may be read-only
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (folder / "data").mkdir()
    np.savez_compressed(folder / "data" / "digits.npz", allow_pickle=False, **images)
    _git(folder, "init", "--quiet", "--template=", "--initial-branch=main")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Recognise handwritten digits by attention")
    return DemoHost(path=folder, healthy=_git(folder, "rev-parse", "HEAD"))


def set_temperature(text: str, temperature: float) -> str:
    """The text of `config/model.toml` with another attention temperature; comments stay."""
    return re.sub(r"(?m)^(temperature\s*=\s*)[^\s#]+", rf"\g<1>{temperature:g}", text, count=1)


def commit_temperature(folder: Path, temperature: float) -> str:
    """Commit another temperature, as a person with an editor would; returns the commit."""
    config = folder / "config" / "model.toml"
    config.write_text(set_temperature(config.read_text(), temperature))
    _git(
        folder,
        "commit",
        "--quiet",
        "--all",
        "--allow-empty",
        "--message",
        f"Set the temperature to {temperature:g}",
    )
    return _git(folder, "rev-parse", "HEAD")


def _images() -> dict[str, np.ndarray]:
    """The arrays of `digits.npz`: 1,200 keys with their groups, the other 597 images as requests."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as missing:
        raise MissingExtra("scikit-learn", "demo", "the demo host") from missing
    pixels, labels = load_digits(return_X_y=True)
    keys, requests, key_labels, request_labels = train_test_split(
        pixels / 16, labels, train_size=KEYS, stratify=labels, random_state=SEED
    )
    clusters = KMeans(n_clusters=CLUSTERS, n_init=4, random_state=SEED).fit(keys).labels_
    return {
        "keys": keys.astype(np.float32),
        "key_labels": key_labels.astype(np.uint8),
        "key_clusters": clusters.astype(np.uint8),
        "requests": requests.astype(np.float32),
        "request_labels": request_labels.astype(np.uint8),
    }


def _git(folder: Path, *arguments: str) -> str:
    name, email = AUTHOR
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # The user's own settings (signing, hooks, line endings) would change the commit or stop it.
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {"GIT_AUTHOR_DATE": DATE, "GIT_COMMITTER_DATE": DATE}
    command = ["git", "-C", str(folder), "-c", f"user.name={name}", "-c", f"user.email={email}", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise RepoError("git: expected it on PATH, found none; install git") from missing
    if done.returncode:
        raise RepoError(f"git {arguments[0]} in {folder} failed: {done.stderr.strip()}")
    return done.stdout.strip()
