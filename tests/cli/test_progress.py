"""What a run looks like on stderr."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from tinkex.cli import _progress
from tinkex.cli._progress import Bar, Lines, describe_wait, make_reporter
from tinkex.recipes.progress import StepRecord


def future(**given):
    """Make something that can be waited for."""
    fields = {"operation": "forward_backward", "queue_state": "unknown", "queue_state_reason": None, "elapsed": 3.2}
    return SimpleNamespace(**{**fields, **given})


def record(step):
    """Make the record of a step."""
    return StepRecord(step=step, loss=0.25, learning_rate=1e-3, tokens=10, tokens_per_s=1234.0, elapsed_s=1.0)


class Terminal(io.StringIO):
    """Stderr that is a terminal."""

    def isatty(self):
        return True


def test_a_wait_names_operation_queue_and_seconds():
    """So a long one explains itself; nothing is said about the queue while the server has not told."""
    assert describe_wait(future()) == "waiting for forward_backward, 3 s"
    paused = future(queue_state="paused_capacity", queue_state_reason="no free worker")
    assert describe_wait(paused) == "waiting for forward_backward, queue paused_capacity (no free worker), 3 s"


@pytest.mark.parametrize(("stream", "kind"), [(Terminal(), Bar), (io.StringIO(), Lines)])
def test_a_terminal_gets_a_bar_and_anything_else_gets_lines(monkeypatch, stream, kind):
    """A log file is not filled with redrawn bars."""
    monkeypatch.setattr(sys, "stderr", stream)
    assert isinstance(make_reporter(), kind)


def test_the_bar_shows_step_loss_speed_and_what_is_waited_for(monkeypatch):
    """All on one line that is redrawn; what was counted stays on the screen."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Bar()
    bar.waiting(future(), long=True)
    bar.phase("creating the model")
    bar.phase("training", 4, 1)
    bar.step(record(2))
    bar.waiting(future(queue_state="active"), long=True)
    bar.note("a word")
    bar.phase("asking", 2)
    bar.answered()
    bar.close()
    bar.close()
    drawn = sys.stderr.getvalue()
    assert "creating the model" in drawn
    assert "2/4" in drawn
    assert "loss 0.250, 1234 tokens/s, waiting for forward_backward, queue active, 3 s" in drawn
    assert "a word\n" in drawn
    assert "1/2" in drawn


def test_lines_come_when_something_begins_and_then_every_few_seconds(capsys):
    """Steps in between are not printed; the last one is."""
    now = [0.0]
    lines = Lines(clock=lambda: now[0])
    lines.phase("training", 4)
    for step in (1, 2, 3):
        now[0] += _progress.LINE_EVERY_S * 0.6
        lines.step(record(step))
    lines.waiting(future(), long=False)
    lines.step(record(4))
    now[0] += _progress.LINE_EVERY_S
    lines.waiting(future(), long=True)
    lines.phase("asking", 2)
    now[0] += _progress.LINE_EVERY_S
    lines.answered()
    lines.note("done")
    lines.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training (4)",
        "training 2/4, loss 0.250, 1234 tokens/s",
        "training 4/4, loss 0.250, 1234 tokens/s",
        "training 4/4, loss 0.250, 1234 tokens/s, waiting for forward_backward, 3 s",
        "asking (2)",
        "asking 1/2",
        "done",
    ]
