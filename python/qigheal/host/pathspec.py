"""git's `:(glob)` pathspecs, decided without git: which paths a pattern selects, and no more than that.

`*` and `?` stay within one folder, `**` between slashes crosses folders, `[...]` is one byte other than
a slash, `\\` takes the next character as it is; a pattern that names a folder selects what is under
it. Patterns and paths are compared as bytes, as git does, so that `?` is one byte of UTF-8.
Source: git's `wildmatch.c` with WM_PATHNAME, and `match_pathspec_item` in `dir.c`.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

_SPECIAL = b"*?[\\"
_SPACE = b"\t\n\r "  # git's own character table, not the locale's
_CLASSES = {
    b"alnum": (string.ascii_letters + string.digits).encode(),
    b"alpha": string.ascii_letters.encode(),
    b"blank": b" \t",
    b"cntrl": bytes([*range(32), 127]),
    b"digit": string.digits.encode(),
    b"graph": bytes(range(33, 127)),
    b"lower": string.ascii_lowercase.encode(),
    b"print": bytes(range(32, 127)),
    b"punct": string.punctuation.encode(),
    b"space": _SPACE,
    b"upper": string.ascii_uppercase.encode(),
    b"xdigit": string.hexdigits.encode(),
}


def selects(pattern: str, path: str) -> bool:
    """Whether `:(glob)pattern` selects the file `path`, both relative to the repository's root."""
    spec, name = pattern.encode("utf-8", "surrogateescape"), path.encode("utf-8", "surrogateescape")
    if name == spec or not spec or name.startswith(spec if spec.endswith(b"/") else spec + b"/"):
        return True
    compiled = _compiled(spec)
    return compiled is not None and compiled.fullmatch(name) is not None


class _Malformed(Exception):
    """A pattern that matches nothing but itself: it ends in the middle of `[...]` or after a backslash."""


@lru_cache(maxsize=1024)
def _compiled(spec: bytes) -> re.Pattern[bytes] | None:
    """The pattern as a regular expression; None when it can match nothing but itself."""
    literal = next((i for i, byte in enumerate(spec) if byte in _SPECIAL), len(spec))
    if literal == len(spec):
        return None
    # git compares what stands before the first special character by itself, and so takes a `**` that
    # follows it as if it stood at the beginning.
    out = [re.escape(spec[:literal])]
    rest, at = spec[literal:], 0
    try:
        while at < len(rest):
            part, at = _part(rest, at)
            out.append(part)
    except _Malformed:
        return None
    return re.compile(b"".join(out), re.DOTALL)


def _part(spec: bytes, at: int) -> tuple[bytes, int]:
    """The regular expression of the element at `at`, and where the next one begins."""
    byte = spec[at : at + 1]
    if byte == b"*":
        return _stars(spec, at)
    if byte == b"?":
        return b"[^/]", at + 1
    if byte == b"[":
        members, at = _bracket(spec, at + 1)
        return (
            b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]" if members else b"(?!)"
        ), at
    value, at = _literal(spec, at)
    return re.escape(bytes([value])), at


def _stars(spec: bytes, at: int) -> tuple[bytes, int]:
    end = at
    while spec[end : end + 1] == b"*":
        end += 1
    if end - at > 1 and (at == 0 or spec[at - 1 : at] == b"/"):
        if spec[end : end + 1] == b"/":
            return b"(?:.*/)?", end + 1
        if end == len(spec) or spec[end : end + 2] == b"\\/":
            return b".*", end
    return b"[^/]*", end


def _literal(spec: bytes, at: int) -> tuple[int, int]:
    """The byte at `at`, a backslash before it taken off, and where the next one begins."""
    at += spec[at : at + 1] == b"\\"
    if at >= len(spec):
        raise _Malformed
    return spec[at], at + 1


def _bracket(spec: bytes, at: int) -> tuple[set[int], int]:
    """The bytes that `[...]` stands for, `at` being after its `[`, and where the next element begins."""
    negated = spec[at : at + 1] in (b"!", b"^")
    at += negated
    start = at
    members: set[int] = set()
    previous = 0  # the lower end of a possible range; 0 after a range or a class
    while at == start or spec[at : at + 1] != b"]":
        if spec[at : at + 1] == b"-" and previous and spec[at + 1 : at + 2] not in (b"", b"]"):
            last, at = _literal(spec, at + 1)
            members |= set(range(previous, last + 1))
            previous = 0
        elif spec[at : at + 2] == b"[:" and (found := _named(spec, at + 2)) is not None:
            named, at = found
            members |= named
            previous = 0
        else:
            previous, at = _literal(spec, at)
            members.add(previous)
    return (set(range(1, 256)) - members if negated else members) - {ord("/")}, at + 1


def _named(spec: bytes, at: int) -> tuple[set[int], int] | None:
    """The bytes of `[:name:]`, `at` being at its name, and where the next member begins.

    None when it does not end in `:]`: the bracket is then an ordinary member.
    """
    end = spec.find(b"]", at)
    if end < 0:
        raise _Malformed
    if end == at or spec[end - 1 : end] != b":":
        return None
    named = _CLASSES.get(spec[at : end - 1])
    if named is None:
        raise _Malformed
    return set(named), end + 1
