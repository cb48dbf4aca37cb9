"""What the bound of a dict does where it is written: the text is run, not compared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest

from qigheal.healing.strategies.bounding.edits import AT_ONCE, bound_store

CODE = b"""\
def store(cache, key, value):
    # Made once.
    cache[key] = value
"""
BOUNDS = [1, 2, 3, 8, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 64, 1000]

Kept = dict[Hashable, Any]


def written(most: int, code: bytes = CODE) -> Callable[[Kept, Hashable, Any], None]:
    scope: dict[str, Any] = {}
    exec(compile(bound_store(code, (3, 4), "cache", most), "app.py", "exec"), scope)  # noqa: S102  # the code under test
    store: Callable[[Kept, Hashable, Any], None] = scope["store"]
    return store


@pytest.mark.parametrize("most", BOUNDS)
def test_the_newest_stay_and_never_more_than_may(most: int) -> None:
    store = written(most)
    cache: Kept = {}
    fullest = 0
    for key in range(3 * most + 7):
        store(cache, key, -key)
        fullest = max(fullest, len(cache))
        least = min(key + 1, most - most // AT_ONCE)
        assert list(cache) == list(range(key + 1 - len(cache), key + 1)), "the oldest go, in their order"
        assert len(cache) >= least, "no more go than must"
        assert cache[key] == -key
    assert fullest == most


@pytest.mark.parametrize("most", BOUNDS)
def test_what_is_stored_again_is_there_with_its_new_value(most: int) -> None:
    store = written(most)
    cache: Kept = dict.fromkeys(range(most), "old")
    for key in [most - 1, 0, most // 2]:
        store(cache, key, "new")
        assert cache[key] == "new"
        assert len(cache) <= most


@pytest.mark.parametrize("most", BOUNDS)
def test_one_store_brings_an_overfull_dict_back(most: int) -> None:
    """As a recursive function leaves it: each of its calls looks before any of them has stored."""
    cache: Kept = dict.fromkeys(range(5 * most), 0)
    written(most)(cache, "key", 1)
    assert len(cache) <= most
    assert list(cache)[-1] == "key"


class Listed(dict[Hashable, Any]):
    """Counts the keys that are listed."""

    count = 0

    def __iter__(self) -> Iterator[Hashable]:
        self.count += len(self)
        return super().__iter__()


@pytest.mark.parametrize("most", [64, 4096])
def test_a_store_costs_the_same_however_many_entries_there_are(most: int) -> None:
    store, cache, stores = written(most), Listed(), 2 * most
    for key in range(most + stores):
        store(cache, key, 0)
    assert 0 < cache.count <= (AT_ONCE + 2) * stores


class Shared(dict[Hashable, Any]):
    """Another thread stores and drops wherever it can get in between: before each step of the written text."""

    turn = 0
    listing = False  # the length is asked for by `list`, which of a real dict does all in one step

    def meanwhile(self) -> None:
        self.turn += 1
        self[f"theirs {self.turn}"] = 0
        for key in list(self.keys())[:3]:
            dict.pop(self, key, None)

    def __len__(self) -> int:
        found = super().__len__()
        if not self.listing:
            self.meanwhile()
        self.listing = False
        return found

    def __iter__(self) -> Iterator[Hashable]:
        self.meanwhile()
        self.listing = True
        return super().__iter__()

    def pop(self, key: Hashable, *default: Any) -> Any:
        self.meanwhile()
        return super().pop(key, *default)


@pytest.mark.parametrize("most", BOUNDS)
def test_another_thread_in_between_makes_nothing_fail(most: int) -> None:
    store = written(most)
    cache = Shared(dict.fromkeys(range(4 * most), 0))
    for key in range(50):
        store(cache, -1 - key, key)
        assert dict.__getitem__(cache, -1 - key) == key
    assert cache.turn > 50


def test_a_name_that_is_used_stays_what_it_is() -> None:
    code = b"""\
def store(cache, key, value, oldest=3):
    # Made once.
    cache[key] = value * oldest
"""
    store = written(2, code)
    cache: Kept = {}
    for key in range(4):
        store(cache, key, 1)
    assert cache == {2: 3, 3: 3}


def test_the_lines_keep_the_comment_above_them() -> None:
    assert (
        bound_store(CODE, (3, 4), "cache", 64).decode()
        == """\
def store(cache, key, value):
    # Made once.
    if len(cache) >= 64:  # at most 64 entries stay
        for oldest in list(cache)[:-62]:
            cache.pop(oldest, None)
    cache[key] = value
"""
    )
