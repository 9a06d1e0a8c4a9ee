"""Checkpoints: saving, loading, listing, publishing, downloading."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property

import attrs
from typing_extensions import Unpack

from tinkex.http import Answer
from tinkex.resources._base import Endpoint, ReadOptions, Resource, WriteOptions, invalid_answer, raw
from tinkex.types import (
    CheckpointArchiveUrlResponse,
    CheckpointsListResponse,
    CopyWeightsRequest,
    CopyWeightsResponse,
    ExternalWeightsUrlsResponse,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    UntypedAPIFuture,
    WeightsInfoRequest,
    WeightsInfoResponse,
)

__all__ = ["ENDPOINTS", "RawWeightsResource", "WeightsResource"]

_CHECKPOINT = "/training_runs/{model_id}/checkpoints/{checkpoint_id}"
_NAME_TAKEN = {409: "choose another name; a saved checkpoint is not replaced unless overwrite is set"}
_BEING_BUILT = {
    425: "the checkpoint is still being written: ask again later",
    503: "the archive is still being built: ask again later",
}
_ARCHIVE_LIFETIME = timedelta(minutes=15)

LOAD = Endpoint(
    name="weights.load",
    method="POST",
    path="/load_weights",
    request=LoadWeightsRequest,
    response=UntypedAPIFuture,
)
SAVE = Endpoint(
    name="weights.save",
    method="POST",
    path="/save_weights",
    request=SaveWeightsRequest,
    response=UntypedAPIFuture,
    # A name that is taken stays taken.
    final=frozenset({409}),
    hint=_NAME_TAKEN,
)
SAVE_FOR_SAMPLER = Endpoint(
    name="weights.save_for_sampler",
    method="POST",
    path="/save_weights_for_sampler",
    request=SaveWeightsForSamplerRequest,
    response=UntypedAPIFuture,
    final=frozenset({409}),
    hint={409: "choose another name"},
)
SAVE_EXTERNAL = Endpoint(
    name="weights.save_external",
    method="POST",
    path="/save_weights_external",
    request=SaveWeightsExternalRequest,
    response=UntypedAPIFuture,
    final=frozenset({409}),
    hint={409: "choose another name"},
)
LIST = Endpoint(
    name="weights.list",
    method="GET",
    path="/training_runs/{model_id}/checkpoints",
    response=CheckpointsListResponse,
)
DELETE_CHECKPOINT: Endpoint[None] = Endpoint(
    name="weights.delete_checkpoint", method="DELETE", path=_CHECKPOINT, response=None
)
GET_CHECKPOINT_ARCHIVE_URL = Endpoint(
    name="weights.get_checkpoint_archive_url",
    method="GET",
    path=f"{_CHECKPOINT}/archive",
    response=CheckpointArchiveUrlResponse,
    redirects=False,
    headers={"Accept": "application/gzip"},
    hint=_BEING_BUILT,
)
LIST_USER_CHECKPOINTS = Endpoint(
    name="weights.list_user_checkpoints", method="GET", path="/checkpoints", response=CheckpointsListResponse
)
PUBLISH: Endpoint[None] = Endpoint(
    name="weights.publish",
    method="POST",
    path=f"{_CHECKPOINT}/publish",
    response=None,
    final=frozenset({409}),
    hint={409: "it is public already"},
)
UNPUBLISH: Endpoint[None] = Endpoint(
    name="weights.unpublish",
    method="DELETE",
    path=f"{_CHECKPOINT}/publish",
    response=None,
    final=frozenset({409}),
    hint={409: "it is not public"},
)
SET_TTL: Endpoint[None] = Endpoint(
    name="weights.set_ttl", method="PUT", path=f"{_CHECKPOINT}/ttl", request=dict, response=None
)
WEIGHTS_INFO = Endpoint(
    name="weights.weights_info",
    method="POST",
    path="/weights_info",
    request=WeightsInfoRequest,
    response=WeightsInfoResponse,
)
GET_EXTERNAL_WEIGHTS_URLS = Endpoint(
    name="weights.get_external_weights_urls",
    method="GET",
    path=f"{_CHECKPOINT}/external_weights_urls",
    response=ExternalWeightsUrlsResponse,
)
COPY = Endpoint(
    name="weights.copy",
    method="POST",
    path="/copy_weights",
    request=CopyWeightsRequest,
    response=CopyWeightsResponse,
)

ENDPOINTS = (
    LOAD,
    SAVE,
    SAVE_FOR_SAMPLER,
    SAVE_EXTERNAL,
    LIST,
    DELETE_CHECKPOINT,
    GET_CHECKPOINT_ARCHIVE_URL,
    LIST_USER_CHECKPOINTS,
    PUBLISH,
    UNPUBLISH,
    SET_TTL,
    WEIGHTS_INFO,
    GET_EXTERNAL_WEIGHTS_URLS,
    COPY,
)


class WeightsResource(Resource):
    """Checkpoints. ``checkpoint_id`` is ``<kind>/<name>``, with the slash, such as ``weights/step-40``."""

    @cached_property
    def with_raw_response(self) -> RawWeightsResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawWeightsResource(self)

    def load(self, request: LoadWeightsRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Load a checkpoint into a model, or make a model of it.

        ``POST /api/v1/load_weights``

        Args:
            request: The path of the checkpoint, and which model.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.LoadWeightsResponse`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 400 or 404 if there is no such checkpoint.
        """
        return self._call(LOAD, request, **options)

    def save(self, request: SaveWeightsRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Save weights and optimizer state, to go on from later.

        ``POST /api/v1/save_weights``

        Args:
            request: The model and the checkpoint's name.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.SaveWeightsResponse`.

        Raises:
            ConflictError: The name is taken; this is not tried again.
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown.
        """
        return self._call(SAVE, request, **options)

    def save_for_sampler(
        self, request: SaveWeightsForSamplerRequest, **options: Unpack[WriteOptions]
    ) -> UntypedAPIFuture:
        """Save weights to sample from.

        ``POST /api/v1/save_weights_for_sampler``

        Args:
            request: The model, and a name or the number of the sampler to make.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.SaveWeightsForSamplerResponse`.

        Raises:
            ConflictError: The name is taken; this is not tried again.
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown.
        """
        return self._call(SAVE_FOR_SAMPLER, request, **options)

    def save_external(self, request: SaveWeightsExternalRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Save weights in the form that other programs read, to be downloaded.

        ``POST /api/v1/save_weights_external``

        Args:
            request: The model and the checkpoint's name.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.SaveWeightsExternalResponse`.

        Raises:
            ConflictError: The name is taken; this is not tried again.
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown, or if the server has no such endpoint.
        """
        return self._call(SAVE_EXTERNAL, request, **options)

    def list(self, model_id: str, **options: Unpack[ReadOptions]) -> CheckpointsListResponse:
        """List all checkpoints of a model.

        ``GET /api/v1/training_runs/{model_id}/checkpoints``

        Args:
            model_id: Id of the model.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            Its checkpoints of both kinds.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown.
        """
        return self._call(LIST, ids={"model_id": model_id}, **options)

    def delete_checkpoint(self, model_id: str, checkpoint_id: str, **options: Unpack[WriteOptions]) -> None:
        """Delete a checkpoint for good.

        ``DELETE /api/v1/training_runs/{model_id}/checkpoints/{checkpoint_id}``

        Args:
            model_id: Id of the model.
            checkpoint_id: ``<kind>/<name>``.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint.
        """
        return self._call(DELETE_CHECKPOINT, ids=_ids(model_id, checkpoint_id), **options)

    def get_checkpoint_archive_url(
        self, model_id: str, checkpoint_id: str, **options: Unpack[ReadOptions]
    ) -> CheckpointArchiveUrlResponse:
        """Ask where a checkpoint can be downloaded, as a compressed tar file.

        ``GET /api/v1/training_runs/{model_id}/checkpoints/{checkpoint_id}/archive``

        The answer is a redirect, which is not followed. While the archive is being built, the server answers
        503 or 425, and the call waits.

        Args:
            model_id: Id of the model.
            checkpoint_id: ``<kind>/<name>``.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            The address, and until when it works: 15 minutes from now if the server does not say.

        Raises:
            APIResponseValidationError: The answer is no redirect.
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint.
        """
        ids = _ids(model_id, checkpoint_id)
        return self._call(GET_CHECKPOINT_ARCHIVE_URL, ids=ids, read=_read_archive_url, **options)

    def list_user_checkpoints(
        self, *, limit: int = 100, offset: int = 0, **options: Unpack[ReadOptions]
    ) -> CheckpointsListResponse:
        """List the checkpoints of all models, the newest first.

        ``GET /api/v1/checkpoints``

        Args:
            limit: How many at most.
            offset: How many to skip.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            A page of checkpoints.

        Raises:
            APIError: See :mod:`tinkex.errors`.
        """
        return self._call(LIST_USER_CHECKPOINTS, query={"limit": limit, "offset": offset}, **options)

    def publish(self, model_id: str, checkpoint_id: str, **options: Unpack[WriteOptions]) -> None:
        """Let everybody use a checkpoint.

        ``POST /api/v1/training_runs/{model_id}/checkpoints/{checkpoint_id}/publish``

        Args:
            model_id: Id of the model.
            checkpoint_id: ``<kind>/<name>``.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            ConflictError: It is public already.
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint of yours.
        """
        return self._call(PUBLISH, ids=_ids(model_id, checkpoint_id), **options)

    def unpublish(self, model_id: str, checkpoint_id: str, **options: Unpack[WriteOptions]) -> None:
        """Take back a publication.

        ``DELETE /api/v1/training_runs/{model_id}/checkpoints/{checkpoint_id}/publish``

        Args:
            model_id: Id of the model.
            checkpoint_id: ``<kind>/<name>``.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            ConflictError: It is not public.
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint of yours.
        """
        return self._call(UNPUBLISH, ids=_ids(model_id, checkpoint_id), **options)

    def set_ttl(
        self, model_id: str, checkpoint_id: str, ttl_seconds: int | None, **options: Unpack[WriteOptions]
    ) -> None:
        """Set when a checkpoint is deleted.

        ``PUT /api/v1/training_runs/{model_id}/checkpoints/{checkpoint_id}/ttl``

        Args:
            model_id: Id of the model.
            checkpoint_id: ``<kind>/<name>``.
            ttl_seconds: Seconds from now, from 3600 to ten years; None for never.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 400 if the number is out of range, 404 if there is no such
                checkpoint.
        """
        body = {"ttl_seconds": ttl_seconds}
        return self._call(SET_TTL, body, ids=_ids(model_id, checkpoint_id), **options)

    def weights_info(self, request: WeightsInfoRequest, **options: Unpack[WriteOptions]) -> WeightsInfoResponse:
        """Ask what a checkpoint, yours or a public one, needs of the model it is loaded into.

        ``POST /api/v1/weights_info``

        Args:
            request: The path of the checkpoint.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            Its base model and LoRA settings.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint.
        """
        return self._call(WEIGHTS_INFO, request, **options)

    def get_external_weights_urls(
        self, model_id: str, checkpoint_id: str, **options: Unpack[ReadOptions]
    ) -> ExternalWeightsUrlsResponse:
        """Ask where the files of an external checkpoint can be downloaded.

        ``GET /api/v1/training_runs/{model_id}/checkpoints/{checkpoint_id}/external_weights_urls``

        Args:
            model_id: Id of the model.
            checkpoint_id: ``external_weights/<name>``.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            An address for each file, and until when they work.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint.
        """
        return self._call(GET_EXTERNAL_WEIGHTS_URLS, ids=_ids(model_id, checkpoint_id), **options)

    def copy(self, request: CopyWeightsRequest, **options: Unpack[WriteOptions]) -> CopyWeightsResponse:
        """Copy a checkpoint into a project or a session; the copy belongs to a run that cannot be trained.

        ``POST /api/v1/copy_weights``

        Args:
            request: Which checkpoint, and where to; an access token in it travels as a header.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The path of the copy.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if there is no such checkpoint, 403 if the project is not yours to
                use.
        """
        token = getattr(request, "weights_access_token", None)  # _call refuses what is no request at all
        if token is None:
            return self._call(COPY, request, **options)
        headers = {"X-Tinker-Weights-Access-Token": token}
        return self._call(COPY, attrs.evolve(request, weights_access_token=None), headers=headers, **options)


def _ids(model_id: str, checkpoint_id: str) -> dict[str, str]:
    return {"model_id": model_id, "checkpoint_id": checkpoint_id}


def _read_archive_url(answer: Answer) -> CheckpointArchiveUrlResponse:
    headers = answer.response.headers
    url = headers.get("location")
    if not 300 <= answer.response.status < 400 or not url:
        raise invalid_answer(
            answer, f"expected a redirect to the archive, got HTTP {answer.response.status} and no address"
        )
    return CheckpointArchiveUrlResponse(url=url, expires=_read_expiry(headers.get("expires")))


def _read_expiry(http_date: str | None) -> datetime:
    try:
        expires = parsedate_to_datetime(http_date or "")
    except (TypeError, ValueError):
        return datetime.now(timezone.utc) + _ARCHIVE_LIFETIME
    # A date that ends in "-0000" comes back without a zone; HTTP dates are UTC.
    return expires if expires.tzinfo else expires.replace(tzinfo=timezone.utc)


class RawWeightsResource:
    """The methods of :class:`WeightsResource`, returning the answers unread."""

    def __init__(self, resource: WeightsResource) -> None:
        """Wrap the methods."""
        self.load = raw(resource.load)
        self.save = raw(resource.save)
        self.save_for_sampler = raw(resource.save_for_sampler)
        self.save_external = raw(resource.save_external)
        self.list = raw(resource.list)
        self.delete_checkpoint = raw(resource.delete_checkpoint)
        self.get_checkpoint_archive_url = raw(resource.get_checkpoint_archive_url)
        self.list_user_checkpoints = raw(resource.list_user_checkpoints)
        self.publish = raw(resource.publish)
        self.unpublish = raw(resource.unpublish)
        self.set_ttl = raw(resource.set_ttl)
        self.weights_info = raw(resource.weights_info)
        self.get_external_weights_urls = raw(resource.get_external_weights_urls)
        self.copy = raw(resource.copy)
