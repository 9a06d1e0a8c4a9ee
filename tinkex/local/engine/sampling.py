"""Several requests as one batch: each prompt is read once, then all rows go on token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch

from tinkex.errors import InvalidInputError, RequestFailedError, TinkexError
from tinkex.local.engine.bases import BaseModel
from tinkex.local.engine.cache import growing_cache
from tinkex.local.engine.checks import check_sample, default_max_tokens
from tinkex.local.engine.drawing import Drawing, dice
from tinkex.local.engine.prompts import answer_prompt, asks_about_prompt, likeliest
from tinkex.local.engine.stops import Stops
from tinkex.types import SampledSequence, SampleRequest, SampleResponse

__all__ = ["MAX_ROWS", "sample"]

MAX_ROWS = 64
"""Most sequences generated side by side; more are done in turn."""

_FULL = 7 / 8
"""Rows that have ended are dropped once no more than this share is still going."""

_PREFILL = 8
"""A batch may read this many times a micro-batch's tokens at once, if no logits but the last are needed."""


@attrs.define(slots=True, eq=False)
class _Row:
    """One sequence in the making."""

    job: _Job
    chances: np.random.Generator
    tokens: list[int] = attrs.field(factory=list)
    logprobs: list[float] = attrs.field(factory=list)
    topk: list[list[tuple[int, float]]] = attrs.field(factory=list)
    stop_reason: Literal["stop", "length"] | None = None

    @property
    def going(self) -> bool:
        return self.stop_reason is None and self.job.error is None

    def take(self, token: int, logprob: float) -> None:
        if not math.isfinite(logprob):
            self.job.error = _not_finite()
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if self.job.stops.ended(self.tokens):
            self.stop_reason = "stop"
        elif len(self.tokens) >= self.job.max_tokens:
            self.stop_reason = "length"


@attrs.define(slots=True, eq=False)
class _Job:
    """One request in the making."""

    request: SampleRequest
    prompt: list[int]
    max_tokens: int
    stops: Stops
    rows: list[_Row] = attrs.field(factory=list)
    answers: dict[str, Any] | None = None  # about the prompt
    error: TinkexError | None = None

    @classmethod
    def of(cls, request: SampleRequest, base: BaseModel) -> _Job:
        check_sample(base.limits, request)
        params = request.sampling_params
        job = cls(
            request,
            request.prompt.to_ints(),
            default_max_tokens(base.limits, request),
            Stops.of(params.stop, base),
        )
        job.rows = [_Row(job, dice(params.seed, number)) for number in range(request.num_samples)]
        return job

    @property
    def wants_prompt(self) -> bool:
        return asks_about_prompt(self.request)

    @property
    def unanswered(self) -> bool:
        return self.wants_prompt and self.answers is None

    def result(self) -> SampleResponse | TinkexError:
        if self.error is not None:
            return self.error
        return SampleResponse(
            sequences=[
                SampledSequence(
                    stop_reason=row.stop_reason or "length",
                    tokens=row.tokens,
                    logprobs=row.logprobs,
                    topk_logprobs=row.topk if self.request.topk_sample_logprobs else None,
                )
                for row in self.rows
            ],
            **(self.answers or {}),
        )


def sample(base: BaseModel, requests: Sequence[SampleRequest], limit: int) -> list[SampleResponse | TinkexError]:
    """Answer requests with the active adapter.

    Args:
        base: The model.
        requests: What to sample.
        limit: Tokens of a micro-batch, as in training.

    Returns:
        For each request its response, or why it could not be answered.
    """
    outcomes: list[_Job | TinkexError] = [_job_or_error(request, base) for request in requests]
    jobs = [outcome for outcome in outcomes if isinstance(outcome, _Job)]
    with torch.inference_mode():
        for rows in _batches(jobs, limit):
            _generate(base, rows)
    return [outcome.result() if isinstance(outcome, _Job) else outcome for outcome in outcomes]


def _job_or_error(request: SampleRequest, base: BaseModel) -> _Job | TinkexError:
    try:
        return _Job.of(request, base)
    except InvalidInputError as error:
        return error


def _batches(jobs: Sequence[_Job], limit: int) -> Iterator[list[_Row]]:
    """Group rows whose prompts are of similar length, within the limits on rows and on tokens read at once."""
    batch: list[_Row] = []
    prompts = 0
    for job in sorted(jobs, key=lambda job: (job.wants_prompt, len(job.prompt))):
        room = limit if job.wants_prompt else _PREFILL * limit
        mixed = bool(batch) and batch[0].job.wants_prompt != job.wants_prompt
        if mixed or (prompts + 1) * len(job.prompt) > room:
            yield from [batch] if batch else []
            batch, prompts = [], 0
        prompts += 1
        for row in job.rows:
            if len(batch) == MAX_ROWS:
                yield batch
                batch, prompts = [], 1
            batch.append(row)
    yield from [batch] if batch else []


