"""The row layout is a file format: what is here may grow and never change."""

from __future__ import annotations

import numpy as np
import pytest

from qigcore.rows import BIT, HEAD, METRICS, REPAIRABLE, Batch


def rows(count: int, code: int, names: tuple[str, ...]) -> Batch:
    heads = np.zeros(count, HEAD)
    heads["code"] = code
    heads["phi"] = np.arange(count)
    return Batch.of_rows(heads, np.ones((count, 64)), names)


def test_layout_is_frozen() -> None:
    assert HEAD.itemsize == 88
    assert {name: HEAD.fields[name][1] for name in HEAD.names} == {  # type: ignore[index,union-attr]
        "timestamp": 0, "phi": 8, "kappa_eff": 16, "basin_drift": 24, "error_rate": 32, "avg_latency_ms": 40,
        "memory_mb": 48, "confidence": 56, "surprise": 64, "agency": 72, "repaired": 80, "regime": 82,
        "reserved": 83, "code": 84, "module": 86,
    }  # fmt: skip
    assert REPAIRABLE[:3] == ("phi", "kappa_eff", "basin_coords")
    assert BIT["phi"] == 1
    assert BIT["agency"] == 256


def test_concat_unites_the_tables_of_names() -> None:
    both = Batch.concat([rows(2, 1, ("", "aaa")), rows(1, 2, ("", "zzz", "bbb"))])
    assert both.code_hash.tolist() == ["aaa", "aaa", "bbb"]
    assert len(both) == 3


def test_concat_of_nothing_is_empty() -> None:
    assert len(Batch.concat([])) == 0
    assert Batch.concat([Batch.empty()]).basin_coords.shape == (0, 64)


def test_repaired_values_are_left_out() -> None:
    batch = rows(4, 0, ("",))
    batch.repaired[1] = BIT["phi"]
    batch.repaired[2] = BIT["kappa_eff"]
    assert batch.values("phi").tolist() == [0.0, 2.0, 3.0]
    assert batch.good("basin_drift").all()


def test_heads_give_back_the_columns() -> None:
    batch = rows(5, 0, ("",))
    heads = batch.heads()
    assert heads["phi"].tolist() == [0, 1, 2, 3, 4]
    heads["phi"][0] = 9
    assert batch.phi[0] == 0


def test_missing_columns_and_uneven_ones_are_named() -> None:
    with pytest.raises(AttributeError, match="basin_coords"):
        _ = Batch({"phi": np.zeros(2)}).basin_coords
    with pytest.raises(ValueError, match="one length"):
        Batch({"phi": np.zeros(2), "kappa_eff": np.zeros(3)})


def test_every_metric_has_a_column() -> None:
    assert set(METRICS.values()) <= set(HEAD.names or ())
