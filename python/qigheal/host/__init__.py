"""The host's manifest: how its service is measured and tested, and what a patch may touch.

    [probe]   command, timeout_s, protect, interpreter      [[levers]]  name, strategy, file, key, min, max
    [tests]   command                                       [sites]     idempotent, transient
    [patch]   allow, max_files, max_lines                   [deploy]    command
    [forge]   kind, repository, api                         [healer]    the names in `qigheal.settings.BRAKES`

It is `qigheal.toml` at the repository's root, else the table `tool.qigheal` of `pyproject.toml`, and for
every decision it is read from a commit, never from the working files. What no manifest can allow
stands in `refusals`. Nothing here runs a command.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from qigcore.errors import InvalidLimit
from qigcore.regular import read_regular
from qigheal.errors import ManifestError
from qigheal.host.refusals import refusals, refused_path
from qigheal.host.tables import Table, one_line
from qigheal.settings import BRAKES, HealSettings

__all__ = ["Deploy", "HostTests", "Hosting", "Lever", "Manifest", "PatchLimits", "Probe", "Sites", "refusals"]

FILE = "qigheal.toml"
OTHER_FILE = "pyproject.toml"
MOST_BYTES = 1_000_000
"""Of either file; none that a person writes comes near it."""

SITE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
GITHUB_API = "https://api.github.com"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}$)[A-Za-z0-9._-]+")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class ReadsCommits(Protocol):
    """The part of a repository that a manifest is read from."""

    def entry(self, commit: str, path: str) -> object | None: ...
    def read(self, commit: str, path: str) -> bytes: ...


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """How the service is measured offline.

    In `command`, "python" as the first word is the interpreter that runs qigheal, unless `interpreter`
    names one. `timeout_s` is for one answer. Paths that `protect` selects are always the base's.
    """

    command: tuple[str, ...]
    timeout_s: float = 60.0
    protect: tuple[str, ...] = ()
    interpreter: str | None = None


class HostTests(msgspec.Struct, frozen=True, kw_only=True):
    """How the host is tested; None where it has no tests."""

    command: tuple[str, ...] | None = None


class PatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a patch may touch: `:(glob)` pathspecs, files, and lines added and deleted.

    unattended_reverts: where a commit may be taken back without a person, in a phase that merges by itself.
    """

    allow: tuple[str, ...] = ()
    unattended_reverts: tuple[str, ...] = ()
    max_files: int = 3
    max_lines: int = 80


class Lever(msgspec.Struct, frozen=True, kw_only=True):
    """A number in a TOML file that a strategy may set, from `min` to `max`.

    A present value outside the range is a legal start.
    """

    name: str
    strategy: Literal["attention", "basin"]
    file: str
    key: str
    min: float
    max: float

    @property
    def parts(self) -> tuple[str, ...]:
        """The key's parts, quotes taken off."""
        return _key_parts(self.key) or ()


class Sites(msgspec.Struct, frozen=True, kw_only=True):
    """What only the host's owner can know: calls that may be repeated, and errors worth it."""

    idempotent: tuple[str, ...] = ()
    transient: tuple[str, ...] = ()


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """The command after a merge and after a rollback; it may run twice. Empty: none."""

    command: tuple[str, ...] = ()


class Hosting(msgspec.Struct, frozen=True, kw_only=True):
    """Where a change becomes a branch and a merge: this repository itself, or `repository` on GitHub.

    `repository` is "owner/name" for kind "github" and empty for "local"; `api` is where GitHub's REST API
    answers, of a GitHub Enterprise server "https://HOST/api/v3".
    """

    kind: Literal["local", "github"] = "local"
    repository: str = ""
    api: str = GITHUB_API


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All of the manifest, checked. Every mistake raises ManifestError: where, what, and a remedy.

    healer: the usual settings with the brakes of [healer]; None where there is no such table.
    """

    probe: Probe
    tests: HostTests = HostTests()
    patch: PatchLimits = PatchLimits()
    levers: tuple[Lever, ...] = ()
    sites: Sites = Sites()
    deploy: Deploy = Deploy()
    forge: Hosting = Hosting()
    healer: HealSettings | None = None

    @classmethod
    def at(cls, repo: ReadsCommits, commit: str) -> Manifest:
        """The manifest of a commit."""
        return _choose(
            cls,
            lambda file: repo.read(commit, file) if repo.entry(commit, file) is not None else None,
            f"commit {commit[:10]}",
        )

    @classmethod
    def load(cls, root: Path) -> Manifest:
        """The manifest of a folder's files as they are."""
        return _choose(cls, lambda file: _file(root / file), str(root))

    @classmethod
    def parse(cls, text: str, where: str = FILE) -> Manifest:
        """The manifest in the text of a `qigheal.toml`; `where` names it in errors."""
        return _build(cls, _toml(text, where), where, "")


