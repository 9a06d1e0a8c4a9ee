"""What the clients of one ServiceClient share: the connection, the session on the server, the threads."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tinkex._version import __version__
from tinkex.clients import at_exit
from tinkex.clients.dynamic import DynamicSettings
from tinkex.clients.events import Telemetry
from tinkex.clients.logs import PauseLog
from tinkex.clients.negotiation import Agreement, negotiate
from tinkex.clients.polls import retrieve_outcome
from tinkex.clients.reports import Redactor, watch
from tinkex.clients.settings import ServerSettings
from tinkex.config import ClientConfig, RetryPolicy
from tinkex.errors import (
    APIStatusError,
    ClientClosedError,
    NotFoundError,
    PipelineBrokenError,
    TinkexError,
)
from tinkex.http import lacks_endpoint
from tinkex.pipeline import (
    APIFuture,
    ByteBudget,
    CallPool,
    Heartbeat,
    Herald,
    News,
    Observer,
    Part,
    Patience,
    Poller,
    SampleDispatcher,
    SampleGate,
    SamplePolicy,
    Submission,
    Wiring,
    forked_error,
)
from tinkex.resources import TinkexAPI
from tinkex.types import (
    CancelFutureRequest,
    ClientConfigResponse,
    ClientSessionFinishReasonType,
    CreateCustomLossRequest,
    CreateCustomLossResponse,
    CreateModelRequest,
    CreateModelResponse,
    CreateSamplingSessionRequest,
    CreateSessionRequest,
    CreateSessionResponse,
    CustomLossGraph,
    CustomLossInput,
    FuturesRetrieveRequest,
    JoinSamplingSessionRequest,
    LoadWeightsRequest,
    LoadWeightsResponse,
    LoraConfig,
    OptimizerConfig,
    SamplingSessionFuturesTarget,
    SessionHeartbeatRequest,
)

__all__ = ["Session"]

logger = logging.getLogger("tinkex")

T = TypeVar("T")

_FAREWELL_S = 3.0
"""How long the server may take to be told that the session is over."""
_SIZE = "response_payload_uncompressed_size"


class _Gates:
    """One gate for each server and key: a 429 is meant for the key, so all its clients in a process pause together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._gates: weakref.WeakValueDictionary[tuple[str, str], SampleGate] = weakref.WeakValueDictionary()

    def get(self, config: ClientConfig) -> SampleGate:
        key = (config.base_url, config.api_key.reveal() if config.api_key else "")
        with self._lock:
            gate = self._gates.get(key)
            if gate is None:
                policy = SamplePolicy(max_submits=config.max_sample_submits, max_bytes=config.max_sample_bytes)
                gate = self._gates[key] = SampleGate(policy)
            return gate


_gates = _Gates()


def _patience_s(retry: RetryPolicy) -> float:
    return math.inf if retry.progress_timeout_s is None else retry.progress_timeout_s


