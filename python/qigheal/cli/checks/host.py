"""One host's repository: whether it is one, and whether its manifest can be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qigheal.cli.checks import Check, sites
from qigheal.host import Manifest
from qigheal.repo import Repo


def manifest(place: Path) -> Iterator[Check]:
    """The manifest as it lies in the folder, and as it stands in the commit that would be measured."""
    repo = Repo(place)
    yield Check(name="host", state="ok", found=str(place.absolute()))
    found = Manifest.load(place)
    levers = f"{len(found.levers)} lever{'' if len(found.levers) == 1 else 's'}"
    tests = "with tests" if found.tests.command else "without tests"
    said = f"probe {' '.join(found.probe.command)}, {tests}, {levers}, changes by {found.forge.kind}"
    yield Check(name="manifest", state="ok", found=said)
    if not found.patch.allow:
        remedy = "say in [patch] allow which files a patch may touch: without it no patch is possible"
        yield Check(name="patch", state="warn", found="a patch may touch nothing", remedy=remedy)
    yield from sites.declared(place, found)
    if Manifest.at(repo, repo.resolve("HEAD")) != found:
        remedy = "commit it: what stands in the commit is used"
        yield Check(name="commit", state="warn", found="the manifest at HEAD is another", remedy=remedy)
