"""Every argument that is a number takes one of NumPy or torch too."""

from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest

import tinkex
from tinkex import types

WAIT = 30.0
CLIENTS = (tinkex.ServiceClient, tinkex.TrainingClient, tinkex.SamplingClient, tinkex.RestClient, tinkex.AdminClient)
PROMPT = types.ModelInput.from_ints([1, 2, 3])


def calls(stage):
    """A call for each numeric argument of a method, with what it is given."""
    service, train = stage.service, stage.train()
    sampler, rest = service.create_sampling_client(base_model="acme/small"), service.create_rest_client()
    path = train.save_state("a").result(WAIT).path
    params = types.SamplingParams(max_tokens=2)

    def sample(**asked):
        return sampler.sample(PROMPT, 1, params, **asked).result(WAIT)

    def other_service(**given):
        return stage.new_service().close(**given)

    return {
        "create_lora_training_client.rank": lambda n: service.create_lora_training_client("acme/small", rank=n),
        "create_lora_training_client.seed": lambda n: service.create_lora_training_client("acme/small", 4, seed=n),
        "copy_weights.ttl_seconds": lambda n: service.copy_weights(path, ttl_seconds=n * 3600).result(WAIT),
        "save_state.ttl_seconds": lambda n: train.save_state("b", ttl_seconds=n * 3600).result(WAIT),
        "save_weights_for_sampler.ttl_seconds": lambda n: train.save_weights_for_sampler("c", n * 3600).result(WAIT),
        "save_weights_external.ttl_seconds": lambda n: train.save_weights_external("d", n * 3600).result(WAIT),
        "sample.num_samples": lambda n: sampler.sample(PROMPT, n, params).result(WAIT),
        "sample.topk_prompt_logprobs": lambda n: sample(include_prompt_logprobs=True, topk_prompt_logprobs=n),
        "sample.topk_sample_logprobs": lambda n: sample(topk_sample_logprobs=n),
        "sample.prompt_alt_tokens_k": lambda n: sample(prompt_alt_tokens_k=n),
        "sample.prompt_logprobs_last_n": lambda n: sample(include_prompt_logprobs=True, prompt_logprobs_last_n=n),
        "sample_many.num_samples": lambda n: list(sampler.sample_many([PROMPT], n, params)),
        "sample_many.window": lambda n: list(sampler.sample_many([PROMPT], 1, params, window=n)),
        "compute_logprobs.prompt_logprobs_last_n": lambda n: sampler.compute_logprobs(PROMPT, n).result(WAIT),
        "list_training_runs.limit": lambda n: rest.list_training_runs(limit=n).result(WAIT),
        "list_training_runs.offset": lambda n: rest.list_training_runs(offset=n).result(WAIT),
        "iter_training_runs.page_size": lambda n: list(rest.iter_training_runs(page_size=n)),
        "list_user_checkpoints.limit": lambda n: rest.list_user_checkpoints(limit=n).result(WAIT),
        "list_user_checkpoints.offset": lambda n: rest.list_user_checkpoints(offset=n).result(WAIT),
        "iter_checkpoints.page_size": lambda n: list(rest.iter_checkpoints(page_size=n)),
        "set_checkpoint_ttl_from_tinker_path.ttl_seconds": (
            lambda n: rest.set_checkpoint_ttl_from_tinker_path(path, n * 3600).result(WAIT)
        ),
        "list_sessions.limit": lambda n: rest.list_sessions(limit=n).result(WAIT),
        "list_sessions.offset": lambda n: rest.list_sessions(offset=n).result(WAIT),
        "close.timeout": lambda n: other_service(timeout=n),
        "result.timeout": lambda n: sampler.sample(PROMPT, 1, params).result(n * 10),
        "result_async.timeout": lambda n: asyncio.run(sampler.sample(PROMPT, 1, params).result_async(n * 10)),
    }


def numeric_arguments() -> set[str]:
    found = set()
    for cls in CLIENTS:
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            if name.startswith("_") or name.endswith("_async"):
                continue
            for argument in inspect.signature(method).parameters.values():
                if str(argument.annotation) in ("int", "float", "int | None", "float | None"):
                    found.add(f"{name}.{argument.name}")
    return found


@pytest.mark.parametrize("form", ["numpy int", "numpy array", "torch"])
def test_numbers_of_other_libraries_are_arguments(stage, form) -> None:
    """No argument is left out, and none is refused for the library that it comes from."""
    made = {
        "numpy int": np.int64,
        "numpy array": np.array,
        "torch": lambda value: pytest.importorskip("torch").tensor(value),
    }[form]
    table = calls(stage)
    # The client's own result(timeout) is there at once.
    assert set(table) - {"result_async.timeout"} == numeric_arguments()
    for call in table.values():
        call(made(2))


def test_a_real_number_is_a_time_limit(stage) -> None:
    """Also one of a type that adding to a time of the clock would round."""
    sampler = stage.service.create_sampling_client(base_model="acme/small")
    assert sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=2)).result(np.float32(20.0)).sequences


@pytest.mark.parametrize("limit", [True, 2.5, "2", 0])
def test_a_page_has_a_whole_number_of_rows(stage, limit) -> None:
    """What is no number of rows is refused at the call, by its name."""
    rest = stage.service.create_rest_client()
    with pytest.raises(tinkex.InvalidInputError, match="limit must be a whole number of at least 1"):
        rest.list_sessions(limit=limit)
