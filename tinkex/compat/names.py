"""Names of the official SDK that have another name here, or no use."""

from __future__ import annotations

import abc
from typing import Any, Literal, Union

import attrs

from tinkex import types
from tinkex.clients import SamplingClient
from tinkex.clients.loss_handle import PerDatumLossFn
from tinkex.compat import auth
from tinkex.compat.futures import (
    AwaitableConcurrentFuture,
    BackcompatSamplingClientFuture,
    BackcompatTrainingClientFuture,
)
from tinkex.config import RetryPolicy
from tinkex.errors import APIConnectionError, RequestErrorCategory, TinkexError
from tinkex.types import QueueState, TensorData
from tinkex.types.training import KnownLoss

__all__ = [
    "AwaitableConcurrentFuture",
    "BackcompatSamplingClientFuture",
    "BackcompatTrainingClientFuture",
    "EventType",
    "ExperimentalWarning",
    "FutureRetrieveResponse",
    "LossFnInputs",
    "LossFnOutput",
    "LossFnType",
    "ModelID",
    "PerDatumLossFn",
    "QueueStateObserver",
    "RequestErrorCategory",
    "RequestID",
    "RequestOptions",
    "RetryConfig",
    "SamplingClientKind",
    "SaveWeightsExternalResponseInternal",
    "SaveWeightsForSamplerResponseInternal",
    "SidecarDiedError",
    "SidecarError",
    "SidecarIPCError",
    "SidecarStartupError",
    "Timeout",
    "TinkerError",
    "auth",
]

TinkerError = TinkexError
SaveWeightsExternalResponseInternal = types.SaveWeightsExternalResponse
SaveWeightsForSamplerResponseInternal = types.SaveWeightsForSamplerResponse
RequestOptions = dict[str, Any]
ModelID = str
RequestID = str
EventType = Literal["SESSION_START", "SESSION_END", "UNHANDLED_EXCEPTION", "GENERIC_EVENT"]
SamplingClientKind = Literal["snapshot", "inflight"]
LossFnInputs = dict[str, TensorData]
LossFnType = KnownLoss  # its members are listed by programs
LossFnOutput = dict[str, TensorData]
FutureRetrieveResponse = Union[
    types.TryAgainResponse,
    types.ForwardBackwardOutput,
    types.OptimStepResponse,
    types.SaveWeightsResponse,
    types.LoadWeightsResponse,
    types.SaveWeightsForSamplerResponse,
    types.CreateModelResponse,
    types.UnloadModelResponse,
    types.RequestFailedResponse,
]


class QueueStateObserver(abc.ABC):
    """What hears of the queue: a sampling client, and what a program derives from this."""

    @abc.abstractmethod
    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Hear of a state."""


QueueStateObserver.register(SamplingClient)


@attrs.frozen
class Timeout:
    """Time limits of a request in seconds, for ``ServiceClient(timeout=...)``; ``write`` and ``pool`` are ignored.

    Attributes:
        timeout: All of them.
        connect: To connect.
        read: For the bytes of an answer.
        write: To send.
        pool: To wait for a connection.
    """

    timeout: float | None = None
    connect: float | None = attrs.field(default=attrs.Factory(lambda self: self.timeout, takes_self=True), kw_only=True)
    read: float | None = attrs.field(default=attrs.Factory(lambda self: self.timeout, takes_self=True), kw_only=True)
    write: float | None = attrs.field(default=None, kw_only=True)
    pool: float | None = attrs.field(default=None, kw_only=True)


class ExperimentalWarning(FutureWarning):
    """Never given: nothing here is experimental. There so that programs can filter it."""


class SidecarError(TinkexError):
    """Never raised: nothing samples in a process of its own. There so that programs can catch it."""


class SidecarStartupError(SidecarError):
    """Never raised, like :class:`SidecarError`."""


class SidecarDiedError(SidecarError):
    """Never raised, like :class:`SidecarError`."""


class SidecarIPCError(SidecarError):
    """Never raised, like :class:`SidecarError`."""


@attrs.frozen
class RetryConfig:
    """The official SDK's settings for retries of a sampler.

    Attributes:
        max_connections: Ignored: ``ClientConfig.max_sample_submits`` bounds what is sent at once, for all samplers.
        progress_timeout: Seconds after which a request that keeps failing is given up; and all samples in flight, if
            for so long none has ended.
        retry_delay_base: Seconds before the first repetition; doubled for each further one.
        retry_delay_max: Most seconds between two.
        jitter_factor: Random share of each wait.
        enable_retry_logic: False sends each request once.
        enable_stuck_detection: False waits for samples in flight for ever.
        retryable_exceptions: Ignored: an error says itself whether it is ``retryable``.
    """

    max_connections: int | None = 1000
    progress_timeout: float = 7200.0
    retry_delay_base: float = 0.5
    retry_delay_max: float = 10.0
    jitter_factor: float = 0.25
    enable_retry_logic: bool = True
    enable_stuck_detection: bool = True
    retryable_exceptions: tuple[type[Exception], ...] = (TimeoutError, APIConnectionError)

    def policy(self) -> RetryPolicy:
        """Return the same as a policy of tinkex.

        Raises:
            ConfigurationError: A number cannot be used.
        """
        progress_timeout_s = self.progress_timeout if self.enable_stuck_detection else None
        if not self.enable_retry_logic:
            return attrs.evolve(RetryPolicy.none(), progress_timeout_s=progress_timeout_s)
        return RetryPolicy(
            progress_timeout_s=progress_timeout_s,
            max_elapsed_s=self.progress_timeout,
            initial_wait_s=self.retry_delay_base,
            max_wait_s=self.retry_delay_max,
            jitter=self.jitter_factor,
        )
