"""A whole run against a server of plain objects."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.recipes.fakes import FakeService
from tinkex.errors import InvalidInputError, NotFoundError, RequestFailedError
from tinkex.recipes.plan import SFTSettings
from tinkex.recipes.progress import Reporter
from tinkex.recipes.run_folder import RunFolder
from tinkex.recipes.sft import resume_sft, train_sft

WORDS = {f"question {n}": f"answer {n}" for n in range(40)}


class Watcher(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        self.phases = []
        self.records = []
        self.notes = []

    def phase(self, title, total=0, done=0):
        self.phases.append((title, total, done))

    def step(self, record):
        self.records.append(record)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(autouse=True)
def fast_drawing(monkeypatch):
    """Leave the drawing, which is slow, to the tests of the run folder."""
    monkeypatch.setattr(RunFolder, "plot_loss", lambda folder: folder.path / "loss.png")


@pytest.fixture
def data(tmp_path):
    """Return a chat file."""
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in WORDS.items()))
    return file


def settings(**given):
    """Make settings of a short run."""
    return SFTSettings.for_model("fake/model", **{"steps": 6, "batch_size": 4, "save_every": 2, **given})


def stop_after(step, watcher):
    """Ask to stop once a step is done."""
    return lambda: contextlib.nullcontext(lambda: bool(watcher.records) and watcher.records[-1].step >= step)


def test_a_run_learns_and_leaves_everything_behind(data, tmp_path):
    """Held-out prompts are asked before and after, and the folder and result agree on what happened."""
    service = FakeService(WORDS)
    result = train_sft(service, data, tmp_path / "run", settings())
    assert [answer.exact for answer in result.before] == [False] * 4
    assert [answer.exact for answer in result.after] == [True] * 4
    assert (result.steps_done, result.steps_planned, result.stopped) == (6, 6, False)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in metrics] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert [record["exact"] for record in metrics if "exact" in record] == [0, 4]
    assert [record["loss"] for record in metrics if "loss" in record] == pytest.approx([8 / n for n in range(1, 7)])
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert {(record["before"], record["after"] == record["expected"]) for record in answers} == {("?", True)}
    checkpoints = [json.loads(line) for line in (tmp_path / "run" / "checkpoints.jsonl").read_text().splitlines()]
    assert [record["step"] for record in checkpoints] == [2, 4, 6, 6]
    assert checkpoints[-1] == {"step": 6, "state_path": result.state_path, "sampler_path": result.sampler_path}
    assert service.checkpoints[result.sampler_path] == 6
    assert (result.folder, result.loss_plot) == (tmp_path / "run", tmp_path / "run" / "loss.png")


def test_no_held_out_prompt_is_trained_on_and_all_are_asked_at_once(data, tmp_path):
    """What is asked was never learned; no question waits for the answer to another."""
    service = FakeService(WORDS)
    result = train_sft(service, data, tmp_path / "run", settings(steps=30))
    trained = {tuple(tokens) for batch, _ in service.calls("forward_backward") for tokens in batch}
    asked = {tuple(prompt) for prompt, _ in service.calls("sample")}
    assert len(asked) == len(result.after) == 4
    assert not any(tokens[: len(prompt)] == prompt for tokens in trained for prompt in asked)
    assert all(params.temperature == 0 for _, params in service.calls("sample"))


def test_one_step_is_submitted_ahead(data, tmp_path):
    """Step n+1 is with the server before the result of step n is read, and nothing is read out of order."""
    events = []

    class Ahead(Reporter):
        def step(self, record):
            events.append((record.step, len(service.calls("optim_step"))))

    service = FakeService(WORDS)
    train_sft(service, data, tmp_path / "run", settings(), reporter=Ahead())
    assert events == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 6)]
    order = [entry[0] for entry in service.log if entry[0] in ("forward_backward", "optim_step")]
    assert order == ["forward_backward", "optim_step"] * 6


def test_the_loss_is_the_sum_by_the_learned_tokens(data, tmp_path):
    """8 by step number for each learned token, whatever the sizes of batch and answers."""
    watcher = Watcher()
    train_sft(FakeService(WORDS), data, tmp_path / "run", settings(batch_size=3), reporter=watcher)
    assert [record.loss for record in watcher.records] == pytest.approx([8 / n for n in range(1, 7)])
    assert [record.step for record in watcher.records] == [1, 2, 3, 4, 5, 6]
    assert all(record.tokens > 0 and record.tokens_per_s > 0 for record in watcher.records)


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_stopped_and_resumed_run_does_what_an_uninterrupted_one_does(data, tmp_path, cut):
    """Batches, learning rates and metrics of both parts together are those of the run in one piece."""
    whole, parts, watcher = FakeService(WORDS), FakeService(WORDS), Watcher()
    train_sft(whole, data, tmp_path / "whole", settings())
    first = train_sft(parts, data, tmp_path / "parts", settings(), reporter=watcher, stopping=stop_after(cut, watcher))
    assert first.stopped
    assert first.sampler_path is None
    assert parts.checkpoints[first.state_path] == first.steps_done >= cut
    second = resume_sft(parts, data, tmp_path / "parts")
    assert parts.calls("load") == [(first.state_path,)]
    for call in ("forward_backward", "optim_step"):
        assert parts.calls(call) == whole.calls(call)
    assert [answer.exact for answer in second.after] == [True] * 4
    assert [answer.said for answer in second.before] == ["?"] * 4
    read = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    }
    changing = {"tokens_per_s", "elapsed_s"}
    assert [{k: v for k, v in r.items() if k not in changing} for r in read["parts"]] == [
        {k: v for k, v in r.items() if k not in changing} for r in read["whole"]
    ]
    elapsed = [record["elapsed_s"] for record in read["parts"] if "elapsed_s" in record]
    assert elapsed == sorted(elapsed)


def test_a_run_that_failed_resumes_from_its_last_checkpoint(data, tmp_path):
    """Steps behind the checkpoint are done again, and their lines stand once."""
    service = FakeService(WORDS)
    service.fail_at, service.failure = 5, RequestFailedError("out of memory", category="server")
    with pytest.raises(RequestFailedError, match="out of memory"):
        train_sft(service, data, tmp_path / "run", settings())
    service.fail_at = None
    resume_sft(service, data, tmp_path / "run")
    (path,) = service.calls("load")[0]
    assert service.checkpoints[path] == 4
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3, 4, 5, 6, 6]


def test_a_run_without_a_checkpoint_cannot_be_resumed(data, tmp_path):
    """The message says to start it again."""
    service = FakeService(WORDS)
    service.fail_at, service.failure = 0, RequestFailedError("no")
    with pytest.raises(RequestFailedError):
        train_sft(service, data, tmp_path / "run", settings())
    with pytest.raises(InvalidInputError, match="no checkpoint yet"):
        resume_sft(service, data, tmp_path / "run")


def test_a_complete_run_can_be_trained_further(data, tmp_path):
    """Resuming as it is would do nothing and is refused with a number; more steps go on along the longer plan."""
    service = FakeService(WORDS)
    train_sft(service, data, tmp_path / "run", settings())
    with pytest.raises(InvalidInputError, match=r"6 of 6 steps and is complete.*--steps 12"):
        resume_sft(service, data, tmp_path / "run")
    result = resume_sft(service, data, tmp_path / "run", steps=8)
    assert (result.steps_done, result.steps_planned) == (8, 8)
    rates = [rate for (rate,) in service.calls("optim_step")]
    assert rates[6:] == pytest.approx([5e-4 * 2 / 8, 5e-4 * 1 / 8])
    with pytest.raises(InvalidInputError, match="8 of 7 steps"):
        resume_sft(service, data, tmp_path / "run", steps=7)


def test_a_run_that_ended_before_its_last_questions_asks_them_when_resumed(data, tmp_path):
    """All steps are done, so only the answers are missing."""

    class Interrupted(Reporter):
        def phase(self, title, total=0, done=0):
            if title.endswith("after"):
                raise KeyboardInterrupt

    service = FakeService(WORDS)
    with pytest.raises(KeyboardInterrupt):
        train_sft(service, data, tmp_path / "run", settings(), reporter=Interrupted())
    result = resume_sft(service, data, tmp_path / "run")
    assert len(service.calls("optim_step")) == 6
    assert [answer.exact for answer in result.after] == [True] * 4


def test_a_checkpoint_that_is_gone_leaves_the_folder_as_it_was(data, tmp_path):
    """A resume that could not begin has changed nothing, so it can be tried again elsewhere."""
    service = FakeService(WORDS)
    train_sft(service, data, tmp_path / "run", settings())
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def gone(path):
        raise NotFoundError("no such checkpoint", status_code=404)

    service.create_training_client_from_state_with_optimizer = gone
    with pytest.raises(NotFoundError):
        resume_sft(service, data, tmp_path / "run", steps=9)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_another_file_is_refused_when_resuming(data, tmp_path):
    """The order of the data would not be the same."""
    service = FakeService(WORDS)
    train_sft(service, data, tmp_path / "run", settings())
    data.write_text(data.read_text() + '{"prompt": "new", "completion": "line"}\n')
    with pytest.raises(InvalidInputError, match=r"is not what the run in .* began with"):
        resume_sft(service, data, tmp_path / "run", steps=9)
    with pytest.raises(InvalidInputError, match="cannot read"):
        resume_sft(service, tmp_path / "none.jsonl", tmp_path / "run", steps=9)


def test_a_folder_of_something_else_is_refused_when_resuming(data, tmp_path):
    """A config.json that this recipe did not write is named as the reason."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "checkpoints.jsonl").write_text('{"step": 1, "state_path": "tinker://a/weights/b"}\n')
    with pytest.raises(InvalidInputError, match="was not written by this recipe"):
        resume_sft(FakeService(), data, run)


