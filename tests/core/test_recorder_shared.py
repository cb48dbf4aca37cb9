import gc
import math
import sys
import threading
import weakref

import numpy as np
import pytest

from qigcore.errors import InvalidBasin
from qigcore.recorder import Recorder

NAN = math.nan


def filled(n):
    recorder = Recorder(4)
    for _ in range(n):
        recorder.record(0.5, 1.0, [1, 1, 1, 1])
    return recorder


# --- callbacks --------------------------------------------------------------------------------------


def test_an_alarm_rings_once_when_its_row_is_complete():
    recorder = Recorder(2)
    seen = []
    recorder.on_total(
        3, lambda: seen.append((recorder.total, len(recorder.heads(9)), recorder.snapshot(2).kappa_eff))
    )
    for i in range(3):
        assert seen == []
        recorder.capture(phi=0.5, kappa_eff=float(i), basin_coords=[1, 1]) if i % 2 else recorder.record(
            0.5, float(i), [1, 1]
        )
    recorder.record(0.5, 3.0, [1, 1])
    assert seen == [(3, 3, 2.0)]


def test_an_alarm_for_the_past_rings_with_the_next_row_and_a_new_one_replaces_the_old():
    recorder, seen = filled(5), []
    recorder.on_total(5, lambda: seen.append("past"))
    assert seen == []  # at once, an alarm that sets the next one would call itself
    recorder.record(0.5, 1.0, [1, 1, 1, 1])
    assert seen == ["past"]
    recorder.on_total(6, lambda: seen.append("replaced"))
    recorder.on_total(8, lambda: seen.append("eight"))
    for _ in range(3):
        recorder.record(0.5, 1.0, [1, 1, 1, 1])
    assert seen == ["past", "eight"]
    recorder.on_total(10, lambda: seen.append("cleared"))
    recorder.on_total(10, None)
    recorder.record(0.5, 1.0, [1, 1, 1, 1])
    assert seen == ["past", "eight"]


def test_an_alarm_may_set_the_next():
    recorder, seen = Recorder(2), []

    def ring():
        seen.append(recorder.total)
        recorder.on_total(recorder.total + 10, ring)

    recorder.on_total(10, ring)
    for _ in range(35):
        recorder.record(0.5, 1.0, [1, 1])
    assert seen == [10, 20, 30]


def test_an_alarm_is_put_off_but_never_made_and_never_hastened():
    recorder, seen = Recorder(2), []
    recorder.put_off(3)
    for _ in range(4):
        recorder.record(0.5, 1.0, [1, 1])
    recorder.on_total(6, lambda: seen.append(recorder.total))
    recorder.put_off(5)
    recorder.put_off(9)
    recorder.put_off(7)
    for _ in range(8):
        recorder.record(0.5, 1.0, [1, 1])
    assert seen == [9]
    recorder.put_off(14)
    for _ in range(8):
        recorder.record(0.5, 1.0, [1, 1])
    assert seen == [9]


def test_each_row_is_told_and_may_record_itself():
    recorder, seen = Recorder(2), []

    def tell():
        seen.append(recorder.total)
        if recorder.total == 1:
            recorder.record(0.5, 2.0, [0, 1])

    recorder.each_row = tell
    assert recorder.record(0.5, 1.0, [1, 0]) == 0.0  # the drift of its own row, not of the inner one
    assert seen == [1, 2]
    recorder.each_row = None
    recorder.record(0.5, 1.0, [1, 0])
    assert seen == [1, 2]


@pytest.mark.parametrize("where", ["each_row", "on_total", "past"])
def test_a_failing_observer_is_reported_and_the_host_goes_on(where, monkeypatch):
    reported = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda report: reported.append((str(report.exc_value), report.object))
    )
    recorder = filled(1)

    def fail():
        raise OSError("disk full")

    if where == "each_row":
        recorder.each_row = fail
    else:
        recorder.on_total(2 if where == "on_total" else 1, fail)
    for _ in range(3):
        recorder.record(0.5, 1.0, [1, 1, 1, 1])
    assert recorder.total == 4
    assert reported == [("disk full", fail)]
    assert recorder.each_row is None


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, Interrupted])
def test_an_alarm_that_fails_rings_again_a_quarter_of_a_ring_later(error, monkeypatch):
    reported, seen = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    recorder = Recorder(4, capacity=40)

    def fail():
        seen.append(recorder.total)
        if len(seen) < 3:
            raise error

    recorder.on_total(5, fail)
    passed = []
    for i in range(1, 61):
        try:
            recorder.record(0.5, 1.0, [1, 1, 1, 1])
        except (KeyboardInterrupt, Interrupted):
            passed.append(i)
    assert seen == [5, 15, 25]
    assert (reported, passed) == (([error] * 2, []) if error is OSError else ([], [5, 15]))
    assert recorder.total == 60


