"""Training that goes on after failures: against the scripted engine over a real socket, and against plain fakes."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from types import SimpleNamespace

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinkex
from tests.recipes.fakes import FakeService, FakeTrainer, done
from tinkex import types
from tinkex.local import LocalServer
from tinkex.recipes.recovery import Attempt, RecoveryPolicy, Restart, SavePoint, train_with_recovery
from tinkex.resources import TinkexAPI
from tinkex.testing.engine import ScriptedEngine
from tinkex.testing.faults import FaultPlan

BASE = "acme/small"
WAIT = 30.0
STEPS, EVERY = 10, 4
BATCH = [types.Datum(model_input=types.ModelInput.from_ints([1, 2]), loss_fn_inputs={"target_tokens": [2, 3]})]
ADAM = types.AdamParams()
NO_JITTER = RecoveryPolicy(max_failures=4, initial_wait_s=5.0, max_wait_s=15.0, jitter=0.0)


@attrs.define
class Play:
    """A server with faults, what the training did, and what was told of it."""

    folder: object
    server: LocalServer
    engine: ScriptedEngine
    faults: FaultPlan
    restarts: list[Restart] = attrs.field(factory=list)
    waits: list[float] = attrs.field(factory=list)
    services: list[tinkex.ServiceClient] = attrs.field(factory=list)
    losses: dict[int, float] = attrs.field(factory=dict)

    def open_service(self):
        """Make the client of an attempt; a request that fails is not sent again."""
        config = tinkex.ClientConfig(
            base_url=self.server.base_url,
            api_key=self.server.api_key,
            telemetry=False,
            retry=tinkex.RetryPolicy.none(),
        )
        self.services.append(tinkex.ServiceClient(config=config))
        return self.services[-1]

    def train(self, attempt):
        """Train, as a program would: submit ahead, save now and then, end with a save."""
        futures = {}
        for step in range(attempt.step, STEPS):
            futures[step] = attempt.client.forward_backward(BATCH, "cross_entropy")
            attempt.client.optim_step(ADAM)
            if (step + 1) % EVERY == 0:
                attempt.save(step + 1)
        path = attempt.save(STEPS)
        self.losses |= {step: future.result(WAIT).metrics["loss:sum"] for step, future in futures.items()}
        return path

    def run(self, train=None, **options):
        """Run it under recovery, on a clock that does not wait."""
        given = {
            "policy": NO_JITTER,
            "on_restart": self.restarts.append,
            "sleep": self.waits.append,
            **options,
        }
        return train_with_recovery(
            self.open_service,
            lambda service: service.create_lora_training_client(BASE, rank=4),
            train or self.train,
            **given,
        )

    def steps_of(self, path):
        """Read what a checkpoint has of steps: in the weights, and in the optimizer."""
        run, name = path.removeprefix("tinker://").split("/weights/")
        place = self.folder / "checkpoints" / run.replace(":", "_") / "weights" / name
        return [
            json.loads((place / file).read_text())["steps"] for file in ("adapter_model.safetensors", "optimizer.json")
        ]

    def assert_went_on_from(self, path, *steps):
        """Hold the outcome against that of an undisturbed run, and the restarts against the steps they began at."""
        assert [STEPS, STEPS] == self.steps_of(path)
        assert {step: 4 / (1 + step) for step in range(steps[-1], STEPS)} == pytest.approx(self.losses)
        assert list(steps) == [restart.save_point.step if restart.save_point else 0 for restart in self.restarts]
        assert len(self.services) == len(steps) + 1


@pytest.fixture
def play(tmp_path):
    """The stage, over a real socket."""
    engine, faults = ScriptedEngine([BASE]), FaultPlan()
    with LocalServer(engine, data_dir=tmp_path, faults=faults) as server:
        yield Play(tmp_path, server, engine, faults)


# --- Failures that another attempt can help ------------------------------------------------------------------------


def test_without_a_failure_it_is_one_attempt(play):
    """The result is that of the training function, and nobody is told of anything."""
    path = play.run()
    assert path.endswith("/step-10")
    assert [STEPS, STEPS] == play.steps_of(path)
    assert ([], [], 1) == (play.restarts, play.waits, len(play.services))


def test_after_a_failure_of_the_server_it_goes_on_from_the_last_checkpoint(play, caplog):
    """With weights and optimizer as they were then: steps and losses are those of a run in one piece."""
    play.engine.fail("optim_step", RuntimeError("out of memory"), nth=7)
    with caplog.at_level(logging.WARNING, logger="tinkex"):
        path = play.run()
    play.assert_went_on_from(path, 4)
    (restart,) = play.restarts
    assert (1, 1, 5.0) == (restart.attempt, restart.failures, restart.wait_s)
    assert isinstance(restart.cause, tinkex.RequestFailedError)
    assert restart.save_point.path.endswith("/step-4")
    (line,) = [record.getMessage() for record in caplog.records if "attempt" in record.getMessage()]
    assert "attempt 1: optim_step failed: RuntimeError: out of memory" in line
    assert f"going on from step 4, {restart.save_point.path} in 5.0 s (failure 1 of 4)" in line


def test_before_the_first_checkpoint_it_begins_anew(play):
    """With a model that is made again."""
    play.engine.fail("forward_backward", RuntimeError("x"), nth=2)
    play.assert_went_on_from(play.run(), 0)
    assert 2 == play.engine.operations().count("create_model")
    assert play.restarts[0].save_point is None


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_cannot_now_is_tried_again(play, status):
    """After the retries of the client itself; here it has none."""
    play.faults.answer(status, path="optim_step", nth=6)
    play.assert_went_on_from(play.run(), 4)
    assert status == play.restarts[0].cause.status_code


def test_a_lost_connection_is_helped(play):
    """Whether or not the server has acted: the model in doubt is left behind."""
    play.faults.drop(path="forward_backward", nth=6)
    play.faults.reset(path="save_weights", nth=3)
    play.assert_went_on_from(play.run(), 4, 8)
    assert [tinkex.APIConnectionError] * 2 == [type(restart.cause) for restart in play.restarts]


def test_a_lost_result_is_helped(play):
    """410 for a result: what was done is not known, so it is done again."""
    play.faults.answer(410, path="retrieve_future", nth=16)
    play.assert_went_on_from(play.run(), 4)
    assert isinstance(play.restarts[0].cause, tinkex.FutureExpiredError)


def test_a_lost_model_is_helped(play):
    """The server answers 404 for it, to the training and when it is asked."""

    def train(attempt):
        if attempt.number == 1:
            attempt.save(0)
            attempt.client.unload().result(WAIT)
        return play.train(attempt)

    play.assert_went_on_from(play.run(train), 0)
    assert play.restarts[0].save_point.path.endswith("/step-0")
    assert isinstance(play.restarts[0].cause, tinkex.NotFoundError)
    assert 1 == play.engine.operations().count("load")


def test_a_lost_session_is_helped(play):
    """Ended from outside, it takes no more work, so the next attempt has another."""

    def train(attempt):
        if attempt.number == 1:
            attempt.save(0)
            TinkexAPI(attempt.service.config).service.finish_session(attempt.client.model_id.split(":")[0])
        return play.train(attempt)

    play.assert_went_on_from(play.run(train), 0)
    assert 410 == play.restarts[0].cause.status_code


def test_a_server_that_comes_back_elsewhere_is_found_again(play, tmp_path):
    """Each attempt asks for a new client, so it may have a new address; the checkpoints are what is kept."""

    def train(attempt):
        if attempt.number == 1:
            attempt.save(0)
            play.server.stop()
        return play.train(attempt)

    def start_another(restart):
        play.restarts.append(restart)
        play.server = LocalServer(ScriptedEngine([BASE]), data_dir=tmp_path)
        play.server.start()

    path = play.run(train, on_restart=start_another)
    play.server.stop()
    play.assert_went_on_from(path, 0)


# --- Corrupted runs ------------------------------------------------------------------------------------------------


def corrupt(play, **which):
    """Make the server say of a run that it is corrupted."""
    run = types.TrainingRun(
        training_run_id="r",
        base_model=BASE,
        model_owner="o",
        is_lora=True,
        last_request_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
        corrupted=True,
    )
    body = {**attrs.asdict(run), "last_request_time": run.last_request_time.isoformat()}
    play.faults.answer(200, body, path="training_runs/*", **which)


def test_a_checkpoint_of_a_corrupted_run_is_not_gone_on_from(play):
    """The server is asked after each save, and the save before counts."""
    corrupt(play, nth=2)
    play.assert_went_on_from(play.run(), 4)
    assert "corrupted" in str(play.restarts[0].cause)


def test_a_run_that_ends_corrupted_has_not_ended(play):
    """The last word of the server counts: the saves at 4, 8 and 10 were sound, the end was not."""
    corrupt(play, nth=4)
    assert [STEPS, STEPS] == play.steps_of(play.run())
    assert [10] == [restart.save_point.step for restart in play.restarts]


@pytest.mark.parametrize("refusal", [400, 422])
def test_a_refusal_by_a_corrupted_run_is_helped(play, refusal):
    """What the server refuses then is not the program's fault."""
    play.faults.answer(refusal, path="optim_step", nth=6)
    corrupt(play, nth=2)
    play.assert_went_on_from(play.run(), 4)
    assert refusal == play.restarts[0].cause.status_code