@pytest.mark.parametrize("skip_long", [False, True])
def test_conversations_that_do_not_fit_are_refused_or_left_out(data, tmp_path, skip_long):
    """Never cut silently: the line numbers are in the message, and leaving out must be asked for."""
    with data.open("a") as file:
        file.write(json.dumps({"prompt": "x" * 90, "completion": "y"}) + "\n")
    watcher, service = Watcher(), FakeService(WORDS)
    if not skip_long:
        with pytest.raises(InvalidInputError, match=r"1 of 41 conversations \(line 41\) .*64 tokens.*--skip-long"):
            train_sft(service, data, tmp_path / "run", settings())
        assert not (tmp_path / "run").exists()
        assert service.created == 0
        return
    train_sft(service, data, tmp_path / "run", settings(skip_long=True), reporter=watcher)
    assert any("left out: 1 of 41 conversations (line 41)" in note for note in watcher.notes)


def test_a_file_in_which_nothing_fits_is_refused_even_then(data, tmp_path):
    """Leaving out everything is not what was asked for."""
    service = FakeService(models=(("fake/model", 3),))
    with pytest.raises(InvalidInputError, match="use shorter ones or another model"):
        train_sft(service, data, tmp_path / "run", settings(skip_long=True))


@pytest.mark.parametrize("context", [64, None])
def test_answers_have_room_but_never_more_than_the_context(data, tmp_path, context):
    """The longest expected answer fits, and prompt and answer together fit the model."""
    service = FakeService(WORDS, models=(("fake/model", context),))
    train_sft(service, data, tmp_path / "run", settings(max_tokens=60))
    for prompt, params in service.calls("sample"):
        assert params.max_tokens == (60 if context is None else min(60, 64 - len(prompt)))
    service.log.clear()
    train_sft(service, data, tmp_path / "run2", settings())
    longest = max(len(answer) for answer in WORDS.values())
    assert all(longest < params.max_tokens < 60 for _, params in service.calls("sample"))


