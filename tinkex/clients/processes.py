"""Clients in other processes: which of them travel, and how.

A sampler is only a name on the server, so a SamplingClient pickles: as the settings (with the API key in them) and the
name. Each copy numbers its requests in a range of its own. Everything else belongs to the process that made it.
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
import weakref
from typing import Any

import attrs
from typing_extensions import Self

from tinkex.clients.session import Session
from tinkex.config import ClientConfig
from tinkex.errors import ClientClosedError, InvalidInputError, LifecycleError

__all__ = ["RANGE", "NotPicklable", "SamplerState", "random_clone", "shared_session"]

RANGE = 1_000_000_000
"""How many numbers a copy of a sampling client has for its requests; the copy n uses those from n * RANGE."""


class NotPicklable:
    """A client that stays in its process."""

    def __reduce__(self) -> Any:
        """Refuse.

        Raises:
            LifecycleError: Always; it says what to do instead.
        """
        raise LifecycleError(
            f"a {type(self).__name__} cannot be pickled: its threads and the order of its operations belong to this "
            "process. Send a SamplingClient, a checkpoint's path or a ClientConfig to the other process instead"
        )


@attrs.frozen(kw_only=True, slots=True)
class SamplerState:
    """What another process needs to sample from the same sampler.

    Attributes:
        config: The settings. In a pickle they have the API key, in a handle they do not.
        sampling_session_id: The sampler.
        base_model: Its base model, if known.
        model_path: Its checkpoint, if it has one.
        tokenizer_id: Where its tokenizer is, if known.
        record_stability_info: As given to the client.
    """

    config: ClientConfig
    sampling_session_id: str
    base_model: str | None = None
    model_path: str | None = None
    tokenizer_id: str | None = None
    record_stability_info: bool = False

    def to_handle(self) -> str:
        """Write it as one text, without the API key and the headers, which may hold secrets."""
        fields = {name: getattr(self, name) for name in _NAMED}
        text = json.dumps({**fields, "base_url": self.config.base_url}, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def from_handle(cls, handle: str, api_key: str | None) -> Self:
        """Read the text; credentials and all other settings are those of this process.

        Raises:
            InvalidInputError: The text is not a handle.
            ConfigurationError: The environment has a setting that cannot be used.
        """
        try:
            fields = json.loads(base64.urlsafe_b64decode(handle))
            base_url, known = fields.pop("base_url"), {name: fields[name] for name in _NAMED}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInputError(
                f"{handle!r:.60} is not a sampler handle; SamplingClient.get_sampler_handle() makes one", field="handle"
            ) from error
        return cls(config=ClientConfig.from_env(base_url=base_url, api_key=api_key), **known)


_NAMED = ("sampling_session_id", "base_model", "model_path", "tokenizer_id", "record_stability_info")

_lock = threading.Lock()
# Guarded by _lock:
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def shared_session(config: ClientConfig) -> Session:
    """Return the connection that all sampling clients with these settings share that came from other processes."""
    with _lock:
        for session in list(_sessions):
            if session.config == config and _is_open(session):
                return session
        session = Session(config)
        session.attend()
        _sessions.add(session)
        return session


def _is_open(session: Session) -> bool:
    try:
        session.check_open()
    except ClientClosedError:
        return False
    return True


def random_clone() -> int:
    """Return a number for a copy, where the server gives none out; small enough that its range fits 63 bits."""
    return uuid.uuid4().int % RANGE + 1
