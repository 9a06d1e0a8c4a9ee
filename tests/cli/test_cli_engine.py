"""The commands as a user types them, each in a process of its own, with the embedded server and the built-in model."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tinkex

pytestmark = pytest.mark.engine

WORDS = ("apple", "river", "stone", "cloud", "table", "green", "lemon", "tiger", "piano", "horse")


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a command line in an empty folder with a chat file."""
    lines = [json.dumps({"prompt": f"shout: {word}", "completion": word.upper()}) + "\n" for word in WORDS]
    (tmp_path / "data.jsonl").write_text("".join(lines))
    env = {name: value for name, value in os.environ.items() if not name.startswith("TINKER_")}
    env |= {
        "PYTHONPATH": str(Path(tinkex.__file__).parent.parent),
        "TINKEX_LOCAL_DIR": str(tmp_path / "checkpoints"),
        "OMP_NUM_THREADS": "1",
    }

    def begin(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "tinkex", *map(str, words)],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def run(start):
    """Return a function that runs a command line to its end and returns stdout; it must succeed."""

    def complete(*words):
        with start(*words) as process:
            out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        return out

    return complete


def printed_commands(out):
    """Return the commands that were printed to be pasted, without the name of the program."""
    return [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("  tinkex ")]


def test_train_then_paste_what_it_prints(run, tmp_path):
    """The printed commands work in a new process: one samples from the run, the other trains it further."""
    out = run("train", "sft", "data.jsonl", "--steps", 3, "--batch-size", 4, "--holdout", 2)
    assert "exact answers on held-out prompts: " in out
    sample, resume = printed_commands(out)
    assert run(*sample, "--max-tokens", 8).strip()
    assert "step-000006" in run(*resume)
    metrics = [json.loads(line) for line in (tmp_path / "runs" / "data" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in metrics] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    assert (tmp_path / "runs" / "data" / "loss.png").read_bytes().startswith(b"\x89PNG")
    losses = [record["loss"] for record in metrics if "loss" in record]
    assert losses[-1] < losses[0]


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send Ctrl-C to one other process there")
def test_ctrl_c_saves_and_the_printed_command_completes_the_run(start, run):
    """The first Ctrl-C ends the run in order, with exit status 130, and nothing of it is lost."""
    words = ("train", "sft", "data.jsonl", "--steps", 400, "--batch-size", 2, "--no-eval", "--save-every", 0)
    with start(*words) as process:
        for line in process.stderr:
            if line.startswith("training"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "stopping: finishing the steps in flight" in err
    (resume,) = printed_commands(out)
    done = int(out.split("stopped after step ")[1].split()[0])
    assert 0 <= done < 400
    assert f"step-{done + 2:06d}" in run(*resume, "--steps", done + 2)
