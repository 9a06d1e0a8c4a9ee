"""Looking up and managing what exists: sessions, runs, samplers, checkpoints and their archives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tinkex.errors import InvalidInputError
from tinkex.local.archive import ArchiveLinks
from tinkex.local.checkpoints import KINDS, SavedCheckpoint
from tinkex.local.problems import Problem
from tinkex.local.service import Service
from tinkex.local.store import Model
from tinkex.types import (
    CheckpointsListResponse,
    Cursor,
    GetSamplerResponse,
    GetSessionResponse,
    ListSessionsResponse,
    ParsedCheckpointTinkerPath,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoRequest,
    WeightsInfoResponse,
)
from tinkex.wire import json

__all__ = ["Catalog"]

T = TypeVar("T")

_OWNER = "local"
_SHORTEST_TTL_S = 3600
_LONGEST_TTL_S = 10 * 366 * 24 * 3600


class Catalog:
    """The endpoints that list and manage. Used from the HTTP thread only."""

    def __init__(self, service: Service) -> None:
        """Look at what a service holds."""
        self._store = service.store
        self._saved = service.checkpoints
        self.links = ArchiveLinks(service.limits.archive_s, service.now)
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

    def sampler(self, sampler_id: str) -> GetSamplerResponse:
        """Answer ``GET samplers/{id}``."""
        sampler = self._store.sampler(sampler_id)
        return GetSamplerResponse(sampler_id=sampler.id, base_model=sampler.base_model, model_path=sampler.model_path)

    def runs(self, limit: int, offset: int) -> TrainingRunsResponse:
        """Answer ``GET training_runs``: live runs and those that left checkpoints, the last used first."""
        saved: dict[str, list[SavedCheckpoint]] = {}
        for record in self._saved.all():
            saved.setdefault(record.training_run_id, []).append(record)
        live = {model.id: model for model in self._store.models()}
        runs = [_describe_run(run, live.get(run), saved.get(run, [])) for run in {**live, **saved}]
        runs.sort(key=lambda run: (run.last_request_time, run.training_run_id), reverse=True)
        page, cursor = _page(runs, limit, offset)
        return TrainingRunsResponse(training_runs=page, cursor=cursor)

    def run(self, run: str) -> TrainingRun:
        """Answer ``GET training_runs/{run}``."""
        live, saved = self._find_run(run)
        return _describe_run(run, live, saved)

    def run_checkpoints(self, run: str) -> CheckpointsListResponse:
        """Answer ``GET training_runs/{run}/checkpoints``."""
        _, saved = self._find_run(run)
        return CheckpointsListResponse(checkpoints=[record.listed() for record in saved])

    def checkpoints(self, limit: int, offset: int) -> CheckpointsListResponse:
        """Answer ``GET checkpoints``, the newest first."""
        page, cursor = _page(self._saved.all(), limit, offset)
        return CheckpointsListResponse(checkpoints=[record.listed() for record in page], cursor=cursor)

    def weights_info(self, request: WeightsInfoRequest) -> WeightsInfoResponse:
        """Answer ``POST weights_info``."""
        try:
            path = ParsedCheckpointTinkerPath.from_tinker_path(request.tinker_path, "tinker_path")
        except InvalidInputError as error:
            raise Problem(400, error.message) from error
        return self._checkpoint(path.training_run_id, *path.checkpoint_id.split("/", 1)).info

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
        return self.links.make(self._saved.files_of(self._checkpoint(run, kind, name)))

    def archive_files(self, token: str) -> Sequence[Path]:
        """Return what an archive holds."""
        files = self.links.files(token)
        if not all(path.is_file() for path in files):
            raise Problem(404, "the checkpoint behind this download link was deleted")
        return files

    def _checkpoint(self, run: str, kind: str, name: str) -> SavedCheckpoint:
        if kind not in KINDS:
            raise Problem(
                400,
                f"checkpoint id {f'{kind}/{name}'!r:.200} must be weights/<name> or sampler_weights/<name>",
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
        user_metadata=None if metadata is None else {name: _as_text(value) for name, value in metadata.items()},
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.encode(value).decode()


def _page(items: Sequence[T], limit: int, offset: int) -> tuple[list[T], Cursor]:
    page = list(items[offset : offset + limit])
    return page, Cursor(offset=offset, limit=limit, total_count=len(items))
