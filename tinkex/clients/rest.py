"""RestClient: looking things up and tidying them, beside any training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from tinkex._scalars import whole_argument
from tinkex.clients.admin import AdminClient
from tinkex.clients.paths import archive_url, locate
from tinkex.clients.twins import async_twins
from tinkex.errors import ClientClosedError, ConfigurationError, InvalidInputError, RequestFailedError
from tinkex.http import read_claims
from tinkex.pipeline import APIFuture
from tinkex.types import (
    Checkpoint,
    CheckpointArchiveUrlResponse,
    CheckpointsListResponse,
    CheckpointType,
    CopyWeightsRequest,
    Cursor,
    ExternalWeightsUrlsResponse,
    GetSamplerResponse,
    GetServerCapabilitiesResponse,
    GetSessionResponse,
    ListSessionsResponse,
    SessionSearchRequest,
    SessionSearchResponse,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoRequest,
    WeightsInfoResponse,
    WhoamiResponse,
)
from tinkex.types.weights import check_path, require_run

if TYPE_CHECKING:
    from tinkex.clients.download import Progress

__all__ = ["RestClient"]

logger = logging.getLogger("tinkex")

T = TypeVar("T")
AccessScope = Literal["owned", "accessible"]
"""Things of your own, or everything that you may see."""

_TRACE_POLL_S = 5.0


@async_twins(
    threads=("download_checkpoint",),
    values=(
        "get_server_capabilities",
        "get_training_run",
        "get_training_run_by_tinker_path",
        "get_weights_info_by_tinker_path",
        "list_training_runs",
        "list_checkpoints",
        "list_user_checkpoints",
        "get_checkpoint_archive_url",
        "get_checkpoint_archive_url_from_tinker_path",
        "get_external_weights_urls",
        "copy_weights",
        "delete_checkpoint",
        "delete_checkpoint_from_tinker_path",
        "publish_checkpoint_from_tinker_path",
        "unpublish_checkpoint_from_tinker_path",
        "set_checkpoint_ttl_from_tinker_path",
        "get_session",
        "list_sessions",
        "search_sessions",
        "assign_session_project",
        "export_session_trace",
        "get_sampler",
        "whoami",
    ),
)
class RestClient(AdminClient):
    """Runs, checkpoints, sessions and samplers of the account.

    Make one directly, ``RestClient()``, or with ``ServiceClient.create_rest_client``. Every call returns an
    :class:`~tinkex.APIFuture` at once; a few of them are sent at a time. None of them needs a session on the server,
    and none of them is ordered. What :class:`~tinkex.AdminClient` has is here too, as in SDKs before 0.38.
    """

    # --- Runs -------------------------------------------------------------------------------------------------------

    def get_server_capabilities(self) -> APIFuture[GetServerCapabilitiesResponse]:
        """Return which base models the server offers."""
        return self._call("get_server_capabilities", self._session.api.service.get_server_capabilities)

    def get_training_run(self, training_run_id: str, access_scope: AccessScope = "owned") -> APIFuture[TrainingRun]:
        """Return what the server knows of a training run."""
        models = self._session.api.models
        return self._call(
            "get_training_run",
            lambda: models.get_training_run(training_run_id, access_scope=access_scope),
            training_run_id=training_run_id,
        )

    def get_training_run_by_tinker_path(
        self, tinker_path: str, access_scope: AccessScope = "owned"
    ) -> APIFuture[TrainingRun]:
        """Return the training run that a checkpoint belongs to.

        Raises:
            InvalidInputError: The path names no run.
        """
        return self.get_training_run(require_run(tinker_path), access_scope)

    def list_training_runs(
        self,
        limit: int = 20,
        offset: int = 0,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
    ) -> APIFuture[TrainingRunsResponse]:
        """Return a page of the account's training runs, the last used first; :meth:`iter_training_runs` has all.

        Args:
            limit: How many at most.
            offset: How many to skip.
            access_scope: ``accessible`` for everything that you may see.
            project_id: Only those of a project.
        """
        models, limit, offset = self._session.api.models, *_page(limit, offset)
        return self._call(
            "list_training_runs",
            lambda: models.list_training_runs(
                limit=limit, offset=offset, access_scope=access_scope, project_id=project_id
            ),
        )

    def iter_training_runs(
        self, access_scope: AccessScope = "owned", project_id: str | None = None, page_size: int = 100
    ) -> Iterator[TrainingRun]:
        """Go through all training runs, fetching page after page as they are needed; blocks for each page."""

        def page(offset: int) -> tuple[list[TrainingRun], Cursor | None]:
            answer = self.list_training_runs(page_size, offset, access_scope, project_id).result()
            return answer.training_runs, answer.cursor

        return _all_pages(page)

    # --- Checkpoints ------------------------------------------------------------------------------------------------

    def get_weights_info_by_tinker_path(self, tinker_path: str) -> APIFuture[WeightsInfoResponse]:
        """Return base model and LoRA settings of a checkpoint.

        Raises:
            InvalidInputError: The path is no text, or an empty one.
        """
        request = WeightsInfoRequest(tinker_path=check_path(tinker_path, field="tinker_path"))
        weights = self._session.api.weights
        return self._call("get_weights_info", lambda: weights.weights_info(request))

    def list_checkpoints(self, training_run_id: str) -> APIFuture[CheckpointsListResponse]:
        """Return all checkpoints of a training run."""
        weights = self._session.api.weights
        return self._call("list_checkpoints", lambda: weights.list(training_run_id), training_run_id=training_run_id)

    def list_user_checkpoints(self, limit: int = 100, offset: int = 0) -> APIFuture[CheckpointsListResponse]:
        """Return a page of all checkpoints of the account, newest first; :meth:`iter_checkpoints` has all."""
        weights, limit, offset = self._session.api.weights, *_page(limit, offset)
        return self._call("list_user_checkpoints", lambda: weights.list_user_checkpoints(limit=limit, offset=offset))

    def iter_checkpoints(self, page_size: int = 100) -> Iterator[Checkpoint]:
        """Go through all checkpoints, fetching page after page as they are needed; blocks for each page.

        A checkpoint that is deleted on the way moves the later ones forward, so make a list first to delete from it.
        """

        def page(offset: int) -> tuple[list[Checkpoint], Cursor | None]:
            answer = self.list_user_checkpoints(page_size, offset).result()
            return answer.checkpoints, answer.cursor

        return _all_pages(page)

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
            "get_checkpoint_archive_url",
            lambda: weights.get_checkpoint_archive_url(training_run_id, checkpoint_id),
            training_run_id=training_run_id,
            checkpoint_id=checkpoint_id,
        )

    def get_checkpoint_archive_url_from_tinker_path(self, tinker_path: str) -> APIFuture[CheckpointArchiveUrlResponse]:
        """Return where to download a checkpoint as a tar.gz.

        Raises:
            InvalidInputError: The path names no run. The future fails with it if the path has a form of the server's
                own and the listing of its run does not have it.
        """
        require_run(tinker_path)
        api = self._session.api
        return self._call("get_checkpoint_archive_url", lambda: archive_url(api, locate(api, tinker_path)))

    def download_checkpoint(
        self,
        tinker_path: str,
        folder: str | Path,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch a checkpoint to this machine and wait for it: a folder that ``peft`` loads.

        A download that broke off, also by the end of the program, goes on where it stopped if it is called again. Sizes
        are checked, and digests where the server sends them. Archives are unpacked; a name that leads out of the
        folder, a link or a device in one is refused.

        Args:
            tinker_path: The checkpoint, of any kind.
            folder: Where its files go; it appears when they are complete.
            overwrite: Replace the folder if it has files already.
            progress: Called with the bytes that are there, and those of the whole or None if the server does not say.

        Returns:
            The folder, as an absolute path.

        Raises:
            InvalidInputError: The path is not that of a checkpoint, nor is one in the listing of its run, or the folder
                is not empty.
            NotFoundError: There is no such checkpoint.
            APIConnectionError: The connection broke too often; call again to go on.
            APIResponseValidationError: What came is not what the server announced, or not safe to unpack.
        """
        from tinkex.clients.download import download_checkpoint

        self._session.settings.get()
        return download_checkpoint(self._session.api, tinker_path, Path(folder), overwrite=overwrite, progress=progress)

    def get_external_weights_urls(self, tinker_path: str) -> APIFuture[ExternalWeightsUrlsResponse]:
        """Return where to download each file of a checkpoint of ``TrainingClient.save_weights_external``.

        Raises:
            InvalidInputError: The path names no run, or a checkpoint of another kind. The future fails with it if the
                path has a form of the server's own and the listing of its run does not have it.
        """
        urls = self._session.api.weights.get_external_weights_urls
        return self._call_on("get_external_weights_urls", tinker_path, urls, "external")

    def copy_weights(
        self,
        path: str,
        destination_project_id: str | None = None,
        *,
        ttl_seconds: int | None = None,
        weights_access_token: str | None = None,
    ) -> APIFuture[str]:
        """Copy a checkpoint into a project; the copy belongs to a run of its own, which cannot be trained.

        Args:
            path: The checkpoint, of any kind.
            destination_project_id: The project; that of the settings (``TINKER_PROJECT_ID``) unless given.
            ttl_seconds: Delete the copy after this long, 3600 seconds to ten years; None keeps it.
            weights_access_token: Key of the account that owns the checkpoint, if it is another's.

        Returns:
            A future of the path of the copy.

        Raises:
            InvalidInputError: The path is no text, or there is no project.
        """
        project = destination_project_id or self._session.config.project_id
        if project is None:
            raise InvalidInputError(
                "copy_weights needs destination_project_id, or TINKER_PROJECT_ID; ServiceClient.copy_weights copies "
                "without a project",
                field="destination_project_id",
            )
        return self._copy(
            CopyWeightsRequest(
                source_path=check_path(path),
                destination_project_id=project,
                ttl_seconds=ttl_seconds,
                weights_access_token=weights_access_token,
            )
        )

    def delete_checkpoint(self, training_run_id: str, checkpoint_id: str) -> APIFuture[None]:
        """Delete a checkpoint for good."""
        weights = self._session.api.weights
        return self._call(
            "delete_checkpoint",
            lambda: weights.delete_checkpoint(training_run_id, checkpoint_id),
            training_run_id=training_run_id,
            checkpoint_id=checkpoint_id,
        )

    def delete_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Delete a checkpoint for good.

        Raises:
            InvalidInputError: The path names no run. The future fails with it if the path has a form of the server's
                own and the listing of its run does not have it.
        """
        return self._call_on("delete_checkpoint", tinker_path, self._session.api.weights.delete_checkpoint)

    def publish_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Let everybody load a checkpoint.

        Raises:
            InvalidInputError: The path names no run. The future fails with it if the path has a form of the server's
                own and the listing of its run does not have it.
        """
        return self._call_on("publish", tinker_path, self._session.api.weights.publish)

    def unpublish_checkpoint_from_tinker_path(self, tinker_path: str) -> APIFuture[None]:
        """Keep a published checkpoint to yourself again.

        Raises:
            InvalidInputError: The path names no run. The future fails with it if the path has a form of the server's
                own and the listing of its run does not have it.
        """
        return self._call_on("unpublish", tinker_path, self._session.api.weights.unpublish)

    def set_checkpoint_ttl_from_tinker_path(self, tinker_path: str, ttl_seconds: int | None) -> APIFuture[None]:
        """Let a checkpoint expire.

        Args:
            tinker_path: The checkpoint.
            ttl_seconds: Seconds from now, 3600 to ten years; None keeps it for ever.

        Raises:
            InvalidInputError: The path names no run. The future fails with it if the path has a form of the server's
                own and the listing of its run does not have it.
        """
        ttl_seconds = None if ttl_seconds is None else whole_argument(ttl_seconds, "ttl_seconds", 1)
        weights = self._session.api.weights
        return self._call_on("set_ttl", tinker_path, lambda run, name: weights.set_ttl(run, name, ttl_seconds))

    # --- Sessions and samplers --------------------------------------------------------------------------------------

    def get_session(self, session_id: str, access_scope: AccessScope = "owned") -> APIFuture[GetSessionResponse]:
        """Return the training runs and samplers of a session."""
        service = self._session.api.service
        return self._call(
            "get_session",
            lambda: service.get_session(session_id, access_scope=access_scope),
            session_id=session_id,
        )

    def list_sessions(
        self, limit: int = 20, offset: int = 0, access_scope: AccessScope = "owned"
    ) -> APIFuture[ListSessionsResponse]:
        """Return a page of the account's sessions, by id."""
        service, limit, offset = self._session.api.service, *_page(limit, offset)
        return self._call(
            "list_sessions", lambda: service.list_sessions(limit=limit, offset=offset, access_scope=access_scope)
        )

    def search_sessions(self, request: SessionSearchRequest | None = None) -> APIFuture[SessionSearchResponse]:
        """Find sessions, the newest first.

        Args:
            request: Which ones; your own unless given. For the next page, set its ``cursor`` to the ``next_cursor`` of
                this one (``attrs.evolve``).
        """
        wanted, service = request or SessionSearchRequest(), self._session.api.service
        return self._call("search_sessions", lambda: service.search_sessions(wanted))

    def assign_session_project(self, session_id: str, project_id: str) -> APIFuture[None]:
        """Move a session, with all that belongs to it, into a project."""
        service = self._session.api.service
        return self._call(
            "assign_session_project",
            lambda: service.assign_session_project(session_id, project_id),
            session_id=session_id,
            project_id=project_id,
        )

    def export_session_trace(self, session_id: str) -> APIFuture[str]:
        """Return where to download what a session did over time, as a trace for https://ui.perfetto.dev.

        The server builds it first, which the future waits for. The address works for a limited time and needs no key.
        """
        return self._call("export_session_trace", lambda: self._wait_for_trace(session_id), session_id=session_id)

    def get_sampler(self, sampler_id: str) -> APIFuture[GetSamplerResponse]:
        """Return what a sampler samples from."""
        service = self._session.api.service
        return self._call("get_sampler", lambda: service.get_sampler(sampler_id), sampler_id=sampler_id)

    def whoami(self) -> APIFuture[WhoamiResponse]:
        """Return who is calling, as the token says that is sent with every request; nothing else is asked.

        The future fails with ConfigurationError if the server takes plain keys, which say nothing.
        """
        return self._call("whoami", self._read_identity)

    # ----------------------------------------------------------------------------------------------------------------

    def _call_on(
        self,
        operation: str,
        tinker_path: str,
        call: Callable[[str, str], T],
        wanted: CheckpointType | None = None,
    ) -> APIFuture[T]:
        """Call with run and id of the checkpoint that a path names, which the server is asked for if need be."""
        require_run(tinker_path, wanted)

        def work() -> T:
            parts = locate(self._session.api, tinker_path, wanted)
            return call(parts.training_run_id, parts.checkpoint_id)

        return self._call(operation, work)

    def _copy(self, request: CopyWeightsRequest) -> APIFuture[str]:
        weights = self._session.api.weights
        return self._call("copy_weights", lambda: weights.copy(request).tinker_path)

    def _wait_for_trace(self, session_id: str) -> str:
        api = self._session.api
        answer = api.service.export_session_trace(session_id)
        if answer.status == "pending":
            logger.info("the server builds the trace of session %s", session_id)
        while answer.status == "pending":
            if api.stop.wait(_TRACE_POLL_S):
                raise ClientClosedError("export_session_trace was given up: the client is closed")
            answer = api.service.export_session_trace(session_id)
        if answer.status == "failed" or answer.url is None:
            raise RequestFailedError(f"the trace of session {session_id} failed: {answer.error}", category="server")
        return answer.url

    def _read_identity(self) -> WhoamiResponse:
        token = self._session.api.credentials.identity()
        claims = read_claims(token) if token else {}
        if not {"sub", "org_id"} <= set(claims):
            raise ConfigurationError(
                "whoami reads the token that a server hands out for your credential, and this one takes the key itself"
            )
        return WhoamiResponse(
            user_urn=str(claims["sub"]),
            org_urn=f"tml:organization:{claims['org_id']}",
            email=claims.get("email") or None,
        )


def _page(limit: int, offset: int) -> tuple[int, int]:
    return whole_argument(limit, "limit", 1), whole_argument(offset, "offset", 0)


def _all_pages(fetch: Callable[[int], tuple[list[T], Cursor | None]]) -> Iterator[T]:
    """Go through the items of all pages; ``fetch`` takes an offset."""
    offset = 0
    while True:
        items, cursor = fetch(offset)
        yield from items
        offset += len(items)
        if not items or cursor is None or offset >= cursor.total_count:
            return
