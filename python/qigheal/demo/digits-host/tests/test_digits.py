"""Tests of the mechanics. None depends on how the temperature is tuned."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from digits import deploy, probe
from digits.data import CLUSTERS, Recorded, load
from digits.model import DIGITS, Model, configured

TEMPERATURES = (0.05, 0.85, 5.0, 20.0)


def by_hand(recorded: Recorded, image: list[float], temperature: float) -> tuple[float, float, list[float]]:
    """Φ, κ and basin of one request, straight from the definition and without numpy's shortcuts."""
    keys = recorded.keys.tolist()
    squares = [math.fsum((a - b) ** 2 for a, b in zip(image, key, strict=True)) for key in keys]
    nearest = min(squares)
    raw = [math.exp((nearest - square) / temperature) for square in squares]
    weights = [value / math.fsum(raw) for value in raw]
    posterior, basin = [0.0] * DIGITS, [0.0] * CLUSTERS
    for weight, label, cluster in zip(weights, recorded.key_labels, recorded.key_clusters, strict=True):
        posterior[label] += weight
        basin[cluster] += weight

    def entropy(shares: list[float]) -> float:
        return -math.fsum(share * math.log(share) for share in shares if share > 0)

    return 1 - entropy(posterior) / math.log(DIGITS), math.exp(entropy(weights)), basin


class Data(unittest.TestCase):
    def test_keys_and_requests_hold_every_digit_and_no_image_twice(self) -> None:
        recorded = load()
        self.assertEqual(set(recorded.key_labels), set(range(DIGITS)))
        self.assertEqual(set(recorded.request_labels), set(range(DIGITS)))
        self.assertEqual(set(recorded.key_clusters), set(range(CLUSTERS)))
        self.assertFalse({key.tobytes() for key in recorded.keys} & {r.tobytes() for r in recorded.requests})
        self.assertGreaterEqual(recorded.requests.min(), 0.0)
        self.assertLessEqual(recorded.requests.max(), 1.0)

    def test_the_same_question_draws_the_same_requests(self) -> None:
        recorded = load()
        np.testing.assert_array_equal(recorded.draw(1, 2), recorded.draw(1, 2))
        self.assertTrue((recorded.draw(1, 2) != recorded.draw(1, 3)).any())
        self.assertTrue((recorded.draw(1, 2) != recorded.draw(2, 2)).any())


class Attention(unittest.TestCase):
    recorded: Recorded

    @classmethod
    def setUpClass(cls) -> None:
        cls.recorded = load()

    def test_agrees_with_the_definition(self) -> None:
        images = self.recorded.requests[:2]
        for temperature in TEMPERATURES:
            with self.subTest(temperature=temperature):
                response = Model(self.recorded, temperature).respond(images)
                by_image = [by_hand(self.recorded, image, temperature) for image in images.tolist()]
                phi, kappa, basin = (np.mean(values, axis=0) for values in zip(*by_image, strict=True))
                self.assertAlmostEqual(response.phi, phi, places=4)
                np.testing.assert_allclose(response.kappa, kappa, rtol=1e-4)
                np.testing.assert_allclose(response.basin, basin, atol=1e-5)

    def test_recognises_digits(self) -> None:
        answers = Model(self.recorded, 0.5).respond(self.recorded.requests).labels
        self.assertGreater((answers == self.recorded.request_labels).mean(), 0.95)

    def test_a_request_is_answered_alike_alone_and_in_a_batch(self) -> None:
        model = configured(self.recorded)
        together = model.respond(self.recorded.requests[:20]).labels
        alone = [model.respond(self.recorded.requests[i : i + 1]).labels[0] for i in range(20)]
        np.testing.assert_array_equal(together, alone)

    def test_warmer_attends_to_more_and_is_less_certain(self) -> None:
        responses = [Model(self.recorded, t).respond(self.recorded.requests) for t in TEMPERATURES]
        self.assertEqual(sorted(r.kappa for r in responses), [r.kappa for r in responses])
        self.assertEqual(sorted((r.phi for r in responses), reverse=True), [r.phi for r in responses])

    def test_refuses_a_temperature_that_means_nothing(self) -> None:
        for temperature in (0.0, -1.0, math.nan, math.inf):
            with self.subTest(temperature=temperature), self.assertRaisesRegex(ValueError, "temperature"):
                Model(self.recorded, temperature)


class Probe(unittest.TestCase):
    def test_answers_each_question_with_one_line(self) -> None:
        answers = io.StringIO()
        probe.run([f'{{"batch": {batch}, "seed": 123}}\n' for batch in (7, 8, 7)], answers)
        first, second, again = (json.loads(line) for line in answers.getvalue().splitlines())
        self.assertEqual([first["batch"], second["batch"], again["batch"]], [7, 8, 7])
        self.assertTrue(0 <= first["phi"] <= 1)
        self.assertTrue(1 <= first["kappa_eff"] <= 1200)
        self.assertEqual(len(first["basin_coords"]), CLUSTERS)
        self.assertAlmostEqual(sum(first["basin_coords"]), 1.0, places=5)
        del first["avg_latency_ms"], again["avg_latency_ms"]
        self.assertEqual(first, again)
        self.assertNotEqual(first["output_digest"], second["output_digest"])


class Deploy(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.pid_file = Path(folder.name) / "service.pid"
        self.enterContext(mock.patch.dict(os.environ, DIGITS_PID=str(self.pid_file)))
        self.said = self.enterContext(mock.patch.object(sys, "stdout", io.StringIO()))

    def test_says_so_when_no_service_runs(self) -> None:
        self.assertEqual(deploy.main(), 0)
        self.assertIn("no service runs", self.said.getvalue())

    def test_leaves_another_program_alone(self) -> None:
        self.pid_file.write_text(str(os.getpid()))
        self.assertEqual(deploy.main(), 0)
        self.assertIn("no service runs", self.said.getvalue())


if __name__ == "__main__":
    unittest.main()
