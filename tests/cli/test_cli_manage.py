"""``tinkex checkpoint`` and ``tinkex run``, against the embedded server over a real socket."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import tinkex
from tinkex.cli import main
from tinkex.cli._app import App
from tinkex.cli._tables import describe_size
from tinkex.local import LocalServer
from tinkex.testing.engine import ScriptedEngine

WAIT = 30.0


@pytest.fixture
def server(tmp_path):
    """A server."""
    with LocalServer(ScriptedEngine(["acme/small"]), data_dir=tmp_path / "data") as running:
        yield running


@pytest.fixture
def connect(server):
    """Makes clients of it."""
    return lambda base_url=None: tinkex.ServiceClient(base_url=server.base_url, api_key=server.api_key, telemetry=False)


@pytest.fixture
def paths(connect):
    """Three checkpoints of one run, in the order of saving."""
    with connect() as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        saves = [train.save_state("a"), train.save_weights_for_sampler("b"), train.save_state("c")]
        return [save.result(WAIT).path for save in saves]


@pytest.fixture
def run(connect, monkeypatch):
    """Runs a command line, and expects it to end well unless told otherwise."""
    monkeypatch.setenv("TINKER_API_KEY", "not used")

    def invoke(*words, fails=False, **options):
        outcome = CliRunner().invoke(main, [str(word) for word in words], obj=App(connect=connect), **options)
        assert fails == bool(outcome.exit_code), outcome.output
        return outcome.output

    return invoke


def listed(run, *words):
    """The paths that ``checkpoint list`` shows."""
    return [item["tinker_path"] for item in json.loads(run("checkpoint", "list", "--format", "json", *words))]


def test_checkpoints_are_listed_newest_first(run, paths):
    """As a table with a heading, or as JSON with every field; --limit and --run-id choose."""
    lines = run("checkpoint", "list").splitlines()
    assert ["PATH", "TYPE", "SIZE", "SAVED", "EXPIRES", "PUBLIC"] == lines[0].split()
    assert paths[::-1] == [line.split()[0] for line in lines[1:]]
    assert paths[::-1] == listed(run) == listed(run, "--limit", 0)
    assert paths[:0:-1] == listed(run, "--limit", 2)
    run_id = paths[0].split("/")[2]
    assert set(paths) == set(listed(run, "--run-id", run_id))


def test_a_checkpoint_is_described(run, paths):
    """What it is, and what a model needs to load it."""
    about = json.loads(run("checkpoint", "info", paths[1], "-f", "json"))
    assert ("sampler", "acme/small", 4) == (about["checkpoint_type"], about["base_model"], about["lora_rank"])
    assert re.search(r"^base_model +acme/small$", run("checkpoint", "info", paths[1]), re.MULTILINE)


def test_sharing_and_expiry(run, paths):
    """publish, unpublish and set-ttl change what list shows."""
    run("checkpoint", "publish", paths[0])
    run("checkpoint", "set-ttl", paths[0], "--ttl", 7200)
    about = json.loads(run("checkpoint", "info", paths[0], "-f", "json"))
    assert about["public"] is True
    assert about["expires_at"]
    run("checkpoint", "unpublish", paths[0])
    run("checkpoint", "set-ttl", paths[0], "--remove")
    about = json.loads(run("checkpoint", "info", paths[0], "-f", "json"))
    assert not about.get("public")
    assert not about.get("expires_at")
    assert "--remove" in run("checkpoint", "set-ttl", paths[0], fails=True)


def test_deleting_asks_first(run, paths):
    """An answer other than yes deletes nothing; --yes does not ask."""
    run("checkpoint", "delete", paths[0], input="n\n", fails=True)
    assert paths[0] in listed(run)
    assert "deleted 2" in run("checkpoint", "delete", paths[0], paths[2], "--yes")
    assert [paths[1]] == listed(run)


def test_checkpoints_to_delete_can_be_chosen(run, paths):
    """By type and time; nothing is deleted without a choice, or with two."""
    assert "nothing fits" in run("checkpoint", "delete", "--before", "2020-01-01", "-y")
    assert "nothing fits" in run("checkpoint", "delete", "--type", "training", "--after", "2100-01-01T00:00:00", "-y")
    assert "deleted 2" in run("checkpoint", "delete", "--type", "training", "--after", "2020-01-01", "-y")
    assert [paths[1]] == listed(run)
    assert "name checkpoints" in run("checkpoint", "delete", "-y", fails=True)
    assert "name checkpoints" in run("checkpoint", "delete", paths[1], "--type", "sampler", "-y", fails=True)


def test_a_checkpoint_is_downloaded(run, paths, tmp_path, monkeypatch):
    """Into a folder of its name or into the one given, which must be empty unless --force."""
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "b") == run("checkpoint", "download", paths[1]).strip()
    assert (tmp_path / "b" / "adapter_config.json").is_file()
    run("checkpoint", "download", paths[1], "-o", tmp_path / "own" / "place")
    assert (tmp_path / "own" / "place" / "adapter_config.json").is_file()
    assert "not empty" in run("checkpoint", "download", paths[1], fails=True)
    run("checkpoint", "download", paths[1], "--force")


def test_a_checkpoint_is_sent_to_the_hub(run, paths, monkeypatch):
    """Private unless --public; every option reaches the hub's library, and its page is printed."""
    asked = []

    class Hub:
        def __getattr__(self, name):
            def call(*given, **named):
                asked.append((name, named))
                if name == "file_exists":
                    return False
                return SimpleNamespace(pr_url="https://hub.test/pr", commit_url="", private=True)

            return call

    monkeypatch.setattr("tinkex.recipes.hub._make_api", lambda token: Hub())
    push = ["checkpoint", "push-hf", paths[1], "--repo", "me/small"]
    assert run(*push, "--create-pr").splitlines()[-1] == "https://hub.test/pr"
    asked_first, asked[:] = dict(asked), []
    assert asked_first["create_repo"]["private"] is True
    assert asked_first["upload_folder"]["allow_patterns"] is None
    more = ["--public", "--revision", "next", "--commit-message", "better", "--allow-pattern", "*.json"]
    run(*push, *more, "--ignore-pattern", "x", "--ignore-pattern", "y", "--no-model-card")
    last = dict(asked)
    assert last["create_repo"]["private"] is False
    assert last["upload_folder"]["folder_path"]
    named = {name: last["upload_folder"][name] for name in ("revision", "commit_message", "create_pr")}
    assert named == {"revision": "next", "commit_message": "better", "create_pr": False}
    assert last["upload_folder"]["allow_patterns"] == ["*.json"]
    assert last["upload_folder"]["ignore_patterns"] == ["x", "y"]
    assert "error: repo_id" in run("checkpoint", "push-hf", paths[1], "-r", "small", fails=True)


def test_runs_are_listed_and_described(run, paths):
    """The run of the checkpoints, with its base model and its newest checkpoint."""
    run_id = paths[0].split("/")[2]
    heading, line = run("run", "list").splitlines()
    assert heading.startswith("RUN")
    assert [run_id, "acme/small", "4"] == line.split()[:3]
    assert line.endswith("weights/c")
    assert run_id == json.loads(run("run", "list", "--format", "json", "--limit", 1))[0]["training_run_id"]
    about = run("run", "info", run_id)
    assert re.search(rf"^training_run_id +{run_id}$", about, re.MULTILINE)
    assert "last_checkpoint.checkpoint_id" in about


def test_what_is_not_there_is_one_line_of_error(run):
    """With the name of what was looked for."""
    assert "error: " in run("run", "info", "nobody:train:0", fails=True)
    assert "not a checkpoint path" in run("checkpoint", "info", "nowhere", fails=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes_are_readable(size, text):
    """In the unit that fits."""
    assert text == describe_size(size)
