"""Which calls through an object's attribute are taken for calls of a declared method, and why others are not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from qigheal.healing.strategies.repeating.callsites import CallSite, Source, call_sites, callees, unrecognised
from qigheal.healing.strategies.repeating.definitions import Definitions

UPSTREAM = """
    from typing import Protocol

    class Gateway:
        timeout = 3

        def quote(self, symbol: str, timeout=2.0):
            return symbol

        @property
        def price(self):
            return len

    class Mirror(Gateway):
        pass

    class Quotes(Protocol):
        def quote(self, symbol: str) -> str: ...

    class Other:
        def quote(self, symbol: str):
            return symbol

    class Base:
        def quote(self, symbol: str):
            return symbol

    class Declared(Base):
        def quote(self, symbol: str):
            return symbol

    class Undeclared(Base):
        def quote(self, symbol: str):
            return symbol

    class Counted:
        def __new__(cls):
            return Other()

        def quote(self, symbol: str):
            return symbol
    """
DECLARED = (
    "gw.upstream:Gateway.quote",
    "gw.upstream:Gateway.price",
    "gw.upstream:Base.quote",
    "gw.upstream:Declared.quote",
    "gw.upstream:Counted.quote",
    "gw.upstream:Gateway.gone",
)
DESK = """
    import abc
    from dataclasses import dataclass, field
    from typing import TYPE_CHECKING, Annotated, Optional

    import web
    from gw import upstream
    from gw.upstream import Base, Counted, Gateway, Mirror, Other, Quotes, Undeclared

    if TYPE_CHECKING:
        from gw.upstream import Gateway as Typed

    class Desk:
        def __init__(self, given):
            {made}

        def value(self, key: str):
            return self.gateway.quote(key)
    """
QUOTE = "gw.upstream:Gateway.quote"


class Code:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("gw/__init__.py", "")
        self.put("gw/upstream.py", UPSTREAM)

    def put(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(textwrap.dedent(text))

    def sites(self, text: str) -> list[CallSite]:
        self.put("gw/desk.py", text)
        self.definitions = Definitions(self.folder)
        self.source = Source("gw/desk.py", (self.folder / "gw/desk.py").read_bytes())
        self.declared = callees(DECLARED, self.definitions)
        return call_sites(self.source, self.declared, self.definitions, ("OSError",), range(1, 200))

    def why(self, text: str, name: str = QUOTE, call: str = "self.gateway.quote(key)") -> str:
        assert self.sites(text) == []
        lines = [n for n, line in enumerate(textwrap.dedent(text).splitlines(), 1) if call in line]
        return unrecognised(self.source, self.declared, self.definitions, name, lines[-1])


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


def desk(made: str = "self.gateway = Gateway()", given: str = "given", more: str = "") -> str:
    text = textwrap.dedent(DESK).replace("given):", f"{given}):").format(made=made)
    return f"{text}\n{textwrap.dedent(more)}"


IN_CLASS = """
    {decorator}
    class Shop{bases}:
        {field}

        def value(self, key: str):
            return self.gateway.quote(key)
    """


def shop(field: str, decorator: str = "", bases: str = "") -> str:
    return desk("pass", more=IN_CLASS.format(field=field, decorator=decorator, bases=bases)).replace(
        "            return self.gateway.quote(key)\n\n\n", "            return key\n\n\n", 1
    )


@pytest.mark.parametrize(
    ("made", "given"),
    [
        ("self.gateway = Gateway()", "given"),
        ("self.gateway = upstream.Gateway()", "given"),
        ("self.gateway: Gateway = Gateway()", "given"),
        ("self.gateway = Mirror()", "given"),
        ("self.gateway = Gateway() if given else Mirror()", "given"),
        ("self.gateway = given", "given: Gateway"),
        ("self.gateway = given", "given: 'Gateway'"),
        ("self.gateway = given", "given: upstream.Gateway"),
        ("self.gateway = given", "given: Typed"),
        ("self.gateway = given", "given: Annotated[Gateway, web.Depends(3)]"),
        ("self.gateway = given or Gateway()", "given: Gateway | None = None"),
        ("self.gateway = given or Gateway()", "given: Optional[Gateway] = None"),
    ],
)
def test_a_method_of_an_attribute_whose_class_is_in_plain_sight(code: Code, made: str, given: str) -> None:
    [site] = code.sites(desk(made, given))
    assert (site.callee.name, site.refused, site.alone) == (QUOTE, "", True)


@pytest.mark.parametrize(
    ("field", "decorator"),
    [
        ("gateway = Gateway()", ""),
        ("gateway: Gateway = Gateway()", ""),
        ("gateway: Gateway", "@dataclass"),
        ("gateway: Gateway = field(default_factory=Gateway)", "@dataclass(frozen=True)"),
    ],
)
def test_an_attribute_of_the_class(code: Code, field: str, decorator: str) -> None:
    [site] = code.sites(shop(field, decorator))
    assert (site.callee.name, site.refused) == (QUOTE, "")


def test_an_attribute_that_is_set_later(code: Code) -> None:
    text = desk("self.gateway = None").replace(
        "    def value", "    def open(self):\n        self.gateway = Gateway()\n\n    def value"
    )
    assert len(code.sites(text)) == 1
    assert "not in plain sight" in code.why(
        text.replace("self.gateway = Gateway()", "self.gateway = self.made[0]")
    )


def test_heirs_of_what_an_argument_is_said_to_be_count(code: Code) -> None:
    assert "Undeclared.quote, which is not declared" in code.why(desk("self.gateway = given", "given: Base"))
    code.put("gw/upstream.py", UPSTREAM.replace("class Undeclared(Base)", "class Undeclared"))
    sites = code.sites(desk("self.gateway = given", "given: Base"))
    assert [site.callee.name for site in sites] == ["gw.upstream:Base.quote", "gw.upstream:Declared.quote"]
    assert not any(site.alone for site in sites)
    code.put("gw/late.py", "from gw.upstream import Base as B\nclass Late(B):\n    quote = len\n")
    assert "Late.quote is no single function" in code.why(desk("self.gateway = given", "given: Base"))


def test_an_heir_of_what_is_made_on_the_spot_does_not_count(code: Code) -> None:
    code.put(
        "gw/late.py", "from gw.upstream import Gateway\nclass Late(Gateway):\n    def quote(self, x): ...\n"
    )
    assert len(code.sites(desk())) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (desk("self.gateway = given"), "no annotation with a class"),
        (desk("self.gateway = given", "given: object"), "is no class of the repository"),
        (desk("self.gateway = given", "given: web.Client"), "web.Client is no class of the repository"),
        (desk("self.gateway = given", "given: Quotes"), "Quotes is a Protocol"),
        (desk("self.gateway = given", "given: list[Gateway]"), "no annotation with a class"),
        (desk("given = 3; self.gateway = given", "given: Gateway"), "no annotation with a class"),
        (desk("self.gateway = web.connect()"), "web.connect is no class"),
        (desk("self.gateway = Gateway().mirror()"), "is no class of the repository"),
        (desk("self.gateway = Other()"), "Other.quote, which is not declared"),
        (desk("self.gateway = given and Other() or Gateway()"), "says what given is"),
        (desk("self.gateway = Counted()"), "Counted decides itself"),
        (desk("self.gateway, self.x = Gateway(), 3"), "in another way than by a plain assignment"),
        (desk("pass"), "nothing in the repository sets Desk.gateway"),
        (desk("Gateway = given; self.gateway = Gateway()"), "not in plain sight"),
        (desk("self.gateway = Gateway()", "Gateway"), "not in plain sight"),
        (desk(more="def swap(desk):\n    desk.gateway = Other()"), "sets gateway of something"),
        (desk(more="def swap(desk):\n    setattr(desk, 'gateway', Other())"), "may set gateway"),
        (desk(more="def swap(desk, k):\n    setattr(desk, k, Other())"), "may set gateway"),
        (desk(more="def swap(desk):\n    desk.__dict__['x'] = Other()"), "may set gateway"),
        (desk(more="def swap(gateway):\n    gateway.quote = len"), "in the place of quote"),
        (desk(more="class Late(Desk):\n    def open(self):\n        self.gateway = Other()"), "Other.quote"),
        (desk(more="class Late(Desk):\n    gateway = Other()"), "Other.quote"),
        (desk(more="class Late(Desk):\n    @property\n    def gateway(self):\n        return 3"), "something else"),
        (shop("gateway = Gateway()", bases="(web.View)"), "View, above Shop, may set it"),
        (shop("gateway = Gateway()", decorator="@web.service"), "Shop is made by a decorator"),
        (shop("gateway: Gateway = web.default()"), "web.default is no class"),
        (shop("gateway: web.Client = field(default_factory=Gateway)", "@dataclass"), "web.Client is no class"),
        (desk().replace("def value(self,", "def value(me, self,"), "no attribute of the object whose method"),
        (desk().replace("def value(self, key: str):", "def value(self, key: str):\n        self = key"),
         "no attribute of the object whose method"),
        (desk().replace("    def value", "    @classmethod\n    def value"), "no attribute of the object"),
    ],
)  # fmt: skip
def test_what_is_called_cannot_be_told(code: Code, text: str, why: str) -> None:
    code.put("gw/upstream.py", UPSTREAM)
    assert why in code.why(text)


@pytest.mark.parametrize(
    ("body", "call", "why"),
    [
        ("gateway = self.gateway\n        return gateway.quote(key)", "gateway.quote(key)", "in plain sight"),
        ("return self.a.gateway.quote(key)", ".gateway.quote(key)", "no attribute of the object"),
        (
            "ask = self.gateway.quote\n        return ask(key)",
            "ask(key)",
            "no call on that line has its name",
        ),
    ],
)
def test_other_shapes_are_named(code: Code, body: str, call: str, why: str) -> None:
    text = desk().replace("return self.gateway.quote(key)", body)
    assert why in code.why(text, call=call)


def test_a_property_is_no_method(code: Code) -> None:
    text = desk().replace("self.gateway.quote(key)", "self.gateway.price(key)")
    why = code.why(text, "gw.upstream:Gateway.price", "self.gateway.price(key)")
    assert "Gateway.price is a property" in why


def test_a_declaration_that_names_nothing(code: Code) -> None:
    assert "cannot be told" in code.why(desk("self.gateway = given"), "gw.upstream:Gateway.gone")


def test_an_attribute_of_another_class_of_the_same_name_does_not_matter(code: Code) -> None:
    more = """
        class Stand:
            def __init__(self, given):
                self.gateway = given
                setattr(self, given, 3)

        SETTINGS = {"gateway": 3}
        """
    assert len(code.sites(desk(more=more))) == 1


SETS_ITSELF = """
    class Root:
        def fill(self, values):
            for name, value in values:
                setattr(self, name, value)

    """


def test_an_object_whose_class_sets_names_that_are_worked_out(code: Code) -> None:
    upstream = textwrap.dedent(SETS_ITSELF) + textwrap.dedent(UPSTREAM)
    code.put("gw/upstream.py", upstream)
    assert len(code.sites(desk())) == 1
    code.put("gw/upstream.py", upstream.replace("class Gateway:", "class Gateway(Root):"))
    assert "may set quote" in code.why(desk())
    code.put("gw/upstream.py", UPSTREAM)
    above = textwrap.dedent(SETS_ITSELF) + "\nclass Desk:"
    assert len(code.sites(desk().replace("class Desk:", above))) == 1
    assert "may set gateway" in code.why(desk().replace("class Desk:", above.replace("Desk:", "Desk(Root):")))


def test_a_file_that_cannot_be_read_may_set_it(code: Code) -> None:
    code.put("gw/broken.py", "def f(:\n    desk.gateway = 3\n")
    assert "broken.py may set gateway" in code.why(desk())