def test_a_server_that_does_not_tell_has_not_marked_a_run(play, caplog):
    """Those without the endpoint can be trained on; the log says what was not known."""
    play.faults.answer(404, path="training_runs/*", times=100)
    with caplog.at_level(logging.INFO, logger="tinkex"):
        path = play.run()
    assert ([STEPS, STEPS], []) == (play.steps_of(path), play.restarts)
    assert "did not tell whether" in caplog.text


# --- Failures that end it ------------------------------------------------------------------------------------------


def sample_what_is_not_there(attempt):
    attempt.service.create_sampling_client("tinker://none:train:0/sampler_weights/none")


def save_under_a_name_that_is_taken(attempt):
    for _ in range(2):
        saved = attempt.client.save_state("mine")
    saved.result(WAIT)


def send_what_is_too_long(attempt):
    tokens = list(range(900)) * 2
    datum = types.Datum(model_input=types.ModelInput.from_ints(tokens), loss_fn_inputs={"target_tokens": tokens})
    attempt.client.forward_backward([datum], "cross_entropy")
    attempt.client.optim_step(ADAM).result(WAIT)


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (lambda attempt: attempt.client.forward_backward([], "cross_entropy"), tinkex.InvalidInputError),
        (lambda attempt: 1 // 0, ZeroDivisionError),
        (sample_what_is_not_there, tinkex.NotFoundError),
        (save_under_a_name_that_is_taken, tinkex.RequestFailedError),
        (send_what_is_too_long, (tinkex.BadRequestError, tinkex.PipelineBrokenError)),
    ],
)
def test_a_mistake_of_the_program_ends_it_at_once(play, mistake, error):
    """No attempt more, and the error as it was."""
    with pytest.raises(error):
        play.run(lambda attempt: (mistake(attempt), play.train(attempt)))
    assert ([], [], 1) == (play.restarts, play.waits, len(play.services))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_what_a_sound_server_refuses_ends_it_at_once(play, status):
    """A model that is there and not corrupted is no excuse; 404 is for something else then."""
    play.faults.answer(status, path="forward_backward", nth=2)
    with pytest.raises((tinkex.APIStatusError, tinkex.PipelineBrokenError)):
        play.run()
    assert ([], 1) == (play.restarts, len(play.services))


