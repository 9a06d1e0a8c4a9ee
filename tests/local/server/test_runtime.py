"""Starting, stopping, sharing, serving."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

import tinkex
from tinkex.data import TINY_NAME, builtin_models
from tinkex.errors import ConfigurationError, LifecycleError
from tinkex.local import LocalServer, default_data_dir, is_available, local_server
from tinkex.local.serving import model_folders
from tinkex.testing.engine import ScriptedEngine

# A program that runs a server over the scripted engine.
PRELUDE = """
import os, sys, requests
from tinkex.local import runtime, serve, shared_local_server
from tinkex.testing.engine import ScriptedEngine
runtime.LocalServer._make_engine = lambda self: ScriptedEngine()
"""


def run_program(text, tmp_path, **more):
    """Start a Python program with a data folder of its own."""
    env = {**os.environ, "TINKEX_LOCAL_DIR": str(tmp_path), "PYTHONPATH": str(Path(tinkex.__file__).parents[1])}
    env.pop("TINKER_API_KEY", None)
    command = [sys.executable, "-c", PRELUDE + text]
    return subprocess.Popen(command, env=env | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def descriptors():
    """How many files and sockets this process has open."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_starting_and_stopping_leaves_nothing(tmp_path):
    """No thread, no socket, no file; an engine can serve again."""
    engine = ScriptedEngine()
    server = LocalServer(engine, data_dir=tmp_path)
    with server:
        headers = {"X-API-Key": server.api_key}
        request = {"prompt": {"chunks": [{"tokens": [1]}]}, "sampling_params": {}, "base_model": TINY_NAME}
        promise = requests.post(server.base_url + "/api/v1/asample", json=request, headers=headers, timeout=10).json()
        requests.post(server.base_url + "/api/v1/retrieve_future", json=promise, headers=headers, timeout=10)
    assert [call.operation for call in engine.calls] == ["open_sampler", "sample", "close_sampler"]
    threads, files = threading.active_count(), descriptors()
    for _ in range(5):
        with server:
            assert requests.get(server.base_url + "/api/v1/healthz", timeout=10).status_code == 200
    assert (threading.active_count(), descriptors()) == (threads, files)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_start_and_stop_may_be_repeated(tmp_path):
    """The second call does nothing; a stopped server has no address."""
    server = LocalServer(ScriptedEngine(), data_dir=tmp_path)
    server.stop()
    assert server.start() is server
    url = server.base_url
    assert server.start().base_url == url
    assert server.is_running
    assert server.model_names == [TINY_NAME]
    server.stop()
    server.stop()
    assert not server.is_running
    with pytest.raises(LifecycleError, match="start"):
        _ = server.base_url


