"""ServiceClient: the way in."""

from __future__ import annotations

import types
from typing import Any

import attrs
from typing_extensions import Self

from tinkex.clients.rest import RestClient
from tinkex.clients.sampling import SamplingClient
from tinkex.clients.session import Session
from tinkex.clients.training import TrainingClient
from tinkex.clients.twins import async_twins
from tinkex.config import ClientConfig
from tinkex.errors import ConfigurationError
from tinkex.types import (
    GetServerCapabilitiesResponse,
    LoraConfig,
    WeightsInfoRequest,
)
from tinkex.types.weights import require_kind

__all__ = ["ServiceClient"]


@async_twins(
    threads=(
        "get_server_capabilities",
        "create_lora_training_client",
        "create_training_client_from_state",
        "create_training_client_from_state_with_optimizer",
        "create_sampling_client",
    )
)
class ServiceClient:
    """Connects to a server and makes the clients that train and sample.

    Nothing is sent before it is needed. Use it in a ``with`` statement: leaving it waits for what was submitted;
    leaving it with an exception cancels what is still queued::

        with ServiceClient(base_url="local") as service:
            train = service.create_lora_training_client("tinkex/tiny", rank=16)
    """

    def __init__(
        self,
        user_metadata: dict[str, Any] | None = None,
        project_id: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        config: ClientConfig | None = None,
        **settings: Any,
    ) -> None:
        """Read the settings; an argument wins over the environment.

        Args:
            user_metadata: What to keep with the session on the server.
            project_id: The project that the session belongs to; ``TINKER_PROJECT_ID`` unless given.
            base_url: Where the server is, or ``"local"`` to start one inside this process; ``TINKER_BASE_URL`` unless
                given, else the hosted service.
            api_key: The key; ``TINKER_API_KEY`` unless given.
            config: All settings at once, instead of every other one.
            **settings: Other fields of :class:`~tinkex.ClientConfig`, such as ``timeout=30``.

        Raises:
            ConfigurationError: There is neither a key nor a base URL, or a setting cannot be used.
        """
        given = {"base_url": base_url, "api_key": api_key, "project_id": project_id, **settings}
        if config is None:
            config = ClientConfig.from_env(**given)
        elif any(value is not None for value in given.values()):
            raise ConfigurationError("pass either config= or single settings, not both; attrs.evolve changes a config")
        self.config = _with_server(config)
        self._session = Session(self.config, user_metadata=user_metadata)

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Ask the server which base models it offers."""
        return self._session.api.service.get_server_capabilities()

    def create_lora_training_client(
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: dict[str, Any] | None = None,
    ) -> TrainingClient:
        """Make a model to train: a base model with a fresh low-rank adapter. Waits until it is there.

        Args:
            base_model: Name of the base model, as ``get_server_capabilities`` lists it.
            rank: LoRA rank.
            seed: Makes the adapter's first weights repeatable.
            train_mlp: Adapt the MLP layers.
            train_attn: Adapt the attention layers.
            train_unembed: Adapt the output projection.
            user_metadata: What to keep with the model on the server.

        Returns:
            Its client.

        Raises:
            InvalidInputError: An argument cannot be used.
            RequestFailedError: The server could not make the model.
        """
        lora = LoraConfig(rank=rank, seed=seed, train_mlp=train_mlp, train_attn=train_attn, train_unembed=train_unembed)
        return self._create(base_model, lora, user_metadata)

    def create_training_client_from_state(
        self,
        path: str,
        user_metadata: dict[str, Any] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """Make a model from saved weights, with a fresh optimizer. Waits until it is there.

        Args:
            path: ``tinker://<model>/weights/<name>``, as ``save_state`` returns it.
            user_metadata: What to keep with the new model on the server.
            weights_access_token: Key of the account that owns the checkpoint, if it is another's.

        Raises:
            InvalidInputError: The path is not that of a training checkpoint.
            NotFoundError: There is no such checkpoint.
        """
        client = self._create_like(path, user_metadata)
        client.load_state(path, weights_access_token).result()
        return client

    def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        user_metadata: dict[str, Any] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """Make a model from saved weights and go on with the saved optimizer; otherwise as without it."""
        client = self._create_like(path, user_metadata)
        client.load_state_with_optimizer(path, weights_access_token).result()
        return client

    def create_sampling_client(
        self, model_path: str | None = None, base_model: str | None = None, retry_config: object = None
    ) -> SamplingClient:
        """Make a sampler of a checkpoint, or of a base model.

        Args:
            model_path: ``tinker://<model>/sampler_weights/<name>``, as ``save_weights_for_sampler`` returns it.
            base_model: Name of a base model.
            retry_config: Accepted for programs written for the official SDK; retries follow ``ClientConfig.retry``.

        Raises:
            InvalidInputError: Neither is given, or the path is not that of a sampler checkpoint.
            NotFoundError: There is no such checkpoint or model.
        """
        return SamplingClient.create(self._session, model_path, base_model)

    def create_rest_client(self) -> RestClient:
        """Return a client that lists and manages runs and checkpoints."""
        return RestClient(self._session)

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """End the session. Idempotent; works from any thread.

        Args:
            drain: Wait for everything submitted; else fail what is not done.
            timeout: Seconds for all of this; ``config.close_timeout_s`` unless given.
        """
        self._session.close(drain=drain, timeout=timeout)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Close: wait for what was submitted, or cancel it if the block failed."""
        self.close(drain=error is None)

    def __repr__(self) -> str:
        """Show the server and the session."""
        return f"ServiceClient({self.config.base_url}, {self._session.describe()})"

    def _create(self, base_model: str, lora: LoraConfig, user_metadata: dict[str, Any] | None) -> TrainingClient:
        created = self._session.create_model(base_model, lora, user_metadata).result()
        return TrainingClient(self._session, created.model_id, base_model)

    def _create_like(self, path: str, user_metadata: dict[str, Any] | None) -> TrainingClient:
        """Make a model into which a checkpoint can be loaded."""
        require_kind(path, "training")
        info = self._session.api.weights.weights_info(WeightsInfoRequest(tinker_path=path))
        if not info.is_lora or info.lora_rank is None:
            raise ConfigurationError(f"{path} is not a LoRA checkpoint, and only those can be trained")
        flags = {"train_mlp": info.train_mlp, "train_attn": info.train_attn, "train_unembed": info.train_unembed}
        # A server that does not say leaves the flags out; then they were all on.
        known = {name: value for name, value in flags.items() if value is not None}
        return self._create(info.base_model, LoraConfig(rank=info.lora_rank, **known), user_metadata)


def _with_server(config: ClientConfig) -> ClientConfig:
    """Start the embedded server if the settings ask for it, and point the settings at it."""
    if not config.is_local:
        return config
    from tinkex.local import shared_local_server

    server = shared_local_server()
    return attrs.evolve(config, base_url=server.base_url, api_key=server.api_key)
