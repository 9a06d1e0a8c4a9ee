"""Ctrl-C in two stages."""

from __future__ import annotations

import signal
import threading

import pytest

from tinkex.cli._interrupt import two_stage_interrupt


def test_the_first_asks_and_the_second_interrupts():
    """After the first the block goes on and knows; the second is a KeyboardInterrupt as ever."""
    told = []
    with two_stage_interrupt(lambda: told.append(True)) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert told == [True]


@pytest.mark.parametrize("presses", [0, 1])
def test_the_old_handler_is_back_afterwards(presses):
    """Outside the block Ctrl-C means what it meant before."""
    before = signal.getsignal(signal.SIGINT)
    with two_stage_interrupt(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_on_another_thread_nothing_is_arranged():
    """Only the main thread can handle signals; a run on another one just cannot be asked to stop."""
    seen = []

    def body():
        with two_stage_interrupt(lambda: None) as asked:
            seen.append(asked())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [False]


def test_the_signal_may_come_in_the_middle_of_writing():
    """What is said does not enter a stream that the interrupted code is in."""
    writing = threading.Lock()
    told = []

    def tell():
        with writing:
            told.append(True)

    with two_stage_interrupt(tell) as asked:
        with writing:
            signal.raise_signal(signal.SIGINT)
        assert asked()
    assert told == [True]
