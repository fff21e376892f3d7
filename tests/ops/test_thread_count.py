"""The user's number of threads, whoever changed it since; the same one throughout a run; nothing of it leaks."""

import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from celbo.ops.native import threads
from celbo.ops.native.openmp import OPENMP
from celbo.ops.native.threads import allowed_threads, between_batches, working_threads

needs_openmp = pytest.mark.skipif(OPENMP is None, reason="torch here has no GNU OpenMP")


@pytest.fixture(autouse=True)
def users_number():
    """Four threads asked for by the user."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def elsewhere(function):
    """What a function gives on a thread that is new."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("asked", [1, 2, 4])
def test_the_users_number_is_taken(asked):
    torch.set_num_threads(asked)
    with working_threads() as n:
        assert n == torch.get_num_threads() == asked
    assert torch.get_num_threads() == elsewhere(torch.get_num_threads) == asked


@pytest.mark.parametrize(("stored", "taken"), [(1, 1), (3, 3), (4, 4), (8, 4), (0, 1), (None, 4)])
def test_a_stored_number_is_taken_up_to_the_users(stored, taken):
    with working_threads(stored) as n:
        assert n == torch.get_num_threads() == taken
        if OPENMP is not None:
            assert elsewhere(torch.get_num_threads) == 4, "other threads are none of this run's business"
    assert torch.get_num_threads() == elsewhere(torch.get_num_threads) == 4


def test_the_number_comes_back_after_an_error():
    with pytest.raises(KeyError), working_threads(2):
        raise KeyError
    assert torch.get_num_threads() == 4
    assert allowed_threads() == 4


def test_a_block_within_a_block_has_the_same_number():
    with working_threads(2), working_threads() as inner:
        assert inner == torch.get_num_threads() == 2
        between_batches()
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


@needs_openmp
def test_what_another_library_set_on_this_thread_is_undone():
    torch.set_num_threads(1)
    OPENMP.set_threads(4)
    with working_threads() as n:
        assert n == torch.get_num_threads() == 1
        OPENMP.set_threads(4)
        between_batches()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1


@needs_openmp
def test_a_smaller_number_on_this_thread_counts_unless_it_is_numbas(monkeypatch):
    OPENMP.set_threads(2)
    assert allowed_threads() == 2
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.parallel", SimpleNamespace(_is_initialized=True))
    monkeypatch.setitem(sys.modules, "numba.core.config", SimpleNamespace(NUMBA_NUM_THREADS=3))
    assert allowed_threads() == 2
    monkeypatch.setitem(sys.modules, "numba.core.config", SimpleNamespace(NUMBA_NUM_THREADS=2))
    assert allowed_threads() == 4


def test_another_threads_stale_number_is_not_taken():
    first, second = threading.Event(), threading.Event()

    def work():
        torch.get_num_threads()  # the thread has its number from now on
        first.set()
        second.wait()
        with working_threads() as n:
            return n

    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    first.wait()
    torch.set_num_threads(1)
    second.set()
    thread.join()
    assert found == [1]


def test_nothing_happens_between_batches_of_others():
    torch.set_num_threads(3)
    between_batches()
    assert torch.get_num_threads() == 3


def test_in_a_forked_child_nobody_gets_more_than_one(monkeypatch):
    monkeypatch.setattr(threads, "_team_is_gone", True)
    with working_threads(4) as n:
        assert n == torch.get_num_threads() == 1


def test_what_was_asked_before_serves_until_something_changes(monkeypatch):
    asked, ask = [], threads._number_of_a_new_thread
    monkeypatch.setattr(threads, "_number_of_a_new_thread", lambda: asked.append(ask()) or asked[-1])
    for _ in range(3):
        with working_threads(afresh=False) as n:
            assert n == 4
    torch.set_num_threads(2)
    with working_threads(afresh=False) as n:
        assert n == 2
    assert asked in ([4, 2], [2])  # this thread may have been asked by an earlier test
    with working_threads() as n:
        assert n == 2
    assert len(asked) in (2, 3)
