"""The herald: what it hears of is released once, and everything is if it cannot hear."""

from __future__ import annotations

import queue
import threading

import pytest

from tinkex.errors import APIConnectionError, ClientClosedError, error_from_status
from tinkex.pipeline import Herald, News, Watched
from tinkex.pipeline import herald as module

WAIT = 10.0


class Server:
    """Answers questions with what a test puts in ``answers``: news, or an error to raise."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.questions: queue.SimpleQueue[tuple[int, list[str], bool]] = queue.SimpleQueue()

    def ask(self, cursor: int, fetched: list[str], may_hold: bool) -> News:
        self.questions.put((cursor, list(fetched), may_hold))
        answer = self.answers.get(timeout=WAIT)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def server():
    """A server."""
    return Server()


@pytest.fixture
def released():
    """Ids of what was released, in order."""
    return queue.SimpleQueue()


@pytest.fixture
def herald(server, released, monkeypatch):
    """A herald that does not wait long for anything."""
    for name in ("_LINGER_S", "_RETRY_S", "_QUICK_S"):
        monkeypatch.setattr(module, name, 0.02)
    yield Herald(server.ask, lambda watched, size: released.put(watched.request_id))
    server.answers.put(ClientClosedError("the client is closed"))  # whoever still asks hears this, and ends


def ended(*ids: str, cursor: int = 1) -> News:
    """News."""
    return News(ended=dict.fromkeys(ids), cursor=cursor)


def test_what_has_ended_is_released(server, released, herald):
    """Only that, and the next question carries the cursor."""
    for name in ("a", "b"):
        herald.expect(Watched(request_id=name))
    server.answers.put(ended("b", cursor=7))
    assert "b" == released.get(timeout=WAIT)
    server.answers.put(ended("a", cursor=8))
    assert "a" == released.get(timeout=WAIT)
    assert [(0, [], True), (7, [], True)] == [server.questions.get(timeout=WAIT) for _ in range(2)]


def test_news_that_come_before_the_submit_was_answered_are_kept(server, released, herald):
    """Then expect releases at once."""
    herald.expect(Watched(request_id="a"))
    server.answers.put(ended("early"))
    server.answers.put(ended("a", cursor=2))
    assert "a" == released.get(timeout=WAIT)
    herald.expect(Watched(request_id="early"))
    assert "early" == released.get(timeout=WAIT)


def test_what_was_fetched_is_told_until_it_was_heard(server, released, herald):
    """An acknowledgement whose question failed is sent again, without waiting for news if nobody waits."""
    herald.fetched("a")
    server.answers.put(APIConnectionError("lost"))
    server.answers.put(ended())
    assert [(0, ["a"], False)] * 2 == [server.questions.get(timeout=WAIT) for _ in range(2)]
    thread = herald._thread
    assert thread is None or not thread.join(WAIT)
    assert server.questions.empty()


@pytest.mark.parametrize(
    ("errors", "questions"),
    [
        ([error_from_status("", status_code=404)], 1),
        ([error_from_status("", status_code=400)] * 3, 3),
        ([error_from_status("", status_code=402)], 1),
    ],
)
def test_a_server_that_cannot_be_asked_is_left_alone(server, released, herald, errors, questions):
    """Everything is released, now and later, and no more questions are put."""
    herald.expect(Watched(request_id="a"))
    for error in errors:
        server.answers.put(error)
    assert "a" == released.get(timeout=WAIT)
    herald.expect(Watched(request_id="b"))
    herald.fetched("a")
    assert "b" == released.get(timeout=WAIT)
    assert questions == server.questions.qsize()


def test_trouble_that_passes_is_waited_out(server, released, herald):
    """Lost connections, 429 and 5xx, however often; a 400 now and then too."""
    herald.expect(Watched(request_id="a"))
    for _ in range(2):
        for error in (
            APIConnectionError("lost"),
            *(error_from_status("", status_code=code) for code in (429, 503, 400)),
        ):
            server.answers.put(error)
        server.answers.put(ended())
    server.answers.put(ended("a"))
    assert "a" == released.get(timeout=WAIT)


def test_what_nobody_waits_for_any_more_is_not_released(server, released, herald):
    """forget, of a cancelled sample."""
    for name in ("a", "b"):
        herald.expect(Watched(request_id=name))
    herald.forget("a")
    server.answers.put(ended("a", "b"))
    assert "b" == released.get(timeout=WAIT)
    assert released.empty()


def test_a_bug_releases_everything(server, released, herald, caplog):
    """No thread dies while others wait for it."""
    herald.expect(Watched(request_id="a"))
    server.answers.put(ZeroDivisionError())
    assert "a" == released.get(timeout=WAIT)
    assert "died" in caplog.text


def test_the_thread_ends_when_there_is_nothing_to_do_and_comes_back(server, released, herald):
    """It waits a little for more, then ends; the next sample starts another."""
    for name in ("a", "b"):
        herald.expect(Watched(request_id=name))
        server.answers.put(ended(name))
        assert name == released.get(timeout=WAIT)
        for thread in threading.enumerate():
            if thread.name == "tinkex-herald":
                thread.join(WAIT)
                assert not thread.is_alive()
