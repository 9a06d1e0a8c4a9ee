"""Looking up and managing what exists: sessions, runs, samplers, checkpoints and their archives."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from tinkex.errors import InvalidInputError
from tinkex.local.archive import DownloadLinks, archive_of, content_of, file_of
from tinkex.local.checkpoints import KINDS, SavedCheckpoint
from tinkex.local.problems import Problem
from tinkex.local.service import Service
from tinkex.local.store import Model, Session
from tinkex.types import (
    AccessibleSearchOwner,
    CheckpointsListResponse,
    ClientFinishedSessionStatusQuery,
    ClientSessionFinished,
    ClientSessionFinishErrored,
    ClientSessionFinishInterrupted,
    ClientSessionFinishReason,
    ClientSessionFinishSuccess,
    CopyWeightsRequest,
    CopyWeightsResponse,
    Cursor,
    GetSamplerResponse,
    GetSessionResponse,
    ListSessionsResponse,
    OwnSearchOwner,
    ParsedCheckpointTinkerPath,
    SessionActive,
    SessionSearchCursor,
    SessionSearchRequest,
    SessionSearchResponse,
    SessionStatus,
    SessionStatusQuery,
    SessionSummary,
    TrainingRun,
    TrainingRunsResponse,
    Unrecognized,
    WeightsInfoRequest,
    WeightsInfoResponse,
)
from tinkex.wire import json

__all__ = ["Catalog"]

T = TypeVar("T")

_OWNER = "local"
_NO_PROJECT = "local"
_ENDS: dict[str, ClientSessionFinishReason] = {
    "success": ClientSessionFinishSuccess(),
    "errored": ClientSessionFinishErrored(),
    "interrupted": ClientSessionFinishInterrupted(),
}
_SHORTEST_TTL_S = 3600
_LONGEST_TTL_S = 10 * 366 * 24 * 3600


class Catalog:
    """The endpoints that list and manage. Used from the HTTP thread only."""

    def __init__(self, service: Service) -> None:
        """Look at what a service holds."""
        self._service = service
        self._store = service.store
        self._saved = service.checkpoints
        self.links = DownloadLinks(service.limits.archive_s, service.now)
        self._expiry = service.checkpoints.expiry

    def sessions(self, limit: int, offset: int) -> ListSessionsResponse:
        """Answer ``GET sessions``, the newest first."""
        sessions, _ = _page(self._store.sessions(), limit, offset)
        return ListSessionsResponse(sessions=[session.id for session in sessions])

    def session(self, session_id: str) -> GetSessionResponse:
        """Answer ``GET sessions/{id}``."""
        session = self._store.session(session_id)
        return GetSessionResponse(
            training_run_ids=list(session.models),
            sampler_ids=list(session.samplers),
            user_metadata=session.user_metadata,
            display_name=session.display_name,
        )

    def search(self, request: SessionSearchRequest) -> SessionSearchResponse:
        """Answer ``POST sessions/search``: sessions of this server, the newest first."""
        found = [self._summary(session) for session in self._store.sessions() if _fits(session, request)]
        found.sort(key=_age, reverse=True)
        if request.cursor is not None:
            last = (request.cursor.last_created_at, request.cursor.last_session_id)
            found = [summary for summary in found if _age(summary) < last]
        page = found[: request.limit]
        more = len(found) > len(page)
        return SessionSearchResponse(sessions=page, next_cursor=_cursor_after(page[-1]) if more else None)

    def assign_project(self, session_id: str, project_id: Any) -> None:
        """Answer ``PUT sessions/{id}/project``; any name will do, for there are no projects here."""
        if not isinstance(project_id, str) or not project_id:
            raise Problem(400, f"project_id must be a non-empty text, got {project_id!r:.60}")
        self._store.session(session_id).project_id = project_id

    def trace(self, session_id: str) -> str:
        """Return a one-off name for the trace of a session."""
        self._store.session(session_id)
        content = self._service.traces.export(session_id)
        return self.links.make(content_of(f"{session_id}.json", "application/json", content))[0]

    def sampler(self, sampler_id: str) -> GetSamplerResponse:
        """Answer ``GET samplers/{id}``."""
        sampler = self._store.sampler(sampler_id)
        return GetSamplerResponse(sampler_id=sampler.id, base_model=sampler.base_model, model_path=sampler.model_path)

    def runs(self, limit: int, offset: int, project_id: str | None = None) -> TrainingRunsResponse:
        """Answer ``GET training_runs``: live runs and those that left checkpoints, the last used first."""
        saved: dict[str, list[SavedCheckpoint]] = {}
        for record in self._saved.all():
            saved.setdefault(record.training_run_id, []).append(record)
        live = {model.id: model for model in self._store.models()}
        wanted = [run for run in {**live, **saved} if project_id in (None, self._project_of(live.get(run)))]
        runs = [_describe_run(run, live.get(run), saved.get(run, [])) for run in wanted]
        runs.sort(key=lambda run: (run.last_request_time, run.training_run_id), reverse=True)
        page, cursor = _page(runs, limit, offset)
        return TrainingRunsResponse(training_runs=page, cursor=cursor)

    def run(self, run: str) -> TrainingRun:
        """Answer ``GET training_runs/{run}``."""
        live, saved = self._find_run(run)
        return _describe_run(run, live, saved)

    def run_checkpoints(self, run: str, *, external: bool) -> CheckpointsListResponse:
        """Answer ``GET training_runs/{run}/checkpoints``; old clients know no ``external`` ones and would fail."""
        _, saved = self._find_run(run)
        shown = [record for record in saved if external or KINDS[record.kind] != "external"]
        return CheckpointsListResponse(checkpoints=[record.listed() for record in shown])

    def checkpoints(self, limit: int, offset: int, *, external: bool) -> CheckpointsListResponse:
        """Answer ``GET checkpoints``, the newest first; ``external`` as above."""
        saved = [record for record in self._saved.all() if external or KINDS[record.kind] != "external"]
        page, cursor = _page(saved, limit, offset)
        return CheckpointsListResponse(checkpoints=[record.listed() for record in page], cursor=cursor)

    def weights_info(self, request: WeightsInfoRequest) -> WeightsInfoResponse:
        """Answer ``POST weights_info``."""
        return self._checkpoint_at(request.tinker_path, "tinker_path").info

    def copy(self, request: CopyWeightsRequest, key: str | None) -> CopyWeightsResponse:
        """Answer ``POST copy_weights``: to a run of a session, or to one that belongs to none."""
        path = self._store.made_by_key("copy_weights", key)
        if path is None:
            source = self._checkpoint_at(request.source_path, "source_path")
            run = self._run_for_copy(source, request)
            try:
                path = self._saved.copy(source, run, request.ttl_seconds).tinker_path
            except FileNotFoundError:
                raise Problem(404, self._saved.not_found(request.source_path, "source_path")) from None
            self._store.remember_key("copy_weights", key, path)
        return CopyWeightsResponse(tinker_path=path)

    def delete(self, run: str, kind: str, name: str) -> None:
        """Answer ``DELETE training_runs/{run}/checkpoints/{kind}/{name}``."""
        self._saved.delete(self._checkpoint(run, kind, name))

    def publish(self, run: str, kind: str, name: str, public: bool) -> None:
        """Answer ``POST`` and ``DELETE .../publish``; nothing leaves this machine, it is a mark only."""
        record = self._checkpoint(run, kind, name)
        if record.public == public:
            state = "published" if public else "not published"
            raise Problem(409, f"checkpoint {record.tinker_path} is {state} already", {"x-should-retry": "false"})
        self._saved.change(record, public=public)

    def set_ttl(self, run: str, kind: str, name: str, ttl_seconds: Any) -> None:
        """Answer ``PUT .../ttl``; None removes the expiry."""
        record = self._checkpoint(run, kind, name)
        whole = isinstance(ttl_seconds, int) and not isinstance(ttl_seconds, bool)
        if ttl_seconds is not None and not (whole and _SHORTEST_TTL_S <= ttl_seconds <= _LONGEST_TTL_S):
            raise Problem(
                400,
                f"ttl_seconds must be null or a whole number from {_SHORTEST_TTL_S} to {_LONGEST_TTL_S}, "
                f"got {ttl_seconds!r:.40}",
            )
        self._saved.change(record, expires_at=self._expiry(ttl_seconds))

    def archive(self, run: str, kind: str, name: str) -> tuple[str, datetime]:
        """Return a one-off name for the archive of a checkpoint, and until when it works."""
        return self.links.make(archive_of(self._saved.files_of(self._checkpoint(run, kind, name))))

    def external_files(self, run: str, kind: str, name: str) -> dict[str, tuple[str, datetime]]:
        """Return a one-off name for each file of an external checkpoint, and until when it works."""
        if KINDS.get(kind) != "external":
            raise Problem(400, f"{kind}/{name} is not an external checkpoint; save_weights_external makes one")
        files = self._saved.files_of(self._checkpoint(run, kind, name))
        return {path.name: self.links.make(file_of(path)) for path in files}

    def _checkpoint_at(self, tinker_path: str, field: str) -> SavedCheckpoint:
        try:
            path = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path, field)
        except InvalidInputError as error:
            raise Problem(400, error.message) from error
        return self._checkpoint(path.training_run_id, *path.checkpoint_id.split("/", 1))

    def _run_for_copy(self, source: SavedCheckpoint, request: CopyWeightsRequest) -> str:
        if request.session_id is None:
            return f"{uuid.uuid4()}:train:0"
        session = self._store.working_session(request.session_id)
        run = f"{session.id}:train:{request.model_seq_id}"
        if self._store.find_model(run) is not None:
            raise Problem(400, f"model_seq_id {request.model_seq_id} of this session was already used; take the next")
        model = Model(
            id=run,
            session_id=session.id,
            base_model=source.info.base_model,
            last_request=self._service.now(),
            lora_rank=source.info.lora_rank,
            user_metadata=source.run_metadata,
            ended="holds a copy and cannot be trained",
        )
        self._store.add_model(session, model)
        return run

    def _project_of(self, model: Model | None) -> str | None:
        return None if model is None else self._store.session(model.session_id).project_id

    def _summary(self, session: Session) -> SessionSummary:
        saved = [record for run in session.models for record in self._saved.all(run)]
        return SessionSummary(
            session_id=session.id,
            created_at=session.created,
            owner=_OWNER,
            project_id=session.project_id or _NO_PROJECT,
            checkpoints_count=len(saved),
            status=_status(session),
            display_name=session.display_name,
            user_metadata=_as_texts(session.user_metadata),
            checkpoint_storage_bytes=sum(record.size_bytes for record in saved),
        )

    def _checkpoint(self, run: str, kind: str, name: str) -> SavedCheckpoint:
        if kind not in KINDS:
            raise Problem(
                400,
                f"checkpoint id {f'{kind}/{name}'!r:.200} must be <kind>/<name>, with a kind out of {', '.join(KINDS)}",
            )
        record = self._saved.find(run, kind, name)
        if record is None:
            raise Problem(404, self._saved.not_found(f"tinker://{run}/{kind}/{name}", "checkpoint"))
        return record

    def _find_run(self, run: str) -> tuple[Model | None, list[SavedCheckpoint]]:
        live = {model.id: model for model in self._store.models()}.get(run)
        saved = self._saved.all(run)
        if live is None and not saved:
            raise Problem(404, f"training run {run!r:.100} is unknown: it is not live here and has no checkpoints left")
        return live, saved


def _describe_run(run: str, live: Model | None, saved: Sequence[SavedCheckpoint]) -> TrainingRun:
    newest = saved[0] if saved else None
    listed = [record.listed() for record in saved]
    metadata = live.user_metadata if live else newest.run_metadata if newest else None
    return TrainingRun(
        training_run_id=run,
        base_model=live.base_model if live and live.base_model else newest.info.base_model if newest else "",
        model_owner=_OWNER,
        is_lora=True,
        last_request_time=live.last_request if live else newest.time if newest else datetime.min,
        lora_rank=live.lora_rank if live else newest.info.lora_rank if newest else None,
        last_checkpoint=next((item for item in listed if item.checkpoint_type == "training"), None),
        last_sampler_checkpoint=next((item for item in listed if item.checkpoint_type == "sampler"), None),
        user_metadata=_as_texts(metadata),
    )


def _age(summary: SessionSummary) -> tuple[datetime, str]:
    return summary.created_at, summary.session_id


def _cursor_after(summary: SessionSummary) -> SessionSearchCursor:
    return SessionSearchCursor(last_created_at=summary.created_at, last_session_id=summary.session_id)


def _status(session: Session) -> SessionStatus:
    if session.finished is None:
        return SessionActive()
    reason = _ENDS.get(session.finished, Unrecognized(type=session.finished))
    return ClientSessionFinished(reason=reason, detail=session.detail)


def _fits(session: Session, request: SessionSearchRequest) -> bool:
    """Tell whether a session is looked for; the rules are those of :class:`SessionSearchRequest`."""
    words = (request.display_name or "").lower().split()
    name = (session.display_name or "").lower()
    named = [session.id == request.session_id] if request.session_id else []
    named += [all(word in name for word in words)] if words else []
    metadata = _as_texts(session.user_metadata) or {}
    projects, owner = request.project_ids, request.owner
    return (
        (any(named) or not named)
        and (projects is None or (session.project_id or _NO_PROJECT) in projects)
        and all(metadata.get(key) == value for key, value in request.user_metadata.items())
        and (isinstance(owner, (OwnSearchOwner, AccessibleSearchOwner)) or _OWNER in owner.owner_urns)
        and (request.statuses is None or any(_is_in(session, query) for query in request.statuses))
    )


def _is_in(session: Session, query: SessionStatusQuery) -> bool:
    if not isinstance(query, ClientFinishedSessionStatusQuery):
        return query.type == "active" and session.finished is None
    return session.finished is not None and (query.reasons is None or session.finished in query.reasons)


def _as_texts(metadata: dict[str, Any] | None) -> dict[str, str] | None:
    return None if metadata is None else {name: _as_text(value) for name, value in metadata.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.encode(value).decode()


def _page(items: Sequence[T], limit: int, offset: int) -> tuple[list[T], Cursor]:
    page = list(items[offset : offset + limit])
    return page, Cursor(offset=offset, limit=limit, total_count=len(items))
