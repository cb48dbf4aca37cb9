"""One host's repository: whether it is one, whether its manifest can be used, and what of it leads nowhere.

Only read here, from the commit that would be measured; what is started to see how it answers stands in `rehearsal`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from qigheal.cli.checks import Check, one_line, sites
from qigheal.errors import ManifestError, MissingExtra, ProbeError, RepoError
from qigheal.host import Manifest
from qigheal.host.pathspec import selects
from qigheal.host.refusals import refused_path
from qigheal.repo import Repo

NAMED = 3
"""Files that are named in one finding."""


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
    remedy = "commit it: what stands in the commit is used, and is what the other lines are about"
    try:
        if Manifest.at(repo, repo.resolve("HEAD")) != found:
            yield Check(name="commit", state="warn", found="the manifest at HEAD is another", remedy=remedy)
    except ManifestError as error:
        yield Check(name="commit", state="fail", found=one_line(error), remedy=remedy)


def usable(place: Path) -> bool:
    """Whether there is a manifest at HEAD to go by; why not is told by `manifest`."""
    try:
        repo = Repo(place)
        Manifest.at(repo, repo.resolve("HEAD"))
    except (RepoError, ManifestError):
        return False
    return True


def committed(place: Path) -> Iterator[Check]:
    """What the manifest at HEAD names, and whether it is there."""
    repo = Repo(place)
    head = repo.resolve("HEAD")
    found = Manifest.at(repo, head)
    paths = repo.entries(head)
    yield from _patterns(found, paths)
    yield from _commands(found, paths)
    yield from _levers(found, head, repo)


def _patterns(found: Manifest, paths: Collection[str]) -> Iterator[Check]:
    for table, patterns in (("[patch] allow", found.patch.allow), ("[probe] protect", found.probe.protect)):
        for pattern in patterns:
            folded = pattern.casefold()
            if not any(selects(pattern, path) or selects(folded, path.casefold()) for path in paths):
                remedy = "correct it: * stays within one folder, **/ crosses folders; or commit the files"
                said = f"{table}: {pattern} matches no file of the commit"
                yield Check(name="pattern", state="warn", found=said, remedy=remedy)
    allowed = [path for path in paths if any(selects(pattern, path) for pattern in found.patch.allow)]
    refused = {path: reason for path in allowed if (reason := refused_path(found, path)) is not None}
    if not allowed:
        return
    said = f"{len(allowed) - len(refused)} files may be patched"
    if refused:
        shown = ", ".join(f"{path} ({reason})" for path, reason in list(refused.items())[:NAMED])
        more = f", and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        said += f", {len(refused)} of those allowed may not: {shown}{more}"
    if len(refused) < len(allowed):
        yield Check(name="files", state="ok", found=said)
    else:
        remedy = (
            "allow others: files that are protected, tested with, or named by a command are never patched"
        )
        yield Check(name="files", state="warn", found=said, remedy=remedy)


def _commands(found: Manifest, paths: Collection[str]) -> Iterator[Check]:
    own = found.probe.interpreter is None
    for table, command in (("probe", found.probe.command), ("tests", found.tests.command or ())):
        for missing in _missing(command, paths, own_python=own, folders=table == "tests"):
            remedy = f"correct [{table}] command, or commit it: only what is committed is measured"
            said = f"[{table}] command names {missing}, which the commit does not have"
            yield Check(name=f"{table} command", state="warn", found=said, remedy=remedy)
    from qigheal.healing.inspection import looked_into

    try:
        looked_into(found.probe.command, "profile", {})
    except ProbeError as error:
        remedy = "without that, latency, errors and memory are healed by reverts alone"
        yield Check(name="probe command", state="warn", found=one_line(error), remedy=remedy)


def _missing(command: Sequence[str], paths: Collection[str], *, own_python: bool, folders: bool) -> list[str]:
    """Modules and Python files that a command names and nobody has, and other paths if they are to be there.

    A module may also be installed, which is known of this Python alone (`own_python`).
    """
    found = []
    python = bool(command) and Path(command[0]).name.startswith("python")
    for option, word in pairwise(command):
        if python and option == "-m" and not _has_module(word, paths, own_python=own_python):
            found.append(f"the module {word}")
    for word in command[1:]:
        path = word.partition("::")[0].removeprefix("./").rstrip("/")
        plain = path and not path.startswith(("-", "/", "..")) and not set(path) & set(" =*?[$:;")
        there = path in paths or any(each.startswith(f"{path}/") for each in paths)
        if plain and not there and (path.endswith(".py") or (folders and "/" in path)):
            found.append(path)
    return found


def _has_module(name: str, paths: Collection[str], *, own_python: bool) -> bool:
    stem = name.replace(".", "/")
    top = stem.partition("/")[0]
    if f"{top}.py" in paths or any(path.startswith(f"{top}/") for path in paths):
        return f"{stem}.py" in paths or f"{stem}/__main__.py" in paths
    try:
        return not own_python or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def _levers(found: Manifest, commit: str, repo: Repo) -> Iterator[Check]:
    if not found.levers:
        return
    from qigheal.healing.strategies.turning.levers import Setting, standing

    for lever in found.levers:
        name = f"lever {lever.name}"
        try:
            setting = standing(lever, commit, repo)
        except MissingExtra as error:
            remedy = f"pip install 'qigheal[{error.extra}]': until then no lever can be looked at"
            yield Check(name="levers", state="fail", found=one_line(error), remedy=remedy)
            return
        if isinstance(setting, Setting):
            said = f"{setting.now:g}, to be set from {lever.min:g} to {lever.max:g}"
            yield Check(name=name, state="ok", found=said)
        else:
            remedy = "name a number of that file under [[levers]]: this lever is never turned"
            yield Check(name=name, state="warn", found=setting, remedy=remedy)
