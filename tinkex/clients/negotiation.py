"""What a client and its server agree on before they train: the form of the bodies, and the sizes of the pieces."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import attrs

from tinkex.clients.settings import ServerSettings
from tinkex.config import DEFAULT_BASE_URL, ClientConfig
from tinkex.errors import InvalidInputError
from tinkex.pipeline import BINARY, JSON, SizeRule
from tinkex.resources import Wire
from tinkex.types import ClientConfigResponse, Datum, ImageAssetPointerChunk

__all__ = ["Agreement", "negotiate"]

_BINARY_ONLY = {
    "fwdbwd_max_chunk_len",
    "fwdbwd_max_chunk_bytes_count",
    "fwdbwd_dispatch_bytes_semaphore_size",
    "sample_use_retrieve_futures",
    "custom_loss_server_side",
    "sample_join_sampling_session",
}
"""Settings of servers for SDKs from 0.25 on, which write training requests in the binary form without being told."""


@attrs.frozen(kw_only=True, slots=True)
class Agreement:
    """How the training requests of a session are written.

    Attributes:
        wire: The form of the bodies.
        max_chunk_len: Datums in one request at most.
        max_chunk_bytes: Estimated bytes of one request at most.
        upload_threads: Requests of one batch that may be sent at once.
    """

    wire: Wire
    max_chunk_len: int
    max_chunk_bytes: int
    upload_threads: int = 1

    @property
    def size_rule(self) -> SizeRule:
        """How the size of a datum is estimated."""
        return JSON if self.wire == "json" else BINARY

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
    for its clients, as before SDK 0.18, gets JSON. Requests are sent side by side where the binary form is asked for,
    unless the server forbids it: servers for older SDKs were made for one after the other.

    Raises:
        APIError: The server could not be asked.
    """
    if config.wire != "auto":
        return Agreement(wire=config.wire, max_chunk_len=config.max_chunk_len, max_chunk_bytes=config.max_chunk_bytes)
    settings = server.get()
    hosted = config.base_url == DEFAULT_BASE_URL
    binary = hosted or settings.proto_write_fwdbwd or bool(server.told() & _BINARY_ONLY)
    return Agreement(
        wire=_binary_wire(settings) if binary else "json",
        max_chunk_len=min(config.max_chunk_len, settings.fwdbwd_max_chunk_len),
        max_chunk_bytes=min(config.max_chunk_bytes, settings.fwdbwd_max_chunk_bytes_count),
        upload_threads=config.upload_threads if binary and settings.parallel_fwdbwd_chunks else 1,
    )


def _binary_wire(settings: ClientConfigResponse) -> Wire:
    compress = settings.proto_compress_fwdbwd and importlib.util.find_spec("zstandard") is not None
    return "proto+zstd" if compress else "proto"
