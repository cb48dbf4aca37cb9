from __future__ import annotations

import threading

import numpy as np
import pytest

from qigheal.integrations.web.metering import BROKE_OFF, CANCELLED, FOLD_AT, EventMeter, Interval, Meter


def test_nothing_is_invented_without_requests() -> None:
    assert Meter().read() == Interval(0, 0, 0, None, None)
    assert Meter().read().error_rate == 0.0


def test_figures_of_an_interval_and_a_new_one_after_it() -> None:
    meter = Meter()
    for seconds in (0.010, 0.020, -0.030):
        meter.append(seconds)
    found = meter.read()
    assert (found.requests, found.errors, found.cancelled) == (3, 1, 0)
    assert found.mean_ms == pytest.approx(20.0)
    assert found.error_rate == pytest.approx(1 / 3)
    assert meter.read().requests == 0


def test_a_body_that_breaks_off_is_an_error_of_a_request_that_counts_already() -> None:
    meter = Meter()
    meter.append(0.01)
    meter.append(BROKE_OFF)
    assert meter.read()[:2] == (1, 1)


def test_an_error_told_in_the_interval_after_its_request_is_no_rate_above_one() -> None:
    meter = Meter()
    meter.append(BROKE_OFF)
    meter.append(-0.0)
    found = meter.read()
    assert (found.requests, found.errors, found.error_rate) == (1, 2, 1.0)


def test_cancelled_requests_count_apart() -> None:
    meter = Meter()
    meter.append(CANCELLED)
    assert meter.read() == Interval(0, 0, 1, None, None)


def test_p99_lies_within_two_percent_whatever_was_folded() -> None:
    meter, drawn = Meter(), np.random.default_rng(0).lognormal(-5, 1.5, 3 * FOLD_AT + 17)
    for seconds in drawn:
        meter.append(float(seconds))
    found = meter.read()
    exact = 1000 * np.quantile(drawn, 0.99, method="inverted_cdf")
    assert exact <= found.p99_ms <= 1.021 * exact  # type: ignore[operator]
    assert found.mean_ms == pytest.approx(1000 * drawn.mean())


def test_requests_are_held_by_number_only_up_to_a_bound() -> None:
    meter = Meter()
    for _ in range(10 * FOLD_AT):
        meter.append(0.001)
    assert len(meter._found) < FOLD_AT
    assert meter.read().requests == 10 * FOLD_AT


def test_no_request_is_lost_between_threads() -> None:
    meter, counted = Meter(), 0
    end = threading.Event()

    def tell() -> None:
        for _ in range(20_000):
            meter.append(0.001)

    tellers = [threading.Thread(target=tell) for _ in range(4)]
    for teller in tellers:
        teller.start()
    while any(teller.is_alive() for teller in tellers):
        counted += meter.read().requests
        end.wait(0.001)
    assert counted + meter.read().requests == 80_000


def test_events_are_bounded_whatever_clients_send() -> None:
    meter = EventMeter()
    for number in range(10_000):
        meter.event(f"WORD{number}", None, 404)
        meter.event("GET", f"/{number}", 200)
    assert len(meter._names) <= 4096
    assert meter.estimator.count == 20_000


def test_an_event_is_method_template_and_class_of_status() -> None:
    meter, other = EventMeter(), EventMeter()
    meter.event("GET", "/items/{id}", 200)
    other.event("GET", "/items/{id}", 204)
    assert meter.reading is not None
    assert other.reading is not None
    assert (meter.reading.basin == other.reading.basin).all()
    assert set(meter._names.values()) == {"GET /items/{id} 2xx"}
