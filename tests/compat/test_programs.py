"""What programs of others do with the SDK, in the order in which they do it; each here once stopped one of them."""

from __future__ import annotations

import asyncio
import json
import weakref

from tests.clients.conftest import until
from tinkex.testing.faults import FaultPlan

BASE = "acme/small"
PAUSED = {"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "no room"}


def test_a_viewer_samples_from_a_checkpoint_and_watches_the_queue(tinker, service, faults: FaultPlan) -> None:
    """As tinkerscope does: it replaces the client's observer, keeps the one it found, and samples in a coroutine."""
    training = service.create_lora_training_client(BASE, rank=4)
    path = training.save_weights_for_sampler("one").result(timeout=10).path
    sampling = service.create_sampling_client(model_path=path, base_model=None)
    assert getattr(service, "holder", None) is None
    heard, watched, usual = [], weakref.WeakKeyDictionary({sampling: "live"}), sampling.on_queue_state_change

    def observe(queue_state: object, reason: str | None) -> None:
        heard.append((queue_state.value, reason))
        usual(queue_state, reason)

    sampling.on_queue_state_change = observe

    async def view() -> object:
        assert await sampling.get_base_model_async() == BASE
        prompt = tinker.ModelInput(chunks=[tinker.types.EncodedTextChunk(tokens=[1, 2])])
        params = tinker.types.SamplingParams(max_tokens=3, temperature=0.5, top_p=1.0, stop=["x"])
        drawn = [sampling.sample_async(prompt=prompt, num_samples=1, sampling_params=params) for _ in range(3)]
        return await asyncio.gather(*(asyncio.ensure_future(one) for one in drawn))

    faults.answer(200, PAUSED, path="retrieve_future")
    answers = asyncio.run(view())
    assert [len(answer.sequences) for answer in answers] == [1, 1, 1]
    until(lambda: heard.count(("active", None)) == 3)
    assert ("paused_capacity", "no room") in heard
    assert watched[sampling] == "live"


def test_a_script_lists_what_was_trained_before_and_trains(tinker, service) -> None:
    """As the examples of ModelScope's twinkle do: runs and checkpoints as JSON, lists by name, arrays of results."""
    import numpy as np

    service.create_lora_training_client(BASE, rank=4).save_state("before").result(timeout=10)
    rest = service.create_rest_client()
    for run in rest.list_training_runs(limit=50).result(timeout=10).training_runs:
        assert json.loads(run.model_dump_json(indent=2))["base_model"] == BASE
        for checkpoint in rest.list_checkpoints(run.training_run_id).result(timeout=10).checkpoints:
            assert json.loads("  " + checkpoint.model_dump_json(indent=2))["checkpoint_id"] == "weights/before"
    training = service.create_lora_training_client(base_model=BASE)
    datum = tinker.types.Datum(
        model_input=tinker.types.ModelInput.from_ints(tokens=[1, 2, 3]),
        loss_fn_inputs=dict(weights=[0, 1, 1], target_tokens=[2, 3, 4]),  # noqa: C408 - as it is written there
    )
    forward = training.forward_backward([datum], "cross_entropy")
    training.optim_step(tinker.types.AdamParams(learning_rate=1e-4)).result(timeout=10)
    outputs = forward.result(timeout=10).loss_fn_outputs
    logprobs = np.concatenate([output["logprobs"].tolist() for output in outputs])
    weights = np.concatenate([datum.loss_fn_inputs["weights"].tolist()])
    assert np.isfinite(-np.dot(logprobs, weights) / weights.sum())
    saved = training.save_state("after").result(timeout=10)
    rest.publish_checkpoint_from_tinker_path(saved.path).result(timeout=10)