def test_a_checkpoint_that_is_not_there_ends_it_at_once(play):
    """404 when loading is about the checkpoint, not about a model."""
    missing = SavePoint(step=4, path="tinker://none:train:0/weights/step-4")
    with pytest.raises((tinkex.NotFoundError, tinkex.RequestFailedError), match="step-4"):
        play.run(save_point=missing)
    assert [] == play.restarts


def test_a_failure_of_foreign_code_behind_a_broken_pipeline_is_no_failure_of_the_server():
    """The first failure decides, whatever it is."""
    broken = tinkex.PipelineBrokenError("an earlier operation failed")
    broken.__cause__ = ZeroDivisionError()
    with pytest.raises(tinkex.PipelineBrokenError):
        FakeRun().run(lambda attempt: raise_(broken))


@pytest.mark.parametrize(
    ("trouble", "helps"),
    [
        (tinkex.NotFoundError("the model is gone", status_code=404), True),
        (tinkex.APIStatusError("the session is gone", status_code=410), True),
        (tinkex.InternalServerError("it cannot be asked now", status_code=500), True),
        (tinkex.AuthenticationError("it may not be asked", status_code=401), False),
        (None, False),
    ],
)
def test_what_is_said_to_be_the_programs_fault_is_not_if_the_model_is_gone(trouble, helps):
    """Some servers fail what they cannot run any more as if it were a mistake; they are asked for the model."""
    run = FakeRun()
    run.service.trouble = trouble
    failure = tinkex.RequestFailedError("the model has ended", category="user")
    if helps:
        run.run(lambda attempt: raise_(failure) if attempt.number == 1 else None)
        assert failure is run.restarts[0].cause
    else:
        with pytest.raises(tinkex.RequestFailedError, match="has ended"):
            run.run(lambda attempt: raise_(failure))


