"""The routes: which path leads to which method, and how values become responses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import format_datetime
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tinkex.errors import InvalidInputError
from tinkex.local import codec
from tinkex.local.archive import tar_gz
from tinkex.local.catalog import Catalog
from tinkex.local.guard import API, ARCHIVES
from tinkex.local.problems import Problem
from tinkex.local.service import Service
from tinkex.types import (
    CreateModelRequest,
    CreateSamplingSessionRequest,
    CreateSessionRequest,
    ForwardBackwardRequest,
    ForwardRequest,
    FutureRetrieveRequest,
    GetInfoRequest,
    HealthResponse,
    LoadWeightsRequest,
    OptimStepRequest,
    SampleRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SessionHeartbeatRequest,
    TelemetryResponse,
    TryAgainResponse,
    UnloadModelRequest,
    WeightsInfoRequest,
)
from tinkex.wire import json

__all__ = ["make_app"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_RUN_PATH = "training_runs/{run}"
_CHECKPOINT_PATH = _RUN_PATH + "/checkpoints/{kind}/{name}"
_LONGEST_PAGE = 1000
_LONGEST_NUMBER = 12


def make_app(service: Service) -> Starlette:
    """Build the app of one service."""
    routes = _Routes(service)
    return Starlette(
        routes=[Route(API + path, _safely(handler), methods=[method]) for method, path, handler in routes.table()]
        + [Route(ARCHIVES + "{token}", _safely(routes.download), methods=["GET"])],
        exception_handlers={HTTPException: _no_such_route},
    )


def _value(value: Any) -> Response:
    return Response(codec.write(value), media_type=codec.JSON.media_type)


def _problem(problem: Problem) -> Response:
    body = json.encode({"detail": problem.detail})
    return Response(body, status_code=problem.status, headers=problem.headers, media_type=codec.JSON.media_type)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = {404: "there is no such path", 405: "this path does not take the method"}.get(status, str(error))
    return _problem(Problem(status, f"{what}: {request.method} {request.url.path}"[:300]))


def _safely(handler: Handler) -> Handler:
    """Turn what a handler raises into an answer."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            return _problem(problem)
        except InvalidInputError as error:
            return _problem(Problem(422, error.message))
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.url.path)
            return _problem(Problem(500, f"the server failed: {type(error).__name__}: {error}"))

    return handle


