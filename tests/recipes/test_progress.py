"""Waiting and telling."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from tinkex.recipes import progress
from tinkex.recipes.progress import Reporter, wait_for


class Told(Reporter):
    """Ends the wait when it was told often enough."""

    def __init__(self, future, times):
        self.future = future
        self.times = times
        self.heard = []

    def waiting(self, future, *, long):
        assert future is self.future
        self.heard.append(long)
        if len(self.heard) == self.times:
            future.set_result("there")


def test_a_wait_is_told_at_once_and_while_it_lasts(monkeypatch):
    """First that there is a wait, then again and again that it goes on."""
    monkeypatch.setattr(progress, "REFRESH_S", 0.001)
    future = Future()
    told = Told(future, 3)
    assert wait_for(future, told) == "there"
    assert told.heard == [False, True, True]


def test_what_is_there_already_is_not_waited_for():
    """A finished future is read at once, also by the reporter that ignores everything."""
    future = Future()
    future.set_exception(ValueError("no"))
    told = Told(future, 0)
    with pytest.raises(ValueError, match="no"):
        wait_for(future, told)
    assert told.heard == []
    waiting = Future()
    timer = threading.Timer(0.01, waiting.set_result, [1])
    timer.start()
    assert wait_for(waiting, Reporter()) == 1
    timer.join()
