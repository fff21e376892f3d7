"""Threads wait asleep while others want the processors, as told by a clock and by times of waiting made up here."""

import os
import sys
import threading
import time

import pytest
import torch

from celbo.ops.native import threads, waiting
from celbo.ops.native.openmp import OPENMP
from celbo.ops.native.waiting import LEAST, LONGEST, SHORTEST, TOO_MUCH, WINDOW

pytestmark = pytest.mark.skipif(OPENMP is None, reason="torch here has no GNU OpenMP")


class Machine:
    """A clock, and the time that threads waited, both moved by hand."""

    def __init__(self):
        self.now, self.waited = 100.0, 7.0

    def work(self, seconds, waiting=0.0):
        self.now += seconds
        self.waited += waiting


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(waiting.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(waiting, "seconds_waited", lambda: made.waited)
    return made


@pytest.fixture
def watch(monkeypatch):
    """A watch whose crowds are counted and have no threads."""

    class Crowd:
        def __init__(self, n):
            standing.append(self)

        def leave(self):
            standing.remove(self)

    standing = []
    monkeypatch.setattr(waiting, "_Crowd", Crowd)
    made = waiting._Watch()
    made.standing = standing
    return made


def probe(watch, machine, busy):
    """Work for a window and look."""
    machine.work(WINDOW * 1.01, WINDOW * (2 * TOO_MUCH if busy else TOO_MUCH / 2))
    watch.look()
    return watch.crowded


def test_no_crowd_on_a_quiet_machine(watch, machine):
    watch.begin(2)
    assert not any(probe(watch, machine, False) for _ in range(100))
    watch.end()


def test_one_turn_of_another_program_is_no_reason(watch, machine):
    watch.begin(2)
    machine.work(WINDOW * 1.01, LEAST * 0.9)
    watch.look()
    assert not watch.crowded


def test_a_crowd_comes_within_a_window_stays_longer_each_time_and_goes_with_the_others(watch, machine):
    watch.begin(2)
    expected, stays = SHORTEST, []
    while expected < LONGEST:
        assert probe(watch, machine, True)
        machine.work(expected * 0.98, expected)  # nobody looks at the waiting of a crowd
        watch.look()
        assert watch.crowded
        machine.work(expected * 0.03)
        watch.look()
        assert not watch.crowded, "time to find out whether the others are still there"
        stays.append(expected)
        expected = min(2 * expected, LONGEST)
    assert len(stays) > 2
    assert not probe(watch, machine, False)
    assert probe(watch, machine, True)
    machine.work(SHORTEST * 1.01)
    watch.look()
    assert not watch.crowded, "after a quiet time it begins with a short stay"
    watch.end()


def test_nothing_stands_when_all_are_done_and_the_next_begins_where_it_was(watch, machine):
    watch.begin(2)
    watch.begin(2)
    probe(watch, machine, True)
    watch.end()
    assert len(watch.standing) == 1
    watch.end()
    assert not watch.standing
    machine.work(SHORTEST / 2)
    watch.begin(2)
    assert watch.crowded
    watch.end()
    machine.work(SHORTEST)
    watch.begin(2)
    assert not watch.crowded
    watch.end()


def test_many_short_answers_in_a_row_are_noticed(watch, machine):
    for _ in range(2):
        watch.begin(2)
        assert not watch.crowded
        machine.work(WINDOW * 0.6, WINDOW * 0.6)
        watch.end()
    watch.begin(2)
    assert watch.crowded
    watch.end()


def test_where_nobody_tells_nothing_is_done(watch, machine, monkeypatch):
    monkeypatch.setattr(waiting, "seconds_waited", lambda: None)
    watch.begin(2)
    machine.work(100)
    watch.look()
    assert not watch.crowded
    watch.end()


def test_a_single_thread_needs_no_watch(monkeypatch):
    monkeypatch.setattr(waiting, "_watch", None)  # whoever asked it would fail
    monkeypatch.setattr(threads, "allowed_threads", lambda afresh: 1)
    with threads.working_threads() as n:
        threads.between_batches()
    assert n == 1


def test_no_crowd_of_hundreds(watch, machine, monkeypatch):
    monkeypatch.setattr(waiting, "LARGEST_CROWD", -100)
    watch.begin(2)
    probe(watch, machine, True)
    assert not watch.crowded
    watch.end()


def threads_of_the_process():
    return len(os.listdir("/proc/self/task"))


def comes_to(count):
    """Whether the process comes to have so many threads: the kernel takes a moment to end one."""
    deadline = time.monotonic() + 20
    while threads_of_the_process() != count and time.monotonic() < deadline:
        time.sleep(0.01)
    return threads_of_the_process() == count


def test_a_crowd_is_counted_by_openmp_and_leaves_no_thread_behind():
    before = threads_of_the_process()
    for _ in range(3):
        crowd = waiting._Crowd(2)
        assert comes_to(before + 3)  # the thread that holds it, and two
        crowd.leave()
        assert comes_to(before)


def test_sums_are_the_same_with_a_crowd_and_without():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    x = torch.rand(3000, 1001, generator=torch.Generator().manual_seed(0))
    alone = x.sum(), x @ x.t(), x.sum(0)
    crowd = waiting._Crowd(OPENMP.n_processors())
    beside = x.sum(), x @ x.t(), x.sum(0)
    crowd.leave()
    torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(alone, beside, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures")
def test_the_kernel_tells_how_long_threads_waited():
    first = waiting.seconds_waited()
    if first is None:
        pytest.skip("this kernel does not say")
    pins = min(os.sched_getaffinity(0))
    over = time.monotonic() + 0.3

    def spin():
        os.sched_setaffinity(0, {pins})  # this thread alone
        while time.monotonic() < over:
            torch.ones(2000).exp_()

    spinning = [threading.Thread(target=spin) for _ in range(3)]
    for thread in spinning:
        thread.start()
    while time.monotonic() < over - 0.05:
        time.sleep(0.01)
    second = waiting.seconds_waited()
    for thread in spinning:
        thread.join()
    assert second > first
