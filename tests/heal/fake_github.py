"""A small GitHub on a loopback port: the part of its REST API that the forge uses, with real git behind it.

Objects are written as git writes them into a bare repository, so that `git fsck` and a clone judge what the
forge sent. People act through the methods of `FakeGitHub`; what the server refuses, it refuses for
the reasons, and mostly in the words, of the real one.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.heal.gitfix import Place
from tests.heal.gitstore import Store

TOKEN = "ghp_a-token-that-must-not-be-seen-anywhere"  # noqa: S105
REPOSITORY = "octo/host"
BOT = {"login": "healer", "type": "User"}
BEGIN = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


class No(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"message": message, "documentation_url": "https://docs.github.com", **fields}


class FakeGitHub:
    """The server. `log` holds (method, path) of each request that was let in.

    answers: given before anything else, each to one request: (status, headers, JSON).
    """

    def __init__(self, folder: Path, host: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "github.git"
        self.store = Store(self.path)
        self.pulls: list[dict[str, Any]] = []
        self.reviews: dict[int, list[dict[str, Any]]] = {}
        self.comments: dict[int, list[str]] = {}
        self.permissions = {"ada": "admin", "bea": "write", "cyd": "read"}
        self.statuses: dict[str, list[dict[str, str]]] = {}
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.required: dict[str, tuple[str, ...]] = {}
        self.rules: dict[str, list[dict[str, Any]]] = {}
        self.protected: set[str] = set()
        self.answers: list[tuple[int, dict[str, str], Any]] = []
        self.log: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.merges = 0
        self.page = 100
        self._seconds = 0
        self._place = Place.__new__(Place)
        self._place.path, self._place.uid = folder, None
        self._place.git("init", "-q", "--bare", "-b", "main", "--template=", str(self.path))
        self._place.git("push", "-q", str(self.path), "refs/heads/main", at=host)
        handler = type("Handler", (_Handler,), {"github": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.api = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What people do

    def git(self, *arguments: str) -> str:
        return self._place.git("--git-dir", str(self.path), *arguments)

    def push(self, branch: str, files: dict[str, str], message: str = "A person's work") -> str:
        """A person's commit on top of a branch."""
        tip = self.store.ref(branch)
        assert tip is not None
        tree = self.store.tree(self._commit(tip)["tree"]["sha"])
        for path, text in files.items():
            tree[path] = ("100644", self.store.write("blob", text.encode()))
        sha = self.store.make_commit(self.store.make_tree(tree), [tip], message, self._who("A Person"))
        self.store.set_ref(branch, sha)
        return sha

    def review(self, number: int, login: str, state: str, *, commit: str = "", kind: str = "User") -> None:
        pull = self.pull(number)
        self.reviews.setdefault(number, []).append(
            {
                "id": len(self.reviews.get(number, [])) + 1,
                "user": {"login": login, "type": kind},
                "state": state,
                "commit_id": commit or pull["head"]["sha"],
                "submitted_at": self._now(),
            }
        )

    def close_pull(self, number: int) -> None:
        self.pull(number)["state"] = "closed"

    def merge_by_hand(self, number: int, *, method: str = "merge") -> str:
        return self._merge(self.pull(number), f"Merge pull request #{number}", "ada", method)

    def pull(self, number: int) -> dict[str, Any]:
        found = next((p for p in self.pulls if p["number"] == number), None)
        if found is None:
            raise No(404, "Not Found")
        # As the real one does, a pull request follows its branch while it is open.
        if found["state"] == "open" and (tip := self.store.ref(found["head"]["ref"])):
            found["head"]["sha"] = tip
        return found

    # The server's side

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:  # noqa: PLR0912
        prefix = f"/repos/{REPOSITORY}"
        if not path.startswith(prefix + "/"):
            raise No(404, "Not Found")
        parts = [unquote(part) for part in path.removeprefix(prefix + "/").split("/")]
        match method, *parts:
            case "GET", "git", "ref", name:
                return 200, self._ref(name.removeprefix("heads/"))
            case "POST", "git", "refs":
                return 201, self._create_ref(body["ref"].removeprefix("refs/heads/"), body["sha"])
            case "PATCH", "git", "refs", name:
                return 200, self._update_ref(name.removeprefix("heads/"), body)
            case "POST", "git", "blobs":
                assert body["encoding"] == "base64"
                return 201, {
                    "sha": self.store.write("blob", base64.b64decode(body["content"], validate=True))
                }
            case "POST", "git", "trees":
                return 201, {"sha": self._tree(body)}
            case "POST", "git", "commits":
                return 201, self._make_commit(body)
            case "GET", "git", "commits", sha:
                return 200, self._commit(sha)
            case "GET", "commits", sha:
                return 200, self._commit(self._long(sha))
            case "GET", "commits", sha, "status":
                found = self.statuses.get(sha, [])
                return 200, {"statuses": found, "total_count": len(found), "state": "pending"}
            case "GET", "commits", sha, "check-runs":
                runs = self.runs.get(sha, [])
                return 200, {"check_runs": runs, "total_count": len(runs)}
            case "GET", "compare", span:
                return 200, {"status": self._compare(*span.split("..."))}
            case "GET", "branches", name:
                return 200, self._branch(name)
            case "GET", "rules", "branches", name:
                return 200, self.rules.get(name, [])
            case "GET", "collaborators", login, "permission":
                return 200, {"permission": self.permissions.get(login, "none")}
            case "GET", "pulls":
                owner, _, branch = query["head"].partition(":")
                assert owner == REPOSITORY.partition("/")[0]
                assert query["state"] == "all"
                numbers = [p["number"] for p in self.pulls if p["head"]["ref"] == branch]
                found = [self.pull(n) for n in reversed(numbers)]
                return 200, [{k: v for k, v in p.items() if k != "merged_by"} for p in found]
            case "POST", "pulls":
                return 201, self._open_pull(body)
            case "GET", "pulls", number:
                return 200, self.pull(int(number))
            case "PATCH", "pulls", number:
                return 200, self._edit_pull(self.pull(int(number)), body)
            case "GET", "pulls", number, "reviews":
                return 200, self.reviews.get(int(number), [])
            case "PUT", "pulls", number, "merge":
                return 200, self._asked_to_merge(self.pull(int(number)), body)
            case "POST", "issues", number, "labels":
                labels = self.pull(int(number))["labels"]
                labels += [{"name": name} for name in body["labels"] if {"name": name} not in labels]
                return 200, labels
            case "DELETE", "issues", number, "labels", name:
                labels = self.pull(int(number))["labels"]
                if {"name": name} not in labels:
                    raise No(404, "Label does not exist")
                labels.remove({"name": name})
                return 200, labels
            case "POST", "issues", number, "comments":
                self.comments.setdefault(int(number), []).append(body["body"])
                return 201, {"id": 1, "body": body["body"]}
        raise No(404, f"the fake has no {method} {path}")

    def _ref(self, name: str) -> dict[str, Any]:
        if (sha := self.store.ref(name)) is None:
            raise No(404, "Not Found")
        return {"ref": f"refs/heads/{name}", "object": {"type": "commit", "sha": sha}}

    def _create_ref(self, name: str, sha: str) -> dict[str, Any]:
        if self.store.ref(name) is not None:
            raise No(422, "Reference already exists")
        if self.store.commit(sha) is None:
            raise No(422, "Object does not exist")
        self.store.set_ref(name, sha)
        return self._ref(name)

    def _update_ref(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        tip = self._ref(name)["object"]["sha"]
        assert body.get("force") is False, "no ref is ever forced"
        if name in self.protected:
            raise No(422, "Changes must be made through a pull request.")
        if tip not in self.store.ancestors(body["sha"]):
            raise No(422, "Update is not a fast forward")
        self.store.set_ref(name, body["sha"])
        return self._ref(name)

    def _tree(self, body: dict[str, Any]) -> str:
        files = self.store.tree(body["base_tree"])
        for entry in body["tree"]:
            assert entry["type"] == "blob"
            if entry["sha"] is None:
                del files[entry["path"]]
            elif self.store.read(entry["sha"]) is None:
                raise No(422, "tree.sha is not a valid blob")
            else:
                files[entry["path"]] = (entry["mode"], entry["sha"])
        return self.store.make_tree(files)

    def _make_commit(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.store.read(body["tree"]) is None:
            raise No(422, "Tree SHA does not exist")
        assert body["author"] == body["committer"]
        sha = self.store.make_commit(body["tree"], body["parents"], body["message"], body["author"])
        return self._commit(sha)

    def _commit(self, sha: str) -> dict[str, Any]:
        if (found := self.store.commit(sha)) is None:
            raise No(404, "Not Found")
        return found

    def _long(self, sha: str) -> str:
        folder = self.path / "objects" / sha[:2]
        found = (
            [sha[:2] + f.name for f in folder.glob(f"{sha[2:]}*")]
            if re.fullmatch("[0-9a-f]{7,}", sha)
            else []
        )
        if len(found) != 1:
            raise No(422, f"No commit found for SHA: {sha}")
        return found[0]

    def _compare(self, base: str, head: str) -> str:
        self._commit(base), self._commit(head)
        if base == head:
            return "identical"
        if base in self.store.ancestors(head):
            return "ahead"
        return "behind" if head in self.store.ancestors(base) else "diverged"

    def _branch(self, name: str) -> dict[str, Any]:
        self._ref(name)
        required = self.required.get(name, ())
        protection = {"required_status_checks": {"enforcement_level": "everyone", "contexts": list(required)}}
        return {"name": name, "protected": bool(required) or name in self.protected, "protection": protection}

    def _open_pull(self, body: dict[str, Any]) -> dict[str, Any]:
        branch = body["head"]
        head = self._ref(branch)["object"]["sha"]
        if any(p["head"]["ref"] == branch and p["state"] == "open" for p in self.pulls):
            wrong = {"resource": "PullRequest", "code": "custom"}
            raise No(422, "Validation Failed", errors=[wrong | {"message": "A pull request already exists."}])
        if head in self.store.ancestors(self._ref(body["base"])["object"]["sha"]):
            raise No(422, "Validation Failed", errors=[{"message": "No commits between the two."}])
        if len(body["body"]) > 65_536:
            raise No(422, "Validation Failed", errors=[{"message": "body is too long"}])
        pull = {
            "number": len(self.pulls) + 1,
            "state": "open",
            "title": body["title"],
            "body": body["body"],
            "draft": False,
            "user": BOT,
            "labels": [],
            "head": {"ref": branch, "sha": head, "label": f"{REPOSITORY.partition('/')[0]}:{branch}"},
            "base": {"ref": body["base"], "sha": self._ref(body["base"])["object"]["sha"]},
            "merged_at": None,
            "merge_commit_sha": "0" * 40,  # of a trial merge, as the real one gives
            "merged_by": None,
        }
        self.pulls.append(pull)
        return pull

    def _edit_pull(self, pull: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if pull["merged_at"] is not None:
            raise No(422, "Validation Failed")
        pull["state"] = body.get("state", pull["state"])
        pull["body"] = body.get("body", pull["body"])
        return self.pull(pull["number"])

    def _asked_to_merge(self, pull: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if pull["merged_at"] is not None or pull["state"] != "open":
            raise No(405, "Pull Request is not mergeable")
        if body["sha"] != pull["head"]["sha"]:
            raise No(409, "Head branch was modified. Review and try the merge again.")
        good = {s["context"] for s in self.statuses.get(body["sha"], []) if s["state"] == "success"}
        if missing := set(self.required.get(pull["base"]["ref"], ())) - good:
            raise No(405, f"Required status check {sorted(missing)[0]!r} is expected.")
        if pull["base"]["ref"] in self.protected and not self._approved(pull):
            raise No(405, "At least 1 approving review is required by reviewers with write access.")
        assert body["merge_method"] == "merge"
        message = f"{body['commit_title']}\n\n{body['commit_message']}"
        return {"sha": self._merge(pull, message, "healer", "merge"), "merged": True, "message": "Merged"}

    def _approved(self, pull: dict[str, Any]) -> bool:
        said = {r["user"]["login"]: r["state"] for r in self.reviews.get(pull["number"], [])}
        return any(
            s == "APPROVED" and self.permissions.get(who) in ("admin", "write") for who, s in said.items()
        )

    def _merge(self, pull: dict[str, Any], message: str, who: str, method: str) -> str:
        head, tip = pull["head"]["sha"], self._ref(pull["base"]["ref"])["object"]["sha"]
        files = self._merged_files(tip, head)
        parents = [tip, head] if method == "merge" else [tip]
        sha = self.store.make_commit(self.store.make_tree(files), parents, message, self._who("GitHub"))
        self.store.set_ref(pull["base"]["ref"], sha)
        pull |= {"state": "closed", "merged_at": self._now(), "merge_commit_sha": sha}
        pull["merged_by"] = {"login": who, "type": "User"}
        self.merges += 1
        return sha

    def _merged_files(self, tip: str, head: str) -> dict[str, tuple[str, str]]:
        """A merge by whole files: of each, the side that changed it."""
        common = max(self.store.ancestors(tip) & self.store.ancestors(head),
                     key=lambda sha: len(self.store.ancestors(sha)))  # fmt: skip
        old, ours, theirs = (self.store.tree(self._commit(s)["tree"]["sha"]) for s in (common, tip, head))
        for path in {*old, *theirs}:
            if old.get(path) != theirs.get(path):
                if ours.get(path) != old.get(path):
                    raise No(405, "Pull Request has merge conflicts")
                ours[path] = theirs[path]
        return ours

    def _who(self, name: str) -> dict[str, str]:
        return {"name": name, "email": "noreply@github.com", "date": self._now()}

    def _now(self) -> str:
        self._seconds += 1
        return (BEGIN + timedelta(seconds=self._seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Handler(BaseHTTPRequestHandler):
    github: FakeGitHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and content are two writes: else each answer waits 40 ms for an ACK

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        headers: dict[str, str] = {}
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise No(401, "Bad credentials")
            self.github.log.append((self.command, url.path))
            if self.github.answers:
                status, headers, answer = self.github.answers.pop(0)
            else:
                status, answer = self.github.answer(
                    self.command, url.path, query, json.loads(content) if content else None
                )
                answer, headers = self._page(answer, query)
        except No as no:
            status, answer = no.status, no.content
        except Exception as error:  # the test's to see, not the client's
            self.github.faults.append(f"{self.command} {self.path}: {error!r}")
            status, answer = 418, {"message": repr(error)}
        encoded = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def _page(self, answer: Any, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
        if self.command != "GET" or not isinstance(answer, list):
            return answer, {}
        page, size = int(query.get("page", 1)), min(int(query.get("per_page", 30)), self.github.page)
        rest = answer[(page - 1) * size :]
        url = f"{self.github.api}{urlsplit(self.path).path}"
        kept = {**query, "page": str(page + 1)}
        following = f'<{url}?{"&".join(f"{k}={v}" for k, v in kept.items())}>; rel="next"'
        return rest[:size], {"Link": following} if len(rest) > size else {}

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


def serving(folder: Path, host: Path) -> Iterator[FakeGitHub]:
    """For a fixture: the server while the test runs."""
    github = FakeGitHub(folder, host)
    yield github
    github.close()
    assert github.faults == []
