"""The events that a person marks, from text and from files. All of it is data: a label is never obeyed."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qigheal.backtest.records import Mark
from qigheal.errors import MarksError
from qigheal.moments import moment

MOST = 10_000
"""Events in one file; each is compared with every snapshot near it."""

MOST_BYTES = 16_000_000

_KNOWN = ("start", "end", "label")


def mark(text: str) -> Mark:
    """From START[..END][=LABEL], times as `moment` reads them. Raises MarksError."""
    times, _, label = text.partition("=")
    start, parted, end = times.partition("..")
    if parted and not end.strip():
        raise MarksError(f"event {text!r}: expected START[..END][=LABEL], got no END after '..'")
    return _mark({"start": start, "end": end, "label": label}, f"event {text!r}")


def read_marks(path: Path) -> tuple[Mark, ...]:
    """From a file: CSV with the columns start, end and label, or JSON, a list of objects with those keys.

    end and label may be missing or empty. Raises MarksError that says where.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MarksError(f"{path}: events cannot be read there: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise MarksError(f"{path}: expected at most {MOST_BYTES / 1e6:.0f} MB of events, got more")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MarksError(
            f"{path}: expected text in UTF-8, got another byte at position {error.start}"
        ) from error
    rows = _of_json(text, path) if text.lstrip()[:1] in ("[", "{") else _of_csv(text, path)
    marks: list[Mark] = []
    for where, row in rows:
        if len(marks) == MOST:
            raise MarksError(f"{path}: expected at most {MOST} events, got more")
        marks.append(_mark(row, where))
    if not marks:
        raise MarksError(f"{path}: expected events, got none; leave the option out to replay without")
    return tuple(marks)


def _of_csv(text: str, path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if "start" not in names:
            raise MarksError(
                f"{path}: expected a first line with the columns start, end, label, got {','.join(names)[:80]!r}"
            )
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) > len(names):
                    raise MarksError(
                        f"{path}, line {reader.line_num}: expected {len(names)} cells as in the first line, "
                        f"got {len(cells)}; a label with a comma stands in double quotes"
                    )
                yield f"{path}, line {reader.line_num}", dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise MarksError(f"{path}, line {reader.line_num}: expected CSV: {error}") from error


def _of_json(text: str, path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MarksError(f"{path}: expected JSON: {error}") from error
    if not isinstance(rows, list):
        raise MarksError(f"{path}: expected a list of objects with start, end and label, got one object")
    for place, row in enumerate(rows):
        where = f"{path}, event {place + 1}"
        if not isinstance(row, dict):
            raise MarksError(f"{where}: expected an object with start, end and label, got {row!r:.40}")
        unknown = sorted(row.keys() - set(_KNOWN))
        if unknown:
            raise MarksError(f"{where}: expected only {', '.join(_KNOWN)}, got {unknown[0]!r:.40}")
        yield where, row


def _mark(row: Mapping[str, Any], where: str) -> Mark:
    start = _time(row.get("start"), f"{where}, start")
    end = _time(row.get("end"), f"{where}, end")
    label = row.get("label")
    if start is None:
        raise MarksError(f"{where}, start: expected a time, got none")
    if end is not None and end < start:
        raise MarksError(f"{where}: expected an end after the start, got one {start - end:g} s before it")
    if label is not None and not isinstance(label, str):
        raise MarksError(f"{where}, label: expected text, got {label!r:.40}")
    return Mark(start=start, end=end, label=(label or "").strip()[:200])


def _time(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, str):
            return moment(value.strip())
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except (ValueError, OverflowError) as error:
        raise MarksError(f"{where}: {str(error)[:160]}") from error
    raise MarksError(f"{where}: expected a time as text or Unix seconds, got {value!r:.40}")
