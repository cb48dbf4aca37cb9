"""A chain that was given self-healing cannot tell the difference, nor can anybody else."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from qigcore.history import History
from qigheal.integrations.chain import trajectory
from qigheal.integrations.chain.hooking import Hook
from qigheal.integrations.qigchain import (
    ChainError,
    SearchSpaceCollapseSelfHealing,
    add_self_healing_to_chain,
)
from tests.chains import (
    BASIN,
    Async,
    Chain,
    Child,
    Frozen,
    Measured,
    Named,
    Result,
    Slotted,
    classes_as_before,  # noqa: F401  # by being here it is around every test
    monitored,
    step,
)


@pytest.mark.parametrize("make", [Chain, Child, Slotted, Async, Frozen, Named])
def test_the_chain_stays_what_it_was(make: Callable[[], Any]) -> None:
    chain = make()
    before = dict(vars(chain)) if hasattr(chain, "__dict__") else None
    described = (inspect.signature(chain.run), chain.run.__doc__, chain.run.__qualname__)
    static = {name: make.__dict__.get(name) for name in ("run", "self_healing")}
    assert monitored(chain) is chain
    assert type(chain) is make
    assert isinstance(chain.self_healing, SearchSpaceCollapseSelfHealing)
    assert (vars(chain) if before is not None else None) == before
    assert (inspect.signature(chain.run), chain.run.__doc__, chain.run.__qualname__) == described
    assert inspect.iscoroutinefunction(chain.run) == inspect.iscoroutinefunction(make.run)
    for kept in (copy.copy(chain), copy.deepcopy(chain), pickle.loads(pickle.dumps(chain))):  # noqa: S301
        assert not isinstance(getattr(kept, "self_healing", None), SearchSpaceCollapseSelfHealing)
        assert (vars(kept) if before is not None else None) == before
    chain.self_healing.remove()
    assert {name: make.__dict__.get(name) for name in static} == static
    assert getattr(chain, "self_healing", None) == (before or {}).get("self_healing")


def test_only_the_chain_that_was_added_is_recorded() -> None:
    chain, other, child = monitored(Chain()), Chain(), monitored(Child())
    other.run(BASIN)
    copy.copy(chain).run(BASIN)
    child.run(BASIN)  # goes through the method of its base, which is hooked too
    assert chain.self_healing.counts.runs == 0
    assert child.self_healing.counts.runs == 1
    assert not hasattr(other, "self_healing")
    with pytest.raises(AttributeError, match="'Chain' object has no attribute 'self_healing'"):
        _ = other.self_healing
    other.self_healing = 1
    assert other.self_healing == 1
    with pytest.raises(AttributeError, match=r"self_healing\.remove\(\)"):
        chain.self_healing = None
    chain.self_healing.remove()
    child.self_healing.remove()


def test_an_async_chain() -> None:
    async def use() -> None:
        chain = monitored(Async([Result([step()]), ValueError("no")]))
        assert (await chain.run(BASIN)).reason == "converged"
        with pytest.raises(ValueError, match="no"):
            await chain.run(BASIN)
        other = Async()
        await other.run(BASIN)
        assert (chain.self_healing.counts.runs, chain.self_healing.counts.failed) == (2, 1)
        chain.self_healing.remove()

    asyncio.run(use())


def test_a_method_that_the_object_carries_itself_is_given_back() -> None:
    chain = types.SimpleNamespace()
    chain.run = mine = Chain().run
    monitored(chain)
    chain.run(BASIN)
    assert chain.self_healing.counts.runs == 1
    assert chain.run.__doc__ == mine.__doc__
    assert copy.deepcopy(chain.run)(BASIN).reason == "converged"
    assert chain.self_healing.counts.runs == 1
    chain.self_healing.remove()
    assert vars(chain) == {"run": mine}


def test_a_patch_put_over_ours_stays_and_lets_every_call_through() -> None:
    chain = monitored(Chain())
    ours = Chain.run

    def theirs(self: Chain, initial_basin: Any, context: Any = None) -> Any:
        return ours(self, initial_basin, context)

    Chain.run = theirs
    healing = chain.self_healing
    chain.run(BASIN)
    healing.remove()
    assert chain.run(BASIN).reason == "converged"
    assert healing.counts.runs == 1


@pytest.mark.parametrize("make", [Chain, Async, lambda: Measured({}, {})])
def test_a_chain_nobody_uses_is_not_kept_alive(make: Callable[[], Any]) -> None:
    chain = monitored(make())
    gone = weakref.ref(chain)
    healing = weakref.ref(chain.self_healing)
    del chain
    gc.collect()
    assert gone() is None
    assert healing() is None
    wrapper = SearchSpaceCollapseSelfHealing(Chain(), code_hash="")
    gc.collect()
    assert wrapper.run(BASIN).reason == "converged"
    assert wrapper.counts.runs == 1
    wrapper.remove()


def test_several_threads(tmp_path: Path) -> None:
    chain = monitored(Chain(), store=tmp_path / "s", history_size=2000)

    def work(_: int) -> None:
        for _ in range(50):
            assert chain.run(BASIN).reason == "converged"

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (chain.self_healing.counts.runs, chain.self_healing.counts.steps) == (200, 200)
    chain.self_healing.remove()
    with History.read_only(tmp_path / "s") as history:
        assert len(history.last(1000)) == 200


def test_a_lock_that_was_held_at_a_fork_does_not_stop_the_child() -> None:
    chain = monitored(Chain())
    held = chain.self_healing._runs._lock
    with ThreadPoolExecutor(1) as other:
        other.submit(held.acquire).result()
        trajectory._forks.in_child()  # what is called there
        chain.run(BASIN)
        other.submit(held.release).result()
    assert chain.self_healing.counts.steps == 1
    chain.self_healing.remove()


def test_steps_of_a_result_that_broke_the_reading_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = monitored(Chain([Result([step(), step()])]))

    def broken(fields: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(chain.self_healing._runs, "_capture", broken)
        chain.run(BASIN)
    chain.run(BASIN)
    counts = chain.self_healing.counts
    assert (counts.runs, counts.steps, counts.lost) == (2, 1, 1)
    chain.self_healing.remove()


def test_a_mock_is_a_chain_too() -> None:
    chain = MagicMock()
    chain.run.return_value = Result([step()])
    before = dict(vars(chain))
    monitored(chain).run(BASIN)
    assert chain.self_healing.counts.steps == 1
    chain.self_healing.remove()
    assert set(vars(chain)) == set(before)


def test_a_slot_of_that_name_is_given_back() -> None:
    class Reserved(Slotted):
        __slots__ = ("self_healing",)

    chain, other = Reserved(), Reserved()
    chain.self_healing = "mine"
    slot = Reserved.__dict__["self_healing"]
    monitored(chain)
    assert isinstance(chain.self_healing, SearchSpaceCollapseSelfHealing)
    other.self_healing = "others"
    assert other.self_healing == "others"
    del other.self_healing
    assert not hasattr(other, "self_healing")
    with pytest.raises(AttributeError, match="remove"):
        del chain.self_healing
    chain.self_healing.remove()
    assert Reserved.__dict__["self_healing"] is slot
    assert chain.self_healing == "mine"


class Answering:
    def __call__(self, initial_basin: Any) -> Any:
        return Result([step()])


class OfTheClass:
    @classmethod
    def run(cls, initial_basin: Any) -> Any:
        return Result([step()])


class OfNobody:
    @staticmethod
    def run(initial_basin: Any) -> Any:
        return Result([step()])


class OfAnother:
    run = Answering()


@pytest.mark.parametrize("kind", [OfTheClass, OfNobody, OfAnother])
def test_a_run_that_is_not_the_objects_own_is_refused_and_left_alone(kind: Any) -> None:
    before = dict(vars(kind))
    with pytest.raises(
        ChainError, match=r"expected Of\w+\.run to be a method of its objects, got a \w+; wrap"
    ):
        monitored(kind())
    assert dict(vars(kind)) == before
    assert kind.run(BASIN).reason == kind().run(BASIN).reason == "converged"


def test_adding_twice_and_what_is_no_chain() -> None:
    chain = monitored(Chain())
    with pytest.raises(ChainError, match="take it off first"):
        monitored(chain)
    chain.self_healing.remove()
    monitored(chain).self_healing.remove()

    class Stream:
        def run(self, initial_basin: Any) -> Iterator[int]:
            yield 1

    for odd, told in ((Stream(), "a generator"), (3, "neither"), (Chain, "the class Chain")):
        with pytest.raises(ChainError, match=told):
            add_self_healing_to_chain(odd)
    with pytest.raises(TypeError, match="neither; wrap it"):
        Hook(3, "self_healing", value=1)
