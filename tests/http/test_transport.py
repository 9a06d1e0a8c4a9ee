"""One attempt over real sockets: what arrives, what breaks, and what the error then says."""

from __future__ import annotations

import gc
import gzip
import http.client
import os
import socket
import ssl
import threading
import traceback
import zlib
from array import array
from base64 import b64encode

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from tinkex.config import ClientConfig
from tinkex.errors import APIConnectionError, APITimeoutError, ClientClosedError, ConfigurationError
from tinkex.http import Pieces, Transport, _connection
from tinkex.http import body as http_body

KEY = {"X-API-Key": "tml-very-secret"}


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _twice(peer):
    peer.serve()
    peer.serve()


def test_an_answer_comes_back_whole(serve, connect):
    """Status, headers in lower case and the body are the server's."""
    server = serve(lambda peer: peer.serve(418, b'{"a":1}', X_Thing="yes"))
    response = connect(server.url).send("POST", "/api/v1/x", body=b"hello", headers={"X-One": "1"})
    assert (response.status, response.content, response.headers["x-thing"]) == (418, b'{"a":1}', "yes")
    request = server.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/api/v1/x", b"hello")
    assert request.headers["x-one"] == "1"
    assert response.elapsed > 0


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/x", "/x?team=red&q=a+%26%C3%BC"),
        ("/x?limit=5", "/x?limit=5&team=red&q=a+%26%C3%BC"),
        ("/x?team=blue", "/x?team=blue&q=a+%26%C3%BC"),
        ("/x?q=&team=", "/x?q=&team="),
    ],
)
def test_parameters_of_the_settings_join_those_of_the_call(serve, connect, path, target):
    """They are quoted, and one of the call goes before one of the same name."""
    server = serve(lambda peer: peer.serve())
    connect(server.url, default_query={"team": "red", "q": "a &\xfc"}).send("GET", path)
    assert server.requests[0].target == target


@pytest.mark.parametrize("reached", [True, False])
def test_parameters_of_the_settings_are_in_no_error(serve, connect, reached):
    """urllib3 has the address in its errors, which a traceback shows as causes of ours."""
    url = serve(lambda peer: (peer.read(), peer.reset())).url if reached else f"http://127.0.0.1:{_closed_port()}"
    transport = connect(url, default_query={"token": "hush-hush"})
    with pytest.raises(APIConnectionError) as caught:
        transport.send("GET", "/x?a=1")
    assert caught.value.path == "/x?a=1"
    shown = "".join(traceback.format_exception(caught.value))
    assert "hush" not in shown
    assert "/x?a=1" in shown


def test_requests_of_a_thread_share_a_connection(serve, connect):
    """Two requests, one after the other, use one connection."""
    server = serve(_twice)
    transport = connect(server.url)
    for _ in range(2):
        transport.send("GET", "/api/v1/healthz")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_answers_are_decompressed(serve, connect, encoding, compress):
    """The body is what the server compressed, and the server was told what it may use."""
    server = serve(lambda peer: peer.serve(body=compress(b"[1,2,3]"), content_encoding=encoding))
    assert connect(server.url).send("GET", "/x").content == b"[1,2,3]"
    assert "gzip" in server.requests[0].headers["accept-encoding"]


def test_an_answer_that_cannot_be_decompressed_is_a_broken_connection(serve, connect):
    """Bytes that are no gzip are a transport fault, not a result."""
    server = serve(lambda peer: peer.serve(body=b"not gzip", content_encoding="gzip"))
    with pytest.raises(APIConnectionError) as caught:
        connect(server.url).send("GET", "/x")
    assert caught.value.maybe_sent


def test_a_base_url_keeps_its_path(serve, connect):
    """A server mounted below a path is reached there."""
    server = serve(lambda peer: peer.serve())
    connect(server.url + "/services/tinker/").send("GET", "/api/v1/healthz?limit=1")
    assert server.requests[0].target == "/services/tinker/api/v1/healthz?limit=1"


def test_a_password_in_the_base_url_is_sent_and_never_shown(connect):
    """It becomes a header, and errors show the address without it."""
    port = _closed_port()
    transport = connect(f"http://me:hush@127.0.0.1:{port}")
    with responses.RequestsMock() as mocked:
        mocked.get(f"http://127.0.0.1:{port}/x")
        transport.send("GET", "/x")
        assert mocked.calls[0].request.headers["Authorization"] == "Basic " + b64encode(b"me:hush").decode()
    with pytest.raises(APIConnectionError) as caught:
        transport.send("GET", "/x")
    assert "hush" not in str(caught.value)
    assert f"base_url=http://127.0.0.1:{port}" in str(caught.value)


