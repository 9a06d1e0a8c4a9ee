"""SamplingClient: draws from frozen weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from tinkex.clients.tokenizers import load_tokenizer
from tinkex.clients.twins import async_twins
from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.pipeline import APIFuture, estimate_input
from tinkex.types import ModelInput, SampleRequest, SampleResponse, SamplingParams
from tinkex.types.sampling import check_prompt
from tinkex.types.weights import check_sampler_path

if TYPE_CHECKING:
    from tinkex.clients.session import Session

__all__ = ["SamplingClient"]

T = TypeVar("T")


@async_twins(threads=("get_base_model", "get_tokenizer"), values=("sample", "compute_logprobs"))
class SamplingClient:
    """Samples from one set of weights, which never change. Make one with ``ServiceClient.create_sampling_client``.

    Every call returns an :class:`~tinkex.APIFuture` at once. Samples are independent: submit as many as you like, they
    are sent a few at a time and hold no thread while the server works. Safe to use from several threads.
    """

    def __init__(
        self, session: Session, sampling_session_id: str, *, base_model: str | None = None, model_path: str | None = None
    ) -> None:
        """Attach to a sampler that the server has made."""
        self.model_path = model_path
        self.base_model = base_model
        self._session = session
        self._sampling_session_id = sampling_session_id
        self._numbers = itertools.count()

    @classmethod
    def create(cls, session: Session, model_path: str | None, base_model: str | None) -> SamplingClient:
        """Make a sampler on the server.

        Raises:
            InvalidInputError: Neither a path nor a model is given, or the path is not that of a sampler checkpoint.
        """
        if model_path is not None:
            check_sampler_path(model_path)
        sampler_id = session.create_sampler(model_path, base_model)
        return cls(session, sampler_id, base_model=base_model, model_path=model_path)

    def sample(
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
    ) -> APIFuture[SampleResponse]:
        """Generate.

        Args:
            prompt: What to continue; at least one token.
            num_samples: How many sequences.
            sampling_params: How to sample.
            include_prompt_logprobs: Also return the logprob of each prompt token.
            topk_prompt_logprobs: Also return the k most likely tokens at each prompt position.

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
        )
        return self._submit("sample", request, _whole)

    def compute_logprobs(self, prompt: ModelInput) -> APIFuture[list[float | None]]:
        """Score a text.

        Args:
            prompt: The tokens to score.

        Returns:
            A future of one logprob for each token given those before it; the first is None.
        """
        request = self._request(prompt, SamplingParams(max_tokens=1), num_samples=1, prompt_logprobs=True)
        return self._submit("compute_logprobs", request, _prompt_logprobs)

    def get_base_model(self) -> str:
        """Return the name of the base model, asking the server if need be."""
        if self.base_model is None:
            self.base_model = self._session.api.service.get_sampler(self._sampling_session_id).base_model
        return self.base_model

    def get_tokenizer(self) -> Any:
        """Return the Hugging Face tokenizer of the base model.

        Raises:
            ConfigurationError: ``transformers`` is not installed, or the tokenizer cannot be found.
        """
        return load_tokenizer(self.get_base_model())

    def result(self, timeout: float | None = None) -> SamplingClient:
        """Return itself: it is ready. For programs that treat a client as the future of one."""
        return self

    def __await__(self) -> Generator[Any, Any, SamplingClient]:
        """Return itself, in a coroutine."""
        return self
        yield  # makes this a generator

    def __repr__(self) -> str:
        """Show what is sampled from."""
        source = self.model_path or self.base_model
        return f"SamplingClient({self._sampling_session_id}, {source!r})"

    def _request(self, prompt: ModelInput, sampling_params: SamplingParams, **options: Any) -> SampleRequest:
        check_prompt(prompt)
        if not isinstance(sampling_params, SamplingParams):
            raise InvalidInputError(
                f"sampling_params must be a SamplingParams, got {sampling_params!r:.80}", field="sampling_params"
            )
        return SampleRequest(
            prompt=prompt,
            sampling_params=sampling_params,
            sampling_session_id=self._sampling_session_id,
            seq_id=0,  # takes its number when it is sent
            **options,
        )

    def _submit(self, operation: str, request: SampleRequest, finish: Callable[[SampleResponse], T]) -> APIFuture[T]:
        def send(seq_id: int) -> str:
            return self._session.api.sampling.asample(attrs.evolve(request, seq_id=seq_id)).request_id

        return self._session.submit_sample(operation, send, estimate_input(request.prompt), self._numbers, finish)


def _whole(response: SampleResponse) -> SampleResponse:
    return response


def _prompt_logprobs(response: SampleResponse) -> list[float | None]:
    if response.prompt_logprobs is None:
        raise RequestFailedError("the server returned no prompt logprobs; it may not support them", category="server")
    return response.prompt_logprobs
