"""Runs git so that nothing planted in a repository, a home folder or the environment can run.

A host's repository may hold hooks, filters, a file system monitor, external diff programs, signing,
aliases. None of them is this project's to start, least of all when it runs as root. So every command
gets an environment made from nothing, settings that outrank the repository's own, an explicit git
folder (never found by looking around), no network, and the identity of the repository's owner.
What is asked of git, and why, stands in `repo` and `worktree`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

from qigheal.errors import RepoError
from qigheal.records import FileChange
from qigheal.repo.owned import Owner

TIMEOUT_S = 300.0
SCRATCH = "qigheal-git-"
NEW_S = 60.0
NAME, EMAIL = "qigheal", "qigheal@localhost"
FILE_MODES = ("100644", "100755")
NO_FILE = "000000"
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
CODE_HASH = re.compile(r"[0-9a-f]{7,64}")
"""A commit's name, whole or abbreviated: what telemetry says is never taken for anything else."""

# Outranks the repository's own configuration, which is the only other one that git is let read.
SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.alternateRefsCommand": "",
    "core.splitIndex": "false",  # an index is copied and renamed as one file
    "core.quotePath": "false",
    "core.protectHFS": "true",  # refuses paths that another file system takes for .git
    "core.protectNTFS": "true",
    "core.safecrlf": "false",
    "apply.ignoreWhitespace": "no",
    "commit.gpgSign": "false",
    "diff.suppressBlankEmpty": "false",
    "gc.auto": "0",
    "i18n.commitEncoding": "UTF-8",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
}


class Completed(NamedTuple):
    returncode: int
    stdout: bytes
    stderr: str  # one line


class Conversation:
    """The pipes of a git command under way; `stderr` is known when it has ended, as one line."""

    __slots__ = ("_in", "_out", "stderr")

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.stderr = ""
        self._in = cast(IO[bytes], process.stdin)
        self._out = cast(IO[bytes], process.stdout)

    def tell(self, words: bytes) -> None:
        """Write all of `words`; to a command that has ended, nothing is written."""
        with suppress(BrokenPipeError):
            self._in.write(words)
            self._in.flush()

    def line(self) -> bytes:
        """The next line of the answer, empty when the command has ended."""
        return self._out.readline().removesuffix(b"\n")

    def read(self, size: int) -> bytes:
        """The next `size` bytes of the answer, fewer when the command has ended."""
        return self._out.read(size)


class Git:
    """git on one repository, or on one linked worktree of it.

    `git_dir` is absolute. `owner` is the user to run as, None for the present one.
    """

    __slots__ = ("git_dir", "owner")

    def __init__(self, git_dir: Path, owner: Owner | None = None) -> None:
        self.git_dir = git_dir
        self.owner = owner

    @classmethod
    def discover(cls, path: Path) -> tuple[Git, Path | None]:
        """git for the repository around `path`, and the top folder of its worktree (None when bare).

        Raises RepoError when there is none, or when git does not trust its owner.
        """
        start = path.absolute()
        if not start.is_dir():
            raise RepoError(f"{path}: expected the folder of a git repository, found none")
        mark = next((at / ".git" for at in (start, *start.parents) if (at / ".git").exists()), start)
        owner = Owner.of(mark)
        found = _run(["rev-parse", "--absolute-git-dir"], owner, start, _environment({}))
        if found.returncode:
            raise RepoError(f"{path}: expected a git repository; git says: {found.stderr}")
        git = cls(_path(found.stdout), owner)
        effective = _run(["config", "core.hooksPath"], owner, start, _environment({})).stdout
        if effective.strip() != os.devnull.encode():
            raise RepoError("git: expected 2.31 or newer, which can be told to run no hooks; install it")
        top = _run(["rev-parse", "--show-toplevel"], owner, start, _environment({}))
        return git, _path(top.stdout) if top.returncode == 0 else None

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        index: Path | None = None,
        at: int = 0,
        worktree: Path | None = None,
        settings: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
        hold: tuple[int, ...] = (),
    ) -> Completed:
        """One git command; without `worktree` it has no files to work on.

        `index` stands in for the repository's index file, `at` (Unix seconds) dates a commit, and
        `settings` outrank everything else. `hold` are descriptors that git inherits, so that a lock
        on them lasts as long as git does. Raises RepoError when the exit code is not one of `accept`.
        """
        command, folder = self._command(arguments, worktree)
        env = _environment(settings or {}, at)
        if index is not None:
            env["GIT_INDEX_FILE"] = str(index)
        done = _run(command, self.owner, folder, env, stdin=stdin, hold=hold)
        if done.returncode not in accept:
            why = done.stderr or str(done.returncode)
            if "promisor" in why:
                why += (
                    "; this partial clone lacks it, and nothing is fetched here: git fetch --refetch gets it"
                )
            raise RepoError(f"{folder}: git {arguments[0]} failed: {why}")
        return done

    @contextmanager
    def talk(
        self, *arguments: str, worktree: Path | None = None, hold: tuple[int, ...] = ()
    ) -> Iterator[Conversation]:
        """A git command that is talked to through pipes; the end of the block is its end of input."""
        command, folder = self._command(arguments, worktree)
        process = _start(command, self.owner, folder, _environment({}), hold)
        conversation = Conversation(process)
        try:
            yield conversation
        finally:
            conversation.stderr = one_line(process.communicate()[1])

    def line(self, *arguments: str) -> str:
        """What a command prints, without the line's end."""
        return self.run(*arguments).stdout.decode("utf-8", "surrogateescape").removesuffix("\n")

    def blobs(self, shas: Iterable[str]) -> Generator[bytes]:
        """The contents of blobs as they are stored, in the order asked for: no filter, no conversion.

        Who does not read it to its end closes it: what is raised while the collector does so is lost.
        """
        with self.talk("cat-file", "--batch") as cat:
            for sha in shas:
                cat.tell(sha.encode() + b"\n")
                head = cat.line().split()
                if len(head) != 3 or head[1] != b"blob":
                    raise RepoError(f"{self.git_dir}: expected {sha} to be a blob, git says {head!r}")
                content = cat.read(int(head[2]))
                if cat.read(1) != b"\n":
                    raise RepoError(f"{self.git_dir}: blob {sha} ended early")
                yield content

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private temporary folder that the repository's owner may write to."""
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)  # let go when the process ends, see `sweep`
            if self.owner is not None:
                os.chown(folder, *self.owner)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    @staticmethod
    def sweep() -> None:
        """Remove the scratch folders of processes that were killed; those in use are left alone."""
        for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
            with suppress(OSError):
                held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    # A new one is locked only just after it was made.
                    if os.fstat(held).st_mtime < time.time() - NEW_S:
                        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(held)

    def _command(self, arguments: tuple[str, ...], worktree: Path | None) -> tuple[list[str], Path]:
        # Without files to work on, the git folder stands in for a worktree: else the `core.worktree` of a
        # submodule or worktree would take part, and paths would be read as relative to some folder of it.
        folder = worktree or self.git_dir
        return [f"--git-dir={self.git_dir}", f"--work-tree={folder}", *arguments], folder


