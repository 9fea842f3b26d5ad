"""Endings: a lasting fault ends at its time, whatever else happens."""

from __future__ import annotations

import threading

import pytest

from chaos.endings import Endings


def test_endings_undo_a_fault_while_the_caller_is_busy():
    # Given a fault that lasts 0.05 s
    endings, ended = Endings(), threading.Event()
    endings.after(0.05, ended.set)
    # When the caller does nothing that could end it, then it ends
    assert ended.wait(10)
    endings.close()


def test_endings_undo_in_the_order_of_their_times_when_closed():
    # Given two faults, of which the later one was begun first
    endings, order = Endings(), []
    endings.after(0.3, lambda: order.append("later"))
    endings.after(0.1, lambda: order.append("sooner"))
    # When the run waits for all of them, then each has ended at its time
    endings.close()
    assert order == ["sooner", "later"]


def test_endings_raise_what_an_undo_raised_after_all_others_ended():
    # Given a fault that cannot be ended, and one after it
    endings, ended = Endings(), threading.Event()
    endings.after(0.0, lambda: 1 / 0)
    endings.after(0.1, ended.set)
    # When the run waits for all of them, then it gets the error, and the other fault has ended
    with pytest.raises(ZeroDivisionError):
        endings.close()
    assert ended.is_set()


def test_slow_undo_delays_no_other():
    # Given a fault whose end waits for something, and one that ends after it
    endings, free = Endings(), threading.Event()
    endings.after(0.0, lambda: free.wait(10))
    # When the second one is due, then it ends, and the first can go on
    endings.after(0.05, free.set)
    assert free.wait(10)
    endings.close()
