"""What RestClient and AdminClient share: calls that need a connection and no session."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import Self

from tinkex.clients.door import resolve
from tinkex.clients.events import Telemetry
from tinkex.clients.processes import NotPicklable
from tinkex.clients.ready import ReadyClient
from tinkex.clients.session import Session
from tinkex.config import ClientConfig
from tinkex.pipeline import APIFuture
from tinkex.resources._base import check_id

__all__ = ["LookupClient"]

T = TypeVar("T")


class LookupClient(NotPicklable, ReadyClient):
    """Sends calls that belong to no session, a few at a time, and returns an :class:`~tinkex.APIFuture` for each."""

    def __init__(
        self,
        session: Session | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        config: ClientConfig | None = None,
        **settings: Any,
    ) -> None:
        """Read the settings, or use the connection of a ServiceClient; nothing is sent yet.

        Args:
            session: That of a ``ServiceClient``, which hands it over in ``create_rest_client``.
            base_url: Where the server is; see :class:`~tinkex.ServiceClient`.
            api_key: The key; ``TINKER_API_KEY`` unless given.
            config: All settings at once, instead of every other one.
            **settings: Other fields of :class:`~tinkex.ClientConfig`.

        Raises:
            ConfigurationError: There is neither a key nor a base URL, or a setting cannot be used.
        """
        self._owns_session = session is None
        if session is None:
            session = Session(resolve(config, base_url=base_url, api_key=api_key, **settings))
        self._session = session
        session.watch(self)

    def get_telemetry(self) -> Telemetry | None:
        """Return what logs events for the server; None if telemetry is off, or there is no session to log them for."""
        return self._session.telemetry()

    def close(self) -> None:
        """Wait for what is under way and close the connections; nothing if they belong to a ServiceClient."""
        if self._owns_session:
            self._session.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Show where it asks."""
        return f"{type(self).__name__}({self._session.config.base_url})"

    def _call(self, operation: str, call: Callable[[], T], **ids: str) -> APIFuture[T]:
        """Call soon; ``ids`` are arguments of the caller, by name, that must be ids."""
        for name, value in ids.items():
            check_id(name, value)

        def work() -> T:
            self._session.settings.get()
            return call()

        return self._session.calls.submit(operation, work)
