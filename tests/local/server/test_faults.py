"""A fault plan on real sockets."""

from __future__ import annotations

import threading

import pytest
import requests

from tinkex.testing.faults import FaultPlan


@pytest.fixture
def plan():
    """A plan in which nothing goes wrong yet."""
    return FaultPlan()


@pytest.fixture
def faulty(serve, plan):
    """A server that obeys the plan."""
    return serve(faults=plan)


def test_an_answer_takes_the_place_of_the_handling(faulty, plan, engine):
    """The nth request of a path gets it, with headers and body; those around it are handled."""
    model = faulty.new_model()
    plan.answer(503, {"detail": "later"}, path="optim_step", nth=2, headers={"Retry-After": "0.01"})
    assert "metrics" in faulty.run("optim_step", faulty.optim_step(model, 1))
    answer = faulty.call("POST", "optim_step", faulty.optim_step(model, 2))
    assert (answer.status_code, answer.json()) == (503, {"detail": "later"})
    assert answer.headers["Retry-After"] == "0.01"
    assert "metrics" in faulty.run("optim_step", faulty.optim_step(model, 2))
    assert engine.operations(model).count("optim_step") == 2


def test_a_reset_comes_before_the_handling(faulty, plan, engine):
    """The client sees a broken connection and nothing has happened."""
    model = faulty.new_model()
    plan.reset(method="POST", path="optim_*", times=2)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            faulty.call("POST", "optim_step", faulty.optim_step(model, 1))
    assert "metrics" in faulty.run("optim_step", faulty.optim_step(model, 1))
    assert engine.operations(model).count("optim_step") == 1


def test_a_drop_loses_the_answer_only(faulty, plan, engine):
    """The server has acted; a repeat with the same number gets that result."""
    model = faulty.new_model()
    plan.drop(path="optim_step")
    with pytest.raises(requests.ConnectionError):
        faulty.call("POST", "optim_step", faulty.optim_step(model, 1))
    assert "metrics" in faulty.run("optim_step", faulty.optim_step(model, 1))
    assert engine.operations(model).count("optim_step") == 1


def test_a_duplicate_is_handled_twice(faulty, plan, engine):
    """What must not be done twice is recognised."""
    model = faulty.new_model()
    plan.duplicate(path="optim_step")
    assert "metrics" in faulty.run("optim_step", faulty.optim_step(model, 1))
    assert engine.operations(model).count("optim_step") == 1


def test_a_stalled_request_goes_on_when_released(faulty, plan):
    """Others are not held up by it."""
    gate = plan.stall(path="sessions")
    answers = []

    def ask() -> None:
        headers = {"X-API-Key": faulty.server.api_key}
        answers.append(requests.get(faulty.url("sessions"), headers=headers, timeout=10).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    while plan.count("sessions") == 0:
        faulty.get("healthz")
    assert answers == []
    gate.release()
    gate.release()
    thread.join(10)
    assert answers == [200]


def test_a_stalled_request_does_not_keep_the_server_from_stopping(faulty, plan):
    """Its connection is cut after a short grace."""
    plan.stall(path="sessions")
    failures = []

    def ask() -> None:
        try:
            failures.append(requests.get(faulty.url("sessions"), headers={"X-API-Key": key}, timeout=30).status_code)
        except requests.ConnectionError as error:
            failures.append(error)

    key = faulty.server.api_key
    thread = threading.Thread(target=ask)
    thread.start()
    while plan.count("sessions") == 0:
        faulty.get("healthz")
    faulty.server.stop()
    thread.join(10)
    assert len(failures) == 1


def test_the_plan_remembers_what_it_saw(faulty, plan):
    """Method and path, in order."""
    faulty.get("healthz")
    faulty.session()
    assert plan.seen == [("GET", "healthz"), ("POST", "create_session")]
