"""What a change takes away that may refuse requests rightly is found in its text, wherever it has gone."""

from __future__ import annotations

import pytest

from qigheal.healing.loosening import loosened

CORE = '''
import pay

@pay.idempotent
def fee(amount: Positive, user=None):
    """The fee of an amount."""
    if amount <= 0:
        raise InvalidAmount(amount)
    assert user, "nobody"
    verifySignature(user)
    audit(user)
    if user in BANNED:
        return None
    with pay.deadline(2):
        amount = convert(amount)
    match user:
        case "guest":
            return 0
    seen = [each for each in user.papers if user in each.readers]
    share = amount if user.known else None
    good = share and nonce not in SEEN
    fee = yaml.safe_load(min(share, good))
    return round(amount * 0.029, 2)
'''


def gone(old: str, new: str = "", *, errors: bool = False, text: str = CORE) -> tuple[str, ...]:
    assert old in text
    return loosened({"app/core.py": (text, text.replace(old, new))}, errors=errors)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("raise InvalidAmount(amount)", "pass", ":8: raise InvalidAmount(amount) under if amount <= 0"),
        ("amount <= 0", "amount < -5", ":8: raise InvalidAmount(amount) under if amount <= 0"),
        ('    assert user, "nobody"\n', "", ":9: assert user, 'nobody'"),
        ("    verifySignature(user)\n", "", ":10: the call verifySignature(user)"),
        ("    if user in BANNED:\n        return None\n", "", "the branch if user in BANNED"),
        ('case "guest"', 'case "nobody"', "the branch case 'guest'"),
        (" if user in each.readers", "", "the condition user in each.readers"),
        ("amount if user.known else None", "amount", "the condition user.known"),
        ("share and nonce not in SEEN", "share", "the condition share and nonce not in SEEN"),
        ("yaml.safe_load", "yaml.load", "the call yaml.safe_load("),
    ],
)
def test_a_check_that_goes_is_named_whatever_is_healed(old: str, new: str, named: str) -> None:
    for errors in (True, False):
        assert any(named in reason for reason in gone(old, new, errors=errors))
    assert all(reason.endswith("is taken away") for reason in gone(old, new))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("    audit(user)\n", "", "the call audit(user)"),
        ("@pay.idempotent\n", "", "the decorator pay.idempotent"),
        (": Positive", "", "the annotation amount: Positive"),
        ("with pay.deadline(2):", "if True:", "the with pay.deadline(2)"),
    ],
)
def test_whatever_may_refuse_counts_where_errors_are_healed(old: str, new: str, named: str) -> None:
    assert any(named in reason for reason in gone(old, new, errors=True))
    assert gone(old, new) == ()


def test_what_only_moves_is_not_taken_away() -> None:
    text = "def f(x):\n    if x < 0:\n        raise ValueError(x)\n    return x\n"
    moved = "def g(x):\n    if x < 0:\n        raise ValueError(x)\n"
    rest = "from app.b import g\n\n\ndef f(x):\n    g(x)\n    return x\n"
    assert loosened({"a.py": (text, rest), "b.py": ("", moved)}, errors=True) == ()
    assert len(loosened({"a.py": (text + moved, text)}, errors=False)) == 1  # one of two


def test_a_check_that_goes_with_its_function_or_its_file_is_named() -> None:
    check = "def check(x):\n    if x < 0:\n        raise ValueError(x)\n\n\n"
    use = "def f(x):\n    check(x)\n    return x\n"
    found = loosened({"a.py": (check + use, "def f(x):\n    return x\n")}, errors=False)
    assert [reason.split(": ")[1].split(" is")[0] for reason in found] == [
        "raise ValueError(x) under if x < 0",
        "the call check(x)",
    ]
    assert loosened({"a.py": (check, "")}, errors=False) == found[:1]


def test_a_check_with_fewer_or_other_conditions_is_another_one() -> None:
    text = (
        "if a:\n    raise E\nelse:\n    raise F\ntry:\n    g()\nexcept K as error:\n    raise E from error\n"
    )
    for old, new in (
        ('for n in ("a", "b")', 'for n in ("a",)'),
        ("case n if n > 7", "case n if n > 70"),
    ):
        several = 'for n in ("a", "b"):\n    raise E\nmatch m:\n    case n if n > 7:\n        raise F\n'
        assert gone(old, new, text=several)
    for old, new in (("if a", "if a and b"), ("except K as", "except L as")):
        assert gone(old, new, text=text)
    assert len(gone("if a:", "if not a:", text=text)) == 2


def test_what_adds_checks_or_changes_what_is_computed_takes_nothing_away() -> None:
    assert gone("amount * 0.029", "amount * 0.03", errors=True) == ()
    assert gone("    return round", "    if amount > 9:\n        raise InvalidAmount\n    return round") == ()


def test_what_cannot_be_read_is_for_a_person() -> None:
    assert loosened({"a.toml": ("", "")}, errors=True) == ("a.toml: a file that is no Python changes",)
    assert loosened({"a.toml": ("", "")}, errors=False) == ()
    assert loosened({"a.py": ("def (", "x = 1\n")}, errors=False) == ("a.py: this Python cannot read it",)
    deep = f"x = {'-' * 100_000}1\n"
    assert loosened({"a.py": (deep, "x = 1\n")}, errors=False) == ("a.py: this Python cannot read it",)
    assert loosened({"a.py": ("x = 1\0", "x = 1\n")}, errors=False) == ("a.py: this Python cannot read it",)
