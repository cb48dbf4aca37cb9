"""Small git repositories for tests, with a user in them who may not be the one that runs the tests."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

USER = 65534  # nobody: the owner of repositories that are not the tests' own


class Place:
    """A repository and its user; `git` is what that user would type, with nothing switched off."""

    def __init__(self, folder: Path, files: dict[str, str], *, uid: int | None = None) -> None:
        self.path = folder
        self.uid = uid
        folder.mkdir(parents=True)
        self._give(folder)
        self.git("init", "-q", "-b", "main", "--template=")
        for path, content in files.items():
            self.write(path, content)
        self.base = self.commit("begin")

    def git(self, *arguments: str, at: Path | None = None, check: bool = True) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        for who in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{who}_NAME": "A User", f"GIT_{who}_EMAIL": "user@localhost"}
        done = subprocess.run(
            ["git", *arguments],
            cwd=at or self.path,
            env=env,
            capture_output=True,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, path: str, content: str | bytes, at: Path | None = None) -> Path:
        file = (at or self.path) / path
        for folder in reversed(file.parents):
            if not folder.exists():
                folder.mkdir()
                self._give(folder)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        self._give(file)
        return file

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def head(self) -> str:
        return self.git("rev-parse", "refs/heads/main")

    def status(self, at: Path | None = None) -> str:
        """What the user is told about files and index, untracked ones included; nothing is refreshed."""
        return self.git("--no-optional-locks", "status", "--porcelain", at=at)

    def locks(self) -> list[str]:
        """Lock files, marks and copies left in the git folder."""
        found = [*self.path.glob(".git/**/*.lock"), *self.path.glob(".git/**/qigheal-*")]
        return sorted(str(p.relative_to(self.path)) for p in found if p.name != "qigheal-heal.lock")

    def owners(self) -> set[int]:
        """Who owns what lies in the repository's folder."""
        return {path.lstat().st_uid for path in [self.path, *self.path.rglob("*")]}

    def _give(self, path: Path) -> None:
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)


def picture(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a folder, git's index included: mode, time of change, content."""
    kept = {}
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        if ".git" in path.parts and path.name != "index":
            continue
        content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
        kept[str(path.relative_to(folder))] = (found.st_mode, found.st_mtime_ns, content)
    return kept


HOOKS = (
    "applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "prepare-commit-msg",
    "commit-msg", "post-commit", "pre-rebase", "post-checkout", "post-merge", "pre-push", "pre-receive", "update",
    "proc-receive", "post-receive", "post-update", "reference-transaction", "push-to-checkout", "pre-auto-gc",
    "post-rewrite", "post-index-change", "fsmonitor-watchman", "query-watchman",
)  # fmt: skip
PROGRAMS = (
    "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "core.gitProxy",
    "core.alternateRefsCommand", "sequence.editor", "diff.external", "gpg.program", "gpg.ssh.program",
    "credential.helper", "interactive.diffFilter", "filter.trap.clean", "filter.trap.smudge", "filter.piped.process",
    "diff.trap.textconv", "diff.trap.command", "merge.trap.driver", "trailer.trap.command", "trailer.trap.cmd",
    "uploadpack.packObjectsHook", "uploadarchive.trap", "remote.origin.uploadpack", "remote.origin.vcs",
    "submodule.trap.update", "browser.trap.cmd", "guitool.trap.cmd", "mergetool.trap.cmd", "difftool.trap.cmd",
)  # fmt: skip
ALIASED = ("commit-tree", "read-tree", "update-ref", "diff-tree", "apply", "rev-parse", "cat-file", "status")


def plant(place: Place, marker: Path) -> None:
    """Fill a repository with programs that create `marker` when git starts one of them."""
    trap = place.write(".git/trap", f"#!/bin/sh\ntouch {marker}\ncat\n")
    trap.chmod(0o755)
    for folder in (".git/hooks", ".git/other-hooks"):
        for hook in HOOKS:
            copy = place.write(f"{folder}/{hook}", trap.read_bytes())
            copy.chmod(0o755)
    lines = []
    for key in PROGRAMS:
        section, _, name = key.rpartition(".")
        head, _, sub = section.partition(".")
        lines.append(f'[{head} "{sub}"]\n\t{name} = {trap}' if sub else f"[{head}]\n\t{name} = {trap}")
    lines += [f'[alias]\n\t{name} = "!{trap}"' for name in ALIASED]
    lines.append('[protocol]\n\tallow = always\n[protocol "ext"]\n\tallow = always')
    lines.append("[commit]\n\tgpgSign = true\n[tag]\n\tgpgSign = true\n[merge]\n\tverifySignatures = true")
    lines.append('[filter "trap"]\n\trequired = true\n[filter "piped"]\n\trequired = true')
    place.write(".git/included", "\n".join(lines) + "\n")
    place.git("config", "core.hooksPath", str(place.path / ".git/other-hooks"))
    place.git("config", "core.fsmonitor", str(trap))
    place.git("config", "filter.trap.clean", str(trap))
    place.git("config", f"includeIf.gitdir:{place.path}/.path", "included")
    place.git("config", "includeIf.onbranch:**.path", "included")
    place.write(".git/info/attributes", "*.py diff=trap merge=trap\n*.dat filter=trap\n*.bin filter=piped\n")


def real_git() -> str:
    found = shutil.which("git")
    assert found is not None
    return found
