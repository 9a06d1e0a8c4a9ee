"""What the server needs of an engine. An engine knows nothing of HTTP; the server knows nothing of torch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

from tinkex.errors import TinkexError
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

__all__ = ["Engine"]


class Engine(Protocol):
    """Trains and samples models, one call at a time.

    The server calls everything but ``check_*``, ``runs_*``, ``supported_models`` and ``model_data`` from one
    thread. A method that raises leaves the model as it was. ``InvalidInputError`` means that the request was at fault,
    and ``RequestFailedError`` says in its ``category`` whose fault it was; any other exception is the engine's own
    failure.
    """

    @property
    def runs_custom_losses(self) -> bool:
        """Tell whether there is more to ``add_loss`` than an error."""
        ...

    def supported_models(self) -> list[SupportedModel]:
        """Return what can be trained and sampled."""
        ...

    def model_data(self, base_model: str) -> ModelData:
        """Return architecture, name and tokenizer id of a base model; raise InvalidInputError if it is unknown."""
        ...

    def check_batch(self, model_id: str, batch: ForwardBackwardInput) -> None:
        """Refuse a batch that can never run: token ids, lengths, context, missing or non-finite inputs."""
        ...

    def check_sample(self, request: SampleRequest, base_model: str) -> None:
        """Refuse a sample that can never run."""
        ...

    def create_model(self, model_id: str, base_model: str, lora: LoraConfig) -> None:
        """Make a model: the base with a fresh adapter and a fresh optimizer."""
        ...

    def drop_model(self, model_id: str) -> None:
        """Forget a model; no error if it is unknown."""
        ...

    def add_loss(self, loss_id: str, request: CreateCustomLossRequest) -> None:
        """Keep a client's own loss, for batches of the loss ``custom`` whose settings name its id."""
        ...

    def drop_loss(self, loss_id: str) -> None:
        """Forget a loss; no error if it is unknown."""
        ...

    def forward_in_steps(
        self, model_id: str, batch: ForwardBackwardInput, *, backward: bool
    ) -> Generator[None, None, ForwardBackwardOutput]:
        """Check the batch, compute its loss, and with ``backward`` add its gradient to the model's.

        The server may call other methods where this yields, of the same model only ``drop_model``, and it may close
        this there. None of it changes what comes out; nothing of the model changes before the end.

        Returns:
            The output, as the generator's value.
        """
        ...

    def optim_step(self, model_id: str, params: AdamParams) -> OptimStepResponse:
        """Clip, step AdamW with these hyper-parameters, and zero the gradient."""
        ...

    def save(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Write the adapter into an existing empty folder as PEFT files, and the optimizer's state if asked for."""
        ...

    def load(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Replace the adapter by a saved one; with ``optimizer`` the optimizer's state too, else a fresh one."""
        ...

    def describe(self, folder: Path) -> WeightsInfoResponse:
        """Return base model and LoRA settings of a saved adapter."""
        ...

    def open_sampler(self, sampler_id: str, base_model: str, folder: Path | None) -> None:
        """Make a sampler with frozen weights: the base alone, or with a saved adapter."""
        ...

    def close_sampler(self, sampler_id: str) -> None:
        """Forget a sampler; no error if it is unknown."""
        ...

    def sample(self, sampler_id: str, requests: Sequence[SampleRequest]) -> list[SampleResponse | TinkexError]:
        """Answer several requests of one sampler as one batch, each with a response or with its own error."""
        ...