class Session:
    """One session on the server, opened when the first model or sampler is made.

    It owns the poller, the heartbeat, the telemetry and the budgets, and ends them in reverse order of dependency.
    Public methods are thread-safe. Its threads do not keep it alive: clients that nobody holds are collected, and then
    the heartbeat stops.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        user_metadata: dict[str, Any] | None = None,
        display_name: str | None = None,
        observers: Iterable[Observer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; no request is sent and no thread starts."""
        self.config = config
        self.user_metadata = dict(user_metadata or {})
        self.display_name = display_name
        self._give_up = threading.Event()  # ends the waits between attempts
        self.api = api = TinkexAPI(config, stop=self._give_up)
        # What must still be possible while this session closes: one attempt, which giving up does not forbid.
        self._last_api = api.with_options(retry=RetryPolicy.none(), stop=threading.Event())
        self.settings = settings = ServerSettings(api)
        self._dynamic = DynamicSettings(api)
        self.uploads = ByteBudget(config.max_upload_bytes)
        self._poller = Poller(
            lambda watched: retrieve_outcome(api, settings, watched),
            max_threads=config.retrieve_threads,
            max_result_bytes=config.max_result_bytes,
        )
        own: list[Observer] = [PauseLog()]
        if config.report_exceptions:
            own.append(lambda change: self.report(change.error))
        self._wiring = Wiring(
            owner=self,
            observers=(*own, *observers),
            keeps_context=config.propagate_trace,
            patience_s=_patience_s(config.retry),
        )
        self.calls = CallPool("the session", wiring=self._wiring)
        self._dispatcher = SampleDispatcher(
            "the session",
            self._poller,
            gate=_gates.get(config),
            max_threads=config.sample_threads,
            wiring=self._wiring,
        )
        self.samplers = itertools.count()
        self.models = itertools.count()
        self._losses = itertools.count()
        self._reports = itertools.count()
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # guarded by _lock
        self._id: str | None = None
        self._agreement: Agreement | None = None
        self._closed: ClientClosedError | None = None
        self._submissions: weakref.WeakSet[Submission] = weakref.WeakSet()
        self._heartbeat: Heartbeat | None = None
        self._events: Telemetry | None = None
        self._finalizer: weakref.finalize[Any, Session] | None = None

    # --- opening ----------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise if the session is closed, or belongs to another process.

        Raises:
            ClientClosedError: With the reason.
        """
        if self._pid != os.getpid():
            raise forked_error(self._pid)
        if self._closed is not None:
            raise ClientClosedError(self._closed.message, reason=self._closed.reason)

    def open(self) -> str:
        """Open the session on the server if that has not been done, and return its id.

        Raises:
            ClientClosedError: The session is closed.
            APIError: The server could not be reached, or refused.
        """
        with self._lock:
            self.check_open()
            if self._id is None:
                self._ask_server()
                self._agree_locked()
                answer = self.api.service.create_session(
                    CreateSessionRequest(
                        tags=list(self.config.tags),
                        user_metadata=self.user_metadata,
                        sdk_version=__version__,
                        project_id=self.config.project_id,
                        display_name=self.display_name,
                    )
                )
                _log_messages(answer)
                self._id = answer.session_id
                self._start_threads_locked(answer.session_id)
                at_exit.remember(self)
            return self._id

    def _ask_server(self) -> ClientConfigResponse:
        """Return what the server wants of its clients, and obey what concerns the poller."""
        settings = self.settings.get()
        self._poller.lower_result_bytes(settings.inflight_response_bytes_semaphore_size)
        return settings

    def attend(self) -> None:
        """Make ready for samplers that a session of another process has made; no session is opened here."""
        with self._lock:
            self.check_open()
            self._end_with_owner_locked(None)
            at_exit.remember(self)

    def _end_with_owner_locked(self, heartbeat: Heartbeat | None) -> None:
        threads = (heartbeat, self._events, self._poller, self.api)
        self._finalizer = weakref.finalize(self, _clean_up, *threads)
        self._finalizer.atexit = False

    def _start_threads_locked(self, session_id: str) -> None:
        api, weak, request = self._last_api, weakref.ref(self), SessionHeartbeatRequest(session_id=session_id)

        def gone(error: TinkexError) -> None:
            session = weak()
            if session is not None:
                session.break_all(error)

        heartbeat = Heartbeat(
            lambda: api.service.session_heartbeat(request), self.config.heartbeat_interval_s, on_gone=gone
        )
        heartbeat.start()
        self._heartbeat = heartbeat
        if self.config.telemetry:
            self._events = Telemetry(
                api.telemetry.send,
                session_id,
                Redactor(self.config, api.credentials),
                # Servers without settings may be older than the field, and would refuse the events.
                names_process=self.settings.exist(),
            )
            self._events.start()
        self._end_with_owner_locked(heartbeat)

    @property
    def agreement(self) -> Agreement:
        """How training requests are written; the server is asked if that has not been done."""
        with self._lock:
            return self._agree_locked()

    def _agree_locked(self) -> Agreement:
        if self._agreement is None:
            self._agreement = negotiate(self.settings, self.config)
        return self._agreement

    # --- telemetry --------------------------------------------------------------------------------------------------

    def telemetry(self) -> Telemetry | None:
        """Return what events are logged with; None if telemetry is off, or if there is no session to log them for."""
        return self._events

    def watch(self, client: object) -> None:
        """Report what the methods of a client raise, if the settings want that."""
        if self.config.report_exceptions:
            watch(client, self.report)

    def report(self, error: BaseException | None) -> None:
        """Tell the server of an exception once; not of one that only repeats another, and not without a session."""
        events = self._events
        if error is None or events is None or isinstance(error, (ClientClosedError, PipelineBrokenError)):
            return
        # Two threads may meet the same failure: setdefault is atomic, so one of them finds its own number.
        number = next(self._reports)
        if vars(error).setdefault("_reported", number) == number:
            events.log_exception_sync(error)

    # --- what the clients need --------------------------------------------------------------------------------------

    def new_submission(self, model_id: str) -> Submission:
        """Return the pipeline of a model; it is closed together with the session."""
        with self._lock:
            self.check_open()
            agreement = self._agree_locked()
            submission = Submission(
                model_id,
                self._poller,
                budget=self.uploads,
                uploads=lambda: agreement.upload_threads,
                wiring=self._wiring,
            )
            self._submissions.add(submission)
        return submission

    def submit_sample(
        self, operation: str, part: Part, numbers: Iterator[int], finish: Callable[[Any], T]
    ) -> APIFuture[T]:
        """Queue a sample of a sampler that numbers its requests with ``numbers``."""
        return self._dispatcher.submit(operation, part, numbers, finish)

    def withdraw(self, request_id: str) -> None:
        """Tell the server soon that a sample is not wanted any more, if it can be told."""

        def cancel() -> None:
            if self._dynamic.get().sample_cancel_enabled:
                with contextlib.suppress(TinkexError):  # then it is drawn for nothing
                    self.api.futures.cancel(CancelFutureRequest(request_id=request_id))

        with contextlib.suppress(ClientClosedError):
            self.calls.submit("cancel_future", cancel)

    def new_patience(self, retry: RetryPolicy | None) -> Patience:
        """Return how long the samples of one client may make no progress: for ever, if the server says so."""
        detects = self._ask_server().sample_enable_stuck_detection
        return Patience(_patience_s(retry or self.config.retry)) if detects else Patience()

    def join_sampler(self, sampling_session_id: str) -> int | None:
        """Become another client of a sampler; returns the number of this client, None if the server gives none out."""
        if not self._ask_server().sample_join_sampling_session or self.settings.lacks("join_sampling_session"):
            return None
        request = JoinSamplingSessionRequest(sampling_session_id=sampling_session_id)
        try:
            return self.api.sampling.join_sampling_session(request).client_counter
        except APIStatusError as error:
            if not self._has_no_endpoint(error, "join_sampling_session"):
                raise
            return None

    def new_herald(self, sampling_session_id: str, clone: int) -> Herald | None:
        """Return who hears of the samples of one client of a sampler, if the server has an endpoint for it."""
        if not self._ask_server().sample_use_retrieve_futures or self.settings.lacks("retrieve_futures"):
            return None
        futures, release = self.api.futures, self._poller.release
        target = SamplingSessionFuturesTarget(sampling_session_id=sampling_session_id, cloned_sampler_id=clone)

        def ask(cursor: int, fetched: Sequence[str], may_hold: bool) -> News:
            request = FuturesRetrieveRequest(
                target=target,
                prev_cursor=cursor,
                timeout=None if may_hold else 0.0,
                retrieved_request_ids=list(fetched),
            )
            try:
                answer = futures.retrieve_many(request)
            except APIStatusError as error:
                self._has_no_endpoint(error, "retrieve_futures")
                raise
            ended = {done.request_id: getattr(done, _SIZE, None) for done in answer.completions}
            return News(ended=ended, cursor=answer.cursor)

        return Herald(ask, release)

    def _has_no_endpoint(self, error: APIStatusError, name: str) -> bool:
        """Remember it if the server has no such endpoint, although its settings said so."""
        lacks = lacks_endpoint(error)
        if lacks:
            self.settings.note_lack(name, error)
        return lacks

    def create_model(
        self,
        base_model: str,
        lora: LoraConfig,
        user_metadata: dict[str, Any] | None,
        optimizer: OptimizerConfig | None = None,
    ) -> APIFuture[CreateModelResponse]:
        """Make a model on the server."""
        session_id = self.open()

        def send(model_seq_id: int) -> str:
            request = CreateModelRequest(
                session_id=session_id,
                model_seq_id=model_seq_id,
                base_model=base_model,
                lora_config=lora,
                user_metadata=user_metadata,
                optimizer_config=optimizer,
            )
            return self.api.models.create(request).request_id

        part = Part(send=send, request_type="CreateModel", decode=CreateModelResponse)
        created: APIFuture[CreateModelResponse] = self._dispatcher.submit("create_model", part, self.models)
        # The server is busy, so this costs no time; the first batch would have to wait for it.
        self.api.training.prepare(self.agreement.wire)
        return created

    def create_loss(
        self, name: str, inputs: Sequence[CustomLossInput], graph: CustomLossGraph, finish: Callable[[str], T]
    ) -> APIFuture[T]:
        """Make a loss on the server.

        Args:
            name: What to call it.
            inputs: What it reads.
            graph: What it computes.
            finish: Makes the result out of the id of the loss.
        """
        session_id = self.open()

        def send(custom_loss_seq_id: int) -> str:
            request = CreateCustomLossRequest(
                session_id=session_id,
                custom_loss_seq_id=custom_loss_seq_id,
                name=name,
                inputs=list(inputs),
                graph=graph,
            )
            return self.api.training.create_custom_loss(request).request_id

        part = Part(send=send, request_type="CreateCustomLoss", decode=CreateCustomLossResponse)
        return self._dispatcher.submit(
            "create_custom_loss", part, self._losses, lambda created: finish(created.loss_id)
        )

    def create_model_from(self, path: str, **options: Any) -> str:
        """Make a model of a checkpoint with one call, and return its id.

        Args:
            path: The checkpoint.
            **options: Other fields of :class:`~tinkex.types.LoadWeightsRequest`.
        """
        session_id, number = self.open(), next(self.models)
        request = LoadWeightsRequest(session_id=session_id, model_seq_id=number, path=path, **options)
        part = Part(
            send=lambda _: self.api.weights.load(request).request_id,
            request_type="LoadWeights",
            decode=LoadWeightsResponse,
        )
        loaded: LoadWeightsResponse = self._dispatcher.submit("create_model", part, itertools.count()).result()
        # What a server is free to leave out follows from the numbers.
        return loaded.model_id or f"{session_id}:train:{number}"

    def create_sampler(self, model_path: str | None, base_model: str | None) -> str:
        """Make a sampler on the server and return its id."""
        request = CreateSamplingSessionRequest(
            session_id=self.open(),
            sampling_session_seq_id=next(self.samplers),
            base_model=base_model,
            model_path=model_path,
        )
        return self.api.service.create_sampling_session(request).sampling_session_id

    def pending(self) -> list[APIFuture[Any]]:
        """Return the futures that are not done."""
        with self._lock:
            keepers = [*self._submissions, self._dispatcher, self.calls]
        return [future for keeper in keepers for future in keeper.pending()]

    # --- the end ----------------------------------------------------------------------------------------------------

    def give_up_unread(self) -> int:
        """Give up samples that nobody can read any more, because the program has ended; returns how many."""
        return self._dispatcher.give_up_unread()

    def break_all(self, error: TinkexError) -> None:
        """Break every pipeline: the server has ended the session."""
        with self._lock:
            submissions = list(self._submissions)
        for submission in submissions:
            submission.break_(error, "session_heartbeat")

    def close(
        self,
        status: ClientSessionFinishReasonType = "success",
        detail: str | None = None,
        *,
        drain: bool = True,
        timeout: float | None = None,
    ) -> None:
        """End everything, in reverse order of dependency. Idempotent; works from any thread.

        Args:
            status: How the program ended, for the server's records.
            detail: More about that.
            drain: Wait for everything submitted; else fail what is not done.
            timeout: Seconds for all of this; ``config.close_timeout_s`` unless given.
        """
        if self._pid != os.getpid():
            return
        deadline = self._clock() + (self.config.close_timeout_s if timeout is None else timeout)
        with self._lock:
            if self._closed is not None:
                return
            self._closed = ClientClosedError("this client was closed; create a new ServiceClient")
            submissions, session_id = list(self._submissions), self._id
        pending = self.pending()
        if not drain:
            self._give_up.set()  # nobody waits out a back-off
        for keeper in (*submissions, self._dispatcher, self.calls):
            keeper.close(drain=drain, timeout=max(0.0, deadline - self._clock()))
        _report_dropped(pending)
        self.uploads.close(self._closed)
        self._poller.close()
        if session_id is not None:
            self._say_farewell(session_id, status, detail)
        self.api.close()
        if self._finalizer is not None:
            self._finalizer.detach()
        at_exit.forget(self)

    def _say_farewell(self, session_id: str, status: ClientSessionFinishReasonType, detail: str | None) -> None:
        """Send the last telemetry, and tell the server that the session is over; until then the heartbeat goes on."""
        if self._events is not None:
            self._events.stop()
        try:
            self._last_api.service.finish_session(session_id, status, detail, timeout=_FAREWELL_S)
        except NotFoundError:
            pass  # servers before 0.26 have no such endpoint: there a session ends when its heartbeat does
        except TinkexError as error:
            logger.info("the server was not told that the session is over: %s", error)
        if self._heartbeat is not None:
            self._heartbeat.stop()

    @property
    def id(self) -> str | None:
        """Name of the session on the server; None before it was opened."""
        return self._id

    def describe(self) -> str:
        """Say in a few words what state the session is in."""
        if self._closed is not None:
            return "closed"
        return f"session {self._id}" if self._id else "no session yet"


def _clean_up(heartbeat: Heartbeat | None, events: Telemetry | None, poller: Poller, api: TinkexAPI) -> None:
    """End the threads of a session that was collected; nothing of it is under way, or it would not have been."""

    def work() -> None:
        if events is not None:
            events.stop()
        if heartbeat is not None:
            heartbeat.stop()
        poller.close()
        api.close()

    # On a thread of its own: collection can happen anywhere, also where a lock of these objects is held.
    with contextlib.suppress(RuntimeError):  # the program is ending, and so do they
        threading.Thread(target=work, name="tinkex-cleanup", daemon=True).start()


def _log_messages(answer: CreateSessionResponse) -> None:
    """Pass on what the server has to say to the user."""
    for level, message in (
        (logging.INFO, answer.info_message),
        (logging.WARNING, answer.warning_message),
        (logging.ERROR, answer.error_message),
    ):
        if message:
            logger.log(level, "%s", message)


def _report_dropped(futures: list[APIFuture[Any]]) -> None:
    """Say how much of what was submitted will have no result."""
    names = [future.operation for future in futures if future.done() and not _has_outcome(future)]
    if names:
        logger.error(
            "closed with %d operations that were not done: %s%s",
            len(names),
            ", ".join(names[:5]),
            ", ..." if len(names) > 5 else "",
        )


def _has_outcome(future: APIFuture[Any]) -> bool:
    return not future.cancelled() and not isinstance(future.exception(0), ClientClosedError)