def _choose(kind: type[Manifest], read: Callable[[str], bytes | None], place: str) -> Manifest:
    if (content := read(FILE)) is not None:
        return kind.parse(_text(content, FILE))
    if (content := read(OTHER_FILE)) is not None:
        tool = _toml(_text(content, OTHER_FILE), OTHER_FILE).get("tool")
        table = tool.get("qigheal") if isinstance(tool, dict) else None
        if isinstance(table, dict):
            return _build(kind, table, OTHER_FILE, "tool.qigheal.")
    raise ManifestError(
        f"{FILE}: expected it at the root of the repository, {place} has none, nor [tool.qigheal] in "
        f'{OTHER_FILE}; write one with [probe] command = ["python", "-m", "your.probe"]'
    )


def _file(path: Path) -> bytes | None:
    try:
        return read_regular(path, MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}; make it a readable file") from error


def _text(content: bytes, where: str) -> str:
    if len(content) > MOST_BYTES:
        raise ManifestError(f"{where}: expected at most {MOST_BYTES:,} bytes, got more; make it shorter")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        raise ManifestError(f"{where}: expected UTF-8, got other bytes; save it as UTF-8") from bad


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as bad:  # of a number with too many digits it is no TOMLDecodeError
        raise ManifestError(f"{where}: expected TOML, got {one_line(str(bad))}; correct that line") from bad
    except (RecursionError, MemoryError) as bad:
        raise ManifestError(f"{where}: expected TOML, got too many brackets in brackets; correct it") from bad


def _build(kind: type[Manifest], data: dict[str, Any], where: str, prefix: str) -> Manifest:
    top = Table(data, where, prefix, "")
    if "probe" not in data:
        top.fail(
            "[probe]", "a table that says how to measure the service", "none", "add [probe] with a command"
        )
    probe, tests, patch = top.table("probe"), top.table("tests"), top.table("patch")
    sites, deploy, forge = top.table("sites"), top.table("deploy"), top.table("forge")
    levers = top.tables("levers")
    top.end("probe", "tests", "patch", "levers", "sites", "deploy", "forge", "healer")
    probe.end("command", "timeout_s", "protect", "interpreter")
    tests.end("command")
    patch.end("allow", "unattended_reverts", "max_files", "max_lines")
    sites.end("idempotent", "transient")
    deploy.end("command")
    manifest = kind(
        probe=Probe(
            command=probe.command("command"),
            timeout_s=probe.number("timeout_s", 60.0, above=0.0, most=86_400.0),
            protect=probe.patterns("protect"),
            interpreter=probe.word("interpreter") if "interpreter" in probe.data else None,
        ),
        tests=HostTests(command=tests.command("command") if "command" in tests.data else None),
        patch=PatchLimits(
            allow=patch.patterns("allow"),
            unattended_reverts=patch.patterns("unattended_reverts"),
            max_files=patch.count("max_files", 3),
            max_lines=patch.count("max_lines", 80),
        ),
        levers=tuple(_lever(table) for table in levers),
        sites=Sites(
            idempotent=sites.words("idempotent", SITE, '"package.module:function"'),
            transient=sites.words("transient", DOTTED, 'the name of an exception, such as "ConnectionError"'),
        ),
        deploy=Deploy(command=deploy.command("command", empty=True)),
        forge=_hosting(forge),
        healer=_healer(top.table("healer"), where, prefix) if "healer" in data else None,
    )
    _check_levers(manifest, levers)
    return manifest


