"""What the tests of the web interface share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qigheal.api import Api
from tests.web.serving import FRAMEWORKS, Framework, Web, access

Make = Callable[..., Web]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    found: Framework = request.param
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a store is or may come to be."""
    return tmp_path / "store"


@pytest.fixture
def serve(framework: Framework, store: Path) -> Iterator[Make]:
    """An application over `store`; what it is given goes to `Api`, `authorize` to the adapter."""
    made: list[Api] = []

    def serve(authorize: Any = None, **options: Any) -> Web:
        api = Api(store, **{"access": access()} | options)
        made.append(api)
        return Web(framework, api, authorize)

    yield serve
    for api in made:
        api.close()


@pytest.fixture
def web(serve: Make) -> Web:
    return serve()
