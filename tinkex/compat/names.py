"""Names of the official SDK that have another name here, or no use."""

from __future__ import annotations

import enum
from typing import Literal, Union

import attrs

from tinkex import types
from tinkex.clients import SamplingClient, TrainingClient
from tinkex.clients.loss_handle import PerDatumLossFn
from tinkex.compat import auth
from tinkex.config import RetryPolicy
from tinkex.errors import APIConnectionError, TinkexError
from tinkex.pipeline import APIFuture
from tinkex.types import TensorData

__all__ = [
    "AwaitableConcurrentFuture",
    "BackcompatSamplingClientFuture",
    "BackcompatTrainingClientFuture",
    "EventType",
    "ExperimentalWarning",
    "FutureRetrieveResponse",
    "LossFnInputs",
    "LossFnOutput",
    "ModelID",
    "PerDatumLossFn",
    "RequestErrorCategory",
    "RequestID",
    "RetryConfig",
    "SamplingClientKind",
    "SidecarDiedError",
    "SidecarError",
    "SidecarIPCError",
    "SidecarStartupError",
    "TinkerError",
    "auth",
]

TinkerError = TinkexError
AwaitableConcurrentFuture = APIFuture
BackcompatSamplingClientFuture = SamplingClient
BackcompatTrainingClientFuture = TrainingClient
ModelID = str
RequestID = str
EventType = Literal["SESSION_START", "SESSION_END", "UNHANDLED_EXCEPTION", "GENERIC_EVENT"]
SamplingClientKind = Literal["snapshot", "inflight"]
LossFnInputs = dict[str, TensorData]
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


class RequestErrorCategory(str, enum.Enum):
    """Whose fault a failed operation is; equal to the texts in ``RequestFailedError.category``."""

    Unknown = "unknown"
    Server = "server"
    User = "user"


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
