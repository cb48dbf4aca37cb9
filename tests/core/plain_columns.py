"""Columns of a sealed block and MessagePack, for `plain_reader`: from docs/history-format.md alone, as that."""

from __future__ import annotations

import math
import struct
from typing import Any

import zstandard

FLOATS = (
    "timestamp",
    "phi",
    "kappa_eff",
    "basin_drift",
    "error_rate",
    "avg_latency_ms",
    "memory_mb",
    "confidence",
    "surprise",
    "agency",
)
WHOLES = {"repaired": 2, "regime": 1, "code": 2, "module": 2}
CONSTANT, TEXTS, PACKED_FLOATS, MICROS, PACKED_WHOLES, SIMPLEX, SPHERE = range(7)
MASK = (1 << 64) - 1


class Damage(ValueError):
    """What stands here is not what the document describes."""


def constant(stored: bytes, size: int) -> bytes:
    if len(stored) > size:
        raise Damage("a constant is too long")
    return stored.rjust(size, b"\0")


def decoded_column(name: str, encoding: int, stored: bytes, rows: int) -> list[Any]:
    if encoding == CONSTANT and name in WHOLES:
        return [int.from_bytes(constant(stored, WHOLES[name]), "little")] * rows
    if encoding == CONSTANT:
        return [*struct.unpack("<d", constant(stored, 8))] * rows
    if encoding == PACKED_FLOATS and name not in WHOLES:
        return decoded_floats(stored, rows, 1)[0]
    if encoding == MICROS and name == "timestamp":
        return [float(number) / 1e6 for number in packed(stored, rows, 1)[0]]
    if encoding == PACKED_WHOLES and name in WHOLES:
        numbers = packed(stored, rows, 1)[0]
        if 0 <= min(numbers) <= max(numbers) < 1 << 8 * WHOLES[name]:
            return numbers
    raise Damage(f"{name} in encoding {encoding}")


def decoded_basins(encoding: int, stored: bytes, rows: int, dim: int) -> list[list[float]]:
    if encoding == CONSTANT:
        return [[*struct.unpack("<d", constant(stored, 8))] * dim] * rows
    if encoding == PACKED_FLOATS:
        return transposed(decoded_floats(stored, rows, dim))
    if encoding not in (SIMPLEX, SPHERE):
        raise Damage(f"basins in encoding {encoding}")
    basins = []
    for q in transposed(packed(stored, rows, dim)):
        total = sum(number * number for number in q)
        if not 0 < total < 1 << 53:
            raise Damage("a basin without direction")
        root = math.sqrt(total)
        basins.append([number * number / total if encoding == SIMPLEX else number / root for number in q])
    return basins


def decoded_floats(stored: bytes, rows: int, width: int) -> list[list[float]]:
    shift = stored[0]
    series = []
    for numbers in packed(stored[1:], rows, width):
        bits = [(~q << shift | 1 << 63) & MASK if q < 0 else q << shift & MASK for q in numbers]
        series.append(list(struct.unpack(f"<{rows}d", struct.pack(f"<{rows}Q", *bits))))
    return series


def packed(stored: bytes, rows: int, width: int) -> list[list[int]]:
    """The signed numbers of each series."""
    kind, least, low_bits, base_shift, base_bits, pace_bits = stored[:6]
    form, pace = kind >> 4, kind & 15
    at = 6

    def bits(count: int, wide: int) -> list[int]:
        nonlocal at
        piece = stored[at : at + (count * wide + 7) // 8]
        at += len(piece)
        if 8 * len(piece) < count * wide:
            raise Damage("packed numbers end early")
        starts = [number * wide for number in range(count)]
        spans = [
            int.from_bytes(piece[bit >> 3 : (bit + wide + 7) >> 3], "little") >> (bit & 7) for bit in starts
        ]
        return [span & ((1 << wide) - 1) for span in spans]

    low_widths = [least + low for low in bits(width, low_bits)]
    bases = [unzigzag(b) << base_shift for b in bits(width, base_bits)]
    paces = [unzigzag(p) for p in bits(width, pace_bits)]
    low = [part for wide in low_widths for part in bits(rows, wide)]
    high = [0] * len(low)
    if form == 9:
        (count, wide), at = struct.unpack_from("<IB", stored, at), at + 5
        positions = bits(count, (len(low) - 1).bit_length())
        for position, part in zip(positions, bits(count, wide), strict=True):
            high[position] = part
    elif form:
        planes = zstandard.ZstdDecompressor().decompress(stored[at:], allow_extra_data=False)
        if len(planes) != form * len(high) or form > 9:
            raise Damage("high parts of another size")
        high = [sum(byte << 8 * p for p, byte in enumerate(planes[i :: len(high)])) for i in range(len(high))]
    series: list[list[int]] = []
    for j, (base, wide) in enumerate(zip(bases, low_widths, strict=True)):
        series.append([])
        number = base
        for i in range(j * rows, (j + 1) * rows):
            residual = unzigzag((low[i] + (high[i] << wide)) & MASK)
            if not pace:
                number = base
            elif i > j * rows:
                number += paces[j]
            number += residual
            series[j].append(signed(number))
    return series


def unzigzag(z: int) -> int:
    return z >> 1 ^ -(z & 1)


def signed(number: int) -> int:
    return (number + (1 << 63) & MASK) - (1 << 63)


def transposed(series: list[list[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*series, strict=True)]


def text(stored: bytes) -> str:
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored.decode("utf-8", "replace")


def unpack(data: bytes, at: int) -> tuple[Any, int]:
    """The MessagePack value at this place, and the place behind it."""
    kind, at = data[at], at + 1
    if kind < 0x80 or kind >= 0xE0:
        return kind - (kind >> 7 << 8), at
    if kind in (0xC0, 0xC2, 0xC3):
        return (None, False, False, True)[kind - 0xC0], at
    if 0xCA <= kind <= 0xD3:
        code = ">" + "fdBHIQbhiq"[kind - 0xCA]
        return struct.unpack_from(code, data, at)[0], at + struct.calcsize(code)
    if kind < 0xC0:
        shape = "map" if kind < 0x90 else "array" if kind < 0xA0 else "text"
        length = kind & (0x1F if shape == "text" else 0x0F)
    else:
        shapes = {0xC4: "bytes", 0xD9: "text", 0xDC: "array", 0xDE: "map"}
        begin = max(code for code in shapes if code <= kind)
        shape, size = shapes[begin], (1 if begin in (0xC4, 0xD9) else 2) << (kind - begin)
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    if shape in ("bytes", "text"):
        return (text if shape == "text" else bytes)(data[at : at + length]), at + length
    items = []
    for _ in range(length * (2 if shape == "map" else 1)):
        item, at = unpack(data, at)
        items.append(item)
    return items, at
