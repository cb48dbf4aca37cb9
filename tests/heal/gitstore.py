"""Objects and refs of a bare repository, written as git writes them, so that `git fsck` judges who sent them."""

from __future__ import annotations

import hashlib
import re
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any


class Store:
    """A bare repository's objects and refs, as files that git reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, sha: str) -> tuple[str, bytes] | None:
        file = self.path / "objects" / sha[:2] / sha[2:]
        if not re.fullmatch("[0-9a-f]{40}", sha) or not file.exists():
            return None
        head, _, content = zlib.decompress(file.read_bytes()).partition(b"\0")
        return head.split()[0].decode(), content

    def write(self, kind: str, content: bytes) -> str:
        raw = f"{kind} {len(content)}\0".encode() + content
        sha = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        file = self.path / "objects" / sha[:2] / sha[2:]
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(zlib.compress(raw))
        return sha

    def tree(self, sha: str) -> dict[str, tuple[str, str]]:
        """Every file below a tree: path to (mode, blob)."""
        found: dict[str, tuple[str, str]] = {}
        _, content = self.read(sha) or ("", b"")
        while content:
            head, _, rest = content.partition(b"\0")
            mode, name = head.decode().split(" ", 1)
            child, content = rest[:20].hex(), rest[20:]
            if mode == "40000":
                found |= {f"{name}/{path}": entry for path, entry in self.tree(child).items()}
            else:
                found[name] = (mode, child)
        return found

    def make_tree(self, files: dict[str, tuple[str, str]]) -> str:
        entries: dict[str, tuple[str, str]] = {}
        folders: dict[str, dict[str, tuple[str, str]]] = {}
        for path, entry in files.items():
            top, _, rest = path.partition("/")
            if rest:
                folders.setdefault(top, {})[rest] = entry
            else:
                entries[top] = entry
        for name, inside in folders.items():
            entries[name] = ("40000", self.make_tree(inside))
        order = sorted(entries, key=lambda name: name + "/" if entries[name][0] == "40000" else name)
        parts = [f"{entries[n][0]} {n}".encode() + b"\0" + bytes.fromhex(entries[n][1]) for n in order]
        return self.write("tree", b"".join(parts))

    def commit(self, sha: str) -> dict[str, Any] | None:
        found = self.read(sha)
        if found is None or found[0] != "commit":
            return None
        head, _, message = found[1].decode().partition("\n\n")
        lines = [line.split(" ", 1) for line in head.splitlines()]
        return {
            "sha": sha,
            "tree": {"sha": next(v for k, v in lines if k == "tree")},
            "parents": [{"sha": v} for k, v in lines if k == "parent"],
            "message": message,
        }

    def make_commit(self, tree: str, parents: list[str], message: str, who: dict[str, str]) -> str:
        at = int(datetime.fromisoformat(who["date"]).timestamp())
        person = f"{who['name']} <{who['email']}> {at} +0000"
        lines = [f"tree {tree}", *(f"parent {p}" for p in parents), f"author {person}", f"committer {person}"]
        return self.write("commit", ("\n".join(lines) + "\n\n" + message).encode())

    def ancestors(self, sha: str) -> set[str]:
        seen: set[str] = set()
        todo = [sha]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                commit = self.commit(one)
                todo += [p["sha"] for p in commit["parents"]] if commit else []
        return seen

    def ref(self, name: str) -> str | None:
        file = self.path / "refs/heads" / name
        return file.read_text().strip() if file.is_file() else None

    def set_ref(self, name: str, sha: str | None) -> None:
        file = self.path / "refs/heads" / name
        if sha is None:
            file.unlink()
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(sha + "\n")

    def refs(self) -> dict[str, str]:
        top = self.path / "refs/heads"
        return {str(f.relative_to(top)): f.read_text().strip() for f in sorted(top.rglob("*")) if f.is_file()}
