"""Starting and stopping a server inside this process, and the one of them that ``base_url="local"`` means."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs

from tinkex.data import builtin_models
from tinkex.errors import ConfigurationError, LifecycleError
from tinkex.local.fault import FaultSource
from tinkex.local.limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from tinkex.local.engine.base import Engine
    from tinkex.local.service import Service

__all__ = ["LocalServer", "default_data_dir", "is_available", "local_server", "shared_local_server"]

logger = logging.getLogger(__name__)

_NEEDED = ("starlette", "uvicorn")
_NEEDED_BY_TORCH = ("torch", "transformers", "peft", "safetensors")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_KEEP_ALIVE_S = 75
_GRACE_S = 2
_BACKLOG = 2048


def is_available() -> bool:
    """Tell whether everything that the embedded server needs is installed."""
    return not _missing((*_NEEDED, *_NEEDED_BY_TORCH))


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return where checkpoints are kept unless told otherwise.

    ``TINKEX_LOCAL_DIR``, else ``tinkex/local`` below ``XDG_CACHE_HOME``, else ``~/.cache/tinkex/local``: one folder of
    the user, so that a path printed by one script can be loaded by the next.
    """
    env = os.environ if environ is None else environ
    if env.get("TINKEX_LOCAL_DIR"):
        return Path(env["TINKEX_LOCAL_DIR"]).expanduser()
    cache = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path.home() / ".cache"
    return cache / "tinkex" / "local"


@attrs.frozen(kw_only=True, slots=True)
class _Running:
    """The parts of a started server."""

    service: Service
    server: uvicorn.Server
    thread: threading.Thread
    listener: socket.socket
    address: tuple[str, int]


class LocalServer:
    """The API on this machine: an HTTP server in a thread, over an engine in another.

    Use it as a context manager, or call ``start`` and ``stop``. Checkpoints stay in ``data_dir``; everything else
    ends with the server. Methods may be called from any thread.

    Attributes:
        api_key: The key that requests must carry; made at random unless given.
        data_dir: Where checkpoints are kept.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        models: Mapping[str, str | Path] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        data_dir: str | Path | None = None,
        api_key: str | None = None,
        threads: int | None = None,
        limits: Limits | None = None,
        faults: FaultSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the settings; nothing is loaded or opened yet.

        Args:
            engine: What trains and samples; a ``TorchEngine`` over ``models`` unless given.
            models: Folders of the base models by name; the tiny model in the package unless given.
            host: Address to listen on.
            port: Port to listen on; 0 for any free one.
            data_dir: Where to keep checkpoints; see :func:`default_data_dir`.
            api_key: The key that requests must carry.
            threads: CPU threads of the engine.
            limits: What to refuse, and how long to wait.
            faults: What goes wrong with which request, for tests.
            clock: Monotonic seconds.
        """
        self._engine = engine
        self._models = dict(builtin_models() if models is None else models)
        self._host = host
        self._port = port
        self.data_dir = default_data_dir() if data_dir is None else Path(data_dir)
        self.api_key = api_key or f"tml-local-{secrets.token_urlsafe(24)}"
        self._threads = threads
        self._limits = limits or Limits()
        self._faults = faults
        self._clock = clock
        self._lock = threading.RLock()  # for a start that comes back to itself, and is told so
        # Guarded by _lock:
        self._running: _Running | None = None
        self._starting = False

    def __enter__(self) -> LocalServer:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def base_url(self) -> str:
        """Where the server listens.

        Raises:
            LifecycleError: It is not started.
        """
        host, port = self._parts().address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def model_names(self) -> list[str]:
        """Names of the base models that it serves."""
        return [model.model_name or "" for model in self._parts().service.engine.supported_models()]

    @property
    def is_running(self) -> bool:
        """True between ``start`` and ``stop``."""
        with self._lock:
            return self._running is not None

    def start(self) -> LocalServer:
        """Load the engine, listen, and return once requests are answered; nothing if it runs already.

        Raises:
            ImportError: Something that it needs is not installed; the message has the command that installs it.
            ConfigurationError: The address is taken, or the data folder cannot be used.
            LifecycleError: This very thread is starting it already.
        """
        with self._lock:
            if self._starting:
                raise LifecycleError(
                    "this server is being started, and what that imports has come back here: a file of the program has "
                    "the name of a package and was imported in its place. The traceback shows which; give it another "
                    "name"
                )
            if self._running is None:
                self._starting = True
                try:
                    self._running = self._start()
                finally:
                    self._starting = False
        return self

    def stop(self) -> None:
        """End the running operation within ``Limits.stop_s``, fail what is queued, and close; nothing if stopped."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        if not running.service.close():
            logger.warning("an operation still runs %g s after the server was stopped", self._limits.stop_s)
        running.server.should_exit = True
        if running.thread is not threading.current_thread():
            running.thread.join(self._limits.stop_s)

    def forget(self) -> None:
        """In a forked child: drop the parent's server without stopping it."""
        self._lock, self._starting = threading.RLock(), False
        running, self._running = self._running, None
        if running is not None:
            running.listener.close()

    def _parts(self) -> _Running:
        with self._lock:
            if self._running is None:
                raise LifecycleError("the server is not running; call start() or use it in a with statement")
            return self._running

    def _start(self) -> _Running:
        _require(_NEEDED)
        from tinkex.local.app import make_app
        from tinkex.local.guard import Guard
        from tinkex.local.service import Service

        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(_listen(self._host, self._port))
            engine = self._make_engine()
            service = Service(engine, root=self._make_root(), limits=self._limits, clock=self._clock)
            undo.callback(service.close)
            guard = Guard(
                make_app(service),
                api_key=self.api_key,
                hosts=_LOOPBACK | {self._host} if is_loopback(self._host) else None,
                body_bytes=self._limits.body_bytes,
                tokens=service.tokens,
                faults=self._faults,
                abort=lambda scope: _abort(server, scope),
            )
            server, thread = _serve_in_thread(guard, listener, service.store.tick)
            service.start()
            undo.pop_all()
        return _Running(
            service=service, server=server, thread=thread, listener=listener, address=listener.getsockname()[:2]
        )

    def _make_engine(self) -> Engine:
        if self._engine is not None:
            return self._engine
        _require(_NEEDED_BY_TORCH)
        from tinkex.local.engine.torch_hf import TorchEngine

        engine: Engine = TorchEngine(models=self._models, threads=self._threads)
        return engine

    def _make_root(self) -> Path:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.data_dir, os.W_OK | os.X_OK):
                raise PermissionError("it cannot be written to")
        except OSError as error:
            raise ConfigurationError(
                f"the data folder {self.data_dir} cannot be used ({error}); set TINKEX_LOCAL_DIR or pass data_dir"
            ) from error
        return self.data_dir


