"""What the stages may ask of a git repository, and nothing else.

Everything here reads and writes objects and refs, as the repository's owner, in ways that git's own
users cannot be harmed by: contents go in and out as they are stored, commits depend on their
arguments alone, refs move only from where they are expected to be. A user's files are changed by
`advance` alone, whose care stands in `worktree`. How git is run stands in `git`.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from qigheal.errors import Blocked, PatchError, RepoError
from qigheal.records import FileChange
from qigheal.repo.git import FILE_MODES, SHA, Git, changed_files, decode, encode
from qigheal.repo.merging import three_way
from qigheal.repo.owned import Owner, open_file, open_folder
from qigheal.repo.worktree import Checkout

__all__ = ["Entry", "FileChange", "Repo", "Worktree"]


class Entry(NamedTuple):
    """One path of a commit: git's octal mode, its object, and its size in bytes (0 for a submodule)."""

    mode: str
    sha: str
    size: int


class Worktree(NamedTuple):
    """A folder with a checkout; `branch` is None where HEAD is detached or the repository is bare."""

    path: Path
    branch: str | None
    head: str | None


class Repo:
    """A git repository, from its root or from any folder inside.

    Commits and trees are given as anything git resolves; refs as a branch's name or as `refs/…` in
    full. Every method raises RepoError, with git's own words in one line, when git refuses.
    """

    def __init__(self, path: Path | str) -> None:
        self._git, top = Git.discover(Path(path))
        self.common = Path(self._git.line("rev-parse", "--path-format=absolute", "--git-common-dir"))
        self.root = top or self._git.git_dir
        self._bare = top is None

    @property
    def owner(self) -> Owner | None:
        """The user that git runs as, when it is not the present one."""
        return self._git.owner

    @property
    def shallow(self) -> bool:
        """Whether this is a clone without the beginning of its history."""
        return bool(self._cut())

    # Reading

    def head(self) -> str:
        """The commit that is checked out where this repository was opened."""
        return self.resolve("HEAD")

    def branch(self) -> str:
        """The branch that is checked out where this repository was opened."""
        found = self._git.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).stdout
        if not found.startswith(b"refs/heads/"):
            raise RepoError(
                f"{self.root}: expected a branch to be checked out, HEAD is detached; switch to one"
            )
        return decode(found.removeprefix(b"refs/heads/").removesuffix(b"\n"))

    def resolve(self, ref: str) -> str:
        """The commit that a branch, tag, abbreviation or expression names."""
        return self._parse(ref, "commit")

    def ref(self, name: str) -> str | None:
        """What a ref points to, None when there is none."""
        full = full_name(name)
        out = self._git.line("for-each-ref", "--format=%(refname) %(objectname)", "--", full)
        found = dict(line.rsplit(" ", 1) for line in out.splitlines())
        return found.get(full)

    def entries(self, commit: str) -> dict[str, Entry]:
        """Every path of a commit or tree, links and submodules included."""
        return self._list(commit)

    def entry(self, commit: str, path: str) -> Entry | None:
        """One path of a commit or tree, None when it has none of that name."""
        return self._list(commit, path).get(path)

    def read(self, commit: str, path: str) -> bytes:
        """A file's content as it is stored; a link is not followed but refused."""
        entry = self.entry(commit, path)
        if entry is None:
            raise RepoError(f"{self.root}: commit {commit} has no {path!r}")
        if entry.mode not in FILE_MODES:
            raise RepoError(
                f"{self.root}: expected {path!r} of {commit} to be a file, its mode is {entry.mode}"
            )
        # Closed here, where what is raised while git ends reaches the caller.
        with closing(self._git.blobs([entry.sha])) as contents:
            return next(contents)

    def is_ancestor(self, a: str, b: str) -> bool:
        """Whether commit `b` contains commit `a`; a commit contains itself.

        Raises RepoError where a shallow clone was cut off before that can be told.
        """
        ancestor, descendant = self.resolve(a), self.resolve(b)
        if self._contains(descendant, ancestor):
            return True
        if not (cut := self._cut()) or self._contains(ancestor, descendant):
            return False
        reached = self._git.line("rev-list", descendant, "--").split()
        if cut.isdisjoint(reached):
            return False
        raise RepoError(
            f"{self.root}: whether {ancestor[:10]} is part of {descendant[:10]} cannot be told: this is a shallow "
            "clone, and its history is cut off between them; get the rest with: git fetch --unshallow"
        )

    def _contains(self, descendant: str, ancestor: str) -> bool:
        done = self._git.run("merge-base", "--is-ancestor", ancestor, descendant, accept=(0, 1))
        return done.returncode == 0

    def _cut(self) -> set[str]:
        """The commits of a shallow clone whose parents it was not given."""
        try:
            return set((self.common / "shallow").read_text("ascii", "replace").split())
        except OSError:
            return set()

    def commits(self, a: str, b: str) -> tuple[str, ...]:
        """The commits that `b` contains and `a` does not, parents before children.

        Raises RepoError where a shallow clone cannot tell which these are.
        """
        if self._cut():
            self.is_ancestor(a, b)
        span = f"{self.resolve(a)}..{self.resolve(b)}"
        return tuple(self._git.line("rev-list", "--reverse", "--topo-order", span, "--").split())

    def line(self, a: str, b: str) -> tuple[str, ...]:
        """The first-parent line that leads to `b` from what `a` contains, oldest first, ends included.

        The first commit is `a` itself where `a` lies on that line, and the line is empty where `a`
        contains `b`.
        """
        span = f"{self.resolve(a)}..{self.resolve(b)}"
        found = self._git.line("rev-list", "--first-parent", "--reverse", "--topo-order", span, "--").split()
        return (self.resolve(f"{found[0]}^1"), *found) if found else ()

    def message(self, commit: str) -> str:
        """A commit's message; bytes that are no UTF-8 are replaced."""
        stored = self._git.run("cat-file", "commit", self.resolve(commit)).stdout
        return stored.partition(b"\n\n")[2].decode(errors="replace")

    def commits_saying(self, text: str) -> Iterator[tuple[str, str]]:
        """The commits that any ref leads to and whose message holds `text`, each with its message."""
        for sha in self._git.line("rev-list", "--all", "--fixed-strings", f"--grep={text}").split():
            yield sha, self.message(sha)

    def changes(self, base: str, tree: str) -> tuple[FileChange, ...]:
        """What differs between two commits or trees, by path."""
        return changed_files(self._git, self._tree(base), self._tree(tree))

    def diff(self, a: str, b: str) -> str:
        """The unified diff between two commits or trees, which `apply` takes.

        The same for the same two trees, whatever the repository's size and settings. Raises
        PatchError when it holds text that is no UTF-8, which no record could keep.
        """
        out = self._git.run(
            "diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-color", "--unified=3",
            "--inter-hunk-context=0", "--diff-algorithm=myers", "--indent-heuristic", "--no-ext-diff",
            "--no-textconv", "--no-relative", "--ignore-submodules=none", "--submodule=short",
            "--src-prefix=a/", "--dst-prefix=b/", self._tree(a), self._tree(b), "--",
        ).stdout  # fmt: skip
        try:
            return out.decode()
        except UnicodeDecodeError as bad:
            near = decode(out[: bad.start].rpartition(b"\ndiff --git ")[2].partition(b"\n")[0])
            raise PatchError(f"{self.root}: expected UTF-8 text in the diff of {near!a}") from bad

    def export(self, commit: str, dest: Path) -> None:
        """Write the files of a commit or tree into `dest`, a new or empty folder.

        Contents are written as they are stored. Links and submodules are left out, so nothing
        written can lead outside. Raises RepoError for a tree with paths that no checkout may have.
        """
        dest.mkdir(parents=True, exist_ok=True)
        if any(dest.iterdir()):
            raise RepoError(f"{dest}: expected a new or empty folder to export to")
        files = {path: entry for path, entry in self.entries(commit).items() if entry.mode in FILE_MODES}
        for path, content in zip(files, self._git.blobs(e.sha for e in files.values()), strict=True):
            parts = _parts(path, commit)
            at = dest.joinpath(*parts)
            at.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o755 if files[path].mode == "100755" else 0o644
            handle = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                os.fchmod(out.fileno(), mode)  # whatever the umask

    # Writing objects

    def apply(self, base: str, diff: str, *, strip: int = 1) -> str:
        """The tree that `diff` makes of commit or tree `base`. Raises PatchError when it does not apply.

        strip: leading parts of the diff's paths that are no folders, such as `a` and `b`.
        """
        with self._git.scratch() as scratch:
            index = scratch / "index"
            self._git.run("read-tree", self._tree(base), index=index)
            done = self._git.run(
                "apply", "--cached", "--whitespace=nowarn", f"-p{strip}", "-",
                stdin=encode(diff), index=index, accept=tuple(range(256)),
            )  # fmt: skip
            if done.returncode:
                raise PatchError(
                    f"the diff does not apply to {base}: {done.stderr or 'git does not say why'}"
                )
            return decode(self._git.run("write-tree", index=index).stdout).strip()

    def merge(self, ancestor: str, ours: str, theirs: str) -> str:
        """The tree that holds what both sides changed since `ancestor`; PatchError where they conflict."""
        return three_way(self._git, self._tree(ancestor), self._tree(ours), self._tree(theirs))

    def edit(self, base: str, files: Mapping[str, bytes]) -> str:
        """The tree of `base` with these files' contents; modes stay, a new file is not executable."""
        for path in files:
            _parts(path, base)  # git would leave such a path out without a word
        with self._git.scratch() as scratch:
            index = scratch / "index"
            self._git.run("read-tree", self._tree(base), index=index)
            known, lines = self._list(base, *files), []
            for path, content in files.items():
                entry = known.get(path)
                sha = decode(
                    self._git.run("hash-object", "-w", "--no-filters", "--stdin", stdin=content).stdout
                )
                lines.append(f"{entry.mode if entry else '100644'} {sha.strip()}\t{path}\0")
            self._git.run("update-index", "-z", "--index-info", stdin=encode("".join(lines)), index=index)
            return decode(self._git.run("write-tree", index=index).stdout).strip()

    def restored(self, tree: str, base: str, paths: Iterable[str]) -> str:
        """The tree of `tree` with these paths as `base` has them, or without those that it has not."""
        listed = list(paths)
        known, missing = self._list(base), "0" * 40
        with self._git.scratch() as scratch:
            index = scratch / "index"
            self._git.run("read-tree", self._tree(tree), index=index)
            lines = [
                f"{known[path].mode} {known[path].sha}\t{path}\0"
                if path in known
                else f"0 {missing}\t{path}\0"
                for path in listed
            ]
            # Removals first: a file may stand where a folder is to be again.
            lines.sort(key=lambda line: not line.startswith("0 "))
            self._git.run("update-index", "-z", "--index-info", stdin=encode("".join(lines)), index=index)
            return decode(self._git.run("write-tree", index=index).stdout).strip()

    def commit(self, tree: str, parents: tuple[str, ...], message: str, at: float) -> str:
        """A commit object; the same arguments give the same commit. `at` is in Unix seconds."""
        if not at >= 1:
            raise RepoError(f"a commit's date: expected Unix seconds, got {at!r}")
        arguments = [option for parent in parents for option in ("-p", parent)]
        done = self._git.run(
            "commit-tree", *arguments, "-F", "-", self._parse(tree, "tree"), stdin=encode(message), at=int(at)
        )
        return decode(done.stdout).strip()

    # Moving refs

    def create_ref(self, name: str, sha: str) -> None:
        """Make a ref that must not exist yet: of several callers one succeeds."""
        self._git.run("update-ref", "--no-deref", full_name(name), sha, "")

    def delete_ref(self, name: str, sha: str) -> None:
        """Delete a ref that points to `sha`; RepoError when it has moved."""
        self._git.run("update-ref", "--no-deref", "-d", full_name(name), sha)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the repository against others that ask for the same name, linked worktrees included.

        It is let go when the process ends, however it ends. Raises RepoError when it is held.
        """
        if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
            raise RepoError(f"a lock's name: expected lower-case letters, digits and '-', got {name!r}")
        file = f"qigheal-{name}.lock"
        folder = open_folder(self.common, self.owner)
        try:
            handle = open_file(file, folder, self.owner)
        finally:
            os.close(folder)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise RepoError(
                    f"{self.root}: process {pid} holds {self.common / file}; let it finish"
                ) from held
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            Git.sweep()
            yield
        finally:
            os.close(handle)

    # Checkouts

    def worktrees(self) -> tuple[Worktree, ...]:
        """The folders in which something of this repository is checked out; those that are gone left out."""
        found = []
        out = decode(self._git.run("worktree", "list", "--porcelain").stdout)
        for number, block in enumerate(out.split("\n\n")):
            fields = dict(line.partition(" ")[::2] for line in block.splitlines())
            if not fields or "bare" in fields or "prunable" in fields:
                continue
            path = Path(fields["worktree"])
            if number == 0 and self._git.git_dir == self.common:
                path = self.root  # git derives the name, wrongly where core.worktree is set
            branch = fields.get("branch", "").removeprefix("refs/heads/") or None
            head = fields.get("HEAD")
            found.append(Worktree(path, branch, head if head and head.strip("0") else None))
        return tuple(found)

    def dirty(self, worktree: Path) -> tuple[str, ...]:
        """Tracked paths with uncommitted changes, staged or not; nothing is written to find out."""
        return self._checkout(worktree).dirty()

    def advance(self, branch: str, new: str, old: str, message: str) -> None:
        """Move a branch from `old` to `new`, and with it the one worktree where it is checked out.

        Doing it again after it was done, or after it was killed, completes it. `message` goes to the
        reflog. Raises Blocked, with nothing touched, when the branch is elsewhere or somebody's work is
        in the way.
        """
        name = full_name(branch)
        if (user := self._user(branch)) is not None:
            user.advance(name, new, old, message)
            return
        tip = self.ref(name)
        if tip == new:
            return
        if tip != old:
            raise Blocked(f"{branch} is at {tip}, no longer at {old}")
        self._git.run("update-ref", "--no-deref", "-m", message, name, new, old)

    def obstacle(self, branch: str, new: str, old: str) -> str:
        """Why `advance` would be refused now, or an empty string; nothing is moved to find out.

        `new` may also be a commit with the same files as the one that it will move to.
        """
        try:
            user = self._user(branch)
        except Blocked as blocked:
            return str(blocked)
        return "" if user is None else user.obstacle(full_name(branch), new, old)

    def _user(self, branch: str) -> Checkout | None:
        """The one worktree where a branch is checked out, if any. Raises Blocked when there are several."""
        name = full_name(branch)
        if self._git.run("symbolic-ref", "--quiet", name, accept=(0, 1)).returncode == 0:
            raise Blocked(f"{branch} is a symbolic ref; name the branch that it stands for")
        users = []
        for place in self.worktrees():
            if place.path.is_dir():
                checkout = self._checkout(place.path)
                users += [checkout] if checkout.uses(name) else []
            elif full_name(place.branch or "") == name:
                raise Blocked(f"{branch} is checked out in {place.path}, which cannot be reached")
        if len(users) > 1:
            places = ", ".join(str(c.path) for c in users)
            raise Blocked(f"{branch} is checked out in several worktrees ({places}); keep it in one")
        return users[0] if users else None

    def has(self, commit: str) -> bool:
        """Whether a commit, named in full, is in this repository."""
        return self._git.run("cat-file", "-e", f"{commit}^{{commit}}", accept=(0, 1, 128)).returncode == 0

    def on_a_branch(self, commit: str) -> bool:
        """Whether a branch of this repository, not one of a remote, holds a commit that is named in full."""
        names = ("--count=1", "--format=%(refname)", "--contains", commit, "refs/heads")
        return self.has(commit) and bool(self._git.line("for-each-ref", *names))

    def _checkout(self, worktree: Path) -> Checkout:
        git, top = Git.discover(worktree)
        if top is None:
            raise RepoError(f"{worktree}: expected a worktree, found a bare repository")
        return Checkout(git, top)

    def _tree(self, name: str) -> str:
        """A commit's or tree's object, so that no name is ever taken for an option."""
        return name if SHA.fullmatch(name) else self._parse(name, "tree")

    def _parse(self, name: str, kind: str) -> str:
        done = self._git.run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{{kind}}}", accept=(0, 1, 128)
        )
        sha = decode(done.stdout).strip()
        if done.returncode or not SHA.fullmatch(sha):
            raise RepoError(f"{self.root}: expected a {kind}, and {name!r} names none")
        return sha

    def _list(self, commit: str, *paths: str) -> dict[str, Entry]:
        out = self._git.run(
            "ls-tree", "-r", "-z", "-l", "--full-tree", self._tree(commit), "--", *paths
        ).stdout
        found = {}
        for line in decode(out).split("\0")[:-1]:
            head, path = line.split("\t", 1)
            mode, _, sha, size = head.split()
            found[path] = Entry(mode, sha, 0 if size == "-" else int(size))
        return found


def full_name(ref: str) -> str:
    """A ref in full; a name that does not begin with `refs/` is a branch's."""
    return ref if ref.startswith("refs/") else f"refs/heads/{ref}"


def _parts(path: str, commit: str) -> list[str]:
    """A path's parts. Raises RepoError for a path that could lead out of a checkout, or into git's folder."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.casefold() == ".git" for part in parts):
        raise RepoError(f"{path!r} in {commit}: no checkout may have such a path")
    return parts