def _healer(table: Table, where: str, prefix: str) -> HealSettings:
    table.end(*BRAKES)
    try:
        return HealSettings(**table.data)
    except InvalidLimit as error:
        raise ManifestError(one_line(f"{where}: [{prefix}healer] {error}; correct the value")) from error


def _hosting(table: Table) -> Hosting:
    table.end("kind", "repository", "api")
    kind = table.word("kind") if "kind" in table.data else "local"
    if kind not in ("local", "github"):
        table.fail("kind", '"local" or "github"', repr(kind), "name the forge that changes go to")
    if kind == "local":
        for key in ("repository", "api"):
            if key in table.data:
                table.fail(key, "nothing for the local forge", "a value", 'add kind = "github", or remove it')
        return Hosting()
    repository = table.word("repository")
    if not REPOSITORY.fullmatch(repository):
        table.fail("repository", '"owner/name"', repr(repository), "write it as GitHub's address bar does")
    api = table.word("api").rstrip("/") if "api" in table.data else GITHUB_API
    if not _is_api(api):
        table.fail(
            "api", "an https address without user, query or fragment", repr(api),
            'write "https://HOST/api/v3", as of a GitHub Enterprise server',
        )  # fmt: skip
    return Hosting(kind="github", repository=repository, api=api)


def _is_api(address: str) -> bool:
    """Whether a token may be sent there: by TLS, or without leaving this machine."""
    try:
        url = urlsplit(address)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    plain = not {"@", "?", "#", "\\", " "} & set(address) and ".." not in url.path.split("/")
    return bool(host) and plain and (url.scheme == "https" or (url.scheme == "http" and host in LOOPBACK))


def _lever(table: Table) -> Lever:
    table.end("name", "strategy", "file", "key", "min", "max")
    strategy = table.word("strategy")
    if strategy not in ("attention", "basin"):
        table.fail("strategy", '"attention" or "basin"', repr(strategy), "name the strategy that may set it")
    file = table.word("file")
    if not file.endswith(".toml"):
        table.fail("file", "a .toml file", repr(file), "keep the lever's value in a TOML file")
    key = table.word("key")
    if _key_parts(key) is None:
        table.fail(
            "key", 'a dotted TOML key such as "attention.temperature"', repr(key), "write it as TOML does"
        )
    low, high = table.number("min"), table.number("max")
    if low >= high:
        table.fail("min", f"a number below max = {high:g}", f"{low:g}", "exchange or widen them")
    return Lever(
        name=table.word("name"),
        strategy="attention" if strategy == "attention" else "basin",
        file=file,
        key=key,
        min=low,
        max=high,
    )


def _check_levers(manifest: Manifest, tables: list[Table]) -> None:
    names: set[str] = set()
    places: set[tuple[str, tuple[str, ...]]] = set()
    for lever, table in zip(manifest.levers, tables, strict=True):
        if lever.name in names:
            table.fail("name", "a name of its own", f"{lever.name!r} again", "rename one of the two")
        if (lever.file, lever.parts) in places:
            table.fail(
                "key", "a value of its own", f"{lever.key!r} of {lever.file!r} again", "drop one of the two"
            )
        if (reason := refused_path(manifest, lever.file)) is not None:
            table.fail(
                "file", "a file that a patch may change", f"{lever.file!r}, {reason}", "allow or move it"
            )
        names.add(lever.name)
        places.add((lever.file, lever.parts))


def _key_parts(key: str) -> tuple[str, ...] | None:
    """A dotted key's parts, None when it is not exactly one key."""
    parts: list[str] = []
    for value in (0, 1):  # what brings a value of its own along cannot give both
        try:
            found: object = tomllib.loads(f"{key} = {value}")
        except (ValueError, RecursionError, MemoryError):
            return None
        parts = []
        while isinstance(found, dict) and len(found) == 1:
            [(part, found)] = found.items()
            parts.append(part)
        if found != value:
            return None
    return tuple(parts)