def test_an_alarm_that_fails_leaves_the_one_it_has_set(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    recorder, seen = Recorder(4, capacity=40), []

    def fail():
        recorder.on_total(8, lambda: seen.append(recorder.total))
        raise OSError

    recorder.on_total(5, fail)
    for _ in range(60):
        recorder.record(0.5, 1.0, [1, 1, 1, 1])
    assert seen == [8]


def test_the_mark_changes_with_the_reference():
    recorder, mark = filled(3), object()
    assert recorder.mark is None
    recorder.set_reference([1, 2, 3, 4], mark)
    assert recorder.mark is mark
    with pytest.raises(InvalidBasin):
        recorder.set_reference([1, 2], object())
    assert recorder.mark is mark


def test_an_interrupt_in_an_observer_passes_and_the_row_stays():
    recorder = Recorder(2)

    def interrupt():
        raise KeyboardInterrupt

    recorder.each_row = interrupt
    with pytest.raises(KeyboardInterrupt):
        recorder.record(0.5, 1.0, [1, 1])
    assert recorder.total == 1
    assert recorder.each_row is interrupt


def test_a_recorder_and_its_observer_are_collected_together():
    class Monitor:
        def __init__(self):
            self.recorder = Recorder(2)
            self.recorder.each_row = self.told

        def told(self):
            pass

    monitor = Monitor()
    gone = []
    weakref.finalize(monitor, gone.append, True)
    del monitor
    gc.collect()
    assert gone == [True]


# --- threads ----------------------------------------------------------------------------------------


def test_eight_threads_write_whole_rows():
    recorder = Recorder(64, capacity=100_000)
    rounds, start = 2000, threading.Barrier(9)
    wrong = []

    class Slow:  # converting runs Python code, where threads are switched
        def __init__(self, value):
            self.value = value

        def __float__(self):
            return float(sum([self.value]))

    def write(k):
        own = np.zeros(64)
        own[k] = own[(k + 1) % 64] = 1.0
        start.wait()
        for i in range(rounds):
            value = k * rounds + i
            if i % 3 == 0:
                recorder.record(Slow(0.5), Slow(value), own, 0.0, value, value)
            elif i % 3 == 1:
                recorder.record(0.5, float(value), own.tolist(), 0.0, float(value), float(value))
            else:
                recorder.capture(
                    phi=0.5, kappa_eff=value, basin_coords=own, avg_latency_ms=value, memory_mb=value
                )

    def read():
        start.wait()
        while any(writer.is_alive() for writer in writers):
            _, heads, states = recorder.rows(max(0, recorder.total - 200), recorder.total)
            if check(heads, states):
                wrong.append(1)

    def check(heads, states):
        value = heads["kappa_eff"]
        owner = (value // rounds).astype(int)
        whole = (
            (value == heads["avg_latency_ms"]) & (value == heads["memory_mb"]) & (states.sum(axis=1) == 2.0)
        )
        return (~whole).any() or not (states[np.arange(len(owner)), owner] == 1.0).all()

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        writers = [threading.Thread(target=write, args=(k,)) for k in range(8)]
        threads = [*writers, threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert recorder.total == 8 * rounds
    _, heads, states = recorder.rows(0, recorder.total)
    assert not check(heads, states)
    assert not wrong
    assert sorted(heads["kappa_eff"]) == list(range(8 * rounds))
    assert recorder.invalid == {}


def test_recording_makes_no_objects_that_stay():
    recorder, basin = Recorder(64, capacity=50), np.ones(64)
    fields = {"phi": 0.5, "kappa_eff": 1.0, "basin_coords": basin}

    def work():
        for _ in range(500):
            recorder.record(0.5, 1.0, basin)
            recorder.record("bad", None, [1, 2])
            recorder.capture(fields)
            recorder.heads(20)
            recorder.rows(recorder.total - 30, recorder.total)

    work()
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    gc.collect()
    assert sys.getallocatedblocks() - before < 200
    assert sys.getrefcount(basin) < 6
