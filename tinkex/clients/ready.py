"""What lets a client stand where the official SDK has the future of one."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Coroutine, Generator
from typing import Any

from typing_extensions import Self

__all__ = ["ReadyClient"]


class ReadyClient:
    """A client that is ready when it is made; whoever waits for it, in whatever way, gets itself."""

    def result(self, timeout: float | None = None) -> Self:  # noqa: ARG002 - there is nothing to wait for
        """Return itself."""
        return self

    async def result_async(self, timeout: float | None = None) -> Self:  # noqa: ARG002 - as above
        """Return itself, in a coroutine."""
        return self

    def coroutine(self) -> Coroutine[Any, Any, Self]:
        """Return a coroutine that returns the client."""
        return self.result_async()

    def future(self) -> concurrent.futures.Future[Self]:
        """Return a future that is done; its result is the client."""
        done: concurrent.futures.Future[Self] = concurrent.futures.Future()
        done.set_result(self)
        return done

    def __await__(self) -> Generator[Any, Any, Self]:
        """Return itself, in a coroutine."""
        return self.result_async().__await__()
