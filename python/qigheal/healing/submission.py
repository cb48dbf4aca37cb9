"""Reads a diff that somebody else made, in the forms in which diffs are sent.

What comes out is the change as `git diff` would print it here, so that it is counted, refused, measured
and named like any other. Taken: `git diff` with any one-part prefixes or none, `diff -u`, what `git
format-patch` mails, line ends of either kind, a last line without an end. Nothing is decided here about
what the change may touch, and nothing of it is run.
"""

from __future__ import annotations

import re

from qigheal.errors import PatchError
from qigheal.repo import Repo

MOST_BYTES = 1_000_000
"""A diff larger than this is not read: no trial of it could end in a patch that a person can review."""

MOST_LINES = 50_000
"""Lines added and deleted, with a rename as one and the other; `[patch] max_lines` is usually far below."""

_HEADS = re.compile(r"^(?:diff --git |--- |GIT binary patch)", re.MULTILINE)
_ENCODED = re.compile(
    r"^Content-Transfer-Encoding:\s*(base64|quoted-printable)", re.MULTILINE | re.IGNORECASE
)
_GIT_HEAD = re.compile(r"^diff --git (.+)$", re.MULTILINE)
_PLAIN_HEAD = re.compile(r"^--- ([^\t\n]+).*\n\+\+\+ ([^\t\n]+)", re.MULTILINE)


def text_of(content: bytes, where: str) -> str:
    """The text of a diff, with line ends of Unix; `where` names it in errors.

    Raises PatchError for what is too large, no UTF-8 text, empty, no diff, or a mail in an encoding.
    """
    if len(content) > MOST_BYTES:
        raise PatchError(
            f"{where}: expected a diff of at most {MOST_BYTES} bytes, got more; submit one change at a time"
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PatchError(
            f"{where}: expected a diff in UTF-8, got UTF-16; write it with: git diff --output=FILE"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        raise PatchError(
            f"{where}: expected a diff in UTF-8, got other bytes at {bad.start}; changes to text in another "
            "encoding, and to binary files, cannot be judged"
        ) from bad
    if "\0" in text:
        raise PatchError(
            f"{where}: expected the text of a diff, got a NUL byte; binary files cannot be judged"
        )
    head = _HEADS.search(text)
    if head is None:
        raise PatchError(
            f"{where}: expected a unified diff, got {'nothing' if not text.strip() else 'other text'}"
        )
    if encoded := _ENCODED.search(text, 0, head.start()):
        raise PatchError(
            f"{where}: expected the diff itself, got a mail in {encoded[1].lower()}; take the diff from the commit "
            "with: git format-patch --stdout, or from the mail with: git mailinfo"
        )
    return text if text.endswith("\n") else text + "\n"


def canonical(repo: Repo, base: str, text: str) -> str:
    """The same change to commit `base` as `git diff` prints it here.

    A diff that does not apply, changes nothing, or changes binary files is given back as it came: it will be
    refused, and by what it is. Raises PatchError for one that changes too many lines, or makes no UTF-8 text.
    """
    for strip in (0, 1) if _without_prefix(text) else (1,):
        for form in (*_line_ends(text), text):
            try:
                tree = repo.apply(base, form, strip=strip)
            except PatchError:
                continue
            changes = repo.changes(base, tree)
            # A rename of two lines may be a deletion of two hundred megabytes.
            if (lines := sum(change.added + change.deleted for change in changes)) > MOST_LINES:
                raise PatchError(
                    f"the diff changes {lines} lines: expected at most {MOST_LINES}; submit less at a time"
                )
            if any(change.binary for change in changes):
                return text
            return repo.diff(base, tree) or text
    return text


def _line_ends(text: str) -> tuple[str, ...]:
    """The text as it may have been before something made its line ends those of Windows.

    Where git's own lines end so, all were converted, or else only these, of a file that has such ends.
    """
    lines = text.split("\n")
    if not any(line.startswith(("--- ", "diff --git ")) and line.endswith("\r") for line in lines):
        return ()
    heads = (
        "diff --git ",
        "index ",
        "--- ",
        "+++ ",
        "@@ ",
        "new file ",
        "deleted file ",
        "old mode ",
        "new mode ",
    )
    return (
        "\n".join(line.removesuffix("\r") for line in lines),
        "\n".join(line.removesuffix("\r") if line.startswith(heads) else line for line in lines),
    )


def _without_prefix(text: str) -> bool:
    """Whether paths stand there without a first part such as `a/`: then both sides name the same path."""
    text = text.replace("\r\n", "\n")
    found = [_same_halves(match[1]) for match in _GIT_HEAD.finditer(text)] or [
        match[1].rstrip() == match[2].rstrip() for match in _PLAIN_HEAD.finditer(text)
    ]
    return bool(found) and all(found)


def _same_halves(names: str) -> bool:
    middle = len(names) // 2
    return names[:middle] == names[middle + 1 :] and names[middle : middle + 1] == " "
