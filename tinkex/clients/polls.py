"""One poll: what the poller asks of the server, and what the answer means to it."""

from __future__ import annotations

from tinkex.clients.settings import ServerSettings
from tinkex.errors import RequestFailedError
from tinkex.pipeline import Failed, Large, Outcome, Pending, Ready, Watched
from tinkex.resources import TinkexAPI
from tinkex.types import FutureRetrieveRequest, RequestFailedResponse, ResultMetadata, TryAgainResponse

__all__ = ["retrieve_outcome"]


def retrieve_outcome(api: TinkexAPI, settings: ServerSettings, watched: Watched) -> Outcome:
    """Ask the server once for the outcome of an operation.

    A server with settings, as since SDK 0.18, is asked to announce a large result first. One without them may be older
    than that question, which came with SDK 0.14, and refuse it; it sends every result at once.

    Raises:
        TinkexError: The server could not be asked; the poller decides what follows.
    """
    first = {"X-Tinker-Create-Promise-Roundtrip-Time": f"{watched.submit_s:.6f}"} if watched.polls == 0 else None
    answer = api.futures.retrieve(
        FutureRetrieveRequest(
            request_id=watched.request_id,
            allow_metadata_only=watched.progress.size is None and settings.exist(),
        ),
        watched.decode,
        request_type=watched.request_type,
        iteration=watched.polls,
        binary=api.config.wire != "json",
        extra_headers=first,
    )
    if isinstance(answer, TryAgainResponse):
        return Pending(answer.queue_state, answer.queue_state_reason)
    if isinstance(answer, ResultMetadata):
        return Large(answer.response_payload_size)
    if isinstance(answer, RequestFailedResponse):
        error = RequestFailedError(answer.error, category=answer.category, request_id=watched.request_id)
        return Failed(error)
    return Ready(answer)
