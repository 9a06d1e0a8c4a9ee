"""The engine on PyTorch: any causal language model that transformers reads, with LoRA adapters of PEFT."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import attrs

from tinkex.data import builtin_models, canonical_name
from tinkex.errors import ConfigurationError, InvalidInputError, RequestFailedError, TinkexError
from tinkex.local.engine import checks
from tinkex.types import (
    AdamParams,
    CreateCustomLossRequest,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    LoraConfig,
    ModelData,
    OptimStepResponse,
    SampleRequest,
    SampleResponse,
    SupportedModel,
    WeightsInfoResponse,
)

try:
    import torch

    from tinkex.local.engine import checkpoint, sampling, training
    from tinkex.local.engine.adamw import AdamW
    from tinkex.local.engine.bases import SMALL, Adapter, BaseModel, fitting
    from tinkex.local.engine.graphs import GraphLoss, compile_loss
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("torch", "transformers", "peft", "safetensors", "numpy"):
        raise
    raise ImportError(
        f"running models on this machine needs {error.name}, which is not installed. Run\n"
        '    pip install "tinkex[local]"\n'
        "For a machine without a GPU, install the much smaller CPU build of PyTorch first:\n"
        "    pip install torch --index-url https://download.pytorch.org/whl/cpu",
        name=error.name,
    ) from error

__all__ = ["TorchEngine"]

_LOGITS = 1 << 27
"""Most logits (tokens times vocabulary) that are computed at once: 512 MiB, several times over in training."""

_log = logging.getLogger(__name__)


@attrs.define(slots=True, eq=False)
class _Model:
    """A model in training; ``gradient`` is None if nothing was accumulated since the last step."""

    base: BaseModel
    adapter: Adapter
    optimizer: AdamW
    gradient: torch.Tensor | None = None


@attrs.frozen(slots=True, eq=False)
class _Sampler:
    """Frozen weights: the base alone, or with ``tensors`` as its adapter."""

    base: BaseModel
    lora: LoraConfig | None = None
    tensors: Mapping[str, torch.Tensor] = attrs.field(factory=dict)


class TorchEngine:
    """The engine of the embedded server; see :class:`tinkex.local.engine.base.Engine` for its methods.

    Attributes:
        device: Where it computes, such as ``"cpu"``.
        threads: How many threads PyTorch uses. This is a setting of the whole process.
    """

    runs_custom_losses = True

    def __init__(
        self,
        models: Mapping[str, str | Path] | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        microbatch_tokens: int = 2048,
    ) -> None:
        """Load the base models.

        Args:
            models: Folder of each base model by the name that requests use; None for the built-in one. Nothing is
                ever downloaded.
            device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where it is available.
            threads: Threads of PyTorch; None for 1 with small models, else all cores but one.
            microbatch_tokens: Most tokens (padding included) that go through a model at once, fewer if the
                vocabulary is large; what to lower when memory runs out.

        Raises:
            ConfigurationError: A folder holds no model, or a setting makes no sense.
        """
        if microbatch_tokens < 1 or (threads is not None and threads < 1):
            raise ConfigurationError(
                f"threads ({threads}) and microbatch_tokens ({microbatch_tokens}) must be at least 1"
            )
        self.device = _device(device)
        folders = {canonical_name(name): Path(folder) for name, folder in (models or builtin_models()).items()}
        self._bases = {name: BaseModel(name, folder, torch.device(self.device)) for name, folder in folders.items()}
        small = all(base.size <= SMALL for base in self._bases.values())
        self.threads = threads or (1 if small else max(1, (os.cpu_count() or 1) - 1))
        torch.set_num_threads(self.threads)
        self._microbatch_tokens = microbatch_tokens
        self._models: dict[str, _Model] = {}
        self._samplers: dict[str, _Sampler] = {}
        self._losses: dict[str, GraphLoss] = {}

    def supported_models(self) -> list[SupportedModel]:
        """Return the base models."""
        return [
            SupportedModel(model_name=name, max_context_length=base.limits.context, trainable=True, sampleable=True)
            for name, base in self._bases.items()
        ]

    def model_data(self, base_model: str) -> ModelData:
        """Return architecture, name and tokenizer id, which is the model's folder: no hub knows its name.

        Raises:
            InvalidInputError: There is no such base model.
        """
        base = self._base(base_model)
        return ModelData(arch=base.arch, model_name=base.name, tokenizer_id=str(base.folder.resolve()))

    def check_batch(self, model_id: str, batch: ForwardBackwardInput) -> None:
        """Refuse a batch that can never run; from any thread.

        Raises:
            InvalidInputError: Naming the field, its value, and the limit.
        """
        checks.check_batch(self._model(model_id).base.limits, batch, self._own_loss(batch))

    def check_sample(self, request: SampleRequest, base_model: str) -> None:
        """Refuse a sample that can never run; from any thread.

        Raises:
            InvalidInputError: Naming the field, its value, and the limit.
        """
        checks.check_sample(self._base(base_model).limits, request)

    def create_model(self, model_id: str, base_model: str, lora: LoraConfig) -> None:
        """Make a model: the base with a fresh adapter and a fresh optimizer.

        Raises:
            InvalidInputError: The base model is unknown, the id is taken, or ``lora`` does not fit the base.
        """
        if model_id in self._models:
            raise InvalidInputError(f"model {model_id!r} exists already", field="model_id")
        base = self._base(base_model)
        checks.check_lora(lora)
        adapter = base.add(lora)
        self._models[model_id] = _Model(base, adapter, AdamW(adapter.flat()))

    def drop_model(self, model_id: str) -> None:
        """Forget a model; no error if it is unknown."""
        model = self._models.pop(model_id, None)
        if model is not None:
            model.base.remove(model.adapter.name)

    def add_loss(self, loss_id: str, request: CreateCustomLossRequest) -> None:
        """Keep a client's own loss, for batches of the loss ``custom`` that name its id.

        Raises:
            InvalidInputError: It does what a loss may not do here; the error names the node.
        """
        self._losses[loss_id] = compile_loss(request)

    def drop_loss(self, loss_id: str) -> None:
        """Forget a loss; no error if it is unknown."""
        self._losses.pop(loss_id, None)

    def forward(self, model_id: str, batch: ForwardBackwardInput, *, backward: bool) -> ForwardBackwardOutput:
        """Run ``forward_in_steps`` to its end."""
        steps = self.forward_in_steps(model_id, batch, backward=backward)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                output: ForwardBackwardOutput = end.value
                return output

    def forward_in_steps(
        self, model_id: str, batch: ForwardBackwardInput, *, backward: bool
    ) -> Generator[None, None, ForwardBackwardOutput]:
        """Compute the loss, and with ``backward`` add its gradient to the model's; yield between micro-batches.

        The gradient is added at the end: a batch that is given up before changes nothing. Metrics are ``loss:sum`` and
        ``num_tokens:sum`` (tokens read), and those of a client's own loss.

        Raises:
            InvalidInputError: The batch can never run, or the model was dropped meanwhile.
            RequestFailedError: A loss or the gradient is not finite, or a client's own loss fails; category ``user``.
        """
        model, own = self._model(model_id), self._own_loss(batch)
        checks.check_batch(model.base.limits, batch, own)

        def prepare() -> None:
            if self._models.get(model_id) is not model:
                raise InvalidInputError(f"model {model_id!r} was dropped while this batch ran", field="model_id")
            model.base.activate(model.adapter)

        parameters = list(model.adapter.parameters.values()) if backward else []
        output, gradient = yield from training.forward(
            model.base, batch, self._limit(model.base), parameters, own, prepare
        )
        if gradient is not None:
            model.gradient = gradient if model.gradient is None else model.gradient + gradient
        return output

    def optim_step(self, model_id: str, params: AdamParams) -> OptimStepResponse:
        """Clip, step AdamW with these hyper-parameters, and zero the gradient.

        Without a gradient this is a step with a gradient of zero, as in the independent servers of this API: the
        moments decay and weight decay acts. The metric ``unclipped_grad_l2:mean`` is the norm before clipping.

        Raises:
            RequestFailedError: A weight would not be finite afterwards; nothing was changed. Category ``user``.
        """
        model = self._model(model_id)
        values, gradient = model.adapter.flat(), model.gradient
        if gradient is None:
            _log.warning("optim_step of %s with no forward_backward before it: the gradient is zero", model_id)
            gradient = torch.zeros_like(values)
        norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if 0 < params.grad_clip_norm < norm:
            gradient = gradient * (params.grad_clip_norm / norm)
        try:
            model.adapter.assign(model.optimizer.step(values, gradient, params))
        except FloatingPointError as error:
            raise RequestFailedError(
                f"{error}; the model is as before. Use a lower learning_rate, or an eps above 0",
                category="user",
            ) from error
        model.gradient = None
        return OptimStepResponse(metrics={"unclipped_grad_l2:mean": norm})

    def save(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Write the adapter into an existing empty folder as PEFT files, and the optimizer's state if asked for.

        Raises:
            OSError: A file cannot be written.
        """
        model = self._model(model_id)
        checkpoint.write(folder, model.base.name, model.adapter, model.optimizer if optimizer else None)

    def load(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Replace the adapter by a saved one; with ``optimizer`` the optimizer's state too, else a fresh one.

        The accumulated gradient is dropped.

        Raises:
            InvalidInputError: The checkpoint belongs to another kind of model, lacks what is asked for or is damaged.
        """
        model = self._model(model_id)
        card = checkpoint.read_card(folder)
        checkpoint.require_same(card, model.base.name, model.adapter.lora)
        weights = model.adapter.joined(checkpoint.read_weights(folder))
        state = checkpoint.read_optimizer(folder, card, model.adapter) if optimizer else AdamW(weights)
        model.adapter.assign(weights)
        model.optimizer, model.gradient = state, None

    def describe(self, folder: Path) -> WeightsInfoResponse:
        """Return base model and LoRA settings of a saved adapter.

        Raises:
            InvalidInputError: The folder holds none.
        """
        return checkpoint.read_card(folder).info()

    def open_sampler(self, sampler_id: str, base_model: str, folder: Path | None) -> None:
        """Make a sampler with frozen weights: the base alone, or with a saved adapter.

        Raises:
            InvalidInputError: The base model is unknown, the id is taken, or the folder holds no adapter of it.
        """
        if sampler_id in self._samplers:
            raise InvalidInputError(f"sampler {sampler_id!r} exists already", field="sampling_session_id")
        self._samplers[sampler_id] = self._read_sampler(self._base(base_model), folder)

    def close_sampler(self, sampler_id: str) -> None:
        """Forget a sampler; no error if it is unknown."""
        self._samplers.pop(sampler_id, None)

    def sample(self, sampler_id: str, requests: Sequence[SampleRequest]) -> list[SampleResponse | TinkexError]:
        """Answer several requests of one sampler as one batch, each with a response or with its own error.

        Raises:
            InvalidInputError: There is no such sampler.
        """
        sampler = self._samplers.get(sampler_id)
        if sampler is None:
            raise InvalidInputError(f"there is no sampler {sampler_id!r}", field="sampling_session_id")
        with sampler.base.frozen(sampler.lora, sampler.tensors):
            return sampling.sample(sampler.base, requests, self._limit(sampler.base))

    def _base(self, base_model: str) -> BaseModel:
        base = self._bases.get(canonical_name(base_model))
        if base is None:
            raise InvalidInputError(
                f"base_model {base_model!r} is unknown; this server has {', '.join(self._bases)}",
                field="base_model",
            )
        return base

    def _model(self, model_id: str) -> _Model:
        model = self._models.get(model_id)
        if model is None:
            raise InvalidInputError(f"there is no model {model_id!r}", field="model_id")
        return model

    def _own_loss(self, batch: ForwardBackwardInput) -> GraphLoss | None:
        if batch.loss_fn != "custom":
            return None
        loss_id = (batch.loss_fn_config or {}).get("loss_id")
        if loss_id not in self._losses:
            raise InvalidInputError(
                f"loss_fn_config['loss_id'] is {loss_id!r:.80}, which is no loss of this server; create one first",
                field="loss_fn_config['loss_id']",
            )
        return self._losses[str(loss_id)]

    def _limit(self, base: BaseModel) -> int:
        return max(1, min(self._microbatch_tokens, _LOGITS // base.limits.vocab))

    def _read_sampler(self, base: BaseModel, folder: Path | None) -> _Sampler:
        if folder is None:
            return _Sampler(base)
        card = checkpoint.read_card(folder)
        checkpoint.require_same(card, base.name)
        return _Sampler(base, card.lora, fitting(base.places(card.lora), checkpoint.read_weights(folder)))


def _device(wanted: str) -> str:
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device must be 'auto', 'cpu' or 'cuda', got {wanted!r}")
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigurationError("device is 'cuda', but PyTorch finds no CUDA device here; use 'auto' or 'cpu'")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and available) else "cpu"
