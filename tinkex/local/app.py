"""The routes: which path leads to which method, and how values become responses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
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
from tinkex.local.archive import Download
from tinkex.local.catalog import Catalog
from tinkex.local.guard import API, ARCHIVES
from tinkex.local.problems import Problem
from tinkex.local.service import Service
from tinkex.types import (
    ApiKeyDetails,
    ApiKeyOrgDetails,
    ApiKeyResponse,
    ApiKeyUserDetails,
    AuthTokenResponse,
    CancelFutureRequest,
    ClientDynamicConfigResponse,
    CopyWeightsRequest,
    CreateCustomLossRequest,
    CreateModelRequest,
    CreateSamplingSessionRequest,
    CreateSessionRequest,
    ExternalWeightsUrlsResponse,
    ForwardBackwardRequest,
    ForwardRequest,
    FutureRetrieveRequest,
    FuturesRetrieveRequest,
    GetInfoRequest,
    HealthResponse,
    JoinSamplingSessionRequest,
    LoadWeightsRequest,
    OptimStepRequest,
    ResultMetadata,
    SampleRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SessionHeartbeatRequest,
    SessionSearchRequest,
    TelemetryResponse,
    TraceExportResponse,
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
_ON_CHECKPOINTS = [
    ("DELETE", ""),
    ("GET", "/archive"),
    ("GET", "/external_weights_urls"),
    ("POST", "/publish"),
    ("PUT", "/ttl"),
]
_LONGEST_PAGE = 1000
# What clients assume where a server does not say it; half of a body is room enough for what they do not count.
_CHUNK_BYTES = 5_000_000
_LONGEST_NUMBER = 12
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})?")
_OFFICIAL = re.compile(r"AsyncTinker/Python ([0-9]+)\.([0-9]+)")
_THE_KEY = ApiKeyResponse(
    key_id=0,
    name="the key of this server",
    details=ApiKeyDetails(org_details=ApiKeyOrgDetails(name="local"), user_details=ApiKeyUserDetails(email="")),
)


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
            ("sessions/search", SessionSearchRequest, catalog.search),
            ("join_sampling_session", JoinSamplingSessionRequest, service.join_sampling_session),
            ("cancel_future", CancelFutureRequest, service.cancel_future),
            ("create_custom_loss", CreateCustomLossRequest, service.create_custom_loss),
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
            ("save_weights_external", SaveWeightsExternalRequest, service.save_weights_external),
            ("load_weights", LoadWeightsRequest, service.load_weights),
            ("copy_weights", CopyWeightsRequest, catalog.copy),
            ("asample", SampleRequest, service.asample),
        ]
        gets: list[tuple[str, Callable[[Request], Any]]] = [
            ("healthz", lambda _: HealthResponse(status="ok")),
            ("get_server_capabilities", lambda _: service.capabilities()),
            ("sessions", lambda request: catalog.sessions(*_paging(request, 20))),
            ("sessions/{id}", lambda request: catalog.session(request.path_params["id"])),
            ("samplers/{id}", lambda request: catalog.sampler(request.path_params["id"])),
            (
                "training_runs",
                lambda request: catalog.runs(*_paging(request, 20), request.query_params.get("project_id")),
            ),
            (_RUN_PATH, lambda request: catalog.run(request.path_params["run"])),
            (
                _RUN_PATH + "/checkpoints",
                lambda request: catalog.run_checkpoints(request.path_params["run"], external=_knows_external(request)),
            ),
            (
                "checkpoints",
                lambda request: catalog.checkpoints(*_paging(request, 100), external=_knows_external(request)),
            ),
            ("sessions/{id}/trace_export", self._trace),
            (_CHECKPOINT_PATH + "/external_weights_urls", self._external_urls),
            ("auth/apikey/me", lambda _: _THE_KEY),
        ]
        changes: list[tuple[str, str, Callable[[Request, Any], None]]] = [
            ("POST", "sessions/{id}/finish", self._finish),
            ("PUT", "sessions/{id}/project", self._assign_project),
            ("DELETE", "auth/apikey/me", _keep_key),
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
            ("POST", "retrieve_futures", self.retrieve_futures),
            ("POST", "telemetry", self.telemetry),
            ("POST", "auth/token", self.token),
            ("POST", "client/config", self.client_config),
            ("POST", "client/dynamic_config", _dynamic_config),
            ("GET", _CHECKPOINT_PATH + "/archive", self.archive),
            # Behind those of a whole id, which they would hide where a checkpoint is called archive, publish or ttl.
            *((verb, f"{bare}{end}", _bare_checkpoint) for verb, end in _ON_CHECKPOINTS),
        ]

    async def retrieve_future(self, request: Request) -> Response:
        """Answer with a result, or with its size; or hold the request open for a while and say "not yet"."""
        wanted = await _read(request, FutureRetrieveRequest)
        ready, wake = _waker()
        promise = self._service.futures.watch(wanted.request_id, wake)
        try:
            with self._service.store.polled(promise.session_id), contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ready.wait(), self._service.limits.hold_s)
        finally:
            self._service.futures.unwatch(promise, wake)
        if promise.result is None:
            return _value(TryAgainResponse(request_id=promise.request_id, queue_state_reason=promise.explain()))
        body, media_type = codec.write_result(promise.result, request.headers.get("accept", ""))
        if wanted.allow_metadata_only and len(body) > self._service.limits.large_result_bytes:
            return _value(ResultMetadata(response_payload_size=len(body)))
        self._service.futures.mark_read(promise)
        return Response(body, media_type=media_type)

    async def retrieve_futures(self, request: Request) -> Response:
        """Answer with the samples of a sampler that have ended, or hold the request open for a while."""
        service = self._service
        if not service.limits.bulk_retrieval:
            raise Problem(404, "this server does not offer retrieve_futures; ask for each result with retrieve_future")
        wanted = await _read(request, FuturesRetrieveRequest)
        sampler = service.store.sampler(wanted.target.sampling_session_id)
        sampler_id = sampler.id
        for request_id in wanted.retrieved_request_ids:
            if request_id.startswith(f"{sampler_id}:"):
                service.futures.drop(request_id)
        target, hold_s = (sampler_id, wanted.target.cloned_sampler_id), service.limits.hold_s
        ready, wake = _waker()
        with service.store.polled(sampler.session_id):
            try:
                answer = service.completions.since(target, wanted.prev_cursor, wake)
                if not answer.completions and wanted.timeout != 0:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(ready.wait(), min(hold_s, wanted.timeout or hold_s))
                    answer = service.completions.since(target, wanted.prev_cursor, wake)
            finally:
                service.completions.unwatch(target, wake)
        return _value(answer)

    async def token(self, _: Request) -> Response:
        """Give a token for the key that came with the request."""
        if not self._service.tokens.offered:
            raise Problem(404, "this server gives no tokens; send the key itself")
        return _value(AuthTokenResponse(jwt=self._service.tokens.make()))

    async def client_config(self, _: Request) -> Response:
        """Say what training requests may look like, and what else there is."""
        limits = self._service.limits
        offered = {
            "pjwt_auth_enabled": self._service.tokens.offered,
            "sample_use_retrieve_futures": limits.bulk_retrieval,
            "custom_loss_server_side": self._service.engine.runs_custom_losses,
        }
        return _value(
            {
                **{name: True for name, on in offered.items() if on},
                "create_model_via_load_weights": True,
                "sample_join_sampling_session": True,
                "proto_write_fwdbwd": True,
                "fwdbwd_max_chunk_len": limits.data,
                "fwdbwd_max_chunk_bytes_count": min(_CHUNK_BYTES, limits.body_bytes // 2),
            }
        )

    async def telemetry(self, request: Request) -> Response:
        """Count events; nothing of them is kept, and a shape of another version is no error."""
        sent = _object(await request.body())
        events = sent.get("events")
        self._service.store.count_telemetry(len(events) if isinstance(events, list) else 0)
        return _value(TelemetryResponse(status="accepted"))

    async def archive(self, request: Request) -> Response:
        """Send the client to a link that needs no key."""
        token, expires = self._catalog.archive(**request.path_params)
        headers = {"Location": _link(request, token), "Expires": format_datetime(expires, usegmt=True)}
        return Response(status_code=302, headers=headers)

    async def download(self, request: Request) -> Response:
        """Send what a link leads to, from the byte on that the client asks for."""
        token = request.path_params["token"]
        download = self._catalog.links.find(token)
        start, stop, is_part = _range(request, download)

        async def pieces() -> AsyncIterator[bytes]:
            for piece in download.read(start, stop):
                yield piece
            if stop == download.size:
                self._catalog.links.used(token)

        return StreamingResponse(
            pieces(),
            status_code=206 if is_part else 200,
            media_type=download.media_type,
            headers=_download_headers(download, start, stop, is_part),
        )

    def _trace(self, request: Request) -> TraceExportResponse:
        return TraceExportResponse(status="ready", url=_link(request, self._catalog.trace(request.path_params["id"])))

    def _external_urls(self, request: Request) -> ExternalWeightsUrlsResponse:
        names = self._catalog.external_files(**request.path_params)
        urls = {file: _link(request, token) for file, (token, _) in names.items()}
        return ExternalWeightsUrlsResponse(urls=urls, expires=min(expires for _, expires in names.values()))

    def _finish(self, request: Request, body: dict[str, Any]) -> None:
        reason, detail = body.get("reason"), body.get("detail")
        kind = reason.get("type") if isinstance(reason, dict) else None
        self._service.finish_session(
            request.path_params["id"], str(kind or "no reason given"), detail if isinstance(detail, str) else None
        )

    def _assign_project(self, request: Request, body: dict[str, Any]) -> None:
        self._catalog.assign_project(request.path_params["id"], body.get("project_id"))

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


async def _dynamic_config(_: Request) -> Response:
    return _value(ClientDynamicConfigResponse(sample_cancel_enabled=True))


def _keep_key(_: Request, __: dict[str, Any]) -> None:
    raise Problem(403, "the key of this server ends with the server; stop it instead")


async def _bare_checkpoint(request: Request) -> Response:
    name = request.path_params["name"]
    raise Problem(400, f"checkpoint id {name!r:.100} lacks its kind: use weights/<name> or sampler_weights/<name>")


def _object(body: bytes) -> dict[str, Any]:
    value = json.parse(body)
    if not isinstance(value, dict):
        raise InvalidInputError(f"the body must be a JSON object, got {type(value).__name__}")
    return value


def _waker() -> tuple[asyncio.Event, Callable[[], None]]:
    """Make an event of this loop, and a function that any thread may set it with."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        # The loop may have been closed while the operation ran: then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ready.set)

    return ready, wake