def changed_files(git: Git, before: str, after: str) -> tuple[FileChange, ...]:
    """What differs between two commits or trees, by path; a rename is a deletion and an addition."""
    out = git.run(
        "diff-tree", "-r", "-z", "--raw", "--numstat", "--no-renames", "--no-abbrev", "--no-ext-diff",
        "--no-textconv", "--ignore-submodules=none", before, after, "--",
    ).stdout  # fmt: skip
    fields = out.split(b"\0")
    raw: list[tuple[str, str, str, str]] = []
    at = 0
    while fields[at].startswith(b":"):
        old_mode, new_mode, _, _, status = fields[at].decode()[1:].split(" ")
        raw.append((status[0], old_mode, new_mode, decode(fields[at + 1])))
        at += 2
    counts = {}
    for field in fields[at:-1]:
        plus, minus, name = field.split(b"\t", 2)
        counts[decode(name)] = (plus, minus)
    changes = []
    for status, old_mode, new_mode, path in raw:
        added, deleted = counts.get(path, (b"0", b"0"))
        binary = added == b"-"
        changes.append(
            FileChange(
                status=status,
                old_path=None if status == "A" else path,
                new_path=None if status == "D" else path,
                old_mode=old_mode,
                new_mode=new_mode,
                added=0 if binary else int(added),
                deleted=0 if binary else int(deleted),
                binary=binary,
            )
        )
    return tuple(changes)


def decode(name: bytes) -> str:
    """A path as git stores it; bytes that are no UTF-8 become surrogates, as in `os.fsdecode`."""
    return name.decode("utf-8", "surrogateescape")


def encode(name: str) -> bytes:
    """The inverse of `decode`."""
    return name.encode("utf-8", "surrogateescape")


def _path(printed: bytes) -> Path:
    return Path(decode(printed.removesuffix(b"\n")))


def _environment(settings: Mapping[str, str], at: int = 0) -> dict[str, str]:
    settings = {**SETTINGS, **settings}
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",  # a remote helper is a program too; this outranks `protocol.ext.allow`
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_PAGER": "cat",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": NAME, f"GIT_{who}_EMAIL": EMAIL}
        if at:
            environment[f"GIT_{who}_DATE"] = f"{at} +0000"
    for i, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    return environment


def _start(
    command: list[str],
    owner: Owner | None,
    folder: Path,
    env: Mapping[str, str],
    hold: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *command],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=hold,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
        )
    except FileNotFoundError as missing:
        raise RepoError(f"git: expected it on PATH and {folder} to exist: {missing}") from missing
    except OSError as error:
        raise RepoError(f"{folder}: git cannot be started: {error}") from error


def _run(
    command: list[str],
    owner: Owner | None,
    folder: Path,
    env: Mapping[str, str],
    *,
    stdin: bytes = b"",
    hold: tuple[int, ...] = (),
) -> Completed:
    with _start(command, owner, folder, env, hold) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            process.kill()
            raise RepoError(f"{folder}: git {command} took more than {TIMEOUT_S:g} s") from late
    return Completed(process.returncode, stdout, one_line(stderr))


def one_line(stderr: bytes) -> str:
    """git's complaint as one line, without its prefixes and hints."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    kept = [re.sub(r"^(?:error|fatal|warning): ", "", line) for line in lines if not line.startswith("hint:")]
    return "; ".join(line for line in kept if line)
