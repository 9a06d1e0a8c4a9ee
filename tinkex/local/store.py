"""What the server knows while it runs: sessions, models, samplers. Checkpoints are on disk, promises in their table."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from tinkex.local.problems import Problem

__all__ = ["Model", "Sampler", "Session", "Store"]

_REMEMBERED_KEYS = 10_000
_LONGEST_TICK_S = 1.0


@attrs.define(eq=False, kw_only=True)
class Session:
    """A client's session.

    Attributes:
        heard_at: When its client was last heard of, on the clock of :meth:`Store.tick`.
        polls: How many requests for a result are held open; its client is heard of as long as there is one.
        beats: True once there was a heartbeat: from then on silence means something.
        finished: How the client said that it ended.
        detail: More about that.
    """

    id: str
    heard_at: float
    polls: int = 0
    beats: bool = False
    user_metadata: dict[str, Any] | None = None
    display_name: str | None = None
    project_id: str | None = None
    created: datetime
    finished: str | None = None
    detail: str | None = None
    models: list[str] = attrs.field(factory=list)
    samplers: list[str] = attrs.field(factory=list)
    losses: list[str] = attrs.field(factory=list)


@attrs.define(eq=False, kw_only=True)
class Model:
    """A model of a session.

    The engine thread sets ``base_model``, ``lora_rank``, ``live`` and ``ended``; whoever else reads them gets the old
    or the new value, and both are fine.

    Attributes:
        live: True while the engine holds it.
        ended: Why it can do no more work; None while it can.
        dropped: How many of its operations were dropped because nobody waited for them. One that was sent before
            another was dropped does not run: it counted on that one.
    """

    id: str
    session_id: str
    base_model: str
    last_request: datetime
    lora_rank: int | None = None
    user_metadata: dict[str, Any] | None = None
    live: bool = False
    ended: str | None = None
    dropped: int = 0


@attrs.define(eq=False, kw_only=True)
class Sampler:
    """A sampler of a session, or of none.

    Its weights are in ``folder``, None for the base model alone. They are frozen, unless it ``follows`` a model: then
    each further save for samplers of that kind replaces them. ``clients`` have joined the one that made it.
    """

    id: str
    session_id: str | None
    base_model: str
    model_path: str | None = None
    folder: Path | None = None
    follows: str | None = None
    ended: str | None = None
    clients: int = 0


class Store:
    """Records by id. Methods may be called from any thread.

    Everything is in memory; a store that outlives the process has the same methods.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start empty."""
        self._clock = clock
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._sessions: dict[str, Session] = {}
        self._models: dict[str, Model] = {}
        self._samplers: dict[str, Sampler] = {}
        self._by_key: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._telemetry_events = 0
        self._listened = 0.0
        self._ticked = clock()

    def tick(self) -> None:
        """Count the time since the last call as time that the server has listened; called a few times a second.

        Silence is measured in it. A process that was stopped, or too busy to read, cannot blame its clients: of a
        longer time between two calls no more than a second counts.
        """
        with self._lock:
            now = self._clock()
            self._listened += min(now - self._ticked, _LONGEST_TICK_S)
            self._ticked = now

    def add_session(self, created: datetime, **fields: Any) -> Session:
        """Make a session with a new id; ``fields`` are others of :class:`Session`."""
        with self._lock:
            session = Session(id=str(uuid.uuid4()), heard_at=self._listened, created=created, **fields)
            self._sessions[session.id] = session
        return session

    def session(self, session_id: str) -> Session:
        """Return a session.

        Raises:
            Problem: 404, unknown.
        """
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None:
            raise Problem(
                404,
                f"session_id {session_id!r:.100} is unknown to this server; sessions end when the server stops, "
                "so create a new ServiceClient",
            )
        return session

    def silent_s(self, session: Session) -> float:
        """Return for how many seconds a session was not heard of while the server listened."""
        with self._lock:
            return 0.0 if session.polls else self._listened - session.heard_at

    @contextlib.contextmanager
    def polled(self, session_id: str | None) -> Iterator[None]:
        """Count a session as heard of for as long as a request for a result is held open; None if it has none."""
        with self._lock:
            session = self._sessions.get(session_id or "")
            if session is not None:
                session.polls += 1
        try:
            yield
        finally:
            if session is not None:
                with self._lock:
                    session.polls -= 1
                    session.heard_at = self._listened

    def working_session(self, session_id: str) -> Session:
        """Return a session that may do work, and note that it was heard of.

        Raises:
            Problem: 404 unknown, 410 finished.
        """
        session = self.session(session_id)
        with self._lock:
            session.heard_at = self._listened
        if session.finished:
            raise Problem(
                410, f"session {session_id} was finished ({session.finished}) and takes no more work; create a new one"
            )
        return session

    def sessions(self) -> list[Session]:
        """Return all sessions, the newest first."""
        with self._lock:
            return list(self._sessions.values())[::-1]

    def add_model(self, session: Session, model: Model) -> None:
        """Keep a new model."""
        with self._lock:
            self._models[model.id] = model
            session.models.append(model.id)

    def find_model(self, model_id: str) -> Model | None:
        """Return a model, or None."""
        with self._lock:
            return self._models.get(model_id)

    def model(self, model_id: str) -> Model:
        """Return a model.

        Raises:
            Problem: 404, unknown.
        """
        model = self.find_model(model_id)
        if model is None:
            raise Problem(
                404,
                f"model_id {model_id!r:.100} is unknown to this server; models end when the server stops, "
                "so create one, from a checkpoint if you have saved one",
            )
        return model

    def models(self) -> list[Model]:
        """Return all models, the newest first."""
        with self._lock:
            return list(self._models.values())[::-1]

    def add_sampler(self, sampler: Sampler) -> None:
        """Keep a new sampler."""
        with self._lock:
            self._samplers[sampler.id] = sampler
            session = self._sessions.get(sampler.session_id or "")
            if session is not None:
                session.samplers.append(sampler.id)

    def find_sampler(self, sampler_id: str) -> Sampler | None:
        """Return a sampler, or None."""
        with self._lock:
            return self._samplers.get(sampler_id)

    def sampler(self, sampler_id: str) -> Sampler:
        """Return a sampler.

        Raises:
            Problem: 404, unknown.
        """
        sampler = self.find_sampler(sampler_id)
        if sampler is None:
            raise Problem(
                404,
                f"sampler {sampler_id!r:.100} is unknown to this server; samplers end when the server stops, "
                "so create one from a checkpoint or a base model",
            )
        return sampler

    def remember_key(self, operation: str, key: str | None, identity: str) -> None:
        """Note what a request with an idempotency key made."""
        if key is None:
            return
        with self._lock:
            self._by_key[operation, key] = identity
            if len(self._by_key) > _REMEMBERED_KEYS:
                self._by_key.popitem(last=False)

    def made_by_key(self, operation: str, key: str | None) -> str | None:
        """Return what an earlier request with the same idempotency key made, or None."""
        with self._lock:
            return self._by_key.get((operation, key)) if key is not None else None

    def count_telemetry(self, events: int) -> int:
        """Add to the number of telemetry events and return it; nothing else of them is kept."""
        with self._lock:
            self._telemetry_events += events
            return self._telemetry_events