def test_threads_may_stop_it_together(tmp_path):
    """Each returns when the server has stopped or another is stopping it."""
    server = LocalServer(ScriptedEngine(), data_dir=tmp_path).start()
    threads = [threading.Thread(target=server.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not server.is_running


def test_a_taken_port_is_named(tmp_path):
    """The error says which and what to do; nothing stays behind."""
    with local_server(ScriptedEngine(), data_dir=tmp_path) as first:
        port = int(first.base_url.rpartition(":")[2])
        threads = threading.active_count()
        with pytest.raises(ConfigurationError, match=f"port {port}.*choose another port"):
            LocalServer(ScriptedEngine(), port=port, data_dir=tmp_path).start()
        assert threading.active_count() == threads


def test_a_data_folder_that_cannot_be_used(tmp_path):
    """The error names the folder and the setting."""
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(ConfigurationError, match="TINKEX_LOCAL_DIR"):
        LocalServer(ScriptedEngine(), data_dir=blocked / "x").start()


def test_the_data_folder_is_one_of_the_user():
    """An explicit variable wins, then the cache folder of the desktop, then the usual one."""
    assert default_data_dir({"TINKEX_LOCAL_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert default_data_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/tinkex/local")
    assert default_data_dir({}) == Path.home() / ".cache/tinkex/local"


def test_keys_are_random_unless_given(tmp_path):
    """They have the form that every client accepts."""
    first, second = LocalServer(ScriptedEngine()), LocalServer(ScriptedEngine())
    assert first.api_key.startswith("tml-local-")
    assert first.api_key != second.api_key
    assert LocalServer(ScriptedEngine(), api_key="tml-mine").api_key == "tml-mine"


def test_the_address_may_be_ipv6(tmp_path):
    """Then the URL has brackets."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = LocalServer(ScriptedEngine(), host="::1", data_dir=tmp_path)
    try:
        server.start()
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    with server:
        assert server.base_url.startswith("http://[::1]:")
        assert requests.get(server.base_url + "/api/v1/healthz", timeout=10).status_code == 200


@pytest.mark.parametrize("missing", ["uvicorn", "torch"])
def test_what_is_not_installed_is_named(monkeypatch, tmp_path, missing):
    """With the command that installs it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ImportError, match=rf'{missing}.*pip install "tinkex\[local\]"'):
        LocalServer(data_dir=tmp_path).start()
    assert not is_available()


def test_importing_the_package_loads_nothing_heavy():
    """Neither the server's libraries nor the engine's."""
    heavy = "{'starlette', 'uvicorn', 'torch', 'transformers', 'numpy'}"
    code = f"import sys, tinkex.local, tinkex.testing.engine, tinkex.testing.faults; print({heavy} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(Path(tinkex.__file__).parents[1])}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_the_shared_server_is_one_and_starts_again_after_a_stop(tmp_path):
    """Whoever asks gets the same; after a stop a new one; a forked child one of its own."""
    program = run_program(
        """
one, two = shared_local_server(), shared_local_server()
assert one is two and one.is_running
one.stop()
again = shared_local_server()
assert again.is_running
url = again.base_url
child = os.fork()
if child == 0:
    own = shared_local_server()
    different = own.base_url != url
    alive = requests.get(own.base_url + "/api/v1/healthz").status_code == 200
    own.stop()
    os._exit(0 if different and alive else 1)
assert os.waitpid(child, 0)[1] == 0
assert requests.get(again.base_url + "/api/v1/healthz").status_code == 200
print("fine")
""",
        tmp_path,
    )
    out, err = program.communicate(timeout=60)
    assert out == "fine\n", err


@pytest.mark.parametrize("start", ["runtime.LocalServer().start", "shared_local_server"])
def test_a_start_that_comes_back_to_itself_is_an_error_and_no_hang(tmp_path, start):
    """A program named like a package is imported in its place, by what the engine imports, and so starts once more."""
    program = run_program(
        f"""
from tinkex.errors import LifecycleError
start = {start}
make, runtime.LocalServer._make_engine = runtime.LocalServer._make_engine, lambda self: start()
for _ in range(2):
    try:
        start()
    except LifecycleError as error:
        print(error)
runtime.LocalServer._make_engine = make
start().stop()
print("fine")
""",
        tmp_path,
    )
    out, err = program.communicate(timeout=60)
    assert (2, True) == (out.count("give it another name\n"), out.endswith("fine\n")), err


def test_the_shared_server_outlives_exit_functions_of_its_users(tmp_path):
    """A client that drains when the process ends can still submit and retrieve, and then the server stops."""
    program = run_program(
        """
import atexit
server = shared_local_server()
http = requests.Session()
http.headers["X-API-Key"] = server.api_key
def post(path, body):
    return http.post(server.base_url + "/api/v1/" + path, json=body, timeout=20).json()
def drain():
    session = post("create_session", {"tags": [], "user_metadata": {}, "sdk_version": "1"})["session_id"]
    body = {"session_id": session, "model_seq_id": 0, "base_model": "tiny"}
    future = post("create_model", body)
    print(post("retrieve_future", {"request_id": future["request_id"]})["type"])
atexit.register(drain)
""",
        tmp_path,
    )
    out, err = program.communicate(timeout=60)
    assert (out, program.returncode) == ("create_model\n", 0), err
    assert err == ""
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_when_it_is_ready_and_ends_on_a_signal(tmp_path, number):
    """One line with everything that a client needs; then a clean end."""
    program = run_program("serve(port=0)", tmp_path)
    line = program.stdout.readline()
    match = re.fullmatch(
        rf"serving {TINY_NAME}; use it with TINKER_BASE_URL=(http://127.0.0.1:\d+) TINKER_API_KEY=(tml-local-\S+)\n",
        line,
    )
    assert match, (line, program.stderr.read() if program.poll() is not None else "")
    url, key = match.groups()
    answer = requests.get(url + "/api/v1/get_server_capabilities", headers={"X-API-Key": key}, timeout=10)
    assert answer.status_code == 200
    program.send_signal(number)
    out, err = program.communicate(timeout=30)
    assert (out, err, program.returncode) == ("", "", 0)


def test_serve_does_not_print_a_key_that_was_given(tmp_path):
    """It comes from the environment and works."""
    program = run_program("serve(host='127.0.0.2')", tmp_path, TINKER_API_KEY="tml-secret")
    line = program.stdout.readline()
    url = re.search(r"http://\S+", line).group()
    assert "tml-secret" not in line
    answer = requests.get(url + "/api/v1/sessions", headers={"X-API-Key": "tml-secret"}, timeout=10)
    program.terminate()
    assert answer.status_code == 200
    _, err = program.communicate(timeout=30)
    assert err == ""


def test_serve_warns_when_others_can_reach_it(tmp_path):
    """Once, on stderr; then any Host header will do."""
    program = run_program("serve(host='0.0.0.0', api_key='tml-k')", tmp_path)
    url = re.search(r"http://\S+", program.stdout.readline()).group()
    answer = requests.get(url + "/api/v1/sessions", headers={"X-API-Key": "tml-k", "Host": "box"}, timeout=10)
    program.terminate()
    assert answer.status_code == 200
    _, err = program.communicate(timeout=30)
    assert re.fullmatch(r"warning: 0\.0\.0\.0 .*\n", err)


def test_serve_refuses_a_port_that_is_taken(tmp_path):
    """With the error that the command line shows."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = run_program(f"serve(port={taken.getsockname()[1]})", tmp_path)
        _, err = program.communicate(timeout=30)
    assert "ConfigurationError: cannot listen on 127.0.0.1" in err


def test_models_of_the_command_line(tmp_path):
    """The tiny one, a folder by its name, or under another name."""
    (tmp_path / "config.json").touch()
    assert model_folders("tiny") == model_folders(TINY_NAME) == builtin_models()
    assert model_folders(str(tmp_path)) == {tmp_path.name: tmp_path}
    assert model_folders(f"Qwen/Qwen3-0.6B={tmp_path}") == {"Qwen/Qwen3-0.6B": tmp_path}
    with pytest.raises(ConfigurationError, match="neither 'tiny' nor a folder"):
        model_folders("Qwen/Qwen3-0.6B")