@contextlib.contextmanager
def local_server(engine: Engine | None = None, **settings: Any) -> Iterator[LocalServer]:
    """Run a server for the duration of a ``with`` statement; takes what :class:`LocalServer` takes."""
    with LocalServer(engine, **settings) as server:
        yield server


_shared_lock = threading.RLock()  # as that of a server
# Guarded by _shared_lock:
_shared: LocalServer | None = None
_stop_registered = False


def shared_local_server() -> LocalServer:
    """Return the server of this process that ``base_url="local"`` means, started.

    It is started at the first call and stopped when the process ends: after every session that was opened with it,
    because exit functions run in reverse order. A forked child gets a server of its own.

    Raises:
        ImportError: ``tinkex[local]`` is not installed.
        LifecycleError: This very thread is starting it already.
    """
    global _shared, _stop_registered
    with _shared_lock:
        if _shared is None:
            _shared = LocalServer()
        if not _stop_registered:
            atexit.register(_stop_shared)
            _stop_registered = True
        return _shared.start()


def _stop_shared() -> None:
    global _stop_registered
    with _shared_lock:
        server, _stop_registered = _shared, False
    if server is not None:
        server.stop()


def _forget_shared() -> None:
    global _shared, _shared_lock
    _shared_lock = threading.RLock()
    if _shared is not None:
        _shared.forget()
        _shared = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_shared)


def is_loopback(host: str) -> bool:
    """Tell whether an address can only be reached from this machine."""
    return host in _LOOPBACK or host.startswith("127.")


def _missing(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def _require(names: tuple[str, ...]) -> None:
    missing = _missing(names)
    if missing:
        raise ImportError(
            f'the embedded server needs {", ".join(missing)}: pip install "tinkex[local]" (on Linux, where torch is '
            "large, first: pip install torch --index-url https://download.pytorch.org/whl/cpu)"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only for sockets that name it: 44 ms a request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error}; choose another port, or 0 for any free one"
        ) from error
    return listener


def _serve_in_thread(
    app: Any, listener: socket.socket, tick: Callable[[], None]
) -> tuple[uvicorn.Server, threading.Thread]:
    """Start uvicorn on a loop of its own, which calls ``tick`` ten times a second; return once it answers."""
    import uvicorn

    ready = threading.Event()

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

        async def on_tick(self, counter: int) -> bool:
            tick()
            ends: bool = await super().on_tick(counter)
            return ends

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = Server(config)

    def work() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except BaseException:
            logger.exception("the embedded server ended")
        finally:
            listener.close()
            ready.set()

    thread = threading.Thread(target=work, name="tinkex-server", daemon=True)
    thread.start()
    ready.wait()
    if not server.started:
        raise LifecycleError("the embedded server could not start; the log has the reason")
    return server, thread


def _abort(server: uvicorn.Server, scope: Mapping[str, Any]) -> None:
    """Cut the connection of a request with a TCP reset."""
    for connection in list(server.server_state.connections):
        if connection.client == scope["client"] and connection.transport is not None:
            raw = connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.transport.abort()
