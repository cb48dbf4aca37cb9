"""Changes the files of a user's checkout, and is the only module that does.

A branch that is checked out cannot simply be moved: its worktree and index must come along, and
nothing that a person has in them may be lost. `advance` does it in steps that can be interrupted:

    1  hold index.lock, note in the mark what is to be done
    2  make sure that nothing is in the way
    3  read-tree -m -u OLD NEW on a copy of the index: the files change
    4  prepare the ref's transaction: locked, and where it was expected to be
    5  rename the copy over the index
    6  commit the transaction

Whoever finds the mark of a dead process takes its lock over and undoes what it began, unless step 6
was reached: contents that are exactly the old ones, exactly the new ones or a beginning of them are
the dead process' doing; anything else is somebody's work and stays. Then it begins anew.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from qigheal.errors import Blocked, RepoError
from qigheal.records import FileChange
from qigheal.repo.git import FILE_MODES, NO_FILE, Completed, Conversation, Git, changed_files, decode, encode
from qigheal.repo.indexlock import LOCK, IndexLock, Note, copy_index, index_lock, was_interrupted
from qigheal.repo.owned import open_folder

OPERATIONS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick or revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase or mailbox",
    "BISECT_LOG": "bisection",
}


class Found(NamedTuple):
    """A file in the worktree, or as it should be there."""

    content: bytes
    executable: bool


class Checkout:
    """One worktree of a repository: `git` is for its own git folder, `path` its top folder."""

    __slots__ = ("_git", "_settings", "path")

    def __init__(self, git: Git, path: Path) -> None:
        self._git = git
        self.path = path
        # Filters run programs whenever git compares or writes a file. With empty commands they do not.
        named = git.run("config", "-z", "--name-only", "--get-regexp", r"^filter\.", accept=(0, 1)).stdout
        drivers = {decode(key).rpartition(".")[0] for key in named.split(b"\0") if key}
        self._settings = {
            f"{driver}.{key}": "false" if key == "required" else ""
            for driver in drivers
            for key in ("clean", "smudge", "process", "required")
        }

    def uses(self, ref: str) -> bool:
        """Whether `ref` is checked out here, or will be again after the rebase or bisection under way."""
        names = {self._head()}
        for file in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
            at = self._git.git_dir / file
            if at.is_file():
                kept = decode(at.read_bytes()).strip()
                names |= {kept, f"refs/heads/{kept}"}
        return ref in names

    def dirty(self) -> tuple[str, ...]:
        """Tracked paths that differ from HEAD, in the index or in the files. Writes nothing here."""
        with self._git.scratch() as scratch:
            self._copy_index_to(scratch)
            return self._unclean(scratch / "index", "HEAD")

    def in_the_way(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Which of `paths`, or of their parent folders, are taken by something that is not tracked."""
        tracked = set(decode(self._git.run("ls-files", "-z", worktree=self.path).stdout).split("\0"))
        found = []
        for path in paths:
            if (obstacle := self._obstacle(path)) is not None:
                found.append(obstacle)
            elif path not in tracked and os.path.lexists(self.path / path):
                found.append(path)
        return tuple(dict.fromkeys(found))

    def obstacle(self, ref: str, new: str, old: str) -> str:
        """Why `advance` would refuse now, or an empty string; nothing is written here to find out."""
        git_dir = self._git.git_dir
        if was_interrupted(git_dir):
            return ""  # what a killed move left is cleared up by the next one
        if os.path.lexists(git_dir / LOCK):
            return f"{git_dir / LOCK} exists: another git command is at work there, or was killed"
        try:
            with self._git.scratch() as scratch:
                self._copy_index_to(scratch)
                self._check(ref, old, changed_files(self._git, old, new), scratch / "index")
        except Blocked as blocked:
            return str(blocked)
        return ""

    def advance(self, ref: str, new: str, old: str, message: str) -> None:
        """Move `ref`, which is checked out here, from commit `old` to `new`, with files and index.

        Raises Blocked, with nothing touched, when somebody's work is in the way. Doing it again after
        it was done does nothing.
        """
        if was_interrupted(self._git.git_dir):
            with index_lock(self._git.git_dir, self._git.owner) as lock:
                if lock.interrupted is not None:
                    self._undo(lock, lock.interrupted)
        tip = self._tip(ref)
        if tip == new:
            return
        changes = changed_files(self._git, old, new)
        with self._git.scratch() as scratch:
            self._copy_index_to(scratch)
            self._check(ref, old, changes, scratch / "index")  # before even a lock shows
        with index_lock(self._git.git_dir, self._git.owner) as lock:
            lock.fresh_copy()
            self._check(ref, old, changes, lock.copy)
            note = Note(ref=ref, old=old, new=new, pid=os.getpid())
            lock.note(note)
            try:
                self._move(lock, note, message)
            except BaseException:
                self._undo(lock, note)
                raise

    # Steps

    def _move(self, lock: IndexLock, note: Note, message: str) -> None:
        self._update_files(lock, note)
        hold = (lock.handle,)
        update = encode(f"update {note.ref}\0{note.new}\0{note.old}\0")
        with self._git.talk(
            "update-ref", "-m", message, "-z", "--stdin", worktree=self.path, hold=hold
        ) as git:
            # If this ends before the commit, so does git's input, and git drops the transaction.
            moved = _agrees(git, b"start\0", b"start: ok")
            if moved := moved and _agrees(git, update + b"prepare\0", b"prepare: ok"):
                lock.put_copy()
                moved = _agrees(git, b"commit\0", b"commit: ok")
        if not moved:
            raise Blocked(f"{note.ref} could not be moved: {git.stderr}")

    def _update_files(self, lock: IndexLock, note: Note) -> None:
        try:
            self._run("read-tree", "-m", "-u", note.old, note.new, index=lock.copy, hold=(lock.handle,))
        except RepoError as refused:
            raise Blocked(str(refused)) from refused

    def _undo(self, lock: IndexLock, note: Note) -> None:
        """Take back what an unfinished move has done to files and index, and nothing else."""
        if self._tip(note.ref) == note.new:
            return  # it was finished
        restore, remove, foreign = [], [], []
        for change in changed_files(self._git, note.old, note.new):
            before = self._should_be(note.old, change.old_mode, change.path)
            after = self._should_be(note.new, change.new_mode, change.path)
            now = self._found(change.path)
            if now == before:
                continue
            begun = isinstance(now, Found) and after is not None and after.content.startswith(now.content)
            if now is not None and not begun:
                foreign.append(change.path)
            elif before is None:
                remove.append(change.path)
            else:
                restore.append(change.path)
        lock.fresh_copy()
        hold = (lock.handle,)
        self._run("read-tree", "-i", "-m", note.old, index=lock.copy, hold=hold)
        if remove:
            with self._git.scratch() as scratch:
                index = scratch / "index"
                self._run("read-tree", note.new, index=index)
                self._run(
                    "rm", "-f", "-q", "--pathspec-from-file=-", "--pathspec-file-nul",
                    index=index, stdin=_listed(remove), hold=hold,
                )  # fmt: skip
        self._run(
            "checkout-index", "-f", "-u", "-z", "--stdin", index=lock.copy, stdin=_listed(restore), hold=hold
        )
        self._run("update-index", "-q", "--refresh", index=lock.copy, accept=(0, 1), hold=hold)
        lock.put_copy()
        lock.note(None)
        if foreign:
            raise Blocked(f"{self.path}: {some(foreign)} changed while a move was under way; left as found")

    # Questions

    def _check(self, ref: str, old: str, changes: tuple[FileChange, ...], index: Path) -> None:
        """Raise Blocked unless files and index are those of `old` and every change can be written."""
        where = str(self.path)
        if (tip := self._tip(ref)) != old:
            raise Blocked(f"{ref} is at {tip}, no longer at {old}")
        for file, operation in OPERATIONS.items():
            if os.path.lexists(self._git.git_dir / file):
                raise Blocked(f"{where}: a {operation} is in progress; finish or abort it")
        if self._head() != ref:  # switched after it was asked; under index.lock it can no longer be
            raise Blocked(f"{where}: {ref} is not what is checked out")
        if dirty := self._unclean(index, old):
            raise Blocked(f"{where} has uncommitted changes ({some(dirty)}); commit them or put them aside")
        for change in changes:
            if {change.old_mode, change.new_mode} - {*FILE_MODES, NO_FILE}:
                raise Blocked(
                    f"{where}: {some([change.path])} is a link or a submodule; bring it along by hand"
                )
            if change.path.rpartition("/")[2] == ".gitattributes":
                raise Blocked(
                    f"{where}: {some([change.path])} says how files are written; bring it along by hand"
                )
        added = [c.path for c in changes if c.old_path is None]
        gone = [c.path for c in changes if c.new_path is None]
        for path in added:
            for other in gone:
                if path.startswith(other + "/") or other.startswith(path + "/"):
                    raise Blocked(f"{where}: {some([path, other])}: a file becomes a folder or the reverse")
        if taken := (*self.in_the_way(c.path for c in changes), *(p for p in added if self._exists(p))):
            raise Blocked(f"{where}: untracked or ignored files are in the way ({some(taken)}); move them")
        self._check_marks([c.path for c in changes], [c.path for c in changes if c.old_path], index)

    def _check_marks(self, paths: list[str], known: list[str], index: Path) -> None:
        flags = decode(self._run("ls-files", "-v", "-z", "--", *known, index=index).stdout) if known else ""
        if hidden := [line[2:] for line in flags.split("\0")[:-1] if line[0] != "H"]:
            raise Blocked(f"{self.path}: {some(hidden)}: marked assume-unchanged or skip-worktree")
        for source in ((), ("--cached",)):
            out = self._run(
                "check-attr", "-z", *source, "--stdin", "filter", index=index, stdin=_listed(paths)
            )
            fields = decode(out.stdout).split("\0")
            for path, _, value in zip(*[iter(fields[:-1])] * 3, strict=True):
                if value not in ("unspecified", "unset"):
                    raise Blocked(
                        f"{self.path}: {some([path])} goes through filter {value!r}, which is not run"
                    )

    def _unclean(self, index: Path, tree: str) -> tuple[str, ...]:
        """Paths that differ from `tree`; `index` is a copy and may be refreshed."""
        self._run("update-index", "-q", "--refresh", index=index, accept=(0, 1))
        options = ("--name-only", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules=dirty")
        files = self._run("diff-files", *options, index=index).stdout
        staged = self._run("diff-index", "--cached", *options, tree, "--", index=index).stdout
        return tuple(sorted({decode(path) for path in (files + staged).split(b"\0") if path}))

    def _should_be(self, commit: str, mode: str, path: str) -> Found | None:
        """A file of `commit` as a checkout writes it, with the line ends that the repository asks for."""
        if mode == NO_FILE:
            return None
        return Found(self._run("cat-file", "--filters", f"{commit}:{path}").stdout, mode == "100755")

    def _found(self, path: str) -> Found | str | None:
        """What is at `path` now; "other" when it is no plain file, or when its folder is none."""
        if self._obstacle(path) is not None:
            return "other"
        try:
            handle = os.open(self.path / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            return "other"
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            return Found(file.read(), bool(mode & stat.S_IXUSR)) if stat.S_ISREG(mode) else "other"

    def _obstacle(self, path: str) -> str | None:
        """The first parent of `path` that is no folder of this worktree: a file, a link, another repository."""
        parts = path.split("/")
        for length in range(1, len(parts)):
            parent = "/".join(parts[:length])
            at = self.path / parent
            if not os.path.lexists(at):
                return None
            if at.is_symlink() or not at.is_dir() or os.path.lexists(at / ".git"):
                return parent
        return None

    def _exists(self, path: str) -> bool:
        return os.path.lexists(self.path / path)

    def _head(self) -> str:
        """The ref that HEAD stands for, empty when it is detached."""
        return decode(self._git.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).stdout).strip()

    def _tip(self, ref: str) -> str:
        return self._git.line("rev-parse", "--verify", "--quiet", ref)

    def _copy_index_to(self, scratch: Path) -> None:
        source = open_folder(self._git.git_dir, self._git.owner)
        try:
            folder = open_folder(scratch, self._git.owner)
            try:
                copy_index(source, folder, "index", self._git.owner)
            finally:
                os.close(folder)
        finally:
            os.close(source)

    def _run(
        self,
        *arguments: str,
        index: Path | None = None,
        stdin: bytes = b"",
        accept: tuple[int, ...] = (0,),
        hold: tuple[int, ...] = (),
    ) -> Completed:
        """git in this worktree, with every filter switched off."""
        return self._git.run(
            *arguments,
            index=index,
            stdin=stdin,
            accept=accept,
            hold=hold,
            worktree=self.path,
            settings=self._settings,
        )


def some(paths: Iterable[str]) -> str:
    """Up to three paths by name, the rest by number; on one line whatever they contain."""
    listed = [path if path.isprintable() else ascii(path) for path in dict.fromkeys(paths)]
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest


def _listed(paths: list[str]) -> bytes:
    return b"".join(encode(path) + b"\0" for path in paths)


def _agrees(git: Conversation, command: bytes, answer: bytes) -> bool:
    git.tell(command)
    return git.line() == answer