class _Routes:
    """The handlers, most of them rows of a table."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._catalog = Catalog(service)

    def table(self) -> list[tuple[str, str, Handler]]:
        """Return method, path and handler of each route."""
        service, catalog = self._service, self._catalog
        posts: list[tuple[str, type[Any], Callable[[Any], Any]]] = [
            ("session_heartbeat", SessionHeartbeatRequest, service.heartbeat),
            ("create_sampling_session", CreateSamplingSessionRequest, service.create_sampling_session),
            ("create_model", CreateModelRequest, service.create_model),
            ("get_info", GetInfoRequest, service.get_info),
            ("weights_info", WeightsInfoRequest, catalog.weights_info),
        ]
        # What makes something new and may come without a number: the idempotency key tells a repeat.
        keyed: list[tuple[str, type[Any], Callable[[Any, str | None], Any]]] = [
            ("create_session", CreateSessionRequest, service.create_session),
            ("unload_model", UnloadModelRequest, service.unload_model),
            ("forward", ForwardRequest, service.forward),
            ("forward_backward", ForwardBackwardRequest, service.forward_backward),
            ("optim_step", OptimStepRequest, service.optim_step),
            ("save_weights", SaveWeightsRequest, service.save_weights),
            ("save_weights_for_sampler", SaveWeightsForSamplerRequest, service.save_weights_for_sampler),
            ("load_weights", LoadWeightsRequest, service.load_weights),
            ("asample", SampleRequest, service.asample),
        ]
        gets: list[tuple[str, Callable[[Request], Any]]] = [
            ("healthz", lambda _: HealthResponse(status="ok")),
            ("get_server_capabilities", lambda _: service.capabilities()),
            ("sessions", lambda request: catalog.sessions(**_paging(request, 20))),
            ("sessions/{id}", lambda request: catalog.session(request.path_params["id"])),
            ("samplers/{id}", lambda request: catalog.sampler(request.path_params["id"])),
            ("training_runs", lambda request: catalog.runs(**_paging(request, 20))),
            (_RUN_PATH, lambda request: catalog.run(request.path_params["run"])),
            (_RUN_PATH + "/checkpoints", lambda request: catalog.run_checkpoints(request.path_params["run"])),
            ("checkpoints", lambda request: catalog.checkpoints(**_paging(request, 100))),
        ]
        changes: list[tuple[str, str, Callable[[Request, Any], None]]] = [
            ("POST", "sessions/{id}/finish", self._finish),
            ("DELETE", _CHECKPOINT_PATH, lambda request, _: catalog.delete(**request.path_params)),
            ("POST", _CHECKPOINT_PATH + "/publish", partial(self._publish, True)),
            ("DELETE", _CHECKPOINT_PATH + "/publish", partial(self._publish, False)),
            ("PUT", _CHECKPOINT_PATH + "/ttl", self._ttl),
        ]
        bare = _RUN_PATH + "/checkpoints/{name}"
        return [
            *(("POST", path, partial(_post, cls, method)) for path, cls, method in posts),
            *(("POST", path, partial(_post_keyed, cls, method)) for path, cls, method in keyed),
            *(("GET", path, partial(_get, method)) for path, method in gets),
            *((verb, path, partial(_change, method)) for verb, path, method in changes),
            ("POST", "retrieve_future", self.retrieve_future),
            ("POST", "telemetry", self.telemetry),
            ("POST", "client/config", _no_flags),
            ("POST", "client/dynamic_config", _no_flags),
            ("GET", _CHECKPOINT_PATH + "/archive", self.archive),
            ("DELETE", bare, _bare_checkpoint),
        ]

    async def retrieve_future(self, request: Request) -> Response:
        """Answer with a result, or hold the request open for a while and say "not yet"."""
        wanted = await _read(request, FutureRetrieveRequest)
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            # The loop may have been closed while the operation ran: then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ready.set)

        promise = self._service.futures.watch(wanted.request_id, wake)
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ready.wait(), self._service.limits.hold_s)
        finally:
            self._service.futures.unwatch(promise, wake)
        if promise.body is None:
            return _value(TryAgainResponse(request_id=promise.request_id, queue_state_reason=promise.explain()))
        body, media_type = codec.write_result(promise.body, promise.result_type, request.headers.get("accept", ""))
        return Response(body, media_type=media_type)

    async def telemetry(self, request: Request) -> Response:
        """Count events; nothing of them is kept, and a shape of another version is no error."""
        sent = _object(await request.body())
        events = sent.get("events")
        self._service.store.count_telemetry(len(events) if isinstance(events, list) else 0)
        return _value(TelemetryResponse(status="accepted"))

    async def archive(self, request: Request) -> Response:
        """Send the client to a link that needs no key."""
        token, expires = self._catalog.archive(**request.path_params)
        headers = {
            "Location": f"{request.url.scheme}://{request.url.netloc}{ARCHIVES}{token}",
            "Expires": format_datetime(expires, usegmt=True),
        }
        return Response(status_code=302, headers=headers)

    async def download(self, request: Request) -> Response:
        """Send an archive."""
        token = request.path_params["token"]
        files = self._catalog.archive_files(token)

        async def pieces() -> AsyncIterator[bytes]:
            for piece in tar_gz(files):
                yield piece
            self._catalog.links.used(token)

        headers = {"Content-Disposition": 'attachment; filename="checkpoint.tar.gz"'}
        return StreamingResponse(pieces(), media_type="application/gzip", headers=headers)

    def _finish(self, request: Request, body: dict[str, Any]) -> None:
        reason = body.get("reason")
        kind = reason.get("type") if isinstance(reason, dict) else None
        self._service.finish_session(request.path_params["id"], str(kind or "no reason given"))

    def _publish(self, public: bool, request: Request, _: dict[str, Any]) -> None:
        self._catalog.publish(**request.path_params, public=public)

    def _ttl(self, request: Request, body: dict[str, Any]) -> None:
        if "ttl_seconds" not in body:
            raise Problem(422, "ttl_seconds is missing; send null to remove the expiry")
        self._catalog.set_ttl(**request.path_params, ttl_seconds=body["ttl_seconds"])


async def _post(cls: type[Any], method: Callable[[Any], Any], request: Request) -> Response:
    return _value(method(await _read(request, cls)))


async def _post_keyed(cls: type[Any], method: Callable[[Any, str | None], Any], request: Request) -> Response:
    return _value(method(await _read(request, cls), request.headers.get("x-idempotency-key")))


async def _read(request: Request, cls: type[T]) -> T:
    return codec.read(await request.body(), request.headers.get("content-type", ""), cls)


async def _get(method: Callable[[Request], Any], request: Request) -> Response:
    return _value(method(request))


async def _change(method: Callable[[Request, Any], None], request: Request) -> Response:
    body = await request.body()
    method(request, _object(body) if body else {})
    return Response(status_code=204)


async def _no_flags(_: Request) -> Response:
    return _value({})


async def _bare_checkpoint(request: Request) -> Response:
    name = request.path_params["name"]
    raise Problem(400, f"checkpoint id {name!r:.100} lacks its kind: use weights/<name> or sampler_weights/<name>")


def _object(body: bytes) -> dict[str, Any]:
    value = json.parse(body)
    if not isinstance(value, dict):
        raise InvalidInputError(f"the body must be a JSON object, got {type(value).__name__}")
    return value


def _paging(request: Request, default: int) -> dict[str, int]:
    limit, offset = _whole(request, "limit", default), _whole(request, "offset", 0)
    return {"limit": min(limit, _LONGEST_PAGE), "offset": offset}


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise InvalidInputError(f"{name} must be a whole number of at least 0, got {text!r:.40}", field=name)
    return int(text)
