"""What a client and its server agree on before they train: the form of the bodies, and the sizes of the pieces."""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from tinkex.clients.settings import ServerSettings
from tinkex.config import DEFAULT_BASE_URL, ClientConfig
from tinkex.errors import APIStatusError, InvalidInputError
from tinkex.http import lacks_endpoint
from tinkex.pipeline import BINARY, JSON, SizeRule
from tinkex.resources import Wire
from tinkex.resources.training import FORWARD
from tinkex.types import ClientConfigResponse, Datum, ImageAssetPointerChunk

__all__ = ["Agreement", "negotiate"]

logger = logging.getLogger("tinkex")

T = TypeVar("T")

_BINARY_ONLY = {
    "fwdbwd_max_chunk_len",
    "fwdbwd_max_chunk_bytes_count",
    "fwdbwd_dispatch_bytes_semaphore_size",
    "sample_use_retrieve_futures",
    "custom_loss_server_side",
    "sample_join_sampling_session",
}
"""Settings of servers for SDKs from 0.25 on, which write training requests in the binary form without being told."""
_UNREADABLE = re.compile(r"(?i)json|pars|utf-?8|decod|valid dictionary|content.type")
"""What servers of JSON say of bytes that are none."""


@attrs.define(kw_only=True, slots=True, eq=False)
class Agreement:
    """How the training requests of a session are written: guessed from hints, and corrected by what the server refuses.

    One is shared by all training clients of a session. Safe for any number of threads.

    Attributes:
        wire: The form of the bodies.
        other: The form to try if the server refuses this one; None if the form was chosen by hand, or once it is
            settled by a request that the server has accepted.
        by_hand: The form is that of the settings.
        max_chunk_len: Datums in one request at most.
        max_chunk_bytes: Estimated bytes of one request at most.
        parallel: Requests of one batch that may be sent at once in the binary form.
    """

    wire: Wire
    other: Wire | None = None
    by_hand: bool = False
    max_chunk_len: int
    max_chunk_bytes: int
    parallel: int = 1
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @property
    def upload_threads(self) -> int:
        """Requests of one batch that may be sent at once: servers of JSON were made for one after the other."""
        return 1 if self.wire == "json" else self.parallel

    @property
    def size_rule(self) -> SizeRule:
        """How the size of a datum is estimated."""
        return JSON if self.wire == "json" else BINARY

    def send(self, send: Callable[[Wire], T]) -> T:
        """Send a training request; in the other form, if the server takes this one not at all.

        The first request that the server accepts settles the form for the session.

        Args:
            send: Sends it in a form. It is called a second time only if the server has refused the first for its form,
                and must send the same request then, with the same numbers and idempotency key.

        Raises:
            APIStatusError: The server refused the request, or both forms of it: then the first refusal.
        """
        wire, other = self.wire, self.other
        try:
            answer = send(wire)
        except APIStatusError as error:
            refused = _is_about_the_form(error, wire)
            if refused is None:
                raise
            if self.wire != wire:  # another request has found out meanwhile
                return send(self.wire)
            if other is None:
                raise (_naming_the_setting(error, wire) if self.by_hand else error) from None
            return self._send_in(other, send, error, sure=refused)
        self.other = None
        return answer

    def _send_in(self, other: Wire, send: Callable[[Wire], T], first: APIStatusError, *, sure: bool) -> T:
        try:
            answer = send(other)
        except APIStatusError as second:
            if not sure or _is_about_the_form(second, other) is not None:
                raise first from None
            self._turn(other, first)  # what the server says now is about the request itself
            raise
        self._turn(other, first)
        return answer

    def _turn(self, other: Wire, because: APIStatusError) -> None:
        with self._lock:
            turns, self.wire, self.other = self.wire != other, other, None
        if turns:
            name = "JSON" if other == "json" else "the binary form (protobuf)"
            logger.info("training requests go in %s from now on: the server refused the other (%s)", name, because)

    def lower_chunk_bytes(self, limit: int) -> None:
        """Keep requests below what the server has found too large."""
        with self._lock:
            self.max_chunk_bytes = max(1, min(self.max_chunk_bytes, limit))

    def check_data(self, data: Sequence[Datum]) -> None:
        """Refuse what cannot be written in this form, before anything is sent.

        Raises:
            InvalidInputError: A datum has an image that the server would have to fetch; the error names it.
        """
        if self.wire == "json":
            return
        for index, datum in enumerate(data):
            for position, chunk in enumerate(datum.model_input.chunks):
                if isinstance(chunk, ImageAssetPointerChunk):
                    field = f"data[{index}].model_input.chunks[{position}]"
                    raise InvalidInputError(
                        f"{field} is an image that the server would have to fetch, which this server does only for "
                        "prompts of samples: pass its bytes as an ImageChunk",
                        field=field,
                        index=index,
                    )


def negotiate(server: ServerSettings, config: ClientConfig) -> Agreement:
    """Settle how training requests are written; with ``config.wire == "auto"`` the server is asked.

    The binary form is for the hosted service and for servers that say that they take it; a server that has no settings
    for its clients, as before SDK 0.18, gets JSON. Both are guesses, which :meth:`Agreement.send` corrects. Requests
    are sent side by side where the binary form is asked for, unless the server forbids it: servers for older SDKs were
    made for one after the other.

    Raises:
        APIError: The server could not be asked.
    """
    if config.wire != "auto":
        return Agreement(
            wire=config.wire,
            by_hand=True,
            max_chunk_len=config.max_chunk_len,
            max_chunk_bytes=config.max_chunk_bytes,
        )
    settings = server.get()
    hosted = config.base_url == DEFAULT_BASE_URL
    hinted = hosted or settings.proto_write_fwdbwd or bool(server.told() & _BINARY_ONLY)
    binary = _binary_wire(settings)
    return Agreement(
        wire=binary if hinted else "json",
        other="json" if hinted else binary,
        max_chunk_len=min(config.max_chunk_len, settings.fwdbwd_max_chunk_len),
        max_chunk_bytes=min(config.max_chunk_bytes, settings.fwdbwd_max_chunk_bytes_count),
        parallel=config.upload_threads if hinted and settings.parallel_fwdbwd_chunks else 1,
    )


def _is_about_the_form(error: APIStatusError, wire: Wire) -> bool | None:
    """Tell whether a refusal is about the form of the request: True if surely, False if perhaps, None if not."""
    if error.status_code == 415:
        return True
    if wire == "json":
        # In the binary form there is no such endpoint: forward is a flag in the body of forward_backward.
        return True if error.path.endswith(FORWARD.path) and lacks_endpoint(error) else None
    unread = error.status_code in (400, 422) and _UNREADABLE.search(str(error.body))
    return False if unread else None


def _naming_the_setting(error: APIStatusError, wire: Wire) -> APIStatusError:
    """Add to a refusal of the form that it was chosen by hand."""
    error.message = (
        f"{error.message}; the setting wire={wire!r} asks for this form (also TINKEX_WIRE and --wire): with 'auto' the "
        "client finds out which one the server takes"
    )
    return error


def _binary_wire(settings: ClientConfigResponse) -> Wire:
    compress = settings.proto_compress_fwdbwd and importlib.util.find_spec("zstandard") is not None
    return "proto+zstd" if compress else "proto"
