"""A host that attends: the files that cases on Φ, κ and basin share.

A request is a point; it attends to sixty remembered points, which carry ten labels and lie in twelve groups.
Φ says how certain the labels are, κ how many points were attended to, the basin how much each group was.
`app/service.py` is the case's own: `attention(query)` gives the weights.
"""

from __future__ import annotations

MEMORY = '''"""What the service remembers."""

import math
import random

_draw = random.Random(11)
KEYS = [[_draw.gauss(0, 1) for _ in range(6)] for _ in range(60)]
LABELS = [number % 10 for number in range(60)]
GROUPS = [number % 12 for number in range(60)]


def distances(query):
    return [sum((a - b) ** 2 for a, b in zip(query, key)) for key in KEYS]


def softmax(scores):
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    whole = sum(weights)
    return [weight / whole for weight in weights]
'''

PROBE = '''"""Answers each question with how the service attended to that batch of recorded requests."""

import hashlib
import json
import math
import random
import sys

from app import memory, service

REQUESTS = 24


def entropy(weights):
    return -sum(w * math.log(w) for w in weights if w > 0)


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        draw = random.Random(f"{asked['seed']}/{asked['batch']}")
        phi = kappa = 0.0
        basin, outputs = [0.0] * 12, []
        for _ in range(REQUESTS):
            near = draw.choice(memory.KEYS)
            weights = service.attention([x + draw.gauss(0, 0.3) for x in near])
            labels = [0.0] * 10
            for weight, label, group in zip(weights, memory.LABELS, memory.GROUPS):
                labels[label] += weight
                basin[group] += weight
            phi += (1 - entropy(labels) / math.log(10)) / REQUESTS
            kappa += math.exp(entropy(weights)) / REQUESTS
            outputs.append(max(range(10), key=labels.__getitem__))
        answer = {
            "batch": asked["batch"],
            "phi": min(1.0, max(0.0, phi)),
            "kappa_eff": kappa,
            "basin_coords": basin,
            "output_digest": hashlib.sha256(repr(outputs).encode()).hexdigest(),
        }
        print(json.dumps(answer), flush=True)


main()
'''

TESTS = """import unittest

from app import memory, service


class Test(unittest.TestCase):
    def test_weights_sum_to_one(self):
        self.assertAlmostEqual(sum(service.attention(memory.KEYS[3])), 1.0)
"""

ATTENDING: dict[str, str] = {
    "app/memory.py": MEMORY,
    "app/probe.py": PROBE,
    "tests/test_service.py": TESTS,
}
