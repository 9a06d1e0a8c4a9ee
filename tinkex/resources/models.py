"""Models, which the server also calls training runs."""

from __future__ import annotations

from functools import cached_property

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, ReadOptions, Resource, WriteOptions, raw
from tinkex.types import (
    CreateModelRequest,
    GetInfoRequest,
    GetInfoResponse,
    TrainingRun,
    TrainingRunsResponse,
    UnloadModelRequest,
    UntypedAPIFuture,
)

__all__ = ["ENDPOINTS", "ModelsResource", "RawModelsResource"]

CREATE = Endpoint(
    name="models.create",
    method="POST",
    path="/create_model",
    request=CreateModelRequest,
    response=UntypedAPIFuture,
)
GET_INFO = Endpoint(
    name="models.get_info", method="POST", path="/get_info", request=GetInfoRequest, response=GetInfoResponse
)
UNLOAD = Endpoint(
    name="models.unload",
    method="POST",
    path="/unload_model",
    request=UnloadModelRequest,
    response=UntypedAPIFuture,
)
LIST_TRAINING_RUNS = Endpoint(
    name="models.list_training_runs", method="GET", path="/training_runs", response=TrainingRunsResponse
)
GET_TRAINING_RUN = Endpoint(
    name="models.get_training_run",
    method="GET",
    path="/training_runs/{training_run_id}",
    response=TrainingRun,
)

ENDPOINTS = (CREATE, GET_INFO, UNLOAD, LIST_TRAINING_RUNS, GET_TRAINING_RUN)


class ModelsResource(Resource):
    """Creating, describing and unloading models."""

    @cached_property
    def with_raw_response(self) -> RawModelsResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawModelsResource(self)

    def create(self, request: CreateModelRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Create a model: a base model with fresh LoRA weights.

        ``POST /api/v1/create_model``

        Args:
            request: The session, a number unique in it, the base model and the LoRA settings.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.CreateModelResponse`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the session is unknown, 400 or 422 if the server does
                not offer that base model or rank.
        """
        return self._call(CREATE, request, **options)

    def get_info(self, request: GetInfoRequest, **options: Unpack[WriteOptions]) -> GetInfoResponse:
        """Describe a model.

        ``POST /api/v1/get_info``

        Args:
            request: The model's id.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            Its base model, tokenizer and LoRA rank.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if it is unknown.
        """
        return self._call(GET_INFO, request, **options)

    def unload(self, request: UnloadModelRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Free what a model occupies on the server; checkpoints stay.

        ``POST /api/v1/unload_model``

        Args:
            request: The model's id.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of an :class:`~tinkex.types.UnloadModelResponse`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if it is unknown, or if the server has no such endpoint.
        """
        return self._call(UNLOAD, request, **options)

    def list_training_runs(
        self,
        *,
        limit: int = 20,
        offset: int = 0,
        access_scope: str | None = None,
        project_id: str | None = None,
        **options: Unpack[ReadOptions],
    ) -> TrainingRunsResponse:
        """List models that were created.

        ``GET /api/v1/training_runs``

        Args:
            limit: How many at most.
            offset: How many to skip.
            access_scope: ``owned`` or ``accessible``; the server's default is ``owned``.
            project_id: Only those of a project.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            A page of models.

        Raises:
            APIError: See :mod:`tinkex.errors`.
        """
        query = {"limit": limit, "offset": offset, "access_scope": access_scope, "project_id": project_id}
        return self._call(LIST_TRAINING_RUNS, query=query, **options)

    def get_training_run(
        self, training_run_id: str, *, access_scope: str | None = None, **options: Unpack[ReadOptions]
    ) -> TrainingRun:
        """Describe one model and its latest checkpoints.

        ``GET /api/v1/training_runs/{training_run_id}``

        Args:
            training_run_id: Id of the model.
            access_scope: ``owned`` or ``accessible``; the server's default is ``owned``.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            The model.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if it is unknown.
        """
        ids = {"training_run_id": training_run_id}
        return self._call(GET_TRAINING_RUN, ids=ids, query={"access_scope": access_scope}, **options)


class RawModelsResource:
    """The methods of :class:`ModelsResource`, returning the answers unread."""

    def __init__(self, resource: ModelsResource) -> None:
        """Wrap the methods."""
        self.create = raw(resource.create)
        self.get_info = raw(resource.get_info)
        self.unload = raw(resource.unload)
        self.list_training_runs = raw(resource.list_training_runs)
        self.get_training_run = raw(resource.get_training_run)
