"""Merges trees three ways without a checkout: git's own rules, by plumbing on an index of its own.

No merge driver runs, and a conflict is an error, never a text with marks in it. A file that our side renamed is found
where git's own comparison of contents finds it, and where it finds one such file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qigheal.errors import PatchError
from qigheal.repo.git import FILE_MODES, Git, decode, encode

CONFLICTS = tuple(range(256))
"""What `git merge-file` may end with: the number of conflicts, or 255 for what is no text."""

SIMILAR = "50%"
"""Part of a file's content that another one must share to be the same file renamed: git's own measure, whatever the
repository's settings say."""

RENAMES = 1000
"""Files that may have come and gone for contents to be compared; beyond, only what stayed as it was is found."""


def three_way(git: Git, ancestor: str, ours: str, theirs: str) -> str:
    """The tree that holds what both sides changed since `ancestor`; all are trees or commits, in full.

    What theirs changed in a file that ours has under another name goes there. Raises PatchError, with the paths,
    where the two changed the same lines, or one took a file away that the other changed, or that ours has under
    another name.
    """
    with git.scratch() as scratch:
        index = scratch / "index"
        git.run("read-tree", "-i", "-m", "--aggressive", ancestor, ours, theirs, index=index)
        unmerged: dict[str, dict[str, tuple[str, str]]] = {}
        for line in decode(git.run("ls-files", "-u", "-z", index=index).stdout).split("\0")[:-1]:
            head, path = line.split("\t", 1)
            mode, sha, stage = head.split()
            unmerged.setdefault(path, {})[stage] = (mode, sha)
        lost = [path for path, stages in unmerged.items() if set(stages) == {"1", "3"}]
        dropped, added = _dropped_and_added(git, ancestor, theirs)
        found = _renamed(git, ancestor, ours) if lost or dropped else {}
        # Where several files may be it, as after one was split up, none is.
        moved = {path: found[path][0] for path in lost if len(found.get(path, ())) == 1}
        removed = [f"0 {'0' * len(ancestor)}\t{old}\0" for old in moved if moved[old][0] not in unmerged]
        for old, (new, entry) in moved.items():
            if new not in unmerged:
                unmerged[new] = {**unmerged.pop(old), "2": entry}
        merged = {path: _merged(git, stages, scratch) for path, stages in unmerged.items()}
        changed = ", ".join(f"{path!a}" for path, entry in merged.items() if not entry)
        conflicts = [f"both sides changed {changed}"] if changed else []
        for path in sorted(dropped.intersection(found).difference(unmerged)):
            # Both sides took the path away, so that the index shows no conflict; what stood there lives on in ours.
            if names := [new for new, _ in found[path] if new not in added]:
                conflicts.append(f"{path!a} was later renamed to {' or '.join(f'{new!a}' for new in names)}")
        if conflicts:
            raise PatchError("; ".join(conflicts))
        lines = "".join([*removed, *(f"{entry}\t{path}\0" for path, entry in merged.items())])
        git.run("update-index", "-z", "--index-info", stdin=encode(lines), index=index)
        return decode(git.run("write-tree", index=index).stdout).strip()


def _dropped_and_added(git: Git, ancestor: str, theirs: str) -> tuple[set[str], set[str]]:
    """The paths that theirs has no more, and those that it has anew."""
    out = git.run(
        "diff-tree", "-r", "-z", "--name-status", "--no-renames", "--diff-filter=AD", "--no-ext-diff",
        "--ignore-submodules=none", ancestor, theirs, "--",
    ).stdout  # fmt: skip
    fields = decode(out).split("\0")[:-1]
    named: dict[str, set[str]] = {"D": set(), "A": set()}
    for status, path in zip(fields[::2], fields[1::2], strict=True):
        named[status].add(path)
    return named["D"], named["A"]


def _renamed(git: Git, ancestor: str, ours: str) -> dict[str, list[tuple[str, tuple[str, str]]]]:
    """Under which paths ours may have a file of the ancestor, each with mode and object: one, or copies as well."""
    out = git.run(
        "diff-tree", "-r", "-z", "--raw", f"--find-copies={SIMILAR}", f"-l{RENAMES}", "--no-abbrev", "--no-ext-diff",
        "--no-textconv", "--ignore-submodules=none", ancestor, ours, "--",
    ).stdout  # fmt: skip
    fields = iter(decode(out).split("\0")[:-1])
    found: dict[str, list[tuple[str, tuple[str, str]]]] = {}
    for head in fields:
        _, mode, _, sha, status = head[1:].split(" ")
        old = next(fields)
        if status[0] in "RC":
            found.setdefault(old, []).append((next(fields), (mode, sha)))
    return found


def _merged(git: Git, stages: Mapping[str, tuple[str, str]], scratch: Path) -> str:
    """Mode and object of a file that both sides changed; empty where their changes conflict."""
    modes = {mode for mode, _ in stages.values()}
    if len(stages) != 3 or len(modes) != 1 or not modes <= set(FILE_MODES):
        return ""
    order = "213"  # ours, ancestor, theirs
    names = [scratch / f"side{stage}" for stage in order]
    for name, content in zip(names, git.blobs(stages[stage][1] for stage in order), strict=True):
        name.write_bytes(content)
    done = git.run("merge-file", "-p", "-q", *map(str, names), accept=CONFLICTS)
    if done.returncode:
        return ""
    stored = git.run("hash-object", "-w", "--no-filters", "--stdin", stdin=done.stdout).stdout
    return f"{modes.pop()} {decode(stored).strip()}"
