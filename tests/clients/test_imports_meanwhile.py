"""A module that another thread is importing cannot be used yet, though it stands in ``sys.modules``."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

SLOW_IMPORT = """
    import importlib.abc, importlib.util, sys, threading

    begun, go_on = threading.Event(), threading.Event()

    class Slow(importlib.abc.MetaPathFinder):
        '''Stops the import of one module between its entry in sys.modules and its first name.'''

        def find_spec(self, name, path, target=None):
            if name != NAME:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            load = spec.loader.exec_module

            def exec_module(module):
                begun.set()
                assert go_on.wait(30)
                load(module)

            spec.loader.exec_module = exec_module
            return spec

    import tinkex, tinkex.wire.json, tinkex.wire.proto
    from array import array
    from tinkex import types

    assert NAME not in sys.modules
    sys.meta_path.insert(0, Slow())
    importing = threading.Thread(target=lambda: __import__(NAME))
    importing.start()
    assert begun.wait(30) and NAME in sys.modules
"""
VALUES = """
    def values():
        prompt = types.ModelInput.from_ints([1, 2, 3]).append_int(4).append(types.EncodedTextChunk(tokens=[5]))
        assert prompt.to_ints() == [1, 2, 3, 4, 5]
        drawn = types.SampledSequence(stop_reason="stop", tokens=array("i", [1]), logprobs=array("f", [-1.0]))
        assert (drawn.tokens, drawn.logprobs) == ([1], [-1.0])
        inputs = {"target_tokens": array("q", [2] * 5), "weights": array("f", [1.0] * 5)}
        datum = types.Datum(prompt, inputs)
        batch = types.ForwardBackwardInput(data=[datum], loss_fn="cross_entropy")
        request = types.ForwardBackwardRequest(forward_backward_input=batch, model_id="m", seq_id=1)
        tinkex.wire.json.encode(request)
        tinkex.wire.proto.encode_forward_backward(request)
        types.SamplingParams(stop=[1, 2], max_tokens=5)
        body = tinkex.wire.json.encode(types.ForwardBackwardOutput(
            loss_fn_output_type="x", loss_fn_outputs=[{"logprobs": datum.loss_fn_inputs["weights"]}]))
        read = tinkex.wire.json.decode(body, types.ForwardBackwardOutput)
        assert read.loss_fn_outputs[0]["logprobs"].data == [1.0] * 5

    values()
"""


def run(script: str, **environment: str) -> None:
    """Run a script in a process that has imported nothing."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def lines(name: str, *blocks: str) -> str:
    """Put a script together."""
    return "\n".join([f"NAME = {name!r}", *(textwrap.dedent(block) for block in blocks)])


@pytest.mark.parametrize("name", ["numpy", pytest.param("torch", marks=pytest.mark.engine)])
def test_values_do_without_a_module_that_is_being_imported(name):
    """They are made, written and read as if it were not there; when it is, they use it."""
    run(lines(name, SLOW_IMPORT, VALUES, "go_on.set(); importing.join(30); values()"))


def test_what_needs_the_module_waits_for_its_import():
    """A long prompt is written with NumPy; the import lock holds whoever writes it."""
    write = """
        long, written = types.ModelInput.from_ints([7] * 2000), []
        writing = threading.Thread(target=lambda: written.append(tinkex.wire.json.encode(long)))
        writing.start()
        go_on.set()
        writing.join(30), importing.join(30)
        assert tinkex.wire.json.decode(written[0], types.ModelInput) == long
    """
    run(lines("numpy", SLOW_IMPORT, write))


def test_a_program_without_numpy_keeps_all_its_samples(stage):
    """One long prompt among many makes a thread import NumPy while the others write and read theirs."""
    script = """
        import sys, tinkex
        from tinkex import types

        sampler = tinkex.ServiceClient(wire="json", telemetry=False).create_sampling_client(base_model="acme/small")
        assert "numpy" not in sys.modules
        prompts = [types.ModelInput.from_ints([5] * (1024 if at % 8 == 0 else 20)) for at in range(64)]
        futures = [sampler.sample(prompt, 1, types.SamplingParams(max_tokens=3)) for prompt in prompts]
        failed = [error for future in futures if (error := future.exception(60)) is not None]
        # The server refuses prompts as long as its context.
        assert all(isinstance(error, tinkex.APIStatusError | tinkex.RequestFailedError) for error in failed), failed
        assert len(failed) in (0, 8), failed
    """
    run(textwrap.dedent(script), TINKER_BASE_URL=stage.server.base_url, TINKER_API_KEY=stage.server.api_key)
