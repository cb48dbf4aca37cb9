"""What a cache says of itself: a bound changes it, so a program that uses it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from qigheal.healing.strategies.bounding.repeatable import Unproven
from tests.heal.test_memory import bound

CODE = """
    import logging
    from functools import cache

    log = logging.getLogger(__name__)
    other = print


    @cache
    def f(x):
        return x * 2


    def g(x, sink=None):
        {use}
        return f(x)
"""


@pytest.mark.parametrize(
    "use",
    [
        "f.cache_info()",
        "f.cache_clear()",
        "f.cache_info().currsize",
        "log.info('cache: %s', f.cache_info())",
        "log.debug(f'{f.cache_info().hits} found')",
        "logging.warning('%d', f.cache_info().currsize)",
        "log.info('%s', f.cache_parameters())",
    ],
)
def test_what_only_a_log_gets_does_not_count(tmp_path: Path, use: str) -> None:
    assert bound(tmp_path, "lru_cache", "f", CODE.format(use=use)).tier == "safe"


@pytest.mark.parametrize(
    "use",
    [
        "return f.cache_info().currsize",
        "n = f.cache_info()",
        "print(f.cache_info())",
        "sink.info(f.cache_info())",
        "other.info(f.cache_info())",
        "log.info('%s', sink(f.cache_info()))",
        "log.info('%s', n := f.cache_info())",
        "log.info('%s', extra=f.cache_info())",
        "log.append(f.cache_info())",
        "return log.info(f.cache_info())",
        "sink(f.cache_info)",
        "if f.cache_info().currsize > 9: f.cache_clear()",
        "x = f.cache_parameters()['maxsize']",
        "log = sink; log.info(f.cache_info())",
    ],
)
def test_what_the_program_may_use_ends_the_proof(tmp_path: Path, use: str) -> None:
    with pytest.raises(Unproven, match=r"uses what f.cache_\w+ says"):
        bound(tmp_path, "lru_cache", "f", CODE.format(use=use))


def test_a_logger_that_an_argument_hides_is_none(tmp_path: Path) -> None:
    code = CODE.replace("sink=None", "log=None").format(use="log.info(f.cache_info())")
    with pytest.raises(Unproven, match="uses what"):
        bound(tmp_path, "lru_cache", "f", code)
