"""A request belongs to the trace of the call that it was made for, whichever thread sends it."""

from __future__ import annotations

import contextvars
import sys
import types as python_types

import pytest

import tinkex
from tinkex import types
from tinkex.http import Transport

WAIT = 30.0
span: contextvars.ContextVar[str] = contextvars.ContextVar("span")


def inject(carrier: dict[str, str]) -> None:
    """Do what a propagator does, for a span that is a text."""
    if span.get(None):
        carrier["traceparent"] = span.get()


@pytest.fixture
def traced(stage, monkeypatch):
    """A client that propagates, and the span of each request by the last part of its path."""
    module = python_types.ModuleType("opentelemetry.propagate")
    module.inject = inject
    monkeypatch.setitem(sys.modules, "opentelemetry", python_types.ModuleType("opentelemetry"))
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", module)
    spans: dict[str, list[str | None]] = {}
    send = Transport.send

    def note(self, method, path, *, headers, **options):
        spans.setdefault(path.rpartition("/")[2], []).append(headers.get("traceparent"))
        return send(self, method, path, headers=headers, **options)

    monkeypatch.setattr(Transport, "send", note)
    with stage.new_service(propagate_trace=True) as service:
        yield service, spans


def test_what_threads_send_has_the_trace_of_the_call(traced, batch):
    """Training, sampling and lookups: the span is that of the moment of the call, not of the wait for it."""
    service, spans = traced
    span.set("create")
    train = service.create_lora_training_client("acme/small", rank=4)
    sampler = service.create_sampling_client(base_model="acme/small")
    prompt, params = tinkex.ModelInput.from_ints([1]), tinkex.SamplingParams(max_tokens=1)
    futures = []
    for name in ("first", "second"):
        span.set(name)
        futures.append(train.forward_backward(batch, "cross_entropy"))
        futures.append(train.optim_step(types.AdamParams()))
        futures.append(sampler.sample(prompt, 1, params))
        futures.append(service.create_rest_client().list_user_checkpoints())
    span.set("wait")
    for future in futures:
        future.result(WAIT)
    assert spans["create_model"] == ["create"]
    assert spans["forward_backward"] == spans["optim_step"] == ["first", "second"]
    assert sorted(spans["asample"]) == ["first", "second"]
    assert set(spans["retrieve_future"]) == {None}


def test_a_sample_that_is_drawn_again_keeps_its_trace(traced, stage):
    """It is sent by another thread, after its result was lost."""
    service, spans = traced
    sampler = service.create_sampling_client(base_model="acme/small")
    stage.faults.answer(410, path="retrieve_future")
    span.set("mine")
    future = sampler.sample(tinkex.ModelInput.from_ints([1]), 1, tinkex.SamplingParams(max_tokens=1))
    span.set("other")
    future.result(WAIT)
    assert spans["asample"] == ["mine", "mine"]


def test_contexts_are_not_kept_unless_asked_for(stage, batch, monkeypatch):
    """Off, an operation costs nothing more than before."""
    monkeypatch.setattr("tinkex.pipeline.keeper.contextvars", None)
    stage.train().forward_backward(batch, "cross_entropy").result(WAIT)
