"""Every command, against a server of plain objects."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tinkex
from tests.recipes.fakes import FakeService
from tinkex import errors
from tinkex._version import __version__
from tinkex.cli import main
from tinkex.cli._app import App
from tinkex.cli._errors import NEXT_STEP, one_line
from tinkex.recipes.run_folder import RunFolder
from tinkex.recipes.sft import _Trainer

WORDS = {f"question {n}": f"answer {n}" for n in range(40)}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Work in an empty folder with a chat file, with no server in the environment and no time for drawing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunFolder, "plot_loss", lambda folder: None)
    for name in ("TINKER_API_KEY", "TINKER_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    lines = [json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in WORDS.items()]
    (tmp_path / "my data.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def service():
    """Return the server that commands reach."""
    return FakeService(WORDS)


@pytest.fixture
def run(service):
    """Return a function that runs a command line and returns its outcome; ``urls`` are those it connected to."""
    urls = []

    def connect(base_url, **settings):
        urls.append(base_url)
        invoke.settings = settings
        return service

    def invoke(*words, **options):
        return CliRunner().invoke(main, [str(word) for word in words], obj=App(connect=connect), **options)

    invoke.urls = urls
    return invoke


SFT = ("train", "sft", "my data.jsonl", "--steps", 4, "--batch-size", 4)


def commands(group=main, path=()):
    """List all commands with their paths."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), list(commands()))
