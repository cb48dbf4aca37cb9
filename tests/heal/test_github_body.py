"""The words of a pull request: readable, bounded, and dead whatever stands in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qigcore.fitness import Fitness
from qigheal.healing.forge import body, messages
from qigheal.records import Change, Guard, HealingPatch, Verdict
from tests.heal.test_forge import DIFF, VERDICT

ATTACK = (
    "@everyone see #1, fixes #2, closes octo/host#3, GH-4 https://evil.example <img src=x> "
    "![x](http://evil.example/x.png) \u202edesrever\u202c \x1b[31m\x00 ``` ````\n# heading\n```\n@octocat\n~~~\n"
    "</details>| a | b |\r\n<!-- -->"
)
LIVE = re.compile(r"@\w|#\d|GH-\d|https?://|<(?!sub>Change|/sub>)|!\[")


def change(text: str = "plain", diff: str = DIFF, verdict: Verdict | None = VERDICT) -> Change:
    patch = HealingPatch(
        strategy=text or "attention",
        tier="safe",
        base="ab" * 20,
        diff=diff,
        rationale=text,
        heals=("phi", text),
        parameters={text: 1.5},
    )
    if verdict is not None:
        guard = Guard(metric=text, margin=0.03, estimate=0.001, low=-0.01, high=0.012, result="pass")
        verdict = replace(
            verdict,
            guards=(guard,),
            vetoes=(text,),
            reason=text,
            sandbox_level=text,
            fitness=Fitness(point=0.9, low=0.8, high=0.95, components={text: 0.5}),
        )
    return Change(
        id="0123456789abcdef",
        state="superseded",
        patch=patch,
        verdict=verdict,
        branch="qigheal/attention-0123456789abcdef",
        target=text or "main",
        opened_at=1.0,
        merge_commit="cd" * 20,
        reason=text,
    )


def outside_code(markdown: str) -> str:
    """What of a text is no code, by CommonMark's rules for fences and spans."""
    kept, fence = [], ""
    for line in markdown.split("\n"):
        marks = re.match(r" {0,3}(`{3,}|~{3,})(.*)$", line)
        if fence:
            if marks and marks[1].startswith(fence) and not marks[2].strip():
                fence = ""
            continue
        if marks and "`" not in marks[2]:
            fence = marks[1]
            continue
        kept.append(line)
    assert not fence, "a fence was left open"
    text = "\n".join(kept)
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", text, flags=re.DOTALL)


def texts(one: Change, seen: str) -> list[str]:
    return [body.request(one, seen), body.revert(one), body.farewell(one)]


def dead(one: Change, seen: str) -> None:
    for text in texts(one, seen):
        assert not LIVE.search(outside_code(text)), LIVE.search(outside_code(text))
        assert all(c.isprintable() or c in "\n\t" for c in text)
        assert len(text.encode("utf-16-le")) // 2 <= 65_536


def test_what_an_attacker_writes_stays_dead() -> None:
    dead(change(ATTACK, diff=DIFF + "+" + ATTACK), ATTACK)


@given(st.text(alphabet=st.sampled_from("`~@#1a|<>\\ \n\r\t\u202e\u0000\U000e0041Φ"), max_size=60))
def test_no_text_breaks_out(text: str) -> None:
    dead(change(text, diff=f"+{text}"), text)


def test_what_is_not_told_is_still_shown() -> None:
    text = body.request(change(ATTACK), ATTACK)
    assert "\\u202e" in text
    assert "\\u001b[31m" in text
    assert "@everyone see #1" in text


@pytest.mark.parametrize("filler", ["x", "``x", "\U0001f600", "\u202e", "x\n"])
def test_long_texts_are_cut_and_say_so(filler: str) -> None:
    one = change(filler * 9_000, diff="+" + filler * 200_000)
    dead(one, filler * 100_000)
    text = body.request(one, filler * 100_000)
    assert "The diff is cut here" in text
    assert f"<sub>Change `{one.id}`</sub>" in text
    assert "**Reject**" in text


def test_a_fence_does_not_fill_the_page() -> None:
    one = change("`" * 9_000, diff="+" + "`" * 200_000)
    dead(one, "`" * 100_000)
    assert "`…" in body.request(one, "`" * 100_000)


def test_the_proof_is_a_table() -> None:
    text = body.request(change(), "seen")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "| fitness | 0.900 | 0.800 to 0.950 | lower bound above the threshold | accepted |" in rows
    assert "| guard `plain` | +0.001 | -0.01 to +0.012 | under 0.03 | pass |" in rows


def test_a_patch_without_a_trial_says_so() -> None:
    text = body.request(change(verdict=None), "")
    assert "without a trial" in text
    assert "nothing was diagnosed" in text


def test_labels_fit() -> None:
    for label in body.labels(change(ATTACK * 3)):
        assert len(label) <= 50
        assert label.isprintable()
    assert body.labels(change("attention")) == ("qigheal", "strategy: attention", "tier: safe")


@pytest.mark.parametrize("message", [messages.opening, messages.merging, messages.reverting])
def test_messages_of_commits_call_nobody_and_close_nothing(message: object) -> None:
    assert callable(message)
    text = message(replace(change(ATTACK), reviewer="Ada <ada@example.org> @octocat"))
    assert not re.search(r"(?<!\w)@\w|#\d|GH-\d|://", text)


def test_an_address_of_a_reviewer_stays_whole() -> None:
    assert "ada@example.org" in messages.merging(replace(change(), reviewer="Ada <ada@example.org>"))
