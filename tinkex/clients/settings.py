"""What the server wants of its clients: asked once, by whichever call needs the server first."""

from __future__ import annotations

import logging
import threading

from tinkex._version import __version__
from tinkex.config import DEFAULT_BASE_URL
from tinkex.errors import APIResponseValidationError, APIStatusError
from tinkex.resources import TinkexAPI
from tinkex.resources._base import raw
from tinkex.types import ClientConfigResponse
from tinkex.wire.json import parse

__all__ = ["RESTORE", "ServerSettings"]

logger = logging.getLogger("tinkex")

RESTORE = "making a model of a checkpoint in one call"
"""What :meth:`ServerSettings.note_lack` calls it."""
_NO_SUCH_ENDPOINT = frozenset({404, 405, 501})
_SINCE_0_26 = frozenset({"sample_use_retrieve_futures", "custom_loss_server_side", "sample_join_sampling_session"})
_ABOUT_THE_CALLER = frozenset({401, 402, 403})


class ServerSettings:
    """The settings of one server. Safe for any number of threads."""

    def __init__(self, api: TinkexAPI) -> None:
        """Ask nothing yet."""
        self._api = api
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._known: ClientConfigResponse | None = None
        self._told: frozenset[str] | None = None
        self._lacking: set[str] = set()

    def get(self) -> ClientConfigResponse:
        """Return the settings; the first call asks the server, and turns on what it wants of every request.

        A server without settings, such as one made for SDKs before 0.18, has the default ones.

        Raises:
            ConfigurationError: The server wants a credential of a kind that is not there.
            APIError: The server could not be asked.
        """
        with self._lock:
            if self._known is None:
                known, self._told = self._ask()
                if known.pjwt_auth_enabled:
                    self._api.exchange_tokens(prefer_command=known.credential_default_source == "credential_cmd")
                self._known = known
            return self._known

    def told(self) -> frozenset[str]:
        """Return the names of the settings that the server has told, which are not all that there are.

        Raises:
            APIError: The server could not be asked.
        """
        self.get()
        with self._lock:
            return self._told or frozenset()

    def exist(self) -> bool:
        """Tell whether the server has settings for its clients at all, as servers since 0.18 do.

        Raises:
            APIError: The server could not be asked.
        """
        self.get()
        with self._lock:
            return self._told is not None

    def restores_in_one_call(self) -> bool:
        """Tell whether the server makes a model of a checkpoint with one call, as servers since 0.26 do.

        It says so, or is one of them, and has not refused it since.

        Raises:
            APIError: The server could not be asked.
        """
        if self.lacks(RESTORE):
            return False
        known = self.get().create_model_via_load_weights or bool(self.told() & _SINCE_0_26)
        return known or self._api.config.base_url == DEFAULT_BASE_URL

    def lacks(self, what: str) -> bool:
        """Tell whether the server was found to lack something that it seemed to offer; see :meth:`note_lack`."""
        with self._lock:
            return what in self._lacking

    def note_lack(self, what: str, because: APIStatusError) -> None:
        """Remember for the session that the server has refused what its settings seemed to offer."""
        with self._lock:
            known = what in self._lacking
            self._lacking.add(what)
        if not known:
            logger.info("%s is not used from now on: the server refused it (%s)", what, because)

    def _ask(self) -> tuple[ClientConfigResponse, frozenset[str] | None]:
        try:
            answer = raw(self._api.service.client_config)(__version__)
            return answer.parse(), frozenset(parse(answer.content))
        except APIResponseValidationError:
            return ClientConfigResponse(), None
        except APIStatusError as error:
            refused = error.status_code in _ABOUT_THE_CALLER or error.status_code >= 500 or error.retryable
            if refused and error.status_code not in _NO_SUCH_ENDPOINT:
                raise
            return ClientConfigResponse(), None
