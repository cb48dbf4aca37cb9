"""One real Prometheus, scraping one real service, for all tests that ask it something."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

SCRAPES = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: qigheal
    static_configs:
      - targets: ["127.0.0.1:{port}"]
    metrics_path: /metrics/
"""

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0


class Prometheus:
    """A running server, asked over its HTTP API."""

    def __init__(self, address: str, service: str) -> None:
        self.began = time.time()
        self._client = httpx.Client(base_url=f"http://{address}", timeout=30.0)
        self.service = service

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant vector, or a scalar as a vector of one."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        found = answer["data"]["result"]
        return [{"metric": {}, "value": found}] if answer["data"]["resultType"] == "scalar" else list(found)

    def graph(self, expression: str) -> list[float]:
        """All that a graph of the time since the beginning would show, a point each second, without NaN."""
        span = {"query": expression, "start": self.began, "end": time.time() + 1.0, "step": 1}
        answer = self._client.get("/api/v1/query_range", params=span).json()
        assert answer["status"] == "success", (expression, answer)
        points = [float(value) for line in answer["data"]["result"] for _, value in line["values"]]
        return [value for value in points if not math.isnan(value)]

    def label_values(self, label: str, selector: str) -> list[str]:
        answer = self._client.get(f"/api/v1/label/{label}/values", params={"match[]": selector}).json()
        assert answer["status"] == "success", answer
        return list(answer["data"])

    def rules(self) -> list[dict[str, Any]]:
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def until(self, expression: str) -> list[float]:
        """Ask until there is an answer: a scrape may be late on a busy machine."""
        return [float(each["value"][1]) for each in self.until_found(expression)]

    def until_found(self, expression: str) -> list[dict[str, Any]]:
        """The same, with labels."""
        found: list[dict[str, Any]] = []

        def answered() -> bool:
            found[:] = self.query(expression)
            return bool(found)

        wait_for(answered, expression)
        return found

    def close(self) -> None:
        self._client.close()


def wait_for(happened: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < until, f"not within {WAIT_S} s: {what}"
        time.sleep(0.1)


@contextmanager
def running(argv: list[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, text=True, **how)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """After it has seen a service learn, degrade, recover and be healed."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus (Debian: prometheus)")
    place = tmp_path_factory.mktemp("prometheus")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    service = [sys.executable, "-m", "tests.metrics.live", str(place / "store")]
    with running(service, env=env, cwd=ROOT, stdout=subprocess.PIPE) as serving:
        assert serving.stdout is not None
        port = serving.stdout.readline().strip()
        assert port.isdigit(), "the service did not start"
        config = place / "prometheus.yml"
        config.write_text(SCRAPES.format(port=port, rules=ROOT / "deploy/prometheus/rules.yml"))
        argv = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={place / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ]
        log = place / "log"
        with log.open("w") as told, running(argv, stdout=told, stderr=told):
            found: list[str] = []

            def listens() -> bool:
                found[:] = re.findall(r'msg="Listening on" address=(\S+)', log.read_text())
                return bool(found) and "Server is ready" in log.read_text()

            wait_for(listens, "Prometheus starts")
            asked = Prometheus(found[0], f"http://127.0.0.1:{port}")
            try:
                _lived(asked)
                yield asked
            finally:
                asked.close()


def _lived(prometheus: Prometheus) -> None:
    """What the service goes through while it is scraped: increases need a sample before and one after."""
    prometheus.until('geometric_health_status{severity="normal"} == 1')
    for command in ("record?count=20&phi=0.3", "heal"):
        httpx.post(f"{prometheus.service}/{command}", timeout=30.0).raise_for_status()
    prometheus.until('geometric_health_status{severity="critical"} == 1')
    prometheus.until("increase(geometric_health_degradations_total[1m]) > 0")
    prometheus.until("increase(healing_success_total[1m]) > 0")
    prometheus.until("increase(healing_rollbacks_total[1m]) > 0")  # the last that the ledger tells
