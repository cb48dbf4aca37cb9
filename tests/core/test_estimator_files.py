"""What an estimator is, and is not any more once anything about it changed."""

import contextlib
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qigcore.errors import EstimatorError
from qigcore.estimators import ClassEstimator, EmbeddingEstimator, EventEstimator, StateEstimator


def embeddings(seed=0, n=60, dim=6):
    return np.random.default_rng(seed).normal(size=(n, dim))


MAKERS = {
    "class": lambda: (ClassEstimator(10, seed=3), np.random.default_rng(0).dirichlet(np.ones(10), 30)),
    "event": lambda: (EventEstimator(("a", "Φ", ""), memory=20), ["a", "b", "Φ", "", "a"]),
    "state": lambda: (StateEstimator(6, refresh=3), embeddings()),
    "embedding": lambda: (EmbeddingEstimator.fit(embeddings(), centroids=5), embeddings(1)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_loaded_reads_as_what_was_saved_to_the_bit(kind, tmp_path):
    estimator, requests = MAKERS[kind]()
    path = tmp_path / "estimator.json"
    estimator.update_many(requests)
    estimator.save(path)
    loaded = type(estimator).load(path)
    assert loaded.definition == estimator.definition
    assert loaded.identity == estimator.identity == f"{kind}-{estimator.fingerprint[:12]}"
    assert loaded.count == 0  # averages are no part of it
    expected = MAKERS[kind]()[0].update_many(requests)
    found = loaded.update_many(requests)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.json", "estimator.json"]


@settings(max_examples=30)
@given(
    st.none() | st.lists(st.text(), min_size=1, max_size=5, unique=True),
    st.integers(1, 10**9),
    st.integers(2, 100),
    st.integers(0, 2**64 - 1),
)
def test_any_definition_survives_its_file(tmp_path_factory, vocabulary, memory, dim, seed):
    if vocabulary and any("\ud800" <= letter <= "\udfff" for word in vocabulary for letter in word):
        return
    path = tmp_path_factory.mktemp("files") / "estimator.json"
    estimator = EventEstimator(vocabulary, memory=memory, dim=dim, seed=seed)
    estimator.save(path)
    assert EventEstimator.load(path).definition == estimator.definition


def test_anything_else_is_another_version():
    rows = embeddings()
    estimators = [
        ClassEstimator(10),
        ClassEstimator(11),
        ClassEstimator(10, memory=499),
        ClassEstimator(10, seed=1),
        ClassEstimator(10, dim=32),
        ClassEstimator(10, inputs="logits"),
        StateEstimator(10),
        EventEstimator(),
        EventEstimator(("a", "b")),
        EventEstimator(("b", "a")),
        EmbeddingEstimator.fit(rows, centroids=5),
        EmbeddingEstimator.fit(rows, centroids=5, seed=1),
        EmbeddingEstimator.fit(rows[1:], centroids=5),
    ]
    assert len({each.fingerprint for each in estimators}) == len(estimators)
    assert ClassEstimator(10, on_invalid="raise").fingerprint == ClassEstimator(10).fingerprint


def test_fingerprints_of_old_definitions_stay():
    assert ClassEstimator(10).identity == "class-c4ad5176c4d2"
    assert EventEstimator(("a", "b"), memory=20).identity == "event-a3eba199a842"
    assert StateEstimator(6).identity == "state-a4701d7cdd4d"


def test_a_definition_does_not_change():
    estimator = EmbeddingEstimator.fit(embeddings(), centroids=5)
    with pytest.raises(AttributeError):
        estimator.definition.temperature = 1.0
    with pytest.raises(ValueError, match="read-only"):
        estimator.definition.rows[0, 0] = 1.0


def changed(path, **fields):
    document = json.loads(path.read_text())
    document["definition"].update(fields)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": 0.5}, "changed after it was written"),
        ({"memory": 100}, "changed after it was written"),
        ({"memory": 0}, "memory: expected 1"),
        ({"memory": "many"}, "Expected `int`"),
        ({"centroids": "AAAA"}, "centroids: expected 5 of 6 float32, got 3 bytes"),
        ({"start": [0.5, 0.5]}, "centroids: expected 2 of"),
        ({"start": [2.0, -1.0, 0.0, 0.0, 0.0]}, "shares of at least 0"),
        ({"surplus": 1}, "unknown field"),
        ({"kind": "event"}, "of kind 'embedding', got 'event'"),
    ],
)
def test_a_file_that_was_changed_is_refused(fields, said, tmp_path):
    path = tmp_path / "estimator.json"
    EmbeddingEstimator.fit(embeddings(), centroids=5).save(path)
    changed(path, **fields)
    with pytest.raises(EstimatorError, match=said) as caught:
        EmbeddingEstimator.load(path)
    assert str(path) in str(caught.value)
    assert "relearn the baseline" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b"\xff", b'{"format": 2, "fingerprint": "", "definition": {}}', b"[" * 10_000],
)
def test_a_file_that_is_none_is_refused(data, tmp_path):
    path = tmp_path / "estimator.json"
    path.write_bytes(data)
    with pytest.raises(EstimatorError):
        ClassEstimator.load(path)


def test_no_file_is_an_error_that_says_so(tmp_path):
    with pytest.raises(EstimatorError, match="No such file"):
        ClassEstimator.load(tmp_path / "missing.json")


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "estimator.json"
    estimator = EmbeddingEstimator.fit(embeddings(), centroids=5)
    estimator.save(path)
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, 2):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        # Harmless are digits beyond those that a float has, and bits behind the last byte of the base64.
        with contextlib.suppress(EstimatorError):
            assert EmbeddingEstimator.load(path).definition == estimator.definition


def test_an_existing_file_is_kept_where_asked(tmp_path):
    path = tmp_path / "estimator.json"
    ClassEstimator(10).save(path)
    with pytest.raises(FileExistsError):
        ClassEstimator(11).save(path, replace=False)
    assert ClassEstimator.load(path).definition.classes == 10
    assert os.listdir(tmp_path) == ["estimator.json"]
