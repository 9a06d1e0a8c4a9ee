"""Supervised fine-tuning on a chat file, from the first question to the last checkpoint.

::

    with tinkex.ServiceClient(base_url="local") as service:
        settings = SFTSettings.for_model("tinkex/tiny-0.9m")
        result = train_sft(service, "docs/examples/pig_latin.jsonl", "runs/pig_latin", settings)

One step is always submitted ahead: the server has the next forward_backward and optim_step in its queue
before the results of the current ones are read, so it never waits for this program.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinkex._version import __version__
from tinkex.errors import InvalidInputError
from tinkex.recipes.evaluate import Answer, ask_held_out, count_exact
from tinkex.recipes.plan import SFTSettings
from tinkex.recipes.prepare import Prepared, prepare
from tinkex.recipes.progress import Reporter, StepRecord, wait_for
from tinkex.recipes.run_folder import Record, RunFolder
from tinkex.types import AdamParams

if TYPE_CHECKING:
    from tinkex.clients import SamplingClient, ServiceClient, TrainingClient
    from tinkex.pipeline import APIFuture

__all__ = ["SFTResult", "resume_sft", "train_sft"]

STEPS_AHEAD = 1
ShouldStop = Callable[[], bool]
Stopping = Callable[[], AbstractContextManager[ShouldStop]]


@attrs.frozen(kw_only=True, slots=True)
class SFTResult:
    """How a run ended.

    Attributes:
        folder: The run folder.
        steps_done: Steps that were trained, all parts of a resumed run together.
        steps_planned: Steps that the run has in all.
        state_path: Checkpoint to train on from.
        sampler_path: Checkpoint to sample from; None if the run was stopped.
        before: Answers to the held-out prompts before the training; empty if they were not asked.
        after: Answers afterwards; empty if they were not asked.
        question: A prompt of the file, to try the model with; held out if any is.
        loss_plot: The picture of the loss, if it could be drawn.
    """

    folder: Path
    steps_done: int
    steps_planned: int
    state_path: str
    sampler_path: str | None
    before: list[Answer]
    after: list[Answer]
    question: str
    loss_plot: Path | None

    @property
    def stopped(self) -> bool:
        """True if the run was asked to stop before its last step."""
        return self.steps_done < self.steps_planned


def _go_on() -> AbstractContextManager[ShouldStop]:
    return nullcontext(lambda: False)


def train_sft(
    service: ServiceClient,
    data_file: str | Path,
    out: str | Path,
    settings: SFTSettings,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    stopping: Stopping = _go_on,
) -> SFTResult:
    """Fine-tune a LoRA adapter on a chat file.

    Args:
        service: Where to train.
        data_file: JSONL in the form of :func:`~tinkex.recipes.chat_data.read_chat_file`.
        out: The run folder to write.
        settings: How to train.
        force: Replace the run that is in ``out``.
        reporter: Hears how it goes.
        stopping: Makes a context that holds while training; it gives a function that says, between steps,
            whether to stop. A stopped run finishes what is in flight and saves a checkpoint.

    Returns:
        How it ended.

    Raises:
        InvalidInputError: The file, a setting or the folder cannot be used; nothing was trained.
        TinkexError: The server failed; the run folder holds what was done, its last checkpoint resumes it.
    """
    reporter = reporter or Reporter()
    run = prepare(service, data_file, settings, reporter)
    config = {
        "recipe": "sft",
        "tinkex_version": __version__,
        "data": {"file": str(data_file), "sha256": _fingerprint(data_file)},
        "settings": attrs.asdict(settings),
    }
    folder = RunFolder.create(out, config, force=force)
    before = _ask("before", 0, run.base_sampler, run, folder, reporter)
    _write_answers(folder, before, [])
    reporter.phase(f"creating a LoRA adapter of rank {settings.rank}")
    client = service.create_lora_training_client(settings.base_model, rank=settings.rank, seed=settings.seed)
    trainer = _Trainer(client, run, folder, reporter)
    return _train(trainer, service, before, stopping)


def resume_sft(
    service: ServiceClient,
    data_file: str | Path,
    out: str | Path,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    reporter: Reporter | None = None,
    stopping: Stopping = _go_on,
) -> SFTResult:
    """Go on with a run from its last checkpoint.

    Adapter, optimizer, order of the data and schedule continue as if nothing had happened, in the same
    folder. Give ``steps`` or ``epochs`` (in all, what is done included) to train a run for longer than it was
    planned; the learning rate then follows the longer plan.

    Args:
        service: Where to train; it must have the checkpoint.
        data_file: The same file as before.
        out: The run folder.
        steps: New number of steps of the whole run.
        epochs: New number of epochs of the whole run.
        reporter: As in :func:`train_sft`.
        stopping: As in :func:`train_sft`.

    Returns:
        How it ended.

    Raises:
        InvalidInputError: There is nothing to resume or nothing left to do, or the file is not the same.
        TinkexError: As in :func:`train_sft`.
    """
    reporter = reporter or Reporter()
    folder = RunFolder.resume(out)
    checkpoint = folder.last_checkpoint()
    if checkpoint is None:
        raise InvalidInputError(
            f"the run in {folder.path} has no checkpoint yet, so there is nothing to resume; start it again",
            field="resume",
        )
    settings = _stored_settings(folder, data_file)
    if steps or epochs:
        settings = attrs.evolve(settings, steps=steps, epochs=epochs)
    run = prepare(service, data_file, settings, reporter)
    _require_work(run, folder, checkpoint)
    reporter.phase(f"loading the checkpoint of step {checkpoint['step']}")
    client = service.create_training_client_from_state_with_optimizer(checkpoint["state_path"])
    # Only now is it sure that the run goes on, so only now does the folder change.
    folder.write_config({**folder.config, "settings": attrs.asdict(settings)})
    folder.rewind(checkpoint["step"])
    before = [_answer(record, "before") for record in folder.answers()]
    trainer = _Trainer(client, run, folder, reporter, checkpoint)
    return _train(trainer, service, before, stopping)


def _fingerprint(path: str | Path) -> str:
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}", field="file") from error
    return digest.hexdigest()


def _stored_settings(folder: RunFolder, data_file: str | Path) -> SFTSettings:
    try:
        stored = SFTSettings(**folder.config["settings"])
        began_with, sha256 = folder.config["data"]["file"], folder.config["data"]["sha256"]
    except (KeyError, TypeError) as error:
        raise InvalidInputError(
            f"config.json in {folder.path} was not written by this recipe ({error!r}); start a new run",
            field="resume",
        ) from error
    if _fingerprint(data_file) != sha256:
        raise InvalidInputError(
            f"{data_file} is not what the run in {folder.path} began with ({began_with}), or it was changed "
            "since; resume with the same file, or start a new run",
            field="file",
        )
    return stored


def _require_work(run: Prepared, folder: RunFolder, checkpoint: Record) -> None:
    done, planned = checkpoint["step"], run.plan.steps
    asked = any("exact" in record and record["step"] == done for record in folder.metrics())
    complete = checkpoint.get("sampler_path") is not None and (asked or not run.held_out)
    if done > planned or (done == planned and complete):
        raise InvalidInputError(
            f"the run in {folder.path} has done {done} of {planned} steps and is complete; to train it "
            f"further, ask for more steps in all, such as --steps {2 * done}",
            field="steps",
        )


def _answer(record: Record, when: str) -> Answer:
    return Answer(prompt=record["prompt"], expected=record["expected"], said=record[when])


def _write_answers(folder: RunFolder, before: Sequence[Answer], after: Sequence[Answer]) -> None:
    if not before:
        return
    later: Sequence[str | None] = [answer.said for answer in after] if after else [None] * len(before)
    folder.write_answers(
        {"prompt": answer.prompt, "expected": answer.expected, "before": answer.said, "after": said}
        for answer, said in zip(before, later, strict=True)
    )


def _ask(
    when: str, step: int, sampler: SamplingClient, run: Prepared, folder: RunFolder, reporter: Reporter
) -> list[Answer]:
    """Ask the held-out prompts, if there are any, and write the count to the metrics."""
    if not run.held_out:
        return []
    reporter.phase(f"asking held-out prompts {when}", len(run.held_out))
    answers = ask_held_out(sampler, run, reporter)
    folder.add_metrics({"step": step, "exact": count_exact(answers), "asked": len(answers)})
    return answers


def _train(trainer: _Trainer, service: ServiceClient, before: list[Answer], stopping: Stopping) -> SFTResult:
    """Train to the end, or until asked to stop; then ask again."""
    run, folder, reporter = trainer.run, trainer.folder, trainer.reporter
    with stopping() as should_stop:
        trainer.train(should_stop)
        state_path = trainer.save_state()
    reporter.phase("drawing the loss")
    loss_plot = folder.plot_loss()
    sampler_path: str | None = None
    after: list[Answer] = []
    if trainer.done == run.plan.steps:
        sampler_path = trainer.save_for_sampling(state_path)
        sampler = service.create_sampling_client(model_path=sampler_path)
        after = _ask("after", trainer.done, sampler, run, folder, reporter)
        _write_answers(folder, before, after)
    return SFTResult(
        folder=folder.path,
        steps_done=trainer.done,
        steps_planned=run.plan.steps,
        state_path=state_path,
        sampler_path=sampler_path,
        before=before,
        after=after,
        question=run.question,
        loss_plot=loss_plot,
    )


@attrs.frozen(kw_only=True, slots=True)
class _InFlight:
    """A step that was submitted: ``step`` counted from 0, and its futures."""

    step: int
    tokens: int
    weight: float
    forward: APIFuture[Any]
    optim: APIFuture[Any]
    save: APIFuture[Any] | None


class _Trainer:
    """Submits steps one ahead and writes down what comes back; used by one thread."""

    def __init__(
        self,
        client: TrainingClient,
        run: Prepared,
        folder: RunFolder,
        reporter: Reporter,
        checkpoint: Record | None = None,
    ) -> None:
        """Begin at step 0, or behind ``checkpoint``, whose weights ``client`` has."""
        self.client = client
        self.run = run
        self.folder = folder
        self.reporter = reporter
        self.done: int = checkpoint["step"] if checkpoint else 0
        self._saved_step: int = checkpoint["step"] if checkpoint else -1
        self._state_path: str = checkpoint["state_path"] if checkpoint else ""
        earlier = [record["elapsed_s"] for record in folder.metrics() if "elapsed_s" in record]
        self._elapsed_s: float = earlier[-1] if earlier else 0.0

    def train(self, should_stop: ShouldStop) -> None:
        """Do the steps that are left; when asked to stop, only those that were submitted."""
        self.reporter.phase("training", self.run.plan.steps, self.done)
        self._last = time.monotonic()
        in_flight: deque[_InFlight] = deque()
        for step in range(self.done, self.run.plan.steps):
            if should_stop():
                break
            in_flight.append(self._submit(step))
            if len(in_flight) > STEPS_AHEAD:
                self._resolve(in_flight.popleft())
        while in_flight:
            self._resolve(in_flight.popleft())

    def save_state(self) -> str:
        """Return the path of a checkpoint of the last step, saved now unless it was already."""
        if self._saved_step != self.done:
            self.reporter.phase("saving a checkpoint")
            self._keep(wait_for(self.client.save_state(_name(self.done)), self.reporter).path)
        return self._state_path

    def save_for_sampling(self, state_path: str) -> str:
        """Save the weights to sample from, and return their path."""
        self.reporter.phase("saving weights to sample from")
        saved = wait_for(self.client.save_weights_for_sampler(_name(self.done)), self.reporter)
        path = str(saved.path)  # a save under a name always has one
        self.folder.add_checkpoint({"step": self.done, "state_path": state_path, "sampler_path": path})
        return path

    def _submit(self, step: int) -> _InFlight:
        """Put a step into the queue of the server: gradient, update and, if it is time, a checkpoint."""
        plan, every = self.run.plan, self.run.settings.save_every
        batch = [self.run.examples[position] for position in plan.batch(step)]
        forward = self.client.forward_backward([example.to_datum() for example in batch], "cross_entropy")
        optim = self.client.optim_step(AdamParams(learning_rate=plan.rate(step)))
        due = (every and (step + 1) % every == 0) or step + 1 == plan.steps
        return _InFlight(
            step=step,
            tokens=sum(example.length for example in batch),
            weight=sum(example.weight for example in batch),
            forward=forward,
            optim=optim,
            save=self.client.save_state(_name(step + 1)) if due else None,
        )

    def _resolve(self, flight: _InFlight) -> None:
        output = wait_for(flight.forward, self.reporter)
        wait_for(flight.optim, self.reporter)
        now = time.monotonic()
        took, self._last = now - self._last, now
        self._elapsed_s += took
        loss = output.metrics["loss:sum"] / flight.weight
        if not math.isfinite(loss):
            raise InvalidInputError(
                f"the loss of step {flight.step + 1} is {loss}: the training has diverged; start again with "
                f"a lower learning rate than {self.run.plan.learning_rate:g}",
                field="learning_rate",
            )
        record = StepRecord(
            step=flight.step + 1,
            loss=loss,
            learning_rate=self.run.plan.rate(flight.step),
            tokens=flight.tokens,
            tokens_per_s=flight.tokens / took if took > 0 else 0.0,
            elapsed_s=self._elapsed_s,
        )
        self.done = record.step
        self.folder.add_metrics(attrs.asdict(record))
        self.reporter.step(record)
        if flight.save is not None:
            self._keep(wait_for(flight.save, self.reporter).path)

    def _keep(self, path: str) -> None:
        self._saved_step, self._state_path = self.done, path
        self.folder.add_checkpoint({"step": self.done, "state_path": path})


def _name(step: int) -> str:
    return f"step-{step:06d}"