def test_a_session_that_is_over_is_helped_although_its_model_is_there():
    """410 says so; a server may end the session first and the model later."""
    run = FakeRun()
    failure = tinkex.APIStatusError("the session was finished", status_code=410)
    run.run(lambda attempt: raise_(failure) if attempt.number == 1 else None)
    assert failure is run.restarts[0].cause


def test_a_failure_that_nobody_read_is_found_at_the_end():
    """The futures of the last steps may have been dropped; what they say counts."""
    run = FakeRun()

    def train(attempt):
        run.service.broken = tinkex.PipelineBrokenError("optim_step failed") if attempt.number == 1 else None
        if run.service.broken:
            run.service.broken.__cause__ = SERVER
        return attempt.number

    assert 2 == run.run(train)
    assert SERVER is run.restarts[0].cause


# --- How often, and how far apart ----------------------------------------------------------------------------------


def raise_(error):
    """Raise, where an expression is needed."""
    raise error


SERVER = tinkex.RequestFailedError("the server failed", category="server")


class SoundTrainer(FakeTrainer):
    """A model that is there, or is not; saving takes a lifetime as the server's does."""

    def check(self):
        if self.service.broken:
            raise self.service.broken

    def get_info(self):
        if self.service.trouble:
            raise self.service.trouble

    def save_state(self, name, ttl_seconds=None):
        self.service.log.append(("ttl", ttl_seconds))
        return super().save_state(name)


class SoundService(FakeService):
    """A server of plain objects that knows no corrupted run.

    Attributes:
        trouble: What it answers when it is asked for a model.
        broken: What the clients of its models say when they are checked.
    """

    trouble = broken = None

    def create_lora_training_client(self, *given):
        trainer = super().create_lora_training_client(*given)
        return SoundTrainer(self, trainer.model_id)

    def create_training_client_from_state_with_optimizer(self, path):
        trainer = super().create_training_client_from_state_with_optimizer(path)
        return SoundTrainer(self, trainer.model_id, trainer.steps)

    def create_rest_client(self):
        return SimpleNamespace(get_training_run=lambda _: done(SimpleNamespace(corrupted=False)))


class FakeRun:
    """Recovery on plain objects, with a record of waits and restarts."""

    def __init__(self, policy=NO_JITTER, **options):
        self.service = SoundService()
        self.waits = []
        self.restarts = []
        self.options = {"policy": policy, "on_restart": self.restarts.append, **options}

    def run(self, train):
        return train_with_recovery(
            lambda: self.service,
            lambda service: service.create_lora_training_client("fake/model", 4, 0),
            train,
            sleep=self.waits.append,
            **self.options,
        )


def test_it_gives_up_after_failures_that_get_nowhere():
    """With the last failure; each wait is twice the one before, up to the longest."""
    attempts = []

    def train(attempt):
        attempts.append(attempt.number)
        raise tinkex.RequestFailedError(f"failure {attempt.number}", category="unknown")

    run = FakeRun()
    with pytest.raises(tinkex.RequestFailedError, match="failure 4"):
        run.run(train)
    assert ([1, 2, 3, 4], [5.0, 10.0, 15.0]) == (attempts, run.waits)
    assert [1, 2, 3] == [restart.failures for restart in run.restarts]


def test_a_new_checkpoint_begins_the_count_and_the_waits_anew():
    """A run that gets on may fail any number of times; one that fails where it began may not."""

    def train(attempt):
        if attempt.number % 3 == 0:
            attempt.save(attempt.step + 1)
        if attempt.number < 20:
            raise SERVER
        return attempt.step

    run = FakeRun()
    assert 6 == run.run(train)
    assert [1, 2] + [1, 2, 3] * 5 + [1, 2] == [restart.failures for restart in run.restarts]
    assert [5.0, 10.0] + [5.0, 10.0, 15.0] * 5 + [5.0, 10.0] == run.waits


def test_it_waits_as_long_as_the_server_asks():
    """Retry-After is the least, also above the longest wait."""
    busy = tinkex.RateLimitError("busy", status_code=429, headers={"retry-after": "40"})
    run = FakeRun()
    run.run(lambda attempt: raise_(busy) if attempt.number == 1 else None)
    assert [40.0] == run.waits


@given(st.floats(0, 1))
def test_jitter_lowers_a_wait_by_its_share_at_most(jitter):
    """And never raises it."""
    run = FakeRun(RecoveryPolicy(initial_wait_s=8.0, jitter=jitter))
    run.run(lambda attempt: raise_(SERVER) if attempt.number == 1 else None)
    assert 8.0 * (1 - jitter) <= run.waits[0] <= 8.0


