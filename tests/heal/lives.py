"""Lives of a change, act by act, and what must hold at the end of each whatever killed the healer meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from qigcore.errors import QigcoreError
from qigcore.fitness import Fitness
from qigheal.errors import QighealError
from qigheal.healing import phases, strategies
from qigheal.healing.drill import drill
from qigheal.healing.engine import SelfHealingEngine
from qigheal.healing.ledger import GENESIS, Ledger
from qigheal.healing.trial import TrialRun
from qigheal.records import Change, HealingPatch, Trial, Verdict
from qigheal.repo import Repo
from tests.heal import simulated
from tests.heal.test_engine import QUICK, deploys
from tests.heal.toyhost import CONFIG, ToyHost, git

ACCEPTED = Verdict(
    decision="improved",
    accepted=True,
    fitness=Fitness(point=0.75, low=0.7, high=0.8, components={"phi": 1.0}),
    guards=(),
    vetoes=(),
    pairs=20,
    sandbox_level="namespaces",
    reason="a test",
)


class World:
    """A toy host and its store, with a person's work lying about in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toy = ToyHost(folder)
        os.environ["TOY_DEPLOYS"] = str(self.toy.deploys)
        (self.toy.path / ".git/info/exclude").write_text("*.log\n")
        for name in ("notes.log", "config/draft.txt"):
            (self.toy.path / name).write_text("a person's\n")
            os.utime(self.toy.path / name, ns=(1, 1))

    def healer(self) -> SelfHealingEngine:
        return SelfHealingEngine(
            host=self.toy.path,
            store=self.toy.store,
            settings=replace(QUICK, sandbox="none"),
            clock=lambda: self.toy.clock,
        )

    def ledger(self) -> Ledger:
        return Ledger(self.toy.store / "ledger.db")

    def enter(self, phase: int) -> None:
        phases.override(self.ledger(), phase, actor="test", reason="a test", at=self.toy.clock)

    def change(self) -> Change:
        (found,) = self.ledger().changes().values()
        return found

    def patch(self, gain: float, heals: tuple[str, ...] = ()) -> HealingPatch:
        repo = Repo(self.toy.path)
        base = repo.head()
        diff = repo.diff(base, repo.edit(base, {"config/app.toml": CONFIG.format(gain=gain).encode()}))
        return HealingPatch(
            strategy="attention", tier="safe", base=base, diff=diff, rationale="Set the gain.", heals=heals
        )

    def person(self, *arguments: str) -> None:
        git(self.toy.path, *arguments)


class Act(NamedTuple):
    """Something that is done to a healer, after something that happens in the world."""

    name: str
    run: Callable[[World], Any]
    world: Callable[[World], Any] = lambda world: None


class Life(NamedTuple):
    begin: Callable[[World], Any]
    acts: tuple[Act, ...]


def resumed(world: World, act: Act, goal: dict[str, Any]) -> str:
    """Let a new healer go on, and whoever asked for the act ask again if it was lost; says what is wrong then."""
    before = git(world.toy.path, "rev-parse", "main")
    world.toy.clock += 100
    try:
        for change in world.healer().bring_along():
            unapproved = change.state in ("opening", "open", "rejected", "superseded")
            if unapproved and git(world.toy.path, "rev-parse", "main") != before:
                return f"change {change.id} is {change.state}, and the target was moved"
        end = end_of(world)
        if any(end[key] != goal[key] for key in ("changes", "drilled")):
            act.run(world)
            end = end_of(world)
    except (QighealError, QigcoreError, OSError) as error:
        return f"going on failed: {error}"
    return "; ".join(
        f"{key}: expected {goal[key]!r}, got {end[key]!r}" for key in end if end[key] != goal[key]
    )


