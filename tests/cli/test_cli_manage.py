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
from tinkex.testing.faults import FaultPlan

WAIT = 30.0


@pytest.fixture
def faults():
    """What goes wrong on the server."""
    return FaultPlan()


@pytest.fixture
def server(tmp_path, faults):
    """A server."""
    with LocalServer(ScriptedEngine(["acme/small"]), data_dir=tmp_path / "data", faults=faults) as running:
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
        invoke.stderr = outcome.stderr
        return outcome.output if fails else outcome.stdout

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


def saved(run, *words):
    """What ``checkpoint save`` shows of what it saved."""
    return json.loads(run("checkpoint", "save", "--name", "begin", "--format", "json", *words))


def test_a_new_model_is_saved(run, connect):
    """Of the server's only base model, with the adapter of the options; any client can go on from it."""
    about = saved(run)
    assert ("training", "acme/small") == (about["checkpoint_type"], about["base_model"])
    assert about["tinker_path"].endswith("/weights/begin")
    adapter = ["--base-model", "acme/small", "--rank", 4, "--no-train-unembed", "--train-mlp"]
    path = saved(run, *adapter, "--seed", 7, "--ttl", 3600)["tinker_path"]
    described = json.loads(run("checkpoint", "info", path, "-f", "json"))
    assert (4, True, False) == tuple(described[name] for name in ("lora_rank", "train_mlp", "train_unembed"))
    assert described["expires_at"]
    with connect() as service:
        assert "acme/small" == service.create_training_client_from_state(path).base_model
    assert re.search(r"^tinker_path +tinker://.*/weights/x$", run("checkpoint", "save", "--name", "x"), re.MULTILINE)


def test_a_training_checkpoint_becomes_one_to_sample_from(run, paths, connect):
    """With the rank of the first."""
    about = saved(run, "--model-path", paths[0], "--for-sampler")
    assert ("sampler", "acme/small") == (about["checkpoint_type"], about["base_model"])
    assert 4 == json.loads(run("checkpoint", "info", about["tinker_path"], "-f", "json"))["lora_rank"]
    with connect() as service:
        prompt, params = tinkex.types.ModelInput.from_ints([1]), tinkex.types.SamplingParams(max_tokens=2)
        sampler = service.create_sampling_client(about["tinker_path"])
        assert sampler.sample(prompt, 1, params).result(WAIT).sequences


@pytest.mark.parametrize(("more", "steps"), [((), 0), (("--with-optimizer",), 1)])
def test_the_optimizer_is_taken_along_if_asked_for(run, connect, tmp_path, more, steps):
    """Else the copy has a new one, which has made no step."""
    with connect() as service:
        train = service.create_lora_training_client("acme/small", rank=4)
        train.optim_step().result(WAIT)
        path = train.save_state("stepped").result(WAIT).path
    saved(run, "--model-path", path, *more)
    optimizers = [json.loads(file.read_text())["steps"] for file in (tmp_path / "data").rglob("optimizer.json")]
    assert sorted([1, steps]) == sorted(optimizers)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["--model-path", "P", "--rank", 4, "--no-train-mlp", "--base-model", "b"],
            "--rank, --train-mlp, --base-model",
        ),
        (["--model-path", "P", "--seed", 0], "leave out --seed"),
        (["--with-optimizer"], "--with-optimizer is for --model-path"),
        (["--model-path", "P", "--with-optimizer", "--for-sampler"], "give --with-optimizer or --for-sampler"),
        (["--model-path", "tinker://r/sampler_weights/s"], "--model-path 'tinker://r/sampler_weights/s' is a sampler"),
        (["--name", "a/b"], "name must be"),
        (["--ttl", 60], "3600"),
    ],
)
def test_options_that_make_no_sense_make_no_model(run, faults, words, text):
    """Each mistake is named before anything is sent."""
    assert text in run("checkpoint", "save", "--name", "begin", *words, fails=True)
    assert not faults.seen


def test_a_saved_model_is_freed(run, faults):
    """Some servers do that with the session; whatever else goes wrong is a note, for the checkpoint was saved."""
    saved(run)
    assert 1 == faults.count("unload_model")
    faults.answer(404, path="unload_model", nth=1)
    faults.answer(422, path="unload_model", nth=2)
    assert saved(run)
    assert "still has the model" not in run.stderr
    assert saved(run)
    assert "still has the model: HTTP 422" in run.stderr


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


@pytest.mark.parametrize("path", ["tinker://m/weights/..", "tinker://m/weights/", "."])
def test_a_folder_is_not_named_after_nothing(run, path):
    """With --force, the folder of the caller would be replaced."""
    assert "give --output DIR" in run("checkpoint", "download", path, "--force", fails=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes_are_readable(size, text):
    """In the unit that fits."""
    assert text == describe_size(size)
