"""SamplingClient: draws from frozen weights."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import attrs
from typing_extensions import Unpack

from tinkex._scalars import whole_argument
from tinkex.clients.many import Questions, check_questions, draw_each
from tinkex.clients.processes import RANGE, SamplerState, random_clone, shared_session
from tinkex.clients.ready import ReadyClient
from tinkex.clients.tokenizers import load_tokenizer
from tinkex.clients.twins import async_twins
from tinkex.config import RetryPolicy
from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.pipeline import APIFuture, Herald, Part, Patience, PhaseChange, estimate_input
from tinkex.types import (
    ModelInput,
    QueueState,
    SampleRequest,
    SampleResponse,
    SamplingParams,
    TensorData,
    UntypedAPIFuture,
)
from tinkex.types.sampling import check_prompt, to_params
from tinkex.types.weights import check_path

if TYPE_CHECKING:
    from tinkex.clients.events import Telemetry
    from tinkex.clients.session import Session

__all__ = ["SamplingClient"]

T = TypeVar("T")

_WINDOW = 1000
"""Enough to keep a server busy, and half of what the hosted service takes of one client."""
_ANY_PROMPT = ModelInput.from_ints([0])
_AGAIN = 3
"""How often a sample is drawn anew whose result the server has lost."""


@async_twins(threads=("get_base_model",), values=("sample", "compute_logprobs"))
class SamplingClient(ReadyClient):
    """Samples from one set of weights, which never change. Make one with ``ServiceClient.create_sampling_client``.

    Every call returns an :class:`~tinkex.APIFuture` at once. Samples are independent: submit as many as you like, they
    are sent a few at a time and hold no thread while the server works. Safe to use from several threads. ``cancel()``
    of a future gives a sample up even while the server draws it.

    It pickles, so it can be handed to worker processes (``multiprocessing`` with ``spawn``, joblib). The pickle holds
    the settings **with the API key**: treat it like the key, or pass :meth:`get_sampler_handle` instead. The client
    that made the sampler must stay open, because its session keeps the sampler alive.
    """

    def __init__(
        self,
        session: Session,
        sampling_session_id: str,
        *,
        base_model: str | None = None,
        model_path: str | None = None,
        tokenizer_id: str | None = None,
        record_stability_info: bool = False,
        retry: RetryPolicy | None = None,
        clone: int | None = 0,
    ) -> None:
        """Attach to a sampler that the server has made.

        Args:
            session: The connection.
            sampling_session_id: The sampler.
            base_model: Its base model, if known.
            model_path: Its checkpoint, if it has one.
            tokenizer_id: Where its tokenizer is, if the server has said so.
            record_stability_info: Ask the server to keep figures on numerical stability with each sample.
            retry: When a sample that could not be sent is sent again, and when one that was sent is given up; as the
                session says unless given.
            clone: 0 for the client that made the sampler; None for a copy, which gets a number when it needs one.
        """
        self.model_path = model_path
        self.base_model = base_model
        self._tokenizer_id = tokenizer_id
        self._session = session
        self._sampling_session_id = sampling_session_id
        self._record_stability_info = record_stability_info
        self._retry = retry
        self._lock = threading.Lock()
        # guarded by _lock
        self._clone = clone
        self._numbers: Iterator[int] | None = None
        self._herald: Herald | None = None
        self._patience: Patience | None = None
        self._observer = functools.partial(_pass_on, weakref.ref(self))
        session.watch(self)

    @classmethod
    def create(
        cls,
        session: Session,
        model_path: str | None,
        base_model: str | None,
        record_stability_info: bool = False,
        retry_config: object = None,
        known: Mapping[str, Any] | None = None,
    ) -> SamplingClient:
        """Make a sampler on the server; ``known`` is what the caller knows of it, for the constructor.

        Raises:
            InvalidInputError: Neither a path nor a model is given, or the path is that of a checkpoint of another kind.
        """
        if model_path is not None:
            check_path(model_path, "sampler", "model_path")
        retry = as_policy(retry_config)
        sampler_id = session.create_sampler(model_path, base_model)
        return cls(
            session,
            sampler_id,
            model_path=model_path,
            record_stability_info=record_stability_info,
            retry=retry,
            **{"base_model": base_model, **(known or {})},
        )

    def sample(
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: TensorData | None = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
    ) -> APIFuture[SampleResponse]:
        """Generate.

        Args:
            prompt: What to continue; at least one token. N below is its length.
            num_samples: How many sequences.
            sampling_params: How to sample.
            include_prompt_logprobs: Also return the logprob of each prompt token.
            topk_prompt_logprobs: Also return the k most likely tokens at each prompt position.
            topk_sample_logprobs: Also return the k most likely tokens at each generated position.
            target_prompt_logprobs: Also return the logprobs of these token ids: int64 ``[N - 1, K]``, row i for the
                place of prompt token i + 1, -1 in cells where nothing is asked; dense, or sparse with
                ``TensorData.from_torch_sparse(ids, pad_value=-1)``.
            prompt_alt_tokens_k: Also draw this many other tokens for each place of the prompt but the first, at the
                temperature of ``sampling_params``.
            prompt_logprobs_last_n: Score only the last n prompt tokens, 1 to N - 1; the entries before them are None.
                Needs ``include_prompt_logprobs``.

        Returns:
            A future whose ``sequences`` has ``num_samples`` entries with ``tokens``, ``logprobs`` and ``stop_reason``.

        Raises:
            InvalidInputError: An argument cannot be used. Nothing was sent.
            ClientClosedError: The client is closed.
        """
        request = self._request(
            prompt,
            sampling_params,
            num_samples=num_samples,
            prompt_logprobs=bool(include_prompt_logprobs),
            topk_prompt_logprobs=topk_prompt_logprobs,
            topk_sample_logprobs=topk_sample_logprobs,
            target_prompt_logprobs=target_prompt_logprobs,
            prompt_alt_tokens_k=prompt_alt_tokens_k,
            prompt_logprobs_last_n=prompt_logprobs_last_n,
        )
        return self._submit("sample", request, lambda response: response)

    @overload
    def sample_many(
        self,
        prompts: Iterable[ModelInput],
        num_samples: int = 1,
        sampling_params: SamplingParams | None = None,
        *,
        window: int = _WINDOW,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        **questions: Unpack[Questions],
    ) -> Iterator[tuple[int, SampleResponse]]: ...

    @overload
    def sample_many(
        self,
        prompts: Iterable[ModelInput],
        num_samples: int = 1,
        sampling_params: SamplingParams | None = None,
        *,
        window: int = _WINDOW,
        ordered: bool = True,
        return_exceptions: bool,
        **questions: Unpack[Questions],
    ) -> Iterator[tuple[int, SampleResponse | Exception]]: ...

    def sample_many(
        self,
        prompts: Iterable[ModelInput],
        num_samples: int = 1,
        sampling_params: SamplingParams | None = None,
        *,
        window: int = _WINDOW,
        ordered: bool = True,
        return_exceptions: bool = False,
        **questions: Unpack[Questions],
    ) -> Iterator[tuple[int, SampleResponse | Exception]]:
        """Generate for any number of prompts, one result after the other, on the thread that asks for them.

        The first ``next`` submits the first ``window`` prompts, and each further one as many as were handed over
        since; so a generator of a million prompts is read as it is worked on. When the iteration ends early, by
        ``break``, ``close()``, an error or Ctrl-C, what was submitted is cancelled. One thread at a time may use it.

        Args:
            prompts: What to continue; any iterable, also one without end. An error that it raises ends everything.
            num_samples: How many sequences for each.
            sampling_params: How to sample; ``SamplingParams()`` unless given.
            window: Samples that were submitted and not handed over, at most. With ``ordered``, a slow one holds up
                the submission of the one that comes so many places after it.
            ordered: Give the results in the order of the prompts; else each as soon as it is there.
            return_exceptions: Give the error of a prompt in place of its result, and go on; else it is raised.
                An error of the client, such as that it was closed, is always raised.
            **questions: What else to ask for each, as in :meth:`sample`.

        Returns:
            An iterator of pairs: the index of the prompt from 0, and its result.

        Raises:
            InvalidInputError: An argument cannot be used; raised at the call. During the iteration: a prompt cannot
                be used, ``index`` says which.
            TinkexError: During the iteration: a sample failed. The message begins with ``prompts[i]``, and ``index``
                is i.
        """
        window = whole_argument(window, "window", 1)
        check_questions(questions)
        params = SamplingParams() if sampling_params is None else sampling_params
        self._request(_ANY_PROMPT, params, num_samples=num_samples)  # refuses what is wrong for every prompt

        def submit(prompt: ModelInput) -> APIFuture[SampleResponse]:
            return self.sample(prompt, num_samples, params, **questions)

        pairs = draw_each(
            _iterable(prompts), submit, window=window, ordered=ordered, return_exceptions=return_exceptions
        )
        return pairs

    def compute_logprobs(
        self, prompt: ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> APIFuture[list[float | None]]:
        """Score a text.

        Args:
            prompt: The tokens to score.
            prompt_logprobs_last_n: Score only the last n tokens, 1 to the number of tokens less one; the entries
                before them are None. Cheaper if the server knows the text before them.

        Returns:
            A future of one logprob for each token given those before it; the first is None.

        Raises:
            InvalidInputError: An argument cannot be used. Nothing was sent.
            ClientClosedError: The client is closed.
        """
        request = self._request(
            prompt,
            SamplingParams(max_tokens=1),
            num_samples=1,
            prompt_logprobs=True,
            prompt_logprobs_last_n=prompt_logprobs_last_n,
        )
        return self._submit("compute_logprobs", request, _prompt_logprobs)

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Hear what the server says of its queue for a sample of this client; does nothing by itself.

        It is called when that changes, and with ``QueueState.ACTIVE`` when a sample is there, on a thread of the
        pipeline: be quick. Replace it, on the client or in a subclass, to hear of it. A pause is logged in any case;
        for all operations of a session there are the ``observers`` of :class:`~tinkex.ServiceClient`.

        Args:
            queue_state: The state; equal to its text, such as ``"paused_capacity"``.
            queue_state_reason: Why, if the server said.
        """

    def get_base_model(self) -> str:
        """Return the name of the base model, asking the server if need be."""
        if self.base_model is None:
            self.base_model = self._session.api.service.get_sampler(self._sampling_session_id).base_model
        return self.base_model

    def get_tokenizer(self) -> Any:
        """Return the tokenizer of the base model: Hugging Face's, or that of :func:`tinkex.register_tokenizer`.

        Raises:
            ConfigurationError: ``transformers`` is not installed, or the tokenizer cannot be found, or it is code of
                its own and no loader is registered for it.
        """
        return load_tokenizer(self.get_base_model(), self._tokenizer_id)

    def get_telemetry(self) -> Telemetry | None:
        """Return what logs events for the server; None if telemetry is off, or in a copy from another process."""
        return self._session.telemetry()

    def get_sampler_handle(self) -> str:
        """Return a text that names the sampler and its server, without any credential.

        :meth:`from_sampler_handle` makes clients of it in any process, as often as you like.
        """
        return self._state().to_handle()

    @staticmethod
    def from_sampler_handle(handle: str, *, api_key: str | None = None) -> SamplingClient:
        """Make another client of a sampler.

        Args:
            handle: What :meth:`get_sampler_handle` returned, here or in another process.
            api_key: The key; ``TINKER_API_KEY`` unless given. All other settings are those of the environment.

        Raises:
            InvalidInputError: The text is not a handle.
            ConfigurationError: A setting cannot be used.
        """
        return _restore(SamplerState.from_handle(handle, api_key))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the settings, with the API key, and the name of the sampler."""
        return _restore, (self._state(),)

    def __repr__(self) -> str:
        """Show what is sampled from."""
        source = self.model_path or self.base_model
        return f"SamplingClient({self._sampling_session_id}, {source!r})"

    def _state(self) -> SamplerState:
        config = self._session.config
        return SamplerState(
            config=config if self._retry is None else attrs.evolve(config, retry=self._retry),
            sampling_session_id=self._sampling_session_id,
            base_model=self.base_model,
            model_path=self.model_path,
            tokenizer_id=self._tokenizer_id,
            record_stability_info=self._record_stability_info,
        )

    def _request(self, prompt: ModelInput, sampling_params: SamplingParams, **options: Any) -> SampleRequest:
        check_prompt(prompt)
        request = SampleRequest(
            prompt=prompt,
            sampling_params=to_params(sampling_params),
            sampling_session_id=self._sampling_session_id,
            seq_id=0,  # takes its number when it is sent
            record_stability_info=self._record_stability_info,
            **options,
        )
        _check_questions(request)
        return request

    def _submit(self, operation: str, request: SampleRequest, finish: Callable[[SampleResponse], T]) -> APIFuture[T]:
        session = self._session
        api = session.api if self._retry is None else session.api.with_options(retry=self._retry)
        promises: list[UntypedAPIFuture] = []

        def send(seq_id: int) -> str:
            promises.append(api.sampling.asample(attrs.evolve(request, seq_id=seq_id)))
            return promises[-1].request_id

        def check_and_finish(response: SampleResponse) -> T:
            _check_answers(request, response)
            return finish(_with_ids(response, promises[-1]))

        session.check_open()
        numbers, herald, patience = self._attend()
        part = Part(
            send=send,
            size=estimate_input(request.prompt),
            request_type="Sample",
            decode=SampleResponse,
            again=_AGAIN,
            withdraw=session.withdraw,
            herald=herald,
            patience=patience,
            observer=self._observer,
        )
        return session.submit_sample(operation, part, numbers, check_and_finish)

    def _attend(self) -> tuple[Iterator[int], Herald | None, Patience | None]:
        """Return where numbers come from, who hears of results and how long to wait for them; made on first use."""
        with self._lock:
            if self._numbers is None:
                if self._clone is None:
                    self._clone = self._session.join_sampler(self._sampling_session_id) or random_clone()
                self._patience = self._session.new_patience(self._retry)
                self._herald = self._session.new_herald(self._sampling_session_id, self._clone)
                self._numbers = itertools.count(self._clone * RANGE)
            return self._numbers, self._herald, self._patience


def _pass_on(client: weakref.ref[SamplingClient], change: PhaseChange) -> None:
    """Tell a client of the queue, by whichever method it has now; one that nobody holds is not told."""
    if change.phase not in ("queue_state", "ready"):
        return
    listener = client()
    if listener is not None:
        ended = change.phase == "ready"
        state = QueueState.ACTIVE if ended else QueueState(change.queue_state)
        listener.on_queue_state_change(state, None if ended else change.queue_state_reason)


def _iterable(prompts: Any) -> Iterator[Any]:
    try:
        return iter(prompts)
    except TypeError as error:
        raise InvalidInputError(
            f"prompts must be an iterable of ModelInput, got {prompts!r:.80}; for one prompt call sample",
            field="prompts",
        ) from error


def as_policy(retry_config: object) -> RetryPolicy | None:
    """Return the policy that was given, in whichever form: ours, or the official SDK's, which can be asked for it.

    Raises:
        InvalidInputError: It is neither.
    """
    make = getattr(retry_config, "policy", None)
    policy = make() if callable(make) else retry_config
    if policy is not None and not isinstance(policy, RetryPolicy):
        raise InvalidInputError(
            f"retry_config must be a RetryPolicy, or the RetryConfig of tinkex.compat, got {retry_config!r:.80}",
            field="retry_config",
        )
    return policy


def _restore(state: SamplerState) -> SamplingClient:
    """Make a copy of a sampling client, in this process, with a number of its own."""
    return SamplingClient(
        shared_session(state.config),
        state.sampling_session_id,
        base_model=state.base_model,
        model_path=state.model_path,
        tokenizer_id=state.tokenizer_id,
        record_stability_info=state.record_stability_info,
        clone=None,
    )


def _with_ids(response: SampleResponse, promise: UntypedAPIFuture) -> SampleResponse:
    """Give each sequence the id that the server has promised, or one like it: early servers promise none."""
    ids = promise.sample_sequence_ids or []
    if len(ids) != len(response.sequences):
        ids = [f"{promise.request_id}:{at}" for at in range(len(response.sequences))]
    named = [attrs.evolve(sequence, sequence_id=name) for sequence, name in zip(response.sequences, ids, strict=True)]
    return attrs.evolve(response, sequences=named)


def _check_questions(request: SampleRequest) -> None:
    """Refuse what a server would refuse or, worse, ignore."""
    last_n, target = request.prompt_logprobs_last_n, request.target_prompt_logprobs
    if last_n is None and target is None:
        return
    places = request.prompt.length - 1
    if last_n is not None:
        if not request.prompt_logprobs:
            raise InvalidInputError(
                "prompt_logprobs_last_n says which prompt tokens to score; set include_prompt_logprobs as well",
                field="prompt_logprobs_last_n",
            )
        if last_n > places:
            raise InvalidInputError(
                f"prompt_logprobs_last_n is {last_n}; a prompt of {places + 1} tokens has {places} that can be scored",
                field="prompt_logprobs_last_n",
            )
    if target is not None and (getattr(target, "dtype", "") != "int64" or target.full_shape[:-1] != (places,)):
        raise InvalidInputError(
            f"target_prompt_logprobs must be an int64 TensorData of shape [{places}, K], a row for each prompt token "
            f"but the first, got {target!r:.80}",
            field="target_prompt_logprobs",
        )


def _check_answers(request: SampleRequest, response: SampleResponse) -> None:
    """Refuse an answer of a server that has ignored a question, as servers older than the question do."""
    if request.prompt_alt_tokens_k and response.prompt_alt_tokens is None:
        raise _ignored("prompt_alt_tokens_k", "returned no prompt_alt_tokens")
    if request.target_prompt_logprobs is not None and response.target_prompt_logprobs is None:
        raise _ignored("target_prompt_logprobs", "returned none")
    last_n, logprobs = request.prompt_logprobs_last_n, response.prompt_logprobs
    if last_n is not None and logprobs is not None and any(value is not None for value in logprobs[:-last_n]):
        raise _ignored("prompt_logprobs_last_n", "scored the tokens before as well")


def _ignored(name: str, fact: str) -> RequestFailedError:
    return RequestFailedError(f"{name} was asked for and the server {fact}; it may not know it", category="server")


def _prompt_logprobs(response: SampleResponse) -> list[float | None]:
    if response.prompt_logprobs is None:
        raise RequestFailedError("the server returned no prompt logprobs; it may not support them", category="server")
    return response.prompt_logprobs