def end_of(world: World) -> dict[str, Any]:
    """All that must be the same. Of commits what they are made of, but not their dates and heads of the ledger."""
    toy, ledger = world.toy, world.ledger()
    said = list(ledger.verify())
    digests = {entry.digest for entry in ledger.entries()} | {GENESIS}
    commits: dict[str, str] = {}
    form = "%H%x00%T%x00%P%x00%an%x00%at%x00%B%x01"
    dates: dict[str, int] = {}
    refs = git(toy.path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    for block in git(toy.path, "log", "--all", "--topo-order", "--reverse", f"--format={form}").split("\x01"):
        if not block.strip():
            continue
        commit, tree, parents, author, at, body = block.strip("\n").split("\0")
        lines = body.strip().splitlines()
        for line in lines:
            if line.startswith("Qigheal-Ledger: ") and line.split(": ")[1] not in digests:
                said.append(f"{commit[:10]} names a head that the ledger never had")
        kept = "\n".join(line for line in lines if not line.startswith("Qigheal-Ledger: "))
        parts = [tree, *(commits[parent] for parent in parents.split()), author, _mapped(kept, commits)]
        dates[commit] = int(at)
        commits[commit] = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    for change in ledger.changes().values():
        for made, begun in (
            (change.head, change.opened_at),
            (change.merge_commit, change.merged_at),
            (change.revert_commit, change.reverted_at),
        ):
            if made and dates.get(made) != int(begun):
                said.append(f"{made[:10]} of change {change.id} is not the commit that was announced")
    locks = [*toy.path.glob(".git/**/*.lock"), *toy.path.glob(".git/**/qigheal-*")]
    files = {p for p in toy.path.rglob("*") if p.is_file() and ".git" not in p.parts}
    return {
        "wrong": said,
        "phase": phases.current(ledger),
        "changes": {key: (change.state, change.target) for key, change in ledger.changes().items()},
        "refs": {ref.split()[0]: commits[ref.split()[1]] for ref in refs},
        "head": git(toy.path, "symbolic-ref", "HEAD"),
        "status": git(toy.path, "--no-optional-locks", "status", "--porcelain"),
        "files": {str(p.relative_to(toy.path)): p.read_text() for p in sorted(files)},
        "untouched": [(toy.path / name).stat().st_mtime_ns for name in ("notes.log", "config/draft.txt")],
        "locks": sorted(str(p.relative_to(toy.path)) for p in locks if p.name != "qigheal-heal.lock"),
        "objects": git(toy.path, "fsck", "--no-dangling"),
        "deployed": list(dict.fromkeys(_mapped(line, commits) for line in deploys(toy))),
        "drilled": sum(entry.read(phases.Drilled).ok for entry in ledger.entries("drilled")),
    }


def _mapped(text: str, commits: dict[str, str]) -> str:
    for commit, stands_for in commits.items():
        text = text.replace(commit, stands_for).replace(commit[:10], stands_for)
    return text


# Beginnings


def healthy(world: World) -> None:
    world.toy.learn(60)
    world.toy.live(1.0, 60, world.toy.healthy)
    world.enter(3)


def sick(world: World) -> None:
    world.toy.learn(60)
    world.toy.live(6.0, 60, world.toy.break_it(6.0))
    world.enter(3)


def merged_harm(world: World) -> None:
    healthy(world)
    open_harm(world)
    approve(world)


def merged_cure(world: World) -> None:
    sick(world)
    open_cure(world)
    approve(world)


def opened_harm(world: World) -> None:
    healthy(world)
    open_harm(world)


def canned(world: World) -> None:
    """Strategy and trial give what they gave before; everything around them is real."""
    sick(world)
    world.enter(4)
    cure = world.patch(1.0, ("phi", "kappa"))
    before, after = simulated.World(phi=0.4, kappa=150.0), simulated.World()
    observed = {"phi": 0.4, "kappa": 150.0}
    _, trial = simulated.judged(before, after, 1, settings=QUICK, observed=observed, heals=cure.heals)

    class Fixed:
        name, tier, metrics = "attention", "safe", ("phi", "kappa")

        def propose(self, *_: object) -> Iterator[HealingPatch]:
            yield cure

    def measure(self: TrialRun, pairs: int) -> Trial:
        assert not self.trial.pairs, "the judge asks for more than was measured before"
        self.trial = replace(trial, patch=cure)
        return self.trial

    strategies.builtin = lambda settings: (Fixed(),)  # type: ignore[assignment]
    TrialRun.measure = measure  # type: ignore[method-assign]


def taken_back_and_reset(world: World) -> None:
    merged_harm(world)
    worse(world)
    bring_along(world)
    world.person("reset", "-q", "--hard", world.toy.healthy)


# What is done


def open_harm(world: World) -> None:
    _open(world, world.patch(9.0))


def open_cure(world: World) -> None:
    _open(world, world.patch(1.0, ("phi", "kappa")))


def _open(world: World, patch: HealingPatch) -> None:
    with world.healer()._opened() as (_, passage):
        passage.begin(patch, ACCEPTED, "main")


def approve(world: World) -> None:
    world.healer().review(world.change().id, approve=True, reviewer="Ada")


def reject(world: World) -> None:
    world.healer().review(world.change().id, approve=False, reviewer="Ada", reason="no")


def put_through(world: World) -> None:
    world.healer().put_through(world.patch(9.0).diff, actor="Ada", reason="a drill")


def bring_along(world: World) -> None:
    world.healer().bring_along()


def heal(world: World) -> None:
    world.healer().check_and_heal(again=False)


def careless(world: World) -> None:
    """What no healer may do: an effect that nothing announced, and that cannot be repeated."""
    git(world.toy.path, "branch", "left-behind")
    (world.folder / "deploys").write_text("at the end\n")


def drilled(world: World) -> None:
    drill(
        Repo(world.toy.path), world.ledger(), clock=lambda: world.toy.clock, on_step=lambda stage, said: None
    )


# What happens meanwhile


def worse(world: World) -> None:
    world.toy.live(9.0, 40, world.change().merge_commit)


def better(world: World) -> None:
    world.toy.live(1.0, 40, world.change().merge_commit)


def silence(world: World) -> None:
    world.toy.clock += QUICK.watch_deadline_s + 1


def built_upon(world: World) -> None:
    (world.toy.path / "theirs.txt").write_text("a person's\n")
    world.toy.commit("A person's work")


def worse_and_built_upon(world: World) -> None:
    worse(world)
    built_upon(world)


LIVES = {
    "taken back": Life(
        healthy, (Act("open", open_harm), Act("approve", approve), Act("watch", bring_along, worse))
    ),
    "confirmed": Life(merged_cure, (Act("watch", bring_along, better),)),
    "unconfirmed": Life(merged_cure, (Act("watch", bring_along, silence),)),
    "contested": Life(merged_harm, (Act("watch", bring_along, worse_and_built_upon),)),
    "superseded": Life(opened_harm, (Act("approve", approve, built_upon),)),
    "rejected": Life(opened_harm, (Act("reject", reject),)),
    "put through": Life(healthy, (Act("put through", put_through),)),
    "put through again": Life(taken_back_and_reset, (Act("put through", put_through),)),
    "autonomous": Life(canned, (Act("heal", heal),)),
    "drilled": Life(healthy, (Act("drill", drilled),)),
    "careless": Life(healthy, (Act("careless", careless),)),
}