def test_nothing_is_asked_if_nothing_is_held_out_or_asking_is_off(data, tmp_path):
    """The run then trains only, and has no answers to show."""
    for name, given in (("a", {"holdout": 0}), ("b", {"evaluate": False})):
        service = FakeService(WORDS)
        result = train_sft(service, data, tmp_path / name, settings(**given))
        assert service.calls("sample") == []
        assert (result.before, result.after) == ([], [])
        assert result.question in WORDS
        assert not (tmp_path / name / "answers.jsonl").exists()
        with pytest.raises(InvalidInputError, match="is complete"):
            resume_sft(service, data, tmp_path / name)


def test_a_loss_that_is_not_a_number_ends_the_run(data, tmp_path):
    """Training on would waste time; the way out is a lower learning rate."""
    service = FakeService(WORDS)
    real = service.create_lora_training_client

    def diverging(*args, **kwargs):
        client = real(*args, **kwargs)
        forward = client.forward_backward

        def broken(data, loss_fn):
            future = forward(data, loss_fn)
            if client.steps == 3:
                future.result().metrics["loss:sum"] = float("nan")
            return future

        client.forward_backward = broken
        return client

    service.create_lora_training_client = diverging
    with pytest.raises(InvalidInputError, match=r"loss of step 4 is nan.*lower learning rate than 0\.0005"):
        train_sft(service, data, tmp_path / "run", settings())
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]


def test_a_folder_in_use_is_refused_before_anything_is_trained(data, tmp_path):
    """A mistake costs no training."""
    service = FakeService(WORDS)
    train_sft(service, data, tmp_path / "run", settings())
    service.log.clear()
    with pytest.raises(InvalidInputError, match="is not empty"):
        train_sft(service, data, tmp_path / "run", settings())
    assert service.calls("create") == service.calls("sample") == []
    train_sft(service, data, tmp_path / "run", settings(), force=True)
    assert len(service.calls("create")) == 1


def test_saving_only_at_the_end_is_possible(data, tmp_path):
    """save_every=0 leaves one checkpoint to train on from and one to sample from."""
    service = FakeService(WORDS)
    train_sft(service, data, tmp_path / "run", settings(save_every=0))
    assert sorted(service.checkpoints.values()) == [6, 6]
