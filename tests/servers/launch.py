"""Start a server that others wrote, with a tiny model, on this machine's loopback; and stop it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

BASE_MODEL = "tiny/Qwen3-Tiny"
"""Also where it lies, below the folder in which server and clients run, so that all find its tokenizer."""
API_KEY = "tml-dummy"
START_S = 240.0

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}
_UV = """#!/bin/sh
# Runs the module in the environment that is there. The API reads the command line of its parent, so this stays.
while [ $# -gt 0 ] && [ "$1" != "-m" ]; do shift; done
[ "$2" = skyrl.tinker.engine ] && exec {python} "$@"
{python} "$@"
"""
ONE_DEVICE: dict[str, object] = {"max_lora_adapters": 100, "max_lora_rank": 32}
TWO_DEVICES = {**ONE_DEVICE, "fully_sharded_data_parallel_size": 2}
"""The weights of the model, and each batch, split between two devices."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which nothing reaches beyond this machine."""
    taken = ("TINKER_", "TINKEX_", "PYTHON", "TUFT_", "XLA_", "JAX_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(taken)}
    return {**kept, **_OFFLINE, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **more}


def make_model(folder: Path) -> None:
    """Make the model below a folder, if it is not there."""
    command = [sys.executable, "-m", "tests.servers.tiny_qwen3", BASE_MODEL]
    subprocess.run(command, check=True, cwd=folder, env=environment(), stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def tuft(folder: Path, log: Path) -> Iterator[str]:
    """Run TuFT with its dummy engines; yields the address."""
    port = _free_port()
    model = {
        "model_name": BASE_MODEL,
        "model_path": str(folder / BASE_MODEL),
        "max_model_len": 4096,
        "tensor_parallel_size": 1,
        "max_lora_rank": 32,
        "max_loras": 100,
    }
    config = {
        "checkpoint_dir": str(folder / "checkpoints"),
        "supported_models": [model],
        "authorized_users": {API_KEY: "me"},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML, too
    command = [
        sys.executable,
        "-m",
        "tuft",
        "launch",
        "--config",
        str(path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with _running(command, folder, log, port, {"TUFT_CPU_TEST": "1", "TUFT_HOME": str(folder)}) as url:
        yield url


@contextlib.contextmanager
def skyrl(folder: Path, log: Path, backend: Mapping[str, object] = ONE_DEVICE) -> Iterator[str]:
    """Run SkyRL with its JAX engine on the CPU; yields the address. Two devices are simulated if the backend splits."""
    port = _free_port()
    uv = folder / "bin" / "uv"
    uv.parent.mkdir(exist_ok=True)
    uv.write_text(_UV.format(python=sys.executable))
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    for old in folder.glob("tinker.db*"):
        old.unlink()
    options = {
        "--base-model": BASE_MODEL,
        "--backend": "jax",
        "--backend-config": json.dumps(backend),
        "--database-url": f"sqlite:///{folder / 'tinker.db'}",
        "--checkpoints-base": str(folder / "checkpoints"),
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    command = [str(uv), "run", "-m", "skyrl.tinker.api", *(word for pair in options.items() for word in pair)]
    devices = 2 if "fully_sharded_data_parallel_size" in backend else 1
    more = {
        "PATH": f"{uv.parent}{os.pathsep}{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(folder / f"jax-{devices}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    with _running(command, folder, log, port, more) as url:
        yield url


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path, log: Path, port: int, more: Mapping[str, str]) -> Iterator[str]:
    """Run a server until the block ends; all its processes are one group, and end together."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    with log.open("w") as file:
        server = subprocess.Popen(
            command, cwd=folder, env=environment(**more), stdout=file, stderr=file, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(server, f"{url}/api/v1/healthz", log)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    request = urllib.request.Request(url, headers={"X-API-Key": API_KEY})
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(request, timeout=5).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