def test_a_refused_connection_names_the_server_and_asks_if_it_runs(connect):
    """Nothing was sent, it may be tried again, and the message has the address."""
    port = _closed_port()
    with pytest.raises(APIConnectionError, match="is the server running") as caught:
        connect(f"http://127.0.0.1:{port}").send("POST", "/api/v1/x", body=b"{}")
    error = caught.value
    assert f"base_url=http://127.0.0.1:{port}" in str(error)
    assert (error.maybe_sent, error.retryable, error.method, error.path) == (False, True, "POST", "/api/v1/x")
    assert not isinstance(error, APITimeoutError)


def test_an_unknown_host_is_named(connect, monkeypatch):
    """The message asks to check the base URL; nothing was sent."""

    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(APIConnectionError, match=r"no host of that name.*base_url=http://nowhere\.invalid") as caught:
        connect("http://nowhere.invalid").send("GET", "/x")
    assert caught.value.maybe_sent is False


def test_a_slow_connection_is_a_timeout_before_sending(connect, monkeypatch):
    """A timeout of connecting surely sent nothing."""

    def fail(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib3.util.connection.create_connection", fail)
    with pytest.raises(APITimeoutError, match="no connection within 5 s") as caught:
        connect("http://127.0.0.1:1").send("GET", "/x")
    assert caught.value.maybe_sent is False


def test_a_server_that_never_ends_the_handshake_is_a_timeout_before_sending(serve, connect):
    """Until TLS stands nothing of the request has left, and the limit is that for connecting."""
    server = serve(lambda peer: peer.stall())
    with pytest.raises(APITimeoutError, match=r"no connection within 0\.05 s") as caught:
        connect(server.url.replace("http:", "https:"), connect_timeout=0.05).send("GET", "/x")
    assert caught.value.maybe_sent is False


def test_a_server_that_does_not_answer_is_a_timeout_after_sending(serve, connect):
    """A timeout of reading may have been acted on."""
    server = serve(lambda peer: (peer.read(), peer.stall()))
    with pytest.raises(APITimeoutError, match=r"no answer from .* within 0\.05 s") as caught:
        connect(server.url).send("GET", "/x", timeout=0.05)
    assert caught.value.maybe_sent is True
    assert isinstance(caught.value, TimeoutError)


def test_the_timeout_of_the_settings_holds_where_none_is_given(serve, connect):
    """No call waits without a limit."""
    server = serve(lambda peer: (peer.read(), peer.stall()))
    with pytest.raises(APITimeoutError, match=r"within 0\.07 s"):
        connect(server.url, timeout=0.07).send("GET", "/x")


def test_an_answer_that_stops_halfway_is_a_timeout(serve, connect):
    """The limit holds for the body too."""
    server = serve(
        lambda peer: (peer.read(), peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), peer.stall())
    )
    with pytest.raises(APITimeoutError) as caught:
        connect(server.url).send("GET", "/x", timeout=0.05)
    assert caught.value.maybe_sent is True


def test_a_server_that_takes_nothing_is_a_timeout(serve, connect):
    """A body that is too large for the buffers of a stalled server does not hang the sender."""
    server = serve(lambda peer: peer.stall())
    with pytest.raises(APITimeoutError, match=r"took none of the request for 0\.1 s") as caught:
        connect(server.url, connect_timeout=0.1).send("POST", "/x", body=bytes(64 << 20))
    assert caught.value.maybe_sent is True


@pytest.fixture(params=["scattered", "joined"])
def way(request, monkeypatch):
    """How blocks are sent: from where they are, or, as over TLS and on Windows, joined."""
    if request.param == "joined":
        monkeypatch.setattr(_connection._Plain, "_send_block", _connection._OneWrite._send_block)
    return request.param


BODY = os.urandom(3_000_003)
LARGE = {
    "bytes": BODY,
    "pieces": Pieces([BODY[:5], array("B", BODY[5:2_000_000]), b"", BODY[2_000_000:]], len(BODY)),
    "many pieces": Pieces([BODY[start : start + 999] for start in range(0, len(BODY), 999)], len(BODY)),
}


