"""The official SDK's classes of futures that programs make themselves."""

from __future__ import annotations

import concurrent.futures
from typing import Any, TypeVar

from typing_extensions import override

from tinkex.clients import SamplingClient, TrainingClient
from tinkex.pipeline import APIFuture
from tinkex.pipeline.futures import follow

__all__ = ["AwaitableConcurrentFuture", "BackcompatSamplingClientFuture", "BackcompatTrainingClientFuture"]

T = TypeVar("T")


class _StandsFor(type):
    """The class of a class whose instances are also all those of the class that it is derived from."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


class AwaitableConcurrentFuture(APIFuture[T], metaclass=_StandsFor):
    """A future of the standard library that can also be awaited. Every future of tinkex is one, made or not."""

    def __init__(self, future: concurrent.futures.Future[T]) -> None:
        """Wrap a future, of an executor or of tinkex.

        Raises:
            TypeError: It is no ``concurrent.futures.Future``.
        """
        if not isinstance(future, concurrent.futures.Future):
            raise TypeError(f"future must be a concurrent.futures.Future, got {future!r:.80}")
        super().__init__(getattr(future, "operation", "future"))
        self._wrapped = future
        follow(self, future)

    @override
    def cancel(self) -> bool:
        """Cancel what is wrapped."""
        return self._wrapped.cancel()

    @override
    def running(self) -> bool:
        """Tell whether what is wrapped was begun and is not done."""
        return self._wrapped.running()

    @override
    def future(self) -> Any:
        """Return what is wrapped."""
        return self._wrapped


class BackcompatSamplingClientFuture(SamplingClient, metaclass=_StandsFor):
    """A sampling client, which is here its own future."""

    def __new__(cls, future: concurrent.futures.Future[SamplingClient]) -> Any:
        """Wait for the client and return it."""
        return future.result()


class BackcompatTrainingClientFuture(TrainingClient, metaclass=_StandsFor):
    """A training client, which is here its own future."""

    def __new__(cls, future: concurrent.futures.Future[TrainingClient]) -> Any:
        """Wait for the client and return it."""
        return future.result()
