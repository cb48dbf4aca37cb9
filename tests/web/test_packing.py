"""Long answers of JSON are compressed for who takes that, the same by both frameworks; nothing else is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qigheal.api.exchange import Request, answer
from qigheal.api.packing import LEAST, packed, takes_gzip
from tests.web.conftest import Make
from tests.web.serving import Answer, Web
from tests.web.stores import recorded

LONG = "snapshots?limit=1000"


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("br, gzip", True),
        ("deflate,gzip ; q=0.5 , br", True),
        ("gzip;q=1.000", True),
        ("gzip;q=0.001", True),
        ("*", True),
        ("identity;q=0, *;q=0.1", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("gzip;q=0.5, *;q=0", True),
        ("gzip;q=0.5, *;q=0.5", True),
        ("gzip;q=0.5, *;q=1, identity;q=0.1", True),
        ("", False),
        ("br", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("identity;q=1, *;q=0.9", False),
        ("gzip;q=0.5, *;q=1", False),
        ("*, gzip;q=0.9", False),
        ("gzip;q=2", False),
        ("gzip;q=-1", False),
        ("gzip;q", False),
        ("gzip;level=9", False),
        ("gzipped", False),
        ("not gzip", False),
    ],
)
def test_a_client_says_whether_it_takes_gzip(accepted: str, taken: bool) -> None:
    assert takes_gzip(accepted) is taken


@given(st.text(alphabet="gzip*identy;q=01.5, \t\n", max_size=60) | st.text(max_size=30))
def test_any_header_is_read_without_an_error(accepted: str) -> None:
    if takes_gzip(accepted):
        assert "gzip" in accepted.lower() or "*" in accepted


def plain(got: Answer) -> bytes:
    """The body; the client of one of the frameworks has decompressed it already."""
    return gzip.decompress(got.body) if got.body[:2] == b"\x1f\x8b" else got.body


def test_a_long_answer_is_compressed_for_who_takes_it(store: Path, web: Web) -> None:
    recorded(store, 1000)
    whole = web(LONG, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in whole.headers
    assert whole.headers["vary"] == "Accept-Encoding"
    assert int(whole.headers["content-length"]) == len(whole.body) > 300_000
    short = web(LONG, headers={"Accept-Encoding": "br;q=1, gzip;q=0.8"})
    assert short.status == 200
    assert short.headers["content-encoding"] == "gzip"
    assert short.headers["vary"] == "Accept-Encoding"
    assert short.headers["content-type"].startswith("application/json")
    assert short.headers["cache-control"] == "no-store"
    assert int(short.headers["content-length"]) < len(whole.body) / 5
    assert json.loads(plain(short)) == whole.json
    for refused in ("", "gzip;q=0", "identity, gzip;q=0.1", "zstd"):
        got = web(LONG, headers={"Accept-Encoding": refused})
        assert (got.body, got.headers.get("content-encoding")) == (whole.body, None), refused


def test_the_length_is_that_of_what_is_sent(store: Path, web: Web) -> None:
    recorded(store, 300)
    for accepted in ("gzip", "identity"):
        got = web(LONG, headers={"Accept-Encoding": accepted})
        asked = Request(headers={"accept-encoding": accepted})
        sent = packed(answer(json.loads(plain(got))), asked).body
        assert int(got.headers["content-length"]) == len(sent)
        head = web(LONG, method="HEAD", headers={"Accept-Encoding": accepted})
        assert (head.status, head.body) == (200, b"")
        for name in ("content-length", "content-encoding", "vary", "content-type"):
            assert head.headers.get(name) == got.headers.get(name), name


def test_what_is_kept_is_kept_as_it_is(store: Path, web: Web) -> None:
    # An answer that is given again while the store is the same must not be compressed twice.
    recorded(store)
    found = [web("openapi.json", headers={"Accept-Encoding": take}) for take in ("gzip", "identity", "gzip")]
    assert [each.headers.get("content-encoding") for each in found] == ["gzip", None, "gzip"]
    for name in ("patches", "state", "trends", "phase", "health"):
        first, again = (plain(web(name, headers={"Accept-Encoding": "gzip"})) for _ in range(2))
        assert json.loads(first) == json.loads(again)


def test_short_answers_and_the_stream_are_not(store: Path, serve: Make) -> None:
    recorded(store)
    web = serve()
    taking = {"Accept-Encoding": "gzip"}
    for path, token in (("health", None), ("snapshots?limit=1", "read-Φ"), ("nowhere", None)):
        got = web(path, token=token, headers=taking)
        assert len(got.body) < LEAST
        assert "content-encoding" not in got.headers
        assert "vary" not in got.headers
    stream = web("stream", method="HEAD", headers=taking)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in stream.headers


def test_the_shortest_answer_that_is_compressed() -> None:
    taking = Request(headers={"accept-encoding": "gzip"})
    assert packed(answer("x" * (LEAST - 3)), taking) == answer("x" * (LEAST - 3))
    long = packed(answer("x" * (LEAST - 2)), taking)
    assert gzip.decompress(long.body) == answer("x" * (LEAST - 2)).body
    assert ("Content-Encoding", "gzip") in long.headers