@pytest.mark.parametrize("kind", sorted(LARGE))
def test_a_large_body_arrives_whole(serve, connect, way, kind):
    """Blocks change neither the bytes nor the declared length."""
    server = serve(lambda peer: peer.serve())
    connect(server.url).send("POST", "/x", body=LARGE[kind])
    assert server.requests[0].body == BODY
    assert server.requests[0].headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in server.requests[0].headers


@pytest.mark.parametrize("kind", sorted(LARGE))
def test_a_large_body_arrives_whole_where_the_kernel_takes_little(serve, connect, monkeypatch, kind):
    """As on a slow line, whose buffers are full."""
    sendmsg = socket.socket.sendmsg
    monkeypatch.setattr(
        socket.socket, "sendmsg", lambda self, parts: sendmsg(self, [memoryview(parts[0]).cast("B")[:77_777]])
    )
    server = serve(lambda peer: peer.serve())
    connect(server.url).send("POST", "/x", body=LARGE[kind])
    assert server.requests[0].body == BODY


@pytest.fixture
def sent(monkeypatch):
    """What is handed to the socket, call by call."""
    taken = []
    send = http.client.HTTPConnection.send

    def record(connection, data):
        taken.append(bytes(data))
        send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", record)
    return taken


def test_a_small_body_in_pieces_is_sent_as_bytes(serve, connect, sent):
    """Together with the head, in one packet."""
    server = serve(lambda peer: peer.serve())
    connect(server.url).send("POST", "/x", body=Pieces([b"he", array("B", b"llo")], 5))
    assert server.requests[0].body == b"hello"
    assert [True] == [part.endswith(b"hello") for part in sent]


@pytest.mark.parametrize("kind", sorted(LARGE))
def test_a_large_body_arrives_whole_through_a_proxy(serve, connect, monkeypatch, kind):
    """Whose connections are those of urllib3."""
    server = serve(lambda peer: peer.serve())
    monkeypatch.setenv("HTTP_PROXY", server.url)
    connect("http://tinker.test").send("POST", "/x", body=LARGE[kind])
    assert (server.requests[0].target, server.requests[0].body) == ("http://tinker.test/x", BODY)


def test_a_large_body_that_is_redirected_arrives_whole(serve, connect, way):
    """It is sent again from its beginning."""
    other = serve(lambda peer: peer.serve())
    server = serve(lambda peer: (peer.read(), peer.answer(307, location=f"{other.url}/there")))
    connect(server.url).send("POST", "/x", body=LARGE["pieces"])
    assert other.requests[0].body == BODY


def test_joined_blocks_go_out_in_slices(serve, connect, monkeypatch, sent):
    """Each slice has the time limit of connecting for itself; a whole block on a slow line would not fit in it."""
    monkeypatch.setattr(_connection._Plain, "_send_block", _connection._OneWrite._send_block)
    server = serve(lambda peer: peer.serve())
    connect(server.url).send("POST", "/x", body=BODY)
    assert max(map(len, sent)) <= 256 * 1024
    assert server.requests[0].body == BODY


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=6).filter(any), st.data())
def test_what_the_kernel_did_not_take_is_sent_next(buffers, data):
    """From the byte on where it stopped."""
    whole = b"".join(buffers)
    sent = data.draw(st.integers(0, len(whole) - 1))
    assert b"".join(_connection._after([array("B", part) for part in buffers], sent)) == whole[sent:]