def test_one_failure_may_be_all_that_is_allowed():
    """Then nothing is ever begun again, and nobody is told that it will be."""
    run = FakeRun(RecoveryPolicy(max_failures=1))
    with pytest.raises(tinkex.RequestFailedError):
        run.run(lambda attempt: (attempt.save(3), raise_(SERVER)))
    assert ([], []) == (run.waits, run.restarts)


def test_whoever_is_told_of_a_restart_can_end_it():
    """What it raises is raised, before any wait."""
    run = FakeRun(on_restart=lambda restart: raise_(KeyError(restart.attempt)))
    with pytest.raises(KeyError):
        run.run(lambda attempt: raise_(SERVER))
    assert [] == run.waits


def test_a_restart_needs_nobody_to_be_told():
    """By default only the log is."""
    run = FakeRun(policy=None, on_restart=None)
    assert 2 == run.run(lambda attempt: raise_(SERVER) if attempt.number == 1 else attempt.number)
    assert 3.75 <= run.waits[0] <= 5.0


@given(st.sets(st.integers(0, 60), max_size=12), st.integers(1, 7), st.integers(0, 5))
def test_whatever_fails_every_step_is_trained_once_in_what_is_kept(failing, every, start):
    """Failures at any calls: the model at the end has all steps, each attempt began at the newest checkpoint."""
    run = FakeRun(
        RecoveryPolicy(max_failures=20, jitter=0.0), save_point=SavePoint(step=start, path="tinker://m/weights/s")
    )
    run.service.checkpoints["tinker://m/weights/s"] = start
    calls = iter(range(10**6))

    def train(attempt):
        assert attempt.client.steps == attempt.step == max(run.service.checkpoints.values())
        for step in range(attempt.step, 12):
            if next(calls) in failing:
                raise SERVER
            attempt.client.optim_step(ADAM)
            if (step + 1) % every == 0:
                attempt.save(step + 1)
        return attempt.save(12)

    path = run.run(train)
    assert 12 == run.service.checkpoints[path]
    assert len(run.service.calls("load")) == len(run.restarts) + 1
    assert ("create", "fake/model", 4, 0) not in run.service.log


# --- What is saved, and what is refused ----------------------------------------------------------------------------


def make_attempt(save_point=None):
    service = SoundService()
    return service, Attempt(service, service.create_lora_training_client("fake/model", 4, 0), save_point, 1)


def test_a_step_is_saved_once():
    """The second time its path is there already, also that of the checkpoint it began with."""
    service, attempt = make_attempt(SavePoint(step=3, path="tinker://m/weights/step-3"))
    assert "tinker://m/weights/step-3" == attempt.save(3)
    assert attempt.save(5, ttl_seconds=3600) == attempt.save(5) == "tinker://model-1/weights/step-5"
    assert [(3600,)] == service.calls("ttl")
    assert 3 == attempt.step
    assert SavePoint(step=5, path="tinker://model-1/weights/step-5") == attempt.save_point


@pytest.mark.parametrize("step", [2, -1, 4.5, "4", True, None])
def test_a_step_that_lies_back_or_is_none_is_refused_before_it_is_saved(step):
    """Nothing is sent."""
    service, attempt = make_attempt(SavePoint(step=3, path="tinker://m/weights/step-3"))
    with pytest.raises(tinkex.InvalidInputError, match="step must be a whole number of at least 3"):
        attempt.save(step)
    assert [] == service.calls("save")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (RecoveryPolicy, {"max_failures": 0}),
        (RecoveryPolicy, {"max_failures": 2.0}),
        (RecoveryPolicy, {"initial_wait_s": -1}),
        (RecoveryPolicy, {"initial_wait_s": True}),
        (RecoveryPolicy, {"max_wait_s": float("nan")}),
        (RecoveryPolicy, {"max_wait_s": float("inf")}),
        (RecoveryPolicy, {"jitter": 1.1}),
        (SavePoint, {"step": -1, "path": "tinker://m/weights/a"}),
        (SavePoint, {"path": "tinker://m/sampler_weights/a", "step": 1}),
        (SavePoint, {"path": "", "step": 1}),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(kind, values):
    """When they are made, not after the first failure of a long run."""
    with pytest.raises(tinkex.InvalidInputError) as caught:
        kind(**values)
    assert caught.value.field == next(iter(values))