def _generate(base: BaseModel, rows: Sequence[_Row]) -> None:
    """Fill in tokens and logprobs of the rows, and what is asked about their prompts."""
    batch = _Batch(base, rows)
    while True:
        batch.draw()
        going = [number for number, row in enumerate(batch.rows) if row.going]
        if not going:
            return
        # Copying keys and values for each row that ends would cost more than a few idle rows.
        if len(going) <= _FULL * len(batch.rows):
            batch.keep(going)
        batch.read([[token] for token in batch.latest])


class _Batch:
    """Rows side by side: their keys and values, the logits of their next token.

    Prompts stand at the right, so that all rows grow at the same end; ``pads`` counts the empty places before each.
    """

    def __init__(self, base: BaseModel, rows: Sequence[_Row]) -> None:
        """Read each prompt once, then give each row a copy of what was read."""
        self.base = base
        self.rows = list(rows)
        self.latest: list[int] = []
        self.cache = growing_cache(base.model.config)
        self.length = 0
        jobs = list(dict.fromkeys(row.job for row in rows))
        width = max(len(job.prompt) for job in jobs)
        pads = [width - len(job.prompt) for job in jobs]
        self.pads = torch.tensor(pads, device=base.device)
        self.padded = any(pads)
        asking = any(job.unanswered for job in jobs)
        logits = self.read([[0] * pad + job.prompt for pad, job in zip(pads, jobs, strict=True)], every=asking)
        for job, pad, own in zip(jobs, pads, logits, strict=True):
            if job.unanswered:
                job.answers = answer_prompt(job.request, job.prompt, own[pad:])
                job.error = job.error if job.answers is not None else _not_finite()
        owners = {job: number for number, job in enumerate(jobs)}
        self._select([owners[row.job] for row in rows])

    def read(self, tokens: list[list[int]], *, every: bool = False) -> torch.Tensor:
        """Let the model read ``[rows, new tokens]``; return the logits after the last, or with ``every`` after each."""
        new = torch.tensor(tokens, device=self.base.device)
        places = torch.arange(self.length + new.shape[1], device=self.base.device)
        self.length = len(places)
        options: dict[str, Any] = {self.base.cache_argument: self.cache}
        if not every:
            options["logits_to_keep"] = 1
        if self.padded:
            real = places >= self.pads.unsqueeze(1)
            positions = (places - self.pads.unsqueeze(1)).clamp_(min=0)[:, -new.shape[1] :]
            options |= {"attention_mask": real.long(), "position_ids": positions}
        output = self.base.model(input_ids=new, use_cache=True, **options)
        self.logits = output.logits[:, -1]
        logits: torch.Tensor = output.logits
        return logits

    def draw(self) -> None:
        """Give each row its next token; rows that have ended get one too, and ignore it."""
        chances = [row.chances.random() for row in self.rows]
        self.latest, logprobs = self.drawing.draw(self.logits, chances)
        self._note_likeliest()
        for row, token, logprob in zip(self.rows, self.latest, logprobs, strict=True):
            if row.going:
                row.take(token, logprob)

    def _note_likeliest(self) -> None:
        """Keep the most likely tokens of this step for the rows that ask for them."""
        wanted = [row.job.request.topk_sample_logprobs for row in self.rows]
        if not any(wanted):
            return
        best = likeliest(torch.log_softmax(self.logits.float(), -1), max(wanted))
        for row, k, pairs in zip(self.rows, wanted, best, strict=True):
            if k and row.going:
                row.topk.append(pairs[:k])

    def keep(self, numbers: list[int]) -> None:
        """Drop all rows but these."""
        self.rows = [self.rows[number] for number in numbers]
        self.latest = [self.latest[number] for number in numbers]
        self._select(numbers)

    def _select(self, numbers: list[int]) -> None:
        if numbers != list(range(len(self.pads))):
            index = torch.tensor(numbers, device=self.base.device)
            self.cache.batch_select_indices(index)
            self.pads, self.logits = self.pads[index], self.logits[index]
        self.padded = bool(self.pads.any())
        params = [row.job.request.sampling_params for row in self.rows]
        self.drawing = Drawing.of(params, self.logits.shape[-1], self.base.device)


def _not_finite() -> RequestFailedError:
    return RequestFailedError(
        "the logprobs of this sampler's model are not finite; was it trained with too high a learning rate?",
        category="user",
    )