@given(st.lists(st.binary(max_size=40).map(lambda part: array("H", part * 2)) | st.binary(max_size=40)))
def test_blocks_are_small_and_say_the_same_each_time(buffers):
    """As many buffers and bytes as one system call takes, at most."""
    whole = b"".join(buffers)
    pieces = Pieces(buffers, len(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_body, "_BLOCK_BYTES", 30)
        patch.setattr(http_body, "_BLOCK_BUFFERS", 3)
        first, second = list(pieces), list(pieces)
    assert first == second
    sent = [b"".join(block) for block in first]
    assert b"".join(sent) == bytes(pieces) == whole
    assert [block.size for block in first] == list(map(len, sent))
    assert all(0 < len(block) <= 3 and block.size <= 30 for block in first)


FAULTS = {
    "closes without an answer": lambda peer: peer.read(),
    "closes within the status line": lambda peer: (peer.read(), peer.send(b"HTTP/1.1 2")),
    "closes within the body": lambda peer: (
        peer.read(),
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
    ),
    "closes within a chunk": lambda peer: (
        peer.read(),
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nha"),
    ),
    "resets": lambda peer: (peer.read(), peer.reset()),
    "speaks something else": lambda peer: (peer.read(), peer.send(b"\x15\x03\x03\x00\x02\x02\x16")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_breaks_may_have_been_acted_on(serve, connect, fault):
    """Whatever breaks after sending is one kind of error, which may be tried again."""
    server = serve(FAULTS[fault])
    with pytest.raises(APIConnectionError) as caught:
        connect(server.url).send("POST", "/x", body=b"{}", headers=KEY)
    error = caught.value
    assert (error.maybe_sent, error.retryable, isinstance(error, APITimeoutError)) == (True, True, False)
    assert server.url in str(error)
    assert error.__cause__ is not None
    assert getattr(error.__cause__, "request", None) is None, "it would carry the headers, and so the key"


def test_a_connection_that_was_closed_while_idle_is_replaced(serve, connect):
    """A server may close a kept connection between requests; the next request opens another."""
    closed = threading.Event()

    def close_after_one(peer):
        peer.serve()
        peer.reset()
        closed.set()

    server = serve(close_after_one, lambda peer: peer.serve(202))
    transport = connect(server.url)
    transport.send("GET", "/x")
    assert closed.wait(10)
    assert transport.send("GET", "/x").status == 202


def test_a_connection_that_dies_under_the_second_request_is_an_ordinary_error(serve, connect):
    """The race between a request and the server's closing is retryable, and the next attempt succeeds."""
    server = serve(lambda peer: (peer.serve(), peer.read()), lambda peer: peer.serve())
    transport = connect(server.url)
    transport.send("GET", "/x")
    with pytest.raises(APIConnectionError) as caught:
        transport.send("GET", "/x")
    assert caught.value.retryable
    assert transport.send("GET", "/x").status == 200


def test_https_to_a_plain_server_says_to_write_http(serve, connect):
    """The wrong scheme is named, and is not tried again."""
    server = serve(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(APIConnectionError, match="write http:// in base_url") as caught:
        connect(server.url.replace("http:", "https:")).send("GET", "/x")
    assert (caught.value.maybe_sent, caught.value.retryable) == (False, False)


def test_an_untrusted_certificate_names_the_variable(serve, connect, monkeypatch):
    """The way out is REQUESTS_CA_BUNDLE; trying again is none."""
    server = serve(lambda peer: peer.stall())

    def fail(*_, **__):
        raise ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", fail)
    with pytest.raises(APIConnectionError, match="REQUESTS_CA_BUNDLE") as caught:
        connect(server.url.replace("http:", "https:")).send("GET", "/x")
    assert (caught.value.maybe_sent, caught.value.retryable) == (False, False)


def test_a_bundle_of_certificates_that_is_not_there_is_told_before_any_io(monkeypatch):
    """A wrong REQUESTS_CA_BUNDLE is a mistake of the settings."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        Transport(ClientConfig(base_url="https://example.test"))


def test_a_bundle_of_certificates_is_used(monkeypatch, tmp_path, connect):
    """REQUESTS_CA_BUNDLE reaches the adapter."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with responses.RequestsMock() as mocked:
        mocked.get("https://example.test/x")
        connect("https://example.test").send("GET", "/x")
        assert mocked.calls[0].request.req_kwargs["verify"] == str(bundle)


def test_a_proxy_of_the_environment_is_used(serve, connect, monkeypatch):
    """HTTP_PROXY gets the request, with the whole address."""
    proxy = serve(lambda peer: peer.serve(203))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert connect("http://tinker.example/base").send("GET", "/x").status == 203
    assert proxy.requests[0].target == "http://tinker.example/base/x"


def test_no_proxy_is_obeyed(serve, connect, monkeypatch):
    """A host in NO_PROXY is reached directly."""
    server = serve(lambda peer: peer.serve())
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{_closed_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert connect(server.url).send("GET", "/x").status == 200


def test_a_dead_proxy_is_named_as_the_culprit(connect, monkeypatch):
    """The message speaks of the proxy variables, not of the server."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{_closed_port()}")
    with pytest.raises(APIConnectionError, match="HTTP_PROXY") as caught:
        connect("http://tinker.example").send("GET", "/x")
    assert caught.value.maybe_sent is False


@pytest.mark.parametrize("url", ["http://a b/", "http://host:port", "https://["])
def test_a_base_url_that_cannot_be_used_is_told_before_any_io(url):
    """A mistake in the address is a mistake of the settings."""
    with pytest.raises(ConfigurationError, match="base_url"):
        Transport(ClientConfig(base_url=url))


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("GET", 302), ("GET", 307), ("POST", 307), ("POST", 308)])
def test_redirects_are_followed_with_method_and_body(serve, connect, method, status):
    """The redirected request is the same request, key included, if it stays on this server."""
    server = serve(lambda peer: (peer.serve(status, location="/there"), peer.serve(203)))
    body = b"{}" if method == "POST" else None
    response = connect(server.url).send(method, "/here", body=body, headers=KEY)
    assert response.status == 203
    request = server.requests[1]
    assert (request.method, request.target, request.body) == (method, "/there", body or b"")
    assert request.headers["x-api-key"] == KEY["X-API-Key"]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_make_a_post_a_get_is_not_followed(serve, connect, status):
    """Such a redirect is the caller's to see."""
    server = serve(lambda peer: peer.serve(status, location="/there"))
    assert connect(server.url).send("POST", "/here", body=b"{}").status == status


def test_redirects_can_be_left_alone(serve, connect):
    """With redirects off, the redirect is the answer."""
    server = serve(lambda peer: peer.serve(302, location="https://storage.example/a?signature=1"))
    response = connect(server.url).send("GET", "/archive", redirects=False)
    assert (response.status, response.headers["location"]) == (302, "https://storage.example/a?signature=1")


def test_the_key_does_not_follow_a_redirect_to_another_host(serve, connect):
    """What identifies the user stays with the server it is meant for."""
    other = serve(lambda peer: peer.serve())
    server = serve(lambda peer: peer.serve(307, location=other.url + "/x"))
    secrets = {**KEY, "CF-Access-Client-Secret": "hush", "Accept": "application/json"}
    connect(server.url).send("GET", "/x", headers=secrets)
    assert {"x-api-key", "cf-access-client-secret"} & set(other.requests[0].headers) == set()
    assert other.requests[0].headers["accept"] == "application/json"


def test_a_circle_of_redirects_ends(serve, connect):
    """It is an error, and not one to try again."""

    def circle(peer):
        for _ in range(31):
            peer.serve(302, location="/x")

    server = serve(circle)
    with pytest.raises(APIConnectionError, match="in a circle") as caught:
        connect(server.url).send("GET", "/x")
    assert not caught.value.retryable


def test_close_closes_the_connections_of_all_threads(serve, connect):
    """Threads that have long finished their requests, and are still alive, lose their connections too."""
    farewells = []
    server = serve(*[lambda peer: (peer.serve(), farewells.append(peer.wait_for_close()))] * 2)
    transport = connect(server.url)
    sent, leave = threading.Barrier(3), threading.Event()

    def work():
        transport.send("GET", "/x")
        sent.wait(10)
        leave.wait(10)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    sent.wait(10)
    transport.close()
    server.join()
    assert farewells == [True, True]
    leave.set()
    for worker in workers:
        worker.join()


def test_a_thread_that_ends_takes_its_connection_with_it(serve, connect):
    """Short-lived threads leave no connections behind."""
    farewells = []
    server = serve(lambda peer: (peer.serve(), farewells.append(peer.wait_for_close())))
    transport = connect(server.url)
    worker = threading.Thread(target=transport.send, args=("GET", "/x"))
    worker.start()
    worker.join()
    gc.collect()
    server.join()
    assert farewells == [True]


def test_a_closed_transport_says_so(connect):
    """Closing twice is fine; sending afterwards is refused."""
    transport = connect("http://127.0.0.1:1")
    transport.close()
    transport.close()
    with pytest.raises(ClientClosedError, match="closed"):
        transport.send("GET", "/x")


def test_a_forked_process_opens_connections_of_its_own(serve, connect, monkeypatch):
    """Two processes that shared a socket would read each other's answers."""
    server = serve(lambda peer: (peer.serve(), peer.stall()), lambda peer: peer.serve(202))
    transport = connect(server.url)
    parent = transport._sessions
    transport.send("GET", "/x")
    monkeypatch.setattr("tinkex.http.transport.os.getpid", lambda: -1)
    assert transport.send("GET", "/x").status == 202
    assert transport._sessions is not parent
