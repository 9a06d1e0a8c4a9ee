"""RestClient: looking things up and tidying them, beside any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tinkex.clients.ready import ReadyClient
from tinkex.clients.twins import async_twins
from tinkex.pipeline import APIFuture
from tinkex.types import (
    CheckpointArchiveUrlResponse,
    CheckpointsListResponse,
    GetSamplerResponse,
    GetSessionResponse,
    ListSessionsResponse,
    ParsedCheckpointTinkerPath,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoRequest,
    WeightsInfoResponse,
)

if TYPE_CHECKING:
    from tinkex.clients.session import Session

__all__ = ["RestClient"]

T = TypeVar("T")


@async_twins(
    values=(
        "get_training_run",
        "get_training_run_by_tinker_path",
        "get_weights_info_by_tinker_path",
        "list_training_runs",
        "list_checkpoints",
        "list_user_checkpoints",
        "get_checkpoint_archive_url",
        "get_checkpoint_archive_url_from_tinker_path",
        "delete_checkpoint",
        "delete_checkpoint_from_tinker_path",
        "publish_checkpoint_from_tinker_path",
        "unpublish_checkpoint_from_tinker_path",
        "set_checkpoint_ttl_from_tinker_path",
        "get_session",
        "list_sessions",
        "get_sampler",
    )
)
class RestClient(ReadyClient):
    """Runs, checkpoints, sessions and samplers of the account. Make one with ``ServiceClient.create_rest_client``.

    Every call returns an :class:`~tinkex.APIFuture` at once; a few of them are sent at a time. None of them needs a
    session on the server, and none of them is ordered.
    """

    def __init__(self, session: Session) -> None:
        """Use the connection of a session."""
        self._session = session

    def get_training_run(self, training_run_id: str) -> APIFuture[TrainingRun]:
        """Return what the server knows of a training run."""
        models = self._session.api.models
        return self._call("get_training_run", lambda: models.get_training_run(training_run_id))

    def get_training_run_by_tinker_path(self, tinker_path: str) -> APIFuture[TrainingRun]:
        """Return the training run that a checkpoint belongs to.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        return self.get_training_run(ParsedCheckpointTinkerPath.from_tinker_path(tinker_path).training_run_id)

    def get_weights_info_by_tinker_path(self, tinker_path: str) -> APIFuture[WeightsInfoResponse]:
        """Return base model and LoRA settings of a checkpoint.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        weights, request = self._session.api.weights, WeightsInfoRequest(tinker_path=tinker_path)
        return self._call("get_weights_info", lambda: weights.weights_info(request))

    def list_training_runs(self, limit: int = 20, offset: int = 0) -> APIFuture[TrainingRunsResponse]:
        """Return a page of the account's training runs, newest first."""
        models = self._session.api.models
        return self._call("list_training_runs", lambda: models.list_training_runs(limit=limit, offset=offset))

    def list_checkpoints(self, training_run_id: str) -> APIFuture[CheckpointsListResponse]:
        """Return all checkpoints of a training run."""
        weights = self._session.api.weights
        return self._call("list_checkpoints", lambda: weights.list(training_run_id))

    def list_user_checkpoints(self, limit: int = 100, offset: int = 0) -> APIFuture[CheckpointsListResponse]:
        """Return a page of all checkpoints of the account, newest first."""
        weights = self._session.api.weights
        return self._call("list_user_checkpoints", lambda: weights.list_user_checkpoints(limit=limit, offset=offset))

    def get_checkpoint_archive_url(
        self, training_run_id: str, checkpoint_id: str
    ) -> APIFuture[CheckpointArchiveUrlResponse]:
        """Return where to download a checkpoint as a tar.gz.

        Args:
            training_run_id: The model.
            checkpoint_id: ``<kind>/<name>``, as listings give it.
        """
        weights = self._session.api.weights
        return self._call(
            "get_checkpoint_archive_url", lambda: weights.get_checkpoint_archive_url(training_run_id, checkpoint_id)
        )

    def get_checkpoint_archive_url_from_tinker_path(self, tinker_path: str) -> APIFuture[CheckpointArchiveUrlResponse]:
        """Return where to download a checkpoint as a tar.gz.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self.get_checkpoint_archive_url(parsed.training_run_id, parsed.checkpoint_id)

    def delete_checkpoint(self, training_run_id: str, checkpoint_id: str) -> APIFuture[None]:
        """Delete a checkpoint for good."""
        weights = self._session.api.weights
        return self._call("delete_checkpoint", lambda: weights.delete_checkpoint(training_run_id, checkpoint_id))

    def delete_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Delete a checkpoint for good.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return self.delete_checkpoint(parsed.training_run_id, parsed.checkpoint_id)

    def publish_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Let everybody load a checkpoint.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        weights = self._session.api.weights
        return self._call("publish", lambda: weights.publish(parsed.training_run_id, parsed.checkpoint_id))

    def unpublish_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Keep a published checkpoint to yourself again.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        weights = self._session.api.weights
        return self._call("unpublish", lambda: weights.unpublish(parsed.training_run_id, parsed.checkpoint_id))

    def set_checkpoint_ttl_from_tinker_path(self, tinker_path: str, ttl_seconds: int | None) -> APIFuture[None]:
        """Let a checkpoint expire.

        Args:
            tinker_path: The checkpoint.
            ttl_seconds: Seconds from now, 3600 to ten years; None keeps it for ever.

        Raises:
            InvalidInputError: The path is not that of a checkpoint.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        weights = self._session.api.weights
        return self._call("set_ttl", lambda: weights.set_ttl(parsed.training_run_id, parsed.checkpoint_id, ttl_seconds))

    def get_session(self, session_id: str) -> APIFuture[GetSessionResponse]:
        """Return the training runs and samplers of a session."""
        service = self._session.api.service
        return self._call("get_session", lambda: service.get_session(session_id))

    def list_sessions(self, limit: int = 20, offset: int = 0) -> APIFuture[ListSessionsResponse]:
        """Return a page of the account's sessions, by id."""
        service = self._session.api.service
        return self._call("list_sessions", lambda: service.list_sessions(limit=limit, offset=offset))

    def get_sampler(self, sampler_id: str) -> APIFuture[GetSamplerResponse]:
        """Return what a sampler samples from."""
        service = self._session.api.service
        return self._call("get_sampler", lambda: service.get_sampler(sampler_id))

    def __repr__(self) -> str:
        """Show where it asks."""
        return f"RestClient({self._session.config.base_url})"

    def _call(self, operation: str, call: Callable[[], T]) -> APIFuture[T]:
        return self._session.calls.submit(operation, call)
