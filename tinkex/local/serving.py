"""``tinkex serve``: the embedded server as a program of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tinkex.data import TINY_NAME, builtin_models, canonical_name
from tinkex.errors import ConfigurationError
from tinkex.local.limits import Limits
from tinkex.local.runtime import LocalServer, is_loopback

__all__ = ["model_folders", "serve"]


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    data_dir: str | Path | None = None,
    model: str = "tiny",
    api_key: str | None = None,
    *,
    threads: int | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; a second SIGINT does not wait for the running operation.

    Prints one line when requests are answered.

    Args:
        host: Address to listen on.
        port: Port; 0 for any free one.
        data_dir: Where to keep checkpoints.
        model: ``tiny``, or the folder of a causal language model, or ``name=folder``.
        api_key: The key that requests must carry; ``TINKER_API_KEY``, else a random one that is printed.
        threads: CPU threads of the engine.
        limits: What to refuse, and how long to wait.

    Raises:
        ImportError: ``tinkex[local]`` is not installed.
        ConfigurationError: The address is taken, or a folder cannot be used.
    """
    key = api_key or os.environ.get("TINKER_API_KEY", "").strip()
    server = LocalServer(
        models=model_folders(model),
        host=host,
        port=port,
        data_dir=data_dir,
        api_key=key or None,
        threads=threads,
        limits=limits,
    )
    if not is_loopback(host):
        warning = f"warning: {host} can be reached from other machines, and the connection is not encrypted"
        print(warning, file=sys.stderr)  # noqa: T201
    with _until_signal() as wait, server:
        names = ", ".join(server.model_names)
        shown = "and the key you gave" if key else f"TINKER_API_KEY={server.api_key}"
        print(f"serving {names}; use it with TINKER_BASE_URL={server.base_url} {shown}", flush=True)  # noqa: T201
        wait()


def model_folders(model: str) -> dict[str, Path]:
    """Turn the text of ``--model`` into a name and a folder.

    Raises:
        ConfigurationError: There is no such folder, or it holds no model.
    """
    if canonical_name(model) == TINY_NAME:
        return builtin_models()
    name, equals, path = model.rpartition("=")
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"model {model!r} is neither 'tiny' nor a folder with a config.json; download one with "
            "hf download NAME --local-dir FOLDER and pass NAME=FOLDER"
        )
    return {name if equals else folder.resolve().name: folder}


@contextlib.contextmanager
def _until_signal() -> Iterator[Callable[[], bool]]:
    """Give a function that waits for SIGINT or SIGTERM; the second SIGINT raises KeyboardInterrupt as ever."""
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asked.set()

    previous = [(number, signal.signal(number, ask)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield asked.wait
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