def _link(request: Request, token: str) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{ARCHIVES}{token}"


def _range(request: Request, download: Download) -> tuple[int, int, bool]:
    """Return the first byte to send, the one after the last, and if these were asked for (RFC 9110, one range only)."""
    size, asked = download.size, _RANGE.fullmatch(request.headers.get("range", ""))
    is_same = request.headers.get("if-range", _tag(download)) == _tag(download)
    if asked is None or not is_same:
        return 0, size, False
    start = int(asked[1])
    if start >= size:
        raise Problem(416, f"the file has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, min(size, int(asked[2]) + 1) if asked[2] else size, True


def _download_headers(download: Download, start: int, stop: int, is_part: bool) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(download.sha256)).decode()
    headers = {
        "Content-Disposition": f'attachment; filename="{download.name}"',
        "Content-Length": str(stop - start),
        "Accept-Ranges": "bytes",
        "ETag": _tag(download),
        "Repr-Digest": f"sha-256=:{digest}:",  # RFC 9530; of the whole, also where a part is sent
    }
    if is_part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{download.size}"
    return headers


def _tag(download: Download) -> str:
    return f'"{download.sha256}"'


def _knows_external(request: Request) -> bool:
    """Tell whether the client knows external checkpoints: SDKs before 0.26 fail on a list with one of them."""
    agent = _OFFICIAL.match(request.headers.get("user-agent", ""))
    return agent is None or (int(agent[1]), int(agent[2])) >= (0, 26)


def _paging(request: Request, default: int) -> tuple[int, int]:
    limit, offset = _whole(request, "limit", default), _whole(request, "offset", 0)
    return min(limit, _LONGEST_PAGE), offset


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise InvalidInputError(f"{name} must be a whole number of at least 0, got {text!r:.40}", field=name)
    return int(text)
