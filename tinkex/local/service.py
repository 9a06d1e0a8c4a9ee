"""What the endpoints do, apart from HTTP: values in, values out, ``Problem`` for a refusal.

Methods run on the HTTP thread and return at once; the work is queued for the engine thread as closures. Listing and
managing what was saved is in :mod:`tinkex.local.catalog`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.local.checkpoints import CheckpointStore, utc_now
from tinkex.local.codec import Kept
from tinkex.local.completions import Completions, Target, target_of
from tinkex.local.engine.base import Engine
from tinkex.local.futures import FutureTable, Promise, result_of
from tinkex.local.limits import Limits
from tinkex.local.problems import Problem
from tinkex.local.queue import Job, JobQueue
from tinkex.local.scratch import Scratch
from tinkex.local.store import Model, Sampler, Session, Store
from tinkex.local.tokens import Tokens
from tinkex.local.trace import Span, Traces
from tinkex.local.work import DEFAULT_RANK, Work
from tinkex.types import (
    CancelFutureRequest,
    CreateCustomLossRequest,
    CreateModelRequest,
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    ForwardBackwardRequest,
    ForwardRequest,
    FutureFailed,
    FutureFinished,
    GetInfoRequest,
    GetInfoResponse,
    GetServerCapabilitiesResponse,
    JoinSamplingSessionRequest,
    JoinSamplingSessionResponse,
    LoadWeightsRequest,
    LoraConfig,
    OptimStepRequest,
    RequestFailedResponse,
    SampleRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
    UnloadModelRequest,
    UnloadModelResponse,
    UntypedAPIFuture,
)
from tinkex.types.weights import require_kind

__all__ = ["Service"]

logger = logging.getLogger(__name__)

_FINISHED = "ended with its session"
_GREETING = (
    "This is the embedded server of tinkex: it trains on the computer it runs on, and it is not the hosted service."
)


class Service:
    """The API of one server over one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        root: Path,
        limits: Limits,
        clock: Callable[[], float],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make the parts; ``start`` sets the engine thread going.

        Args:
            engine: What trains and samples.
            root: The data folder.
            limits: What to refuse, and how long to wait.
            clock: Monotonic seconds.
            now: Time of day.
        """
        self.engine = engine
        self.limits = limits
        self._clock = clock
        self.now = now
        self.store = Store(clock)
        self.futures = FutureTable(limits, clock)
        self.completions = Completions()
        self.traces = Traces()
        self.tokens = Tokens(limits.token_s, now)
        self.queue = JobQueue(batch_rows=limits.batch_rows, gap_s=limits.gap_s, clock=clock)
        self._scratch = Scratch(root)
        self.checkpoints = CheckpointStore(root, self._scratch, quota_bytes=limits.checkpoint_bytes, now=now)
        self._work = Work(engine, self.store, self.checkpoints, self._scratch, limits)
        self._stopping = False
        # Of the HTTP thread: samplers of requests that name weights instead of a sampler.
        self._unnamed: dict[tuple[str | None, str | None], Sampler] = {}

    def start(self) -> None:
        """Start the engine thread."""
        self.queue.start()

    def close(self) -> bool:
        """Refuse new work, let the running operation end and fail the others; True if all has ended in time."""
        self._stopping = True
        ended = self.queue.close(self.limits.stop_s)
        try:
            if ended:
                self._work.end_all("ended with the server")
        finally:
            self._scratch.close()
        return ended

    # Sessions.

    def capabilities(self) -> GetServerCapabilitiesResponse:
        """Answer ``GET get_server_capabilities``."""
        return GetServerCapabilitiesResponse(supported_models=self.engine.supported_models())

    def create_session(self, request: CreateSessionRequest, key: str | None) -> CreateSessionResponse:
        """Answer ``POST create_session``."""
        self._refuse_if_stopping()
        session_id = self.store.made_by_key("create_session", key)
        if session_id is None:
            session_id = self.store.add_session(
                self.now(),
                user_metadata=request.user_metadata,
                display_name=request.display_name,
                project_id=request.project_id,
            ).id
            self.store.remember_key("create_session", key, session_id)
        return CreateSessionResponse(session_id=session_id, info_message=_GREETING)

    def heartbeat(self, request: SessionHeartbeatRequest) -> SessionHeartbeatResponse:
        """Answer ``POST session_heartbeat``: 410 once the session was finished."""
        self.store.working_session(request.session_id).beats = True
        return SessionHeartbeatResponse()

    def finish_session(self, session_id: str, reason: str, detail: str | None) -> None:
        """Refuse further work of a session, drop what is queued or between two steps, and free models and samplers."""
        session = self.store.session(session_id)
        if session.finished:
            return
        session.finished, session.detail = reason, detail
        for model_id in session.models:
            self._put_silently(model_id, partial(self._work.end_model, self.store.model(model_id), _FINISHED))
        for sampler_id in list(session.samplers):
            self._put_silently(sampler_id, partial(self._work.end_sampler, self.store.sampler(sampler_id), _FINISHED))
            self.completions.drop(sampler_id)
        for loss_id in session.losses:
            self._put_silently(f"{session.id}:loss", partial(self._work.end_loss, loss_id))

    # Models.

    def create_model(self, request: CreateModelRequest) -> UntypedAPIFuture:
        """Answer ``POST create_model``."""
        lora = request.lora_config or LoraConfig(rank=DEFAULT_RANK)
        return self._add_model(
            request.session_id,
            request.model_seq_id,
            "create_model",
            lambda model: partial(self._work.create, model, request.base_model, lora, request.optimizer_config),
            base_model=request.base_model,
            user_metadata=request.user_metadata,
        )

    def get_info(self, request: GetInfoRequest) -> GetInfoResponse:
        """Answer ``POST get_info``: 404 if the model could not be created or has ended."""
        model = self.store.model(request.model_id)
        if model.ended or not model.base_model:
            raise Problem(404, f"model {model.id} {model.ended or 'is not created yet; wait for its future'}")
        try:
            data = self.engine.model_data(model.base_model)
        except InvalidInputError as error:
            raise Problem(404, f"model {model.id}: {error.message}") from error
        return GetInfoResponse(
            model_id=model.id,
            model_data=data,
            is_lora=True,
            lora_rank=model.lora_rank,
            model_name=data.model_name,
        )

    def unload_model(self, request: UnloadModelRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST unload_model``."""

        def unload(model: Model) -> UnloadModelResponse:
            self._work.end_model(model, "was unloaded")
            return UnloadModelResponse(model_id=model.id)

        return self._submit_for_model(request.model_id, "unload_model", None, key, unload)

    # Training.

    def forward(self, request: ForwardRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST forward``."""
        run = partial(self._work.forward, batch=request.forward_input, backward=False)
        return self._submit_for_model(request.model_id, "forward", request.seq_id, key, run)

    def forward_backward(self, request: ForwardBackwardRequest | ForwardRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST forward_backward``, which in its binary form may ask for no gradient."""
        if isinstance(request, ForwardRequest):
            return self.forward(request, key)
        run = partial(self._work.forward, batch=request.forward_backward_input, backward=True)
        return self._submit_for_model(request.model_id, "forward_backward", request.seq_id, key, run)

    def optim_step(self, request: OptimStepRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST optim_step``."""
        run = partial(self._work.optim_step, request=request)
        return self._submit_for_model(request.model_id, "optim_step", request.seq_id, key, run)

    def create_custom_loss(self, request: CreateCustomLossRequest) -> UntypedAPIFuture:
        """Answer ``POST create_custom_loss``. The loss belongs to the session and ends with it.

        Raises:
            Problem: 501 if the engine runs none, which clients are told in their settings too.
        """
        if not self.engine.runs_custom_losses:
            raise Problem(
                501, "this server runs no custom losses; forward_backward_custom computes yours in your program"
            )
        session = self.store.working_session(request.session_id)
        lane = f"{session.id}:loss"
        loss_id = f"{lane}:{request.custom_loss_seq_id}"
        if self._is_new(loss_id, "create_custom_loss", request.custom_loss_seq_id):
            self._refuse_if_stopping()
            run = partial(self._work.add_loss, loss_id, request)
            self._promise(loss_id, "create_custom_loss", lane=lane, session_id=session.id, run=run)
            session.losses.append(loss_id)
        return UntypedAPIFuture(request_id=loss_id)

    # Weights.

    def save_weights(self, request: SaveWeightsRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST save_weights``. A name that is taken fails the future, because a 409 would be retried."""
        run = partial(self._work.save, request=request)
        return self._submit_for_model(request.model_id, "save_weights", request.seq_id, key, run)

    def save_weights_for_sampler(self, request: SaveWeightsForSamplerRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST save_weights_for_sampler``: a checkpoint if it has a name, else a sampler at once."""
        if request.path is None and request.sampling_session_seq_id is None:
            raise InvalidInputError(
                "save_weights_for_sampler needs path (a name for the checkpoint), or sampling_session_seq_id for a "
                "sampler without a name",
                field="path",
            )
        run = partial(self._work.save_for_sampler, request=request)
        return self._submit_for_model(request.model_id, "save_weights_for_sampler", request.seq_id, key, run)

    def save_weights_external(self, request: SaveWeightsExternalRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST save_weights_external``."""
        run = partial(self._work.save_external, request=request)
        return self._submit_for_model(request.model_id, "save_weights_external", request.seq_id, key, run)

    def load_weights(self, request: LoadWeightsRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST load_weights``: into a model, or making one from a session and a number."""
        if request.model_id is not None:
            return self._submit_for_model(
                request.model_id, "load_weights", request.seq_id, key, partial(self._work.load, request=request)
            )
        if request.session_id is None or request.model_seq_id is None:
            raise InvalidInputError(
                "load_weights needs model_id to load into a model, or session_id and model_seq_id to make one",
                field="model_id",
            )
        self._check_saved(request.path)
        return self._add_model(
            request.session_id,
            request.model_seq_id,
            "load_weights",
            lambda model: partial(self._work.create_from, model, request),
            user_metadata=request.user_metadata,
        )

    # Sampling.

    def create_sampling_session(self, request: CreateSamplingSessionRequest) -> CreateSamplingSessionResponse:
        """Answer ``POST create_sampling_session``; its weights are what the checkpoint holds now."""
        self._refuse_if_stopping()
        sampler_id = f"{request.session_id}:sample:{request.sampling_session_seq_id}"
        sampler = self.store.find_sampler(sampler_id)
        if sampler is None:
            session = self.store.working_session(request.session_id)
            sampler = self._new_sampler(sampler_id, session, request.base_model, request.model_path)
            self.store.add_sampler(sampler)
        elif sampler.model_path != request.model_path:
            raise Problem(
                400,
                f"sampling_session_seq_id {request.sampling_session_seq_id} of this session was already used for "
                f"{sampler.model_path or sampler.base_model}; count samplers 0, 1, 2, ...",
            )
        return CreateSamplingSessionResponse(sampling_session_id=sampler_id)

    def join_sampling_session(self, request: JoinSamplingSessionRequest) -> JoinSamplingSessionResponse:
        """Answer ``POST join_sampling_session``: the client that made the sampler is number 0."""
        sampler = self.store.sampler(request.sampling_session_id)
        sampler.clients += 1
        return JoinSamplingSessionResponse(client_counter=sampler.clients)

    def cancel_future(self, request: CancelFutureRequest) -> dict[str, Any]:
        """Answer ``POST cancel_future``: a sample that has not begun is not drawn; anything else goes on."""
        self.futures.find(request.request_id).withdraw()
        return {}

    def asample(self, request: SampleRequest, key: str | None) -> UntypedAPIFuture:
        """Answer ``POST asample``."""
        if request.num_samples > self.limits.num_samples:
            raise InvalidInputError(
                f"num_samples is {request.num_samples}, the limit is {self.limits.num_samples}; send several requests",
                field="num_samples",
            )
        sampler = self._sampler_of(request)
        request_id = self._request_id(sampler.id, "asample", request.seq_id, key)
        if self._is_new(request_id, "asample", request.seq_id):
            self._refuse_if_stopping()
            if sampler.session_id is not None:
                self.store.working_session(sampler.session_id)
            self._queue_sample(request_id, sampler, request)
            self._remember(request_id, "asample", request.seq_id, key)
        names = [f"{request_id}:{index}" for index in range(request.num_samples)]
        return UntypedAPIFuture(request_id=request_id, sample_sequence_ids=names)

    def _check_saved(self, path: str) -> None:
        """Refuse at once what cannot be loaded: no model depends on it yet, so no number is lost."""
        try:
            record = self.checkpoints.find_path(require_kind(path, "training"))
        except InvalidInputError as error:
            raise Problem(400, error.message) from error
        if record is None:
            raise Problem(404, self.checkpoints.not_found(path, "path"))

    # How work gets into the queue.

    def _add_model(
        self,
        session_id: str,
        model_seq_id: int,
        operation: str,
        creation: Callable[[Model], Callable[[], Any]],
        base_model: str = "",
        user_metadata: dict[str, Any] | None = None,
    ) -> UntypedAPIFuture:
        model_id = f"{session_id}:train:{model_seq_id}"
        request_id = f"{model_id}:0"
        if self._is_new(request_id, operation, model_seq_id):
            self._refuse_if_stopping()
            session = self.store.working_session(session_id)
            if self.store.find_model(model_id) is not None:
                raise Problem(400, f"model_seq_id {model_seq_id} of this session was already used by copy_weights")
            model = Model(
                id=model_id,
                session_id=session_id,
                base_model=base_model,
                last_request=self.now(),
                user_metadata=user_metadata,
            )
            create = creation(model)

            def run() -> Any:
                try:
                    self._work.check_wanted(model)
                    return create()
                except BaseException as error:
                    model.ended = f"could not be created: {error}"
                    raise

            self._promise(request_id, operation, lane=model_id, session_id=session_id, run=run, seq=0)
            self.store.add_model(session, model)
        return UntypedAPIFuture(request_id=request_id, model_id=model_id)

    def _submit_for_model(
        self, model_id: str, operation: str, seq: int | None, key: str | None, action: Callable[[Model], Any]
    ) -> UntypedAPIFuture:
        model = self.store.model(model_id)
        request_id = self._request_id(model_id, operation, seq, key)
        if self._is_new(request_id, operation, seq):
            self._refuse_if_stopping()
            self.store.working_session(model.session_id)
            if model.ended:
                raise Problem(404, f"model {model_id} {model.ended}; create another one")
            model.last_request, dropped = self.now(), model.dropped

            def run() -> Any:
                self._work.check_wanted(model, dropped)
                return action(model)

            self._promise(request_id, operation, lane=model_id, session_id=model.session_id, run=run, seq=seq)
            self._remember(request_id, operation, seq, key)
        return UntypedAPIFuture(request_id=request_id, model_id=model_id)

    def _request_id(self, lane: str, operation: str, seq: int | None, key: str | None) -> str:
        """Name an operation, so that a repeat gets the same name: by its number, else by its idempotency key."""
        if seq is not None:
            return f"{lane}:{seq}"
        return self.store.made_by_key(operation, key) or f"{lane}:{operation}-{uuid.uuid4()}"

    def _remember(self, request_id: str, operation: str, seq: int | None, key: str | None) -> None:
        if seq is None:
            self.store.remember_key(operation, key, request_id)

    def _is_new(self, request_id: str, operation: str, seq: int | None) -> bool:
        known = self.futures.operation_of(request_id)
        if known is not None and known != operation:
            raise Problem(
                400, f"seq_id {seq} was already used by {known} ({request_id}); give each operation a number of its own"
            )
        return known is None

    def _promise(
        self,
        request_id: str,
        operation: str,
        *,
        lane: str,
        session_id: str | None,
        run: Callable[..., Any],
        seq: int | None = None,
        rows: int = 0,
        payload: Any = None,
        target: Target | None = None,
    ) -> None:
        promise = self.futures.create(request_id, operation, session_id)

        def finish(outcome: Any) -> None:
            result = result_of(outcome, operation)
            # Whoever has the result finds the operation in the trace, and whoever hears of the result can have it.
            self._draw(promise, job, result)
            self.futures.finish(promise, result)
            self._announce(promise, target, result)

        job = Job(lane=lane, run=run, finish=finish, seq=seq, rows=rows, payload=payload)
        promise.explain = partial(self.queue.explain, job)
        promise.withdraw = partial(self._withdraw, job)
        self.queue.put(job)

    def _withdraw(self, job: Job) -> bool:
        withdrawn = self.queue.withdraw(job)
        if withdrawn:
            job.finish(RequestFailedError("it was cancelled before it began", category="user"))
        return withdrawn

    def _draw(self, promise: Promise, job: Job, result: Kept) -> None:
        self.traces.add(
            Span(
                request_id=promise.request_id,
                operation=promise.operation,
                lane=job.lane,
                queued=job.queued_at,
                began=job.began_at,
                ended=self._clock(),
                failed=result.cls is RequestFailedResponse,
            )
        )

    def _announce(self, promise: Promise, target: Target | None, result: Kept) -> None:
        if target is not None and self.limits.bulk_retrieval:
            failed, name = result.cls is RequestFailedResponse, promise.request_id
            ended = FutureFinished(request_id=name, response_payload_uncompressed_size=len(result.body))
            self.completions.add(target, FutureFailed(request_id=name) if failed else ended)

    def _put_silently(self, lane: str, run: Callable[[], None]) -> None:
        self.queue.put(Job(lane=lane, run=run, finish=_ignore))

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise Problem(503, "the server is stopping and takes no new work")

    def _queue_sample(self, request_id: str, sampler: Sampler, request: SampleRequest) -> None:
        error = self._sample_fault(sampler, request)
        target = None if request.seq_id is None else target_of(sampler.id, request.seq_id)
        promise = partial(
            self._promise, request_id, "asample", lane=sampler.id, session_id=sampler.session_id, target=target
        )
        if error is None:
            promise(run=partial(self._work.sample, sampler), rows=request.num_samples, payload=request)
        else:
            # It fails alone, so that it cannot spoil a batch.
            promise(run=partial(_raise, error))

    def _sample_fault(self, sampler: Sampler, request: SampleRequest) -> InvalidInputError | None:
        """Return why a sample can never run, or None."""
        topk = max(request.topk_prompt_logprobs, request.topk_sample_logprobs)
        if topk > self.limits.topk:
            return InvalidInputError(
                f"topk_prompt_logprobs is {topk}, the limit is {self.limits.topk}", field="topk_prompt_logprobs"
            )
        try:
            self.engine.check_sample(request, sampler.base_model)
        except InvalidInputError as error:
            return error
        return None

    def _sampler_of(self, request: SampleRequest) -> Sampler:
        if request.sampling_session_id is not None:
            return self.store.sampler(request.sampling_session_id)
        if (request.base_model is None) == (request.model_path is None):
            raise Problem(400, "asample needs sampling_session_id, or exactly one of base_model and model_path")
        source = (request.base_model, request.model_path)
        if source not in self._unnamed:
            sampler_id = f"{uuid.uuid4()}:sample:0"
            self._unnamed[source] = self._new_sampler(sampler_id, None, *source)
        return self._unnamed[source]

    def _new_sampler(
        self, sampler_id: str, session: Session | None, base_model: str | None, model_path: str | None
    ) -> Sampler:
        folder = None
        try:
            if model_path is not None:
                record = self.checkpoints.find_path(require_kind(model_path, "sampler", "model_path"))
                if record is None:
                    raise FileNotFoundError
                base_model, folder = record.info.base_model, self.checkpoints.snapshot(record)
            self.engine.model_data(base_model or "")
        except InvalidInputError as error:
            raise Problem(400, error.message) from error
        except FileNotFoundError:
            raise Problem(404, self.checkpoints.not_found(str(model_path), "model_path")) from None
        return Sampler(
            id=sampler_id,
            session_id=session.id if session else None,
            base_model=base_model or "",
            model_path=model_path,
            folder=folder,
        )


def _raise(error: Exception) -> None:
    raise error


def _ignore(outcome: Any) -> None:
    if isinstance(outcome, BaseException):
        logger.debug("clearing up ended with %r", outcome)
