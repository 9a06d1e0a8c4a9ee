"""The folder that a run leaves behind."""

from __future__ import annotations

import builtins
import json

import pytest

from tinkex.errors import InvalidInputError
from tinkex.recipes.run_folder import RunFolder, free_run_path


def test_what_is_written_is_read_back(tmp_path):
    """A resumed run finds settings, metrics, checkpoints and answers as they were left."""
    run = RunFolder.create(tmp_path / "runs" / "a", {"settings": {"ü": 1}})
    run.add_metrics({"step": 1, "loss": 2.5})
    run.add_checkpoint({"step": 1, "state_path": "tinker://x/weights/1"})
    run.write_answers([{"prompt": "a\u2028b"}])
    again = RunFolder.resume(run.path)
    assert again.config == {"settings": {"ü": 1}}
    assert again.metrics() == [{"step": 1, "loss": 2.5}]
    assert again.last_checkpoint() == {"step": 1, "state_path": "tinker://x/weights/1"}
    assert again.answers() == [{"prompt": "a\u2028b"}]


def test_a_fresh_run_has_no_checkpoint(tmp_path):
    """None says so, before and after the file is there."""
    run = RunFolder.create(tmp_path / "a", {})
    assert run.last_checkpoint() is None
    assert run.metrics() == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    """No run is overwritten by mistake; the message names all three ways out."""
    RunFolder.create(tmp_path / "a", {"n": 1})
    with pytest.raises(InvalidInputError, match=r"not empty: resume .*--resume.*--force.*--out"):
        RunFolder.create(tmp_path / "a", {"n": 2})
    assert RunFolder.resume(tmp_path / "a").config == {"n": 1}


def test_force_replaces_a_run_and_nothing_else(tmp_path):
    """The old run's files go; a file that is not a run's stays."""
    run = RunFolder.create(tmp_path / "a", {"n": 1})
    run.add_metrics({"step": 1})
    (run.path / "notes.txt").write_text("mine")
    again = RunFolder.create(tmp_path / "a", {"n": 2}, force=True)
    assert again.metrics() == []
    assert {path.name for path in run.path.iterdir()} == {"config.json", "notes.txt"}


def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    """A file where the folder should be is reported as such."""
    (tmp_path / "a").write_text("a file")
    with pytest.raises(InvalidInputError, match=r"cannot write to .*a"):
        RunFolder.create(tmp_path / "a" / "b", {})


@pytest.mark.parametrize("config", [None, "{torn", "\udcff"])
def test_only_a_run_can_be_resumed(tmp_path, config):
    """A folder without a readable config.json is refused, with the reason."""
    if config is not None:
        (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInputError, match="no run to resume in"):
        RunFolder.resume(tmp_path)


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path):
    """What was half written never happened; the next line starts clean."""
    run = RunFolder.create(tmp_path / "a", {})
    run.add_metrics({"step": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    again = RunFolder.resume(run.path)
    again.add_metrics({"step": 2})
    assert again.metrics() == [{"step": 1}, {"step": 2}]


def test_rewinding_forgets_later_steps_only(tmp_path):
    """Steps behind the checkpoint are done again, so their lines must not stand twice."""
    run = RunFolder.create(tmp_path / "a", {})
    for step in range(5):
        run.add_metrics({"step": step})
    run.rewind(2)
    assert [record["step"] for record in run.metrics()] == [0, 1, 2]


def test_each_line_is_whole_json(tmp_path):
    """Any tool can read the files line by line."""
    run = RunFolder.create(tmp_path / "a", {})
    run.add_metrics({"step": 1, "text": "a\nb"})
    run.add_metrics({"step": 2})
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_the_loss_is_drawn(tmp_path):
    """The picture is a PNG in the folder; lines without a loss are left out of it."""
    pytest.importorskip("matplotlib")
    run = RunFolder.create(tmp_path / "a", {})
    run.add_metrics({"step": 0, "exact": 0})
    assert run.plot_loss() is None
    for step in range(1, 60):
        run.add_metrics({"step": step, "loss": 1 / step})
    path = run.plot_loss()
    assert path == run.path / "loss.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture_and_no_error(tmp_path, monkeypatch):
    """The picture is an extra."""
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    run = RunFolder.create(tmp_path / "a", {})
    run.add_metrics({"step": 1, "loss": 1.0})
    monkeypatch.setattr(builtins, "__import__", without)
    assert run.plot_loss() is None


def test_a_new_run_gets_a_name_of_its_own(tmp_path):
    """The same command typed twice makes two runs."""
    assert free_run_path(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free_run_path(tmp_path, "a") == tmp_path / "a-3"
