"""Those of the server's settings that may change while a program runs: asked when needed, and kept for a while."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from tinkex._version import __version__
from tinkex.errors import TinkexError
from tinkex.resources import TinkexAPI
from tinkex.types import ClientDynamicConfigResponse

__all__ = ["DynamicSettings"]

_SHORTEST_S = 10.0


class DynamicSettings:
    """The changing settings of one server. Safe for any number of threads."""

    def __init__(self, api: TinkexAPI, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet."""
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._known = ClientDynamicConfigResponse()
        self._stale_from: float | None = None

    def get(self) -> ClientDynamicConfigResponse:
        """Return the settings, asking the server if they are old; the last known ones if it cannot be asked."""
        with self._lock:
            now = self._clock()
            if self._stale_from is None or now >= self._stale_from:
                with contextlib.suppress(TinkexError):  # none of them is worth a failure
                    self._known = self._api.service.client_dynamic_config(__version__)
                self._stale_from = now + max(self._known.refresh_interval_sec, _SHORTEST_S)
            return self._known
