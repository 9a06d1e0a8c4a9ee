"""What lets a client stand where the official SDK has the future of one."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from typing_extensions import Self

from tinkex.pipeline.futures import APIFuture, finished

__all__ = ["ReadyClient"]


class ReadyClient:
    """A client that is ready when it is made; whoever waits for it, in whatever way, gets itself."""

    def result(self, timeout: float | None = None) -> Self:
        """Return itself."""
        return self

    async def result_async(self, timeout: float | None = None) -> Self:
        """Return itself, in a coroutine."""
        return self

    def coroutine(self) -> Coroutine[Any, Any, Self]:
        """Return a coroutine that returns the client."""
        return self.result_async()

    def future(self) -> APIFuture[Self]:
        """Return a future that is done; its result is the client."""
        return finished("create", self)

    def __await__(self) -> Generator[Any, Any, Self]:
        """Return itself, in a coroutine."""
        return self.result_async().__await__()
