"""ServiceClient: the way in."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import attrs
from typing_extensions import Self

from tinkex._scalars import plain_number
from tinkex.clients.door import console_page, resolve
from tinkex.clients.events import Telemetry
from tinkex.clients.loss_handle import LossHandle, PerDatumLossFn, encode, trace
from tinkex.clients.processes import NotPicklable
from tinkex.clients.rest import RestClient
from tinkex.clients.restore import base_model_of, lora_of, needs_of
from tinkex.clients.sampling import SamplingClient
from tinkex.clients.session import Session
from tinkex.clients.settings import RESTORE
from tinkex.clients.training import TrainingClient
from tinkex.clients.twins import async_twins
from tinkex.config import ClientConfig
from tinkex.errors import APIStatusError, ConfigurationError, InvalidInputError
from tinkex.pipeline import APIFuture, Observer
from tinkex.pipeline.futures import finished
from tinkex.types import (
    ClientSessionFinishReasonType,
    CopyWeightsRequest,
    CustomLossInputRank,
    GetServerCapabilitiesResponse,
    LoraConfig,
    OptimizerConfig,
)
from tinkex.types._console import session_page
from tinkex.types.weights import check_path

__all__ = ["ServiceClient"]


@async_twins(
    threads=(
        "get_server_capabilities",
        "create_lora_training_client",
        "create_training_client_from_state",
        "create_training_client_from_state_with_optimizer",
        "create_sampling_client",
    ),
    values=("copy_weights",),
)
class ServiceClient(NotPicklable):
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
        display_name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        default_headers_overrides: dict[str, str] | None = None,
        config: ClientConfig | None = None,
        observers: Iterable[Observer] = (),
        **settings: Any,
    ) -> None:
        """Read the settings; an argument wins over the environment.

        Args:
            user_metadata: What to keep with the session on the server.
            project_id: The project that the session belongs to; ``TINKER_PROJECT_ID`` unless given.
            display_name: What to call the session in lists and searches; need not be unique.
            base_url: Where the server is, or ``"local"`` to start one inside this process; ``TINKER_BASE_URL`` unless
                given, else the hosted service.
            api_key: The key; ``TINKER_API_KEY`` unless given.
            default_headers_overrides: The setting ``default_headers`` under the name that the official SDK uses.
            config: All settings at once, instead of every other one.
            observers: Called with a :class:`~tinkex.pipeline.PhaseChange` whenever an operation is submitted, accepted,
                paused or done, on the thread where that happens: they must be quick.
            **settings: Other fields of :class:`~tinkex.ClientConfig`, such as ``timeout=30``.

        Raises:
            ConfigurationError: There is neither a key nor a base URL, or a setting cannot be used.
        """
        if default_headers_overrides is not None:
            settings["default_headers"] = {**settings.get("default_headers", {}), **default_headers_overrides}
        self.config = resolve(config, base_url=base_url, api_key=api_key, project_id=project_id, **settings)
        self._session = Session(
            self.config, user_metadata=user_metadata, display_name=display_name, observers=observers
        )
        self._session.watch(self)

    @property
    def session_id(self) -> str | None:
        """The server's name for the session of this client; None before the first model or sampler has opened it."""
        return self._session.id

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Ask the server which base models it offers."""
        self._session.settings.get()
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
        optimizer: OptimizerConfig | None = None,
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
            optimizer: Which optimizer, on servers that have several; AdamW unless given.

        Returns:
            Its client.

        Raises:
            InvalidInputError: An argument cannot be used.
            RequestFailedError: The server could not make the model.
        """
        lora = LoraConfig(rank=rank, seed=seed, train_mlp=train_mlp, train_attn=train_attn, train_unembed=train_unembed)
        return self._create(base_model, lora, user_metadata, optimizer)

    def create_training_client_from_state(
        self,
        path: str,
        base_model: str | dict[str, Any] | None = None,
        user_metadata: dict[str, Any] | None = None,
        weights_access_token: str | None = None,
        optimizer: OptimizerConfig | None = None,
    ) -> TrainingClient:
        """Make a model from saved weights, with a fresh optimizer. Waits until it is there.

        Args:
            path: The checkpoint, as ``save_state`` returned it.
            base_model: A base model to use instead of the checkpoint's own, with which it must be compatible. A dict
                is taken for ``user_metadata``, which stands here in SDKs before 0.38.
            user_metadata: What to keep with the new model on the server.
            weights_access_token: Key of the account that owns the checkpoint, if it is another's.
            optimizer: Which optimizer, on servers that have several; AdamW unless given.

        Raises:
            InvalidInputError: The path is that of a checkpoint of another kind.
            NotFoundError: There is no such checkpoint; some servers find that out later, which is RequestFailedError.
        """
        return self._restore(path, False, base_model, user_metadata, weights_access_token, optimizer)

    def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        base_model: str | dict[str, Any] | None = None,
        user_metadata: dict[str, Any] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """Make a model from saved weights and go on with the saved optimizer; otherwise as without it."""
        return self._restore(path, True, base_model, user_metadata, weights_access_token, None)

    def create_custom_loss(
        self, fn: PerDatumLossFn, input_ranks: Mapping[str, CustomLossInputRank]
    ) -> APIFuture[LossHandle]:
        """Send a loss of your own to the server, which then computes it in one pass.

        The function is traced with ``torch.fx`` at the call: it runs once, with stand-ins for tensors, and what it does
        to them is what the server does for each datum. The losses of the datums are added up. So it cannot branch on
        values, use tensors or modules from outside, or call anything but torch and math::

            def margin(logprobs, advantages):
                loss = -(logprobs * advantages).sum()
                return loss, {"custom/length:mean": torch.ones_like(logprobs).sum()}

            handle = service.create_custom_loss(margin, {"logprobs": 1, "advantages": 1}).result()
            train.forward_backward_custom(data, handle)

        Args:
            fn: Takes ``logprobs``, those of the target tokens of one datum, then the entries of ``loss_fn_inputs`` that
                it names. Returns the loss as a scalar tensor, and metrics: scalar tensors by name,
                ``custom/<name>:sum`` or ``custom/<name>:mean``, which says how datums are combined.
            input_ranks: For each parameter 0 for a single number, 1 for a number for each token, or 2 for a row for
                each token; for ``logprobs`` that of ``target_tokens``.

        Returns:
            A future of the handle to give to ``TrainingClient.forward_backward_custom``, for clients of this session.
            It fails with RequestFailedError if the server does not run what the function calls.

        Raises:
            ConfigurationError: torch is not installed, or the server runs no losses of its clients.
            InvalidInputError: The function cannot be sent; the error says what of it.
        """
        if not self._session.settings.get().custom_loss_server_side:
            raise ConfigurationError(
                f"{self.config.base_url} runs no losses of its clients; forward_backward_custom(data, function) "
                "computes yours in this program, with a function of all datums and their logprobs"
            )
        traced = trace(fn, input_ranks, self._session.open())
        return self._session.create_loss(
            traced.name, traced.inputs, encode(traced), lambda loss_id: attrs.evolve(traced, loss_id=loss_id)
        )

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: object = None,
        record_stability_info: bool = False,
    ) -> SamplingClient:
        """Make a sampler of a checkpoint, or of a base model.

        Args:
            model_path: The checkpoint, as ``save_weights_for_sampler`` returned it.
            base_model: Name of a base model.
            retry_config: When a sample that could not be sent is sent again: a :class:`~tinkex.RetryPolicy`, or the
                official SDK's RetryConfig; ``ClientConfig.retry`` unless given.
            record_stability_info: Ask the server to keep figures on numerical stability with each sample.

        Raises:
            InvalidInputError: Neither is given, or the path is that of a checkpoint of another kind.
            NotFoundError: There is no such checkpoint or model.
        """
        return SamplingClient.create(self._session, model_path, base_model, record_stability_info, retry_config)

    def copy_weights(
        self, path: str, *, ttl_seconds: int | None = None, weights_access_token: str | None = None
    ) -> APIFuture[str]:
        """Copy a checkpoint into the project of this client, or into its session if it has no project.

        The copy belongs to a run of its own, which cannot be trained.

        Args:
            path: The checkpoint, of any kind.
            ttl_seconds: Delete the copy after this long, 3600 seconds to ten years; None keeps it.
            weights_access_token: Key of the account that owns the checkpoint, if it is another's.

        Returns:
            A future of the path of the copy.

        Raises:
            InvalidInputError: The path is no text, or an empty one.
        """
        session, source = self._session, check_path(path)
        place: dict[str, Any] = {"destination_project_id": self.config.project_id}
        if self.config.project_id is None:
            place = {"session_id": session.open(), "model_seq_id": next(session.models)}
        request = CopyWeightsRequest(
            source_path=source, ttl_seconds=ttl_seconds, weights_access_token=weights_access_token, **place
        )
        return RestClient(session)._copy(request)

    def get_console_url(self) -> str:
        """Return the page of this session in the console of the hosted service.

        Raises:
            ConfigurationError: This is another server, which has no console.
        """
        return console_page(self.config, session_page(self._session.id))

    def get_telemetry(self) -> Telemetry | None:
        """Return what logs events for the server; None if telemetry is off.

        Opens the session, if that has not been done: events belong to one.

        Raises:
            ClientClosedError: The client is closed.
            APIError: The server could not be reached, or refused.
        """
        if self.config.telemetry:
            self._session.open()
        return self._session.telemetry()

    def create_rest_client(self) -> RestClient:
        """Return a client that lists and manages runs and checkpoints."""
        return RestClient(self._session)

    def close(
        self,
        status: ClientSessionFinishReasonType = "success",
        detail: str | None = None,
        *,
        drain: bool = True,
        timeout: float | None = None,
    ) -> APIFuture[None]:
        """End the session. Idempotent; works from any thread.

        Args:
            status: How the program ended, for the server's records: ``success``, ``errored`` or ``interrupted``.
            detail: More about that.
            drain: Wait for everything submitted; else fail what is not done.
            timeout: Seconds for all of this; ``config.close_timeout_s`` unless given.

        Returns:
            A future that is done: all of this has happened when the call returns.

        Raises:
            InvalidInputError: There is no such status.
        """
        if status not in get_args(ClientSessionFinishReasonType):
            raise InvalidInputError(
                f"status must be 'success', 'errored' or 'interrupted', got {status!r:.60}", field="status"
            )
        self._session.close(status, detail, drain=drain, timeout=plain_number(timeout))
        return finished("close", None)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Close: wait for what was submitted, or cancel it if the block failed."""
        self.close(_status_of(error), drain=error is None)

    def __repr__(self) -> str:
        """Show the server and the session."""
        return f"ServiceClient({self.config.base_url}, {self._session.describe()})"

    def _create(
        self,
        base_model: str,
        lora: LoraConfig,
        user_metadata: dict[str, Any] | None,
        optimizer: OptimizerConfig | None,
    ) -> TrainingClient:
        created = self._session.create_model(base_model, lora, user_metadata, optimizer).result()
        return TrainingClient(self._session, created.model_id, base_model)

    def _restore(
        self,
        path: str,
        with_optimizer: bool,
        base_model: str | dict[str, Any] | None,
        user_metadata: dict[str, Any] | None,
        token: str | None,
        optimizer: OptimizerConfig | None,
    ) -> TrainingClient:
        check_path(path, "training")
        if isinstance(base_model, dict):
            base_model, user_metadata = None, base_model
        session = self._session
        if session.settings.restores_in_one_call():
            try:
                model_id = session.create_model_from(
                    path,
                    optimizer=with_optimizer,
                    base_model=base_model,
                    user_metadata=user_metadata,
                    weights_access_token=token,
                    optimizer_config=optimizer,
                )
            except APIStatusError as error:
                if not _wants_a_model(error):
                    raise
                session.settings.note_lack(RESTORE, error)
            else:
                return TrainingClient(session, model_id, base_model_of(session.api, model_id, path, token, base_model))
        client = self._create_like(path, base_model, user_metadata, token, optimizer)
        load = client.load_state_with_optimizer if with_optimizer else client.load_state
        load(path, token).result()
        return client

    def _create_like(
        self,
        path: str,
        base_model: str | None,
        user_metadata: dict[str, Any] | None,
        token: str | None,
        optimizer: OptimizerConfig | None,
    ) -> TrainingClient:
        """Make a model into which a checkpoint can be loaded, for servers that do not do both at once."""
        needs = needs_of(self._session.api, path, token)
        return self._create(base_model or needs.base_model, lora_of(path, needs), user_metadata, optimizer)


def _wants_a_model(error: APIStatusError) -> bool:
    """Tell whether a server refuses to load weights because there is no model yet to load them into."""
    return error.status_code in (400, 422) and "model_id" in str(error.body)


def _status_of(error: BaseException | None) -> ClientSessionFinishReasonType:
    if error is None:
        return "success"
    return "errored" if isinstance(error, Exception) else "interrupted"
