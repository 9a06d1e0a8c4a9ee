"""An engine without a model: it answers at once, always the same, and a test can hold it or make it fail.

::

    engine = ScriptedEngine()
    with LocalServer(engine) as server, engine.hold("optim_step") as held:
        ...                                   # submit an optim_step
        held.reached.wait(5)                  # it is running now, and stays so until the block ends
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from tinkex.data import TINY_NAME, canonical_name
from tinkex.errors import InvalidInputError, TinkexError
from tinkex.types import (
    AdamParams,
    CreateCustomLossRequest,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    LoraConfig,
    ModelData,
    OptimStepResponse,
    PromptAltTokens,
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SupportedModel,
    TensorData,
    WeightsInfoResponse,
)

__all__ = ["Call", "Hold", "ScriptedEngine"]

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_OPTIMIZER = "optimizer.json"
_DEFAULT_MAX_TOKENS = 16


@attrs.frozen(kw_only=True, slots=True)
class Call:
    """One call that the engine got: the operation, the model or sampler, and how many datums or requests it had."""

    operation: str
    target: str
    size: int = 1


class Hold:
    """Keeps an operation running until ``release``; ``reached`` is set when it has begun."""

    def __init__(self) -> None:
        """Make a hold that nothing has run into."""
        self.reached = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Let the operation end."""
        self._released.set()

    def wait_here(self) -> None:
        """Called by the engine: say so, and wait."""
        self.reached.set()
        self._released.wait()

    def __enter__(self) -> Hold:
        """Return the hold."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()


@attrs.define(kw_only=True)
class _Model:
    base_model: str
    lora: LoraConfig
    steps: int = 0
    gradients: int = 0
    optimizer_steps: int = 0


@attrs.define(kw_only=True)
class _Script:
    operation: str
    nth: int
    hold: Hold | None = None
    error: BaseException | None = None
    seen: int = 0


def _answer_prompt(request: SampleRequest, length: int) -> dict[str, Any]:
    """Answer what is asked about a prompt: every logprob is -1, every other token drawn is 0."""
    last_n = request.prompt_logprobs_last_n or length - 1
    unscored: list[None] = [None] * (length - last_n)
    answer: dict[str, Any] = {}
    if request.prompt_logprobs or request.topk_prompt_logprobs:
        answer["prompt_logprobs"] = [*unscored, *([-1.0] * last_n)]
    if request.topk_prompt_logprobs:
        pairs = [(rank, -1.0 - rank) for rank in range(request.topk_prompt_logprobs)]
        answer["topk_prompt_logprobs"] = [*unscored, *(list(pairs) for _ in range(last_n))]
    target, k = request.target_prompt_logprobs, request.prompt_alt_tokens_k
    if target is not None:
        logprobs = [0.0 if token == -1 else -1.0 for token in target.data]
        answer["target_prompt_logprobs"] = TensorData(
            data=logprobs,
            dtype="float32",
            shape=target.shape,
            sparse_crow_indices=target.sparse_crow_indices,
            sparse_col_indices=target.sparse_col_indices,
        )
    if k:
        shape, size = (length - 1, k), (length - 1) * k
        answer["prompt_alt_tokens"] = PromptAltTokens(
            tokens=TensorData(data=[0] * size, dtype="int64", shape=shape),
            logprobs=TensorData(data=[-1.0] * size, dtype="float32", shape=shape),
        )
    return answer


class ScriptedEngine:
    """Implements ``tinkex.local.engine.base.Engine`` with arithmetic instead of a model.

    The logprob of every target token is ``-2 / (1 + steps)`` after so many optimizer steps, so the loss falls.
    Samples are a function of the prompt, the seed and the steps. Weights are the number of steps, as JSON in the usual
    files, so that saving and loading can be seen to work.

    Attributes:
        vocabulary: Token ids from here on are refused.
        context: Longest input in tokens.
    """

    runs_custom_losses = False

    def __init__(self, models: Sequence[str] = (TINY_NAME,), *, vocabulary: int = 1000, context: int = 1024) -> None:
        """Serve these base models."""
        self._names = list(models)
        self.vocabulary = vocabulary
        self.context = context
        self._models: dict[str, _Model] = {}
        self._samplers: dict[str, _Model] = {}
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._scripts: list[_Script] = []
        self._calls: list[Call] = []

    # What a test can do.

    @property
    def calls(self) -> list[Call]:
        """Every operation that was begun, in order."""
        with self._lock:
            return list(self._calls)

    def operations(self, target: str | None = None) -> list[str]:
        """Return the names of the operations that were begun, of one model or sampler or of all."""
        return [call.operation for call in self.calls if target in (None, call.target)]

    def hold(self, operation: str, nth: int = 1) -> Hold:
        """Hold the nth next call of an operation (a method's name; ``*`` for any)."""
        hold = Hold()
        with self._lock:
            self._scripts.append(_Script(operation=operation, nth=nth, hold=hold))
        return hold

    def fail(self, operation: str, error: BaseException, nth: int = 1) -> None:
        """Make the nth next call of an operation raise; if it is held too, after the hold."""
        with self._lock:
            self._scripts.append(_Script(operation=operation, nth=nth, error=error))

    # What the server calls.

    def supported_models(self) -> list[SupportedModel]:
        """Return the base models."""
        return [
            SupportedModel(model_name=name, max_context_length=self.context, trainable=True, sampleable=True)
            for name in self._names
        ]

    def model_data(self, base_model: str) -> ModelData:
        """Describe a base model."""
        name = canonical_name(base_model)
        if name not in self._names:
            raise InvalidInputError(
                f"base_model {base_model!r} is not served here; choose from {', '.join(self._names)}",
                field="base_model",
            )
        return ModelData(arch="scripted", model_name=name, tokenizer_id=name)

    def check_batch(self, model_id: str, batch: ForwardBackwardInput) -> None:  # noqa: ARG002
        """Refuse token ids and lengths that do not fit."""
        for index, datum in enumerate(batch.data):
            self._check_tokens(datum.model_input.to_ints(), f"data[{index}].model_input", index)
            if "target_tokens" not in datum.loss_fn_inputs:
                field = f"data[{index}].loss_fn_inputs['target_tokens']"
                raise InvalidInputError(f"{field} is missing", field=field, index=index)

    def check_sample(self, request: SampleRequest, base_model: str) -> None:  # noqa: ARG002
        """Refuse token ids and lengths that do not fit."""
        self._check_tokens(request.prompt.to_ints(), "prompt", None)

    def create_model(self, model_id: str, base_model: str, lora: LoraConfig) -> None:
        """Make a model with no steps."""
        self._begin("create_model", model_id)
        self.model_data(base_model)
        self._models[model_id] = _Model(base_model=base_model, lora=lora)

    def drop_model(self, model_id: str) -> None:
        """Forget a model."""
        self._begin("drop_model", model_id)
        self._models.pop(model_id, None)

    def add_loss(self, loss_id: str, request: CreateCustomLossRequest) -> None:
        """Refuse: there are no logprobs to compute with."""
        raise InvalidInputError(f"the scripted engine cannot run {request.name!r} ({loss_id})", field="graph")

    def drop_loss(self, loss_id: str) -> None:
        """Forget what was never there."""

    def forward_in_steps(
        self, model_id: str, batch: ForwardBackwardInput, *, backward: bool
    ) -> Generator[None, None, ForwardBackwardOutput]:
        """Compute a loss that depends on the number of steps only, a datum at a time."""
        self._begin("forward_backward" if backward else "forward", model_id, len(batch.data))
        model = self._models[model_id]
        logprob = -2.0 / (1 + model.steps)
        loss = 0.0
        outputs: list[dict[str, TensorData]] = []
        for number, datum in enumerate(batch.data):
            if number:
                yield
            target = datum.loss_fn_inputs["target_tokens"]
            weights = datum.loss_fn_inputs.get("weights")
            loss -= logprob * math.fsum(weights.data if weights else [1.0] * len(target))
            size = math.prod(target.full_shape)
            outputs.append({"logprobs": TensorData(data=[logprob] * size, dtype="float32", shape=target.full_shape)})
        model.gradients += len(batch.data) if backward else 0
        return ForwardBackwardOutput(
            loss_fn_output_type="ScriptedLossReturn", loss_fn_outputs=outputs, metrics={"loss:sum": loss}
        )

    def optim_step(self, model_id: str, params: AdamParams) -> OptimStepResponse:
        """Count a step."""
        self._begin("optim_step", model_id)
        model = self._models[model_id]
        model.steps, model.optimizer_steps = model.steps + 1, model.optimizer_steps + 1
        norm, model.gradients = float(model.gradients), 0
        return OptimStepResponse(metrics={"grad_norm:mean": norm, "learning_rate:mean": params.learning_rate})

    def save(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Write the number of steps."""
        self._begin("save", model_id)
        model = self._models[model_id]
        config = {"base_model_name_or_path": model.base_model, **attrs.asdict(model.lora)}
        (folder / _CONFIG).write_text(json.dumps(config))
        (folder / _WEIGHTS).write_text(json.dumps({"steps": model.steps}))
        if optimizer:
            (folder / _OPTIMIZER).write_text(json.dumps({"steps": model.optimizer_steps}))

    def load(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Read the number of steps."""
        self._begin("load", model_id)
        model = self._models[model_id]
        model.steps = json.loads((folder / _WEIGHTS).read_text())["steps"]
        model.optimizer_steps = json.loads((folder / _OPTIMIZER).read_text())["steps"] if optimizer else 0

    def describe(self, folder: Path) -> WeightsInfoResponse:
        """Read what was saved."""
        config: dict[str, Any] = json.loads((folder / _CONFIG).read_text())
        parts = {name: config[name] for name in ("train_unembed", "train_mlp", "train_attn")}
        return WeightsInfoResponse(
            base_model=config["base_model_name_or_path"], is_lora=True, lora_rank=config["rank"], **parts
        )

    def open_sampler(self, sampler_id: str, base_model: str, folder: Path | None) -> None:
        """Make a sampler of the saved number of steps."""
        self._begin("open_sampler", sampler_id)
        steps = 0 if folder is None else json.loads((folder / _WEIGHTS).read_text())["steps"]
        self._samplers[sampler_id] = _Model(base_model=base_model, lora=LoraConfig(rank=1), steps=steps)

    def close_sampler(self, sampler_id: str) -> None:
        """Forget a sampler."""
        self._begin("close_sampler", sampler_id)
        self._samplers.pop(sampler_id, None)

    def sample(self, sampler_id: str, requests: Sequence[SampleRequest]) -> list[SampleResponse | TinkexError]:
        """Answer each request by arithmetic."""
        self._begin("sample", sampler_id, len(requests))
        return [self._sample_one(self._samplers[sampler_id], request) for request in requests]

    def _sample_one(self, sampler: _Model, request: SampleRequest) -> SampleResponse:
        prompt = request.prompt.to_ints()
        start = sum(prompt) + sampler.steps + (request.sampling_params.seed or 0)
        length = request.sampling_params.max_tokens or _DEFAULT_MAX_TOKENS
        best = [(rank, -1.0 - rank) for rank in range(request.topk_sample_logprobs)]
        sequences = [
            SampledSequence(
                stop_reason="length",
                tokens=[(start + row + step) % self.vocabulary for step in range(length)],
                logprobs=[-1.0] * length,
                topk_logprobs=[list(best) for _ in range(length)] if best else None,
            )
            for row in range(request.num_samples)
        ]
        return SampleResponse(sequences=sequences, **_answer_prompt(request, len(prompt)))

    def _check_tokens(self, tokens: Sequence[int], field: str, index: int | None) -> None:
        if not 0 < len(tokens) <= self.context:
            raise InvalidInputError(
                f"{field} has {len(tokens)} tokens; between 1 and {self.context} fit", field=field, index=index
            )
        highest = max(tokens)
        if highest >= self.vocabulary:
            raise InvalidInputError(
                f"{field} has token {highest}; ids end at {self.vocabulary - 1}", field=field, index=index
            )

    def _begin(self, operation: str, target: str, size: int = 1) -> None:
        with self._lock:
            self._calls.append(Call(operation=operation, target=target, size=size))
            due = [script for script in self._scripts if script.operation in ("*", operation)]
            for script in due:
                script.seen += 1
            due = [script for script in due if script.seen == script.nth]
            self._scripts = [script for script in self._scripts if script not in due]
        for hold in [script.hold for script in due if script.hold is not None]:
            hold.wait_here()
        for error in [script.error for script in due if script.error is not None]:
            raise error
