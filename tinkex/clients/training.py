"""TrainingClient: one model, its operations in order."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import attrs

from tinkex.clients.custom_loss import CustomLoss, CustomLossFn, import_torch
from tinkex.clients.door import console_page
from tinkex.clients.loss_handle import LossHandle
from tinkex.clients.processes import NotPicklable
from tinkex.clients.ready import ReadyClient
from tinkex.clients.sampling import SamplingClient, as_policy
from tinkex.clients.saves import Saves
from tinkex.clients.tokenizers import load_tokenizer
from tinkex.clients.twins import async_twins
from tinkex.errors import APIStatusError, ConfigurationError, InvalidInputError
from tinkex.http import lacks_endpoint
from tinkex.pipeline import APIFuture, Part, combine_outputs, estimate_datum, split
from tinkex.types import (
    AdamParams,
    Checkpoint,
    CheckpointType,
    Datum,
    DimuonParams,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
    GetInfoRequest,
    GetInfoResponse,
    LoadWeightsRequest,
    LoadWeightsResponse,
    LossFnType,
    OptimParams,
    OptimStepRequest,
    OptimStepResponse,
    SaveWeightsExternalRequest,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResponse,
    SaveWeightsRequest,
    SaveWeightsResponse,
    UnloadModelRequest,
    UnloadModelResponse,
    Unrecognized,
    UntypedAPIFuture,
)
from tinkex.types._console import run_page
from tinkex.types.training import check_custom_inputs, check_data, check_loss, to_data
from tinkex.types.weights import check_name, check_path, run_of

if TYPE_CHECKING:
    from tinkex.clients.events import Telemetry
    from tinkex.clients.session import Session

__all__ = ["TrainingClient"]

T = TypeVar("T")
LossConfig = Mapping[str, float | str]
SamplerKind = Literal["snapshot", "inflight"]


def _only(results: list[T]) -> T:
    return results[0]


@async_twins(
    threads=("save_weights_and_get_sampling_client", "create_sampling_client", "get_info"),
    futures=(
        "forward",
        "forward_backward",
        "forward_backward_custom",
        "optim_step",
        "save_state",
        "load_state",
        "load_state_with_optimizer",
        "save_weights_for_sampler",
        "save_weights_external",
    ),
)
class TrainingClient(NotPicklable, ReadyClient):
    """Trains one model. Make one with ``ServiceClient.create_lora_training_client``.

    Every operation returns an :class:`~tinkex.APIFuture` at once and is sent in the order of the calls, so submit
    ``forward_backward`` and ``optim_step`` together, and the next step before you wait for this one. Safe to use from
    several threads; the order is then that of the calls.

    A failure governs what was submitted in ignorance of it, and no more. An operation that cannot change the model
    (:meth:`forward` and the saves) fails alone. When one fails that changes it, what was submitted behind it fails with
    ``PipelineBrokenError``, which names it. Once your program has read the failure, from a future or from a call that
    raised it, the next call goes on, with a warning in the log; unless it is not certain what the server has done: then
    every call says so, and the way on is a new client from the last checkpoint.
    """

    def __init__(self, session: Session, model_id: str, base_model: str) -> None:
        """Attach to a model that the server has made."""
        self.model_id = model_id
        self.base_model = base_model
        self._session = session
        self._agreement = session.agreement
        self._submission = session.new_submission(model_id)
        self._saves = Saves(session.api, model_id)
        self._tokenizer_id: str | None = None  # where the server says it is, once it was asked
        session.watch(self)

    def forward(
        self, data: Iterable[Datum], loss_fn: LossFnType, loss_fn_config: LossConfig | None = None
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute a loss without its gradient; the model and its accumulated gradient stay as they are.

        Args and errors are those of :meth:`forward_backward`.
        """
        return self._submit_batch("forward", data, loss_fn, loss_fn_config)

    def forward_backward(
        self, data: Iterable[Datum], loss_fn: LossFnType, loss_fn_config: LossConfig | None = None
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute a loss and add its gradient to the model's.

        Args:
            data: The batch; it is split into requests of at most ``config.max_chunk_len`` datums and
                ``config.max_chunk_bytes`` estimated bytes, and the results are joined again.
            loss_fn: One of the losses of :data:`tinkex.types.LOSS_INPUTS`, which lists what each reads, or another that
                the server has, of which only the sizes of the inputs are checked. Inputs that another of the losses
                reads may be there; the server leaves them unread.
            loss_fn_config: Numbers that the loss reads, such as ``{"clip_high_threshold": 1.2}`` for ``ppo``.

        Returns:
            A future of the losses: ``.metrics["loss:sum"]`` is the sum over all tokens, and
            ``.loss_fn_outputs[i]["logprobs"]`` the logprobs of datum i, in the shape of its ``target_tokens``.

        Raises:
            InvalidInputError: The batch cannot be computed; the error names the datum. Nothing was sent.
            PipelineBrokenError: An earlier operation failed, and your program had not read that.
            ClientClosedError: The client is closed.
        """
        return self._submit_batch("forward_backward", data, loss_fn, loss_fn_config)

    def forward_backward_custom(
        self,
        data: Iterable[Datum],
        loss_fn: CustomLossFn | LossHandle,
        *,
        loss_type_input: Literal["logprobs"] | None = None,
    ) -> APIFuture[ForwardBackwardOutput]:
        """Compute a loss of your own on the logprobs of the target tokens, and add its gradient to the model's.

        The server computes the logprobs, your function runs here with torch, and the gradient goes back to the server:
        one operation with consecutive numbers, which nothing overtakes. The function runs on the thread that sends the
        operations of this model, so thread-local state (autocast, breakpoints) is not that of the caller.

        A handle of ``ServiceClient.create_custom_loss`` runs on the server instead, in one pass like any other loss.

        Args:
            data: The batch; each datum needs ``target_tokens``, what else it has is for your function.
            loss_fn: Called with the datums and, for each, a float32 tensor of logprobs in the shape of its
                ``target_tokens``; returns the loss as a scalar tensor, and a dict of metrics. Or a handle.
            loss_type_input: Accepted for programs written for the official SDK: logprobs are all that there is.

        Returns:
            A future of the result; ``metrics`` has yours, ``loss:sum`` is your loss.

        Raises:
            ConfigurationError: torch is not installed.
            InvalidInputError: The batch cannot be computed; the error names the datum. Or the loss is no function, or
                its handle belongs to another session. Nothing was sent.
        """
        if isinstance(loss_fn, LossHandle):
            return self._submit_handle(to_data(data), loss_fn)
        if not callable(loss_fn):
            raise InvalidInputError(
                f"loss_fn must be a function of your own, got {loss_fn!r:.80}; for a loss of the server use "
                "forward_backward",
                field="loss_fn",
            )
        import_torch()
        custom = CustomLoss(to_data(data), loss_fn)
        forward_data = custom.forward_data()
        check_data(forward_data, "cross_entropy")
        self._agreement.check_data(forward_data)
        chunks = self._chunks(forward_data)
        sent_forward = self._batch_parts("forward", forward_data, chunks, "cross_entropy", None)

        def between(results: list[ForwardBackwardOutput]) -> list[Part]:
            backward_data = custom.differentiate(combine_outputs(results).loss_fn_outputs)
            return self._batch_parts("forward_backward", backward_data, chunks, "cross_entropy", None)

        def combine(results: list[ForwardBackwardOutput]) -> ForwardBackwardOutput:
            return custom.combine(combine_outputs(results))

        return self._submission.submit_staged("forward_backward_custom", sent_forward, between, combine)

    def optim_step(
        self, optim_params: OptimParams | None = None, *, adam_params: AdamParams | None = None
    ) -> APIFuture[OptimStepResponse]:
        """Apply the accumulated gradient and zero it: with AdamW, unless the model was made with another optimizer.

        Args:
            optim_params: Hyper-parameters of this step; the defaults of :class:`~tinkex.AdamParams` if left out.
                :class:`~tinkex.DimuonParams` for a model that was made with Dimuon.
            adam_params: The same under the name that older SDKs use.

        Returns:
            A future of the server's metrics, which may be None.
        """
        given = adam_params if optim_params is None else optim_params
        params = AdamParams() if given is None else given
        if not isinstance(params, (AdamParams, DimuonParams, Unrecognized)):
            raise InvalidInputError(f"optim_params must be an AdamParams, got {params!r:.80}", field="optim_params")

        def send(seq_id: int) -> UntypedAPIFuture:
            request = OptimStepRequest.of(params, model_id=self.model_id, seq_id=seq_id)
            return self._session.api.training.optim_step(request)

        return self._submit_one("optim_step", "OptimStep", OptimStepResponse, send)

    def save_state(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,
        user_metadata: dict[str, str] | None = None,
    ) -> APIFuture[SaveWeightsResponse]:
        """Save weights and optimizer, to continue training from.

        Args:
            name: Name of the checkpoint within this model.
            ttl_seconds: Delete it after this long (3600 seconds to 10 years); None keeps it.
            overwrite: Replace a checkpoint of the same name.
            user_metadata: Texts to keep with it.

        Returns:
            A future whose ``path`` is ``tinker://<model>/weights/<name>``.
        """
        check_name(name)
        request = SaveWeightsRequest(
            model_id=self.model_id,
            path=name,
            ttl_seconds=ttl_seconds,
            overwrite=overwrite,
            user_metadata=user_metadata or None,
        )

        part = self._save_part(
            ("training", name),
            lambda seq_id: self._session.api.weights.save(attrs.evolve(request, seq_id=seq_id)),
            lambda saved: SaveWeightsResponse(path=saved.tinker_path),
            request_type="SaveWeights",
            decode=SaveWeightsResponse,
        )
        return self._submission.submit("save_state", [part], _only, read_only=True)

    def load_state(self, path: str, weights_access_token: str | None = None) -> APIFuture[LoadWeightsResponse]:
        """Load saved weights into this model, with a fresh optimizer.

        Args:
            path: The checkpoint, as ``save_state`` returned it.
            weights_access_token: Key of the account that owns the checkpoint, if it is another's.

        Raises:
            InvalidInputError: The path is that of a checkpoint of another kind.
        """
        return self._load("load_state", path, weights_access_token, optimizer=False)

    def load_state_with_optimizer(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[LoadWeightsResponse]:
        """Load saved weights and the optimizer's state into this model; otherwise like :meth:`load_state`."""
        return self._load("load_state_with_optimizer", path, weights_access_token, optimizer=True)

    def save_weights_for_sampler(
        self, name: str, ttl_seconds: int | None = None, user_metadata: dict[str, str] | None = None
    ) -> APIFuture[SaveWeightsForSamplerResponse]:
        """Save weights to sample from.

        Args:
            name: Name of the checkpoint within this model.
            ttl_seconds: Delete it after this long (3600 seconds to 10 years); None keeps it.
            user_metadata: Texts to keep with it.

        Returns:
            A future whose ``path`` is ``tinker://<model>/sampler_weights/<name>``.
        """
        check_name(name)
        return self._save_for_sampler(path=name, ttl_seconds=ttl_seconds, user_metadata=user_metadata or None)

    def save_weights_external(
        self,
        name: str,
        ttl_seconds: int | None = None,
        age_encryption_recipients: Iterable[str] | None = None,
    ) -> APIFuture[SaveWeightsExternalResponse]:
        """Save weights in the form that other programs read, to be downloaded file by file.

        ``RestClient.get_external_weights_urls`` tells where the files are.

        Args:
            name: Name of the checkpoint within this model.
            ttl_seconds: Delete it after this long (3600 seconds to 10 years); None keeps it.
            age_encryption_recipients: Encrypt each file for these keys of age (``age1...`` or SSH public keys).

        Returns:
            A future whose ``path`` is ``tinker://<model>/external_weights/<name>``.
        """
        check_name(name)
        request = SaveWeightsExternalRequest(
            model_id=self.model_id,
            path=name,
            ttl_seconds=ttl_seconds,
            age_encryption_recipients=age_encryption_recipients,
        )

        part = self._save_part(
            ("external", name),
            lambda seq_id: self._session.api.weights.save_external(attrs.evolve(request, seq_id=seq_id)),
            lambda saved: SaveWeightsExternalResponse(path=saved.tinker_path, size_bytes=saved.size_bytes),
            request_type="SaveWeightsExternal",
            decode=SaveWeightsExternalResponse,
        )
        return self._submission.submit("save_weights_external", [part], _only, read_only=True)

    def save_weights_and_get_sampling_client(
        self,
        name: str | None = None,
        retry_config: object = None,
        record_stability_info: bool = False,
        kind: SamplerKind = "snapshot",
    ) -> SamplingClient:
        """Save the weights as they are now and return a sampler of them; waits for all earlier operations.

        Args:
            name: Keep the weights as a sampler checkpoint of this name; without a name they last as long as the
                session.
            retry_config: As for :meth:`create_sampling_client`.
            record_stability_info: Ask the server to keep figures on numerical stability with each sample.
            kind: ``"snapshot"`` for weights that stay as they are now; ``"inflight"`` lets a server that can do so
                exchange the weights of samples that are being drawn. Has no effect together with a name.

        Returns:
            A sampler with these weights, whatever is trained later.
        """
        if kind not in get_args(SamplerKind):
            raise InvalidInputError(f"kind must be 'snapshot' or 'inflight', got {kind!r:.40}", field="kind")
        if name is not None:
            path = self.save_weights_for_sampler(name).result().path
            assert path is not None  # noqa: S101 - a named save has a path, by the type's own check in the server
            return SamplingClient.create(self._session, path, None, record_stability_info, retry_config, self._base())
        number = next(self._session.samplers)
        saved = self._save_for_sampler(sampling_session_seq_id=number, kind=kind).result()
        if saved.sampling_session_id is None:
            raise InvalidInputError("the server saved the weights but returned no sampler", field="sampling_session_id")
        return SamplingClient(
            self._session,
            saved.sampling_session_id,
            **self._base(),
            record_stability_info=record_stability_info,
            retry=as_policy(retry_config),
        )

    def create_sampling_client(
        self, model_path: str, retry_config: object = None, record_stability_info: bool = False
    ) -> SamplingClient:
        """Return a sampler of a saved checkpoint.

        Args:
            model_path: The checkpoint, as ``save_weights_for_sampler`` returned it.
            retry_config: When a sample that could not be sent is sent again: a :class:`~tinkex.RetryPolicy`, or the
                official SDK's RetryConfig; ``ClientConfig.retry`` unless given.
            record_stability_info: Ask the server to keep figures on numerical stability with each sample.
        """
        own = self._base() if run_of(check_path(model_path, "sampler", "model_path")) == self.model_id else None
        return SamplingClient.create(self._session, model_path, None, record_stability_info, retry_config, own)

    def get_console_url(self) -> str:
        """Return the page of this model in the console of the hosted service.

        Raises:
            ConfigurationError: This is another server, which has no console.
        """
        return console_page(self._session.config, run_page(self.model_id))

    def get_info(self) -> GetInfoResponse:
        """Ask the server about this model."""
        info = self._session.api.models.get_info(GetInfoRequest(model_id=self.model_id))
        self._tokenizer_id = info.model_data.tokenizer_id
        return info

    def get_telemetry(self) -> Telemetry | None:
        """Return what logs events for the server; None if telemetry is off."""
        return self._session.telemetry()

    def get_tokenizer(self) -> Any:
        """Return the tokenizer of the base model: Hugging Face's, or that of :func:`tinkex.register_tokenizer`.

        Raises:
            ConfigurationError: ``transformers`` is not installed, or the tokenizer cannot be found, or it is code of
                its own and no loader is registered for it.
        """
        name = self.base_model
        try:
            name = self.get_info().model_data.model_name or name
        except APIStatusError as error:
            if not lacks_endpoint(error):
                raise
        if not (name or self._tokenizer_id):
            raise ConfigurationError(
                f"the server does not tell the base model of {self.model_id}; load the tokenizer of that model yourself"
            )
        return load_tokenizer(name, self._tokenizer_id)

    def unload(self) -> APIFuture[UnloadModelResponse]:
        """Free the model on the server after everything submitted before; the client is of no use afterwards."""

        def send(_: int) -> UntypedAPIFuture:
            return self._session.api.models.unload(UnloadModelRequest(model_id=self.model_id))

        return self._submit_one("unload", "UnloadModel", UnloadModelResponse, send)

    def check(self) -> None:
        """Raise if an operation has failed that changes the model, also one whose future nobody reads.

        A server that was sent operations ahead does those behind a failure too. So a save may succeed although a step
        before it failed: check after its result is there, for whatever was submitted before it is done then. A failure
        that the program has read already is not raised again, if the next call goes on after it.

        Raises:
            PipelineBrokenError: An operation failed; it is the ``__cause__``.
            ClientClosedError: The client is closed.
        """
        self._submission.check()

    def reopen(self) -> None:
        """Go on after a failure that the program has not read, if it is certain what the server did and did not do.

        That is so if the server refused or failed an operation and nothing else is under way. What the failed
        operations would have done was not done: submit them again if you still want it. After a failure that was read,
        the next call goes on without this.

        Raises:
            PipelineBrokenError: It is not certain; make a new client from the last checkpoint.
        """
        self._submission.reopen()

    def __repr__(self) -> str:
        """Show the model and what is under way."""
        state, pending = self._submission.state.value, len(self._submission.pending())
        return f"TrainingClient({self.model_id}, base_model={self.base_model!r}, {state}, {pending} operations pending)"

    def _base(self) -> dict[str, Any]:
        """Return what a sampler of this model is known to have, so that the server need not be asked."""
        return {"base_model": self.base_model or None, "tokenizer_id": self._tokenizer_id}

    def _submit_batch(
        self, operation: str, data: Iterable[Datum], loss_fn: str, loss_fn_config: LossConfig | None
    ) -> APIFuture[ForwardBackwardOutput]:
        # Copies, because a caller may change the dict of a datum before it is sent.
        batch = [copy.copy(datum) for datum in to_data(data)]
        check_loss(loss_fn, loss_fn_config)
        check_data(batch, loss_fn)
        self._agreement.check_data(batch)
        config = dict(loss_fn_config) if loss_fn_config else None
        parts = self._batch_parts(operation, batch, self._chunks(batch), loss_fn, config)
        return self._submission.submit(operation, parts, combine_outputs, read_only=operation == "forward")

    def _submit_handle(self, data: list[Datum], handle: LossHandle) -> APIFuture[ForwardBackwardOutput]:
        if handle.loss_id is None or handle.session_id != self._session.id:
            raise InvalidInputError(
                f"loss_fn {handle.name!r} was created in session {handle.session_id}, and only clients of that session "
                "can use it; create it with the ServiceClient of this model",
                field="loss_fn",
            )
        check_data(data, "custom")
        check_custom_inputs(data, handle.inputs, handle.name)
        return self.forward_backward(data, "custom", {"loss_id": handle.loss_id})

    def _chunks(self, data: list[Datum]) -> list[tuple[slice, int]]:
        agreement = self._agreement
        sizes = [estimate_datum(datum, agreement.size_rule) for datum in data]
        slices = split(sizes, agreement.max_chunk_len, agreement.max_chunk_bytes)
        return [(chunk, sum(sizes[chunk])) for chunk in slices]

    def _batch_parts(
        self,
        operation: str,
        data: list[Datum],
        chunks: list[tuple[slice, int]],
        loss_fn: str,
        config: dict[str, float | str] | None,
    ) -> list[Part]:
        return [
            self._batch_part(
                operation, ForwardBackwardInput(data=data[chunk], loss_fn=loss_fn, loss_fn_config=config), size
            )
            for chunk, size in chunks
        ]

    def _batch_part(self, operation: str, batch: ForwardBackwardInput, size: int) -> Part:
        send = self._send_forward if operation == "forward" else self._send_forward_backward

        def halve() -> list[Part]:
            self._agreement.lower_chunk_bytes(size // 2)
            middle = len(batch.data) // 2
            halves = (attrs.evolve(batch, data=data) for data in (batch.data[:middle], batch.data[middle:]))
            sizes = (size // 2, size - size // 2)
            return [self._batch_part(operation, half, each) for half, each in zip(halves, sizes, strict=True)]

        return Part(
            send=functools.partial(send, batch),
            size=size,
            request_type="Forward" if operation == "forward" else "ForwardBackward",
            decode=ForwardBackwardOutput,
            halve=halve if len(batch.data) > 1 else None,
        )

    def _send_forward(self, batch: ForwardBackwardInput, seq_id: int) -> str:
        request = ForwardRequest(forward_input=batch, model_id=self.model_id, seq_id=seq_id)
        return self._send_batch(self._session.api.training.forward, request)

    def _send_forward_backward(self, batch: ForwardBackwardInput, seq_id: int) -> str:
        request = ForwardBackwardRequest(forward_backward_input=batch, model_id=self.model_id, seq_id=seq_id)
        return self._send_batch(self._session.api.training.forward_backward, request)

    def _send_batch(self, send: Callable[..., UntypedAPIFuture], request: object) -> str:
        key = self._session.api.new_key()  # one request, in whichever form it is accepted
        return self._agreement.send(lambda wire: send(request, wire=wire, idempotency_key=key)).request_id

    def _load(self, operation: str, path: str, token: str | None, *, optimizer: bool) -> APIFuture[LoadWeightsResponse]:
        check_path(path, "training")

        def send(seq_id: int) -> UntypedAPIFuture:
            return self._session.api.weights.load(
                LoadWeightsRequest(
                    model_id=self.model_id, seq_id=seq_id, path=path, optimizer=optimizer, weights_access_token=token
                )
            )

        return self._submit_one(operation, "LoadWeights", LoadWeightsResponse, send)

    def _save_for_sampler(self, **fields: Any) -> APIFuture[SaveWeightsForSamplerResponse]:
        request = SaveWeightsForSamplerRequest(model_id=self.model_id, **fields)

        part = self._save_part(
            ("sampler", request.path),
            lambda seq_id: self._session.api.weights.save_for_sampler(attrs.evolve(request, seq_id=seq_id)),
            lambda saved: SaveWeightsForSamplerResponse(path=saved.tinker_path),
            request_type="SaveWeightsForSampler",
            decode=SaveWeightsForSamplerResponse,
        )
        return self._submission.submit("save_weights_for_sampler", [part], _only, read_only=True)

    def _save_part(
        self,
        what: tuple[CheckpointType, str | None],
        send: Callable[[int], UntypedAPIFuture],
        make: Callable[[Checkpoint], Any],
        **part: Any,
    ) -> Part:
        """Return a request that saves, and that knows its own checkpoint if the server calls the name taken."""
        return Part(
            send=lambda seq_id: self._saves.send(*what, lambda: send(seq_id)).request_id,
            look_up=functools.partial(self._saves.look_up, *what, make),
            **part,
        )

    def _submit_one(
        self,
        operation: str,
        request_type: str,
        result: type[T],
        send: Callable[[int], UntypedAPIFuture],
    ) -> APIFuture[T]:
        part = Part(send=lambda seq_id: send(seq_id).request_id, request_type=request_type, decode=result)
        return self._submission.submit(operation, [part], _only)