def test_every_command_and_option_explains_itself(path, command):
    """Each has a help text that ends as a sentence, and --help shows it."""
    assert command.help.strip().endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help.strip().endswith(".")
    outcome = CliRunner().invoke(main, [*path, "--help"])
    assert outcome.exit_code == 0
    assert command.help.split("\n")[0].split()[0] in outcome.output


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["train", "sft", "-h"], ["version"], ["sample", "-h"]]
)
def test_help_loads_nothing_heavy(words):
    """Help answers at once: no arrays, no engine, no HTTP, no progress bar is imported for it."""
    heavy = (
        "numpy",
        "torch",
        "transformers",
        "requests",
        "cattrs",
        "tqdm",
        "matplotlib",
        "tinkex.clients",
        "tinkex.local",
    )
    program = (
        f"import sys\nfrom tinkex.cli import main\nmain({words!r}, standalone_mode=False)\n"
        f"sys.exit(str([name for name in {heavy!r} if name in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=_environment())
    assert (done.returncode, done.stderr.strip()) == (1, ""), done.stderr


def _environment():
    return {**os.environ, "PYTHONPATH": str(Path(tinkex.__file__).parent.parent)}


def test_the_module_is_the_command(place):
    """``python -m tinkex`` does what ``tinkex`` does, under that name."""
    words = [sys.executable, "-m", "tinkex", "nonsense"]
    done = subprocess.run(words, capture_output=True, text=True, env=_environment())
    assert done.returncode == 2
    assert "Usage: tinkex " in done.stderr


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_version_is_shown(run, words):
    """It is the package's."""
    assert run(*words, prog_name="tinkex").output.startswith(f"tinkex {__version__}")


def test_the_form_of_the_wire_can_be_chosen(run):
    """Where it is not, nothing is set, so that the variable counts; a typo is told at once."""
    run("train", "sft", "my data.jsonl", "--steps", 1, "--wire", "proto")
    assert {"wire": "proto"} == run.settings
    run("train", "sft", "my data.jsonl", "--steps", 1, "--force", "--out", "runs/my data")
    assert {} == run.settings
    assert "'auto', 'json', 'proto'" in run("train", "sft", "my data.jsonl", "--wire", "JSON").stderr


# --- train sft ---


def test_a_first_run_says_what_happened_and_how_to_go_on(run, service, place):
    """Counts and examples come on stdout, with commands that can be pasted."""
    outcome = run(*SFT)
    assert outcome.exit_code == 0, outcome.output
    assert "exact answers on held-out prompts: 0/4 before, 4/4 after" in outcome.stdout
    assert outcome.stdout.count("(exact)") == 3
    assert "no loss.png: matplotlib is not installed" in outcome.stdout
    assert {path.name for path in (place / "runs" / "my data").iterdir()} >= {"config.json", "metrics.jsonl"}
    assert "tinkex sample --model-path tinker://model-1/sampler_weights/step-000004 'question" in outcome.stdout
    assert "tinkex train sft 'my data.jsonl' --resume 'runs/my data' --steps 8" in outcome.stdout
    assert service.log[-1] == ("close",)


def test_the_printed_commands_work(run, service):
    """Sampling from the run gives the learned answer, and training goes on where it ended."""
    lines = [shlex.split(line)[1:] for line in run(*SFT).stdout.splitlines() if line.startswith("  tinkex ")]
    sample, resume = lines
    assert run(*sample).stdout.strip() == WORDS[sample[-1]]
    assert run(*resume).exit_code == 0
    assert len(service.calls("optim_step")) == 8


def test_the_same_command_again_makes_another_run(run, place):
    """Nothing is overwritten."""
    assert [run(*SFT).exit_code, run(*SFT).exit_code] == [0, 0]
    assert {path.name for path in (place / "runs").iterdir()} == {"my data", "my data-2"}


def test_without_key_and_url_the_embedded_server_is_used_and_one_line_says_so(run):
    """The line tells how to change it."""
    outcome = run(*SFT)
    assert run.urls == ["local"]
    (line,) = [line for line in outcome.stderr.splitlines() if "TINKER_API_KEY" in line]
    assert "embedded server" in line
    assert "--base-url" in line


@pytest.mark.parametrize(
    ("environment", "words", "url"),
    [
        ({"TINKER_API_KEY": "tml-x"}, [], None),
        ({"TINKER_BASE_URL": "http://a"}, [], "http://a"),
        ({"TINKER_BASE_URL": "http://a", "TINKER_API_KEY": "tml-x"}, ["--base-url", "local"], "local"),
        ({}, ["--base-url", "http://b"], "http://b"),
    ],
)
def test_options_and_environment_choose_the_server(run, monkeypatch, environment, words, url):
    """An option wins over the environment; then nothing is said about the embedded server."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = run(*SFT, *words)
    assert run.urls == [url]
    assert "embedded" not in outcome.stderr
    resume = next(line for line in outcome.stdout.splitlines() if "--resume" in line)
    assert resume.endswith(f"--base-url {url}") == bool(words)


def test_a_server_with_several_models_wants_a_choice(run, service):
    """The error lists what there is; with --model the run begins."""
    service.models = (("b/model", 64), ("a/model", 64))
    outcome = run(*SFT)
    assert outcome.exit_code == 1
    assert "choose a base model with --model; this server offers a/model, b/model" in outcome.stderr
    assert run(*SFT, "--model", "b/model").exit_code == 0
    assert service.calls("create")[0][0] == "b/model"


@pytest.mark.parametrize("words", [("sample", "hello"), ("checkpoint", "save", "--name", "begin")])
def test_the_option_that_chooses_a_model_is_named_as_the_command_has_it(run, service, words):
    """It is --base-model where there is also --model-path."""
    service.models = (("b/model", 64), ("a/model", 64))
    assert "choose a base model with --base-model; this" in run(*words).stderr


def test_options_reach_the_run(run, service, place):
    """What is given on the command line stands in config.json."""
    words = ("--lr", 0.25, "--rank", 3, "--seed", 9, "--holdout", 2, "--max-tokens", 30, "--save-every", 0)
    outcome = run(*SFT, *words, "--no-eval", "--skip-long", "--out", "there")
    assert outcome.exit_code == 0, outcome.output
    settings = json.loads((place / "there" / "config.json").read_text())["settings"]
    assert settings == {
        "base_model": "fake/model", "rank": 3, "learning_rate": 0.25, "batch_size": 4, "steps": 4, "epochs": None,
        "holdout": 2, "max_tokens": 30, "seed": 9, "save_every": 0, "evaluate": False, "skip_long": True,
    }  # fmt: skip
    assert service.calls("create") == [("fake/model", 3, 9)]
    assert "exact answers" not in outcome.stdout


def test_epochs_take_the_place_of_steps(run, service):
    """36 examples twice in batches of 4 are 18 steps; both together are refused."""
    assert run("train", "sft", "my data.jsonl", "--epochs", 2, "--batch-size", 4).exit_code == 0
    assert len(service.calls("optim_step")) == 18
    outcome = run(*SFT, "--epochs", 2)
    assert (outcome.exit_code, outcome.stderr.splitlines()[-1]) == (1, "error: give either steps or epochs")


def test_an_existing_folder_is_refused_and_force_replaces_it(run):
    """The refusal does not offer to resume the run that it protects."""
    run(*SFT, "--out", "there")
    outcome = run(*SFT, "--out", "there")
    assert outcome.exit_code == 1
    assert "is not empty" in outcome.stderr
    assert "saved at" not in outcome.stderr
    assert run(*SFT, "--out", "there", "--force").exit_code == 0


@pytest.mark.parametrize("words", [["--lr", "1"], ["--seed", "0"], ["--force"], ["--no-eval"], ["--out", "x"]])
def test_a_resumed_run_keeps_its_settings(run, words):
    """Options that would change it are refused by name."""
    run(*SFT)
    outcome = run("train", "sft", "my data.jsonl", "--resume", "runs/my data", *words)
    assert outcome.exit_code == 2
    assert "cannot be changed when resuming" in outcome.stderr


def test_a_failure_while_training_says_how_to_resume(run, service):
    """One line for the error, one for what is saved, and the command."""
    service.fail_at, service.failure = 3, errors.RequestFailedError("out of memory", category="server")
    outcome = run(*SFT, "--save-every", 1)
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[-3:] == [
        "saved at step 3; to resume:",
        "  tinkex train sft 'my data.jsonl' --resume 'runs/my data'",
        "error: out of memory",
    ]
    service.fail_at = None
    assert run("train", "sft", "my data.jsonl", "--resume", "runs/my data").exit_code == 0


def test_ctrl_c_while_training_saves_and_says_how_to_resume(run, service, monkeypatch):
    """The first Ctrl-C finishes what is in flight; the exit status is that of an interrupt; resuming completes it."""
    submit = _Trainer._submit

    def pressing(self, step):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return submit(self, step)

    monkeypatch.setattr(_Trainer, "_submit", pressing)
    outcome = run(*SFT)
    assert outcome.exit_code == 130
    assert "stopping: finishing the steps in flight" in outcome.stderr
    assert "stopped after step 2 of 4; to resume:" in outcome.stdout
    resume = outcome.stdout.splitlines()[-1]
    assert resume == "  tinkex train sft 'my data.jsonl' --resume 'runs/my data'"
    monkeypatch.setattr(_Trainer, "_submit", submit)
    assert run("train", "sft", "my data.jsonl", "--resume", "runs/my data").exit_code == 0
    assert len(service.calls("optim_step")) == 4


def test_a_bad_file_is_one_line_and_leaves_nothing(run, place):
    """File, line and way out, no traceback, no run folder."""
    (place / "bad.jsonl").write_text('{"prompt": "a"}\n')
    outcome = run("train", "sft", "bad.jsonl")
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[-1].startswith("error: bad.jsonl, line 1: completion is missing")
    assert not (place / "runs").exists()


# --- sample ---


def test_sampling_renders_the_chat_and_prints_the_answer(run, service):
    """The only model of the server is asked, greedily, and stops where a turn ends."""
    outcome = run("sample", "question 1")
    assert (outcome.exit_code, outcome.stdout) == (0, "?\n")
    ((prompt, params),) = service.calls("sample")
    assert prompt[0] == 2
    assert prompt[-1] == 3
    assert (params.temperature, params.stop, params.max_tokens) == (0.0, [1], 128)
    assert service.calls("sampler") == [(None, "fake/model")]


def test_sampling_options_reach_the_server(run, service):
    """Each answer of several has its number."""
    words = (
        "--temperature",
        0.5,
        "--top-p",
        0.9,
        "--top-k",
        5,
        "--seed",
        3,
        "--max-tokens",
        9,
        "--stop",
        "x",
        "--stop",
        "y",
    )
    outcome = run("sample", "hello", "--num-samples", 2, *words)
    assert outcome.stdout == "[1] ?\n[2] ?\n"
    ((_, params),) = service.calls("sample")
    assert (params.temperature, params.top_p, params.top_k, params.seed, params.max_tokens) == (0.5, 0.9, 5, 3, 9)
    assert params.stop == ["x", "y", "<end>"]


def test_raw_sampling_continues_the_text(run, service):
    """No template, and no end of a turn to stop at."""
    run("sample", "--raw", "Once")
    ((prompt, params),) = service.calls("sample")
    assert "".join(chr(token - 10) for token in prompt) == "Once"
    assert params.stop is None


def test_a_prompt_can_come_from_a_pipe(run, service):
    """A dash reads it, whole."""
    run("sample", "-", input="two\nlines\n")
    ((prompt, _),) = service.calls("sample")
    assert "".join(chr(token - 10) for token in prompt[1:-2]) == "two\nlines\n"


def test_sampling_from_two_models_at_once_is_refused(run):
    """It would not be clear which one answers."""
    outcome = run("sample", "a", "--model-path", "tinker://a/sampler_weights/b", "--base-model", "c")
    assert outcome.exit_code == 2


# --- serve ---


def test_serve_passes_its_options_on(place):
    """The defaults are those of the documentation: this machine, port 8123, the built-in model."""
    seen = []
    app = App(serve=lambda **options: seen.append(options))
    for words in (
        ["serve"],
        ["serve", "--host", "::1", "--port", "0", "--data-dir", "d", "--model", "m", "--api-key", "k"],
    ):
        assert CliRunner().invoke(main, words, obj=app).exit_code == 0
    assert seen == [
        {"host": "127.0.0.1", "port": 8123, "data_dir": None, "model": "tiny", "api_key": None},
        {"host": "::1", "port": 0, "data_dir": Path("d"), "model": "m", "api_key": "k"},
    ]


# --- errors ---


def broken(error):
    """Return an app whose server cannot be reached."""

    def connect(base_url):
        raise error

    return App(connect=connect)


ALL_ERRORS = [
    errors.ConfigurationError("no key\nset one"),
    errors.AuthenticationError("wrong key", status_code=401, path="/x", idempotency_key="secretish"),
    errors.APIConnectionError("no answer"),
    errors.RequestFailedError("failed", request_id="r-1"),
    ImportError('the embedded server needs torch: pip install "tinkex[local]"'),
]


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_one_line_and_exit_status_1(error):
    """Nobody is met by a traceback, and the idempotency key is left to --debug."""
    outcome = CliRunner().invoke(main, ["sample", "a"], obj=broken(error))
    assert outcome.exit_code == 1
    last = outcome.stderr.splitlines()[-1]
    assert last == f"error: {one_line(error)}"
    assert "\n" not in one_line(error)
    assert "secretish" not in outcome.stderr
    assert "Traceback" not in outcome.output


def test_debug_shows_where_an_error_comes_from():
    """The exception itself comes out of the command."""
    error = errors.ConfigurationError("no")
    outcome = CliRunner().invoke(main, ["--debug", "sample", "a"], obj=broken(error))
    assert outcome.exception is error


def test_errors_of_the_server_say_what_to_do_next():
    """The table adds the step that the message of a server cannot know, and the request id to look it up by."""
    error = errors.RateLimitError("slow down", status_code=429, request_id="r-1")
    assert one_line(error) == "slow down (request id r-1); wait a little and run the command again"
    broken_pipeline = errors.PipelineBrokenError("an earlier operation failed")
    broken_pipeline.__cause__ = error
    assert one_line(broken_pipeline) == one_line(error)
    assert len({kind for kind, _ in NEXT_STEP}) == len(NEXT_STEP)


def test_ctrl_c_is_exit_status_130():
    """As shells expect it, with a word instead of a traceback."""
    outcome = CliRunner().invoke(main, ["sample", "a"], obj=broken(KeyboardInterrupt()))
    assert outcome.exit_code == 130
    assert outcome.stderr.splitlines()[-1] == "interrupted"


def test_a_server_that_is_not_there_is_reported_at_once():
    """Nobody waits through minutes of retries for a mistyped address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        outcome = CliRunner().invoke(main, ["sample", "a", "--base-url", url])
    assert outcome.exit_code == 1
    assert f"is the server running? base_url={url}" in outcome.stderr.splitlines()[-1]
