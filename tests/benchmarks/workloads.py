"""One workload with one client, in a process of its own: ``python workloads.py '{"client": ..., "workload": ...}'``.

The client is ``tinkex`` or ``tinker`` (the official SDK, any version): the calls are the same, so the code is too. The
last line of the output is a JSON object of figures: seconds, bytes, counts.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KEY = "tml-benchmark"
_TASKS = Path("/proc/self/task")
_LIMIT_S = 240.0


class Client:
    """A client of the server at ``url``."""

    def __init__(self, name: str, url: str) -> None:
        self.sdk = importlib.import_module(name)
        self.types = self.sdk.types
        self.official = name == "tinker"
        self.service = self.sdk.ServiceClient(base_url=url, api_key=KEY)

    def trainer(self) -> Any:
        return self.service.create_lora_training_client("m", rank=8)

    def sampler(self) -> Any:
        return self.service.create_sampling_client(base_model="m")

    def datum(self, tokens: Any, targets: Any, weights: Any) -> Any:
        # The official SDK takes no array for the tokens.
        given = tokens.tolist() if self.official and not isinstance(tokens, list) else tokens
        inputs = {"target_tokens": targets, "weights": weights}
        return self.types.Datum(model_input=self.types.ModelInput.from_ints(given), loss_fn_inputs=inputs)

    def step(self, trainer: Any, data: Any) -> tuple[Any, Any]:
        done = trainer.forward_backward(data, "cross_entropy")
        return done, trainer.optim_step(self.types.AdamParams(learning_rate=1e-4))

    def close(self) -> None:
        close = getattr(self.service, "close", None)
        if close is not None and not self.official:
            close()


class Meter:
    """What a stretch of work costs this process: CPU of all threads, time, memory above the start, threads."""

    def __init__(self) -> None:
        self.threads = 0
        self._done = threading.Event()
        _forget_peak()
        self._rss = _memory("VmRSS")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            # Without the thread that counts.
            self.threads = max(self.threads, _count_threads() - 1)

    def stop(self) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        rss = max(0, _memory("VmHWM") - self._rss)
        self.threads = max(self.threads, _count_threads() - 1)
        self._done.set()
        self._watcher.join()
        return {"wall": wall, "cpu": cpu, "rss": rss, "threads": self.threads}


def _count_threads() -> int:
    return len(os.listdir(_TASKS)) if _TASKS.exists() else threading.active_count()  # noqa: PTH208


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> int:
    """Return VmRSS or VmHWM in bytes; where there is no /proc, the peak for both."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def _numbers(datums: int, length: int, arrays: bool) -> list[tuple[Any, Any, Any]]:
    """Return tokens, targets and weights of a batch, as lists or as arrays."""
    draw = random.Random(0)
    batch: list[tuple[Any, Any, Any]] = []
    for _ in range(datums):
        tokens = [draw.randrange(150_000) for _ in range(length + 1)]
        # The weights of supervised training: nothing of the prompt, all of the answer.
        batch.append((tokens[:-1], tokens[1:], [float(at >= length // 4) for at in range(length)]))
    if not arrays:
        return batch
    import numpy as np

    kinds = ("int64", "int64", "float32")
    return [tuple(np.array(part, kind) for part, kind in zip(parts, kinds, strict=True)) for parts in batch]  # type: ignore[misc]


def encode(client: Client, *, datums: int, length: int, arrays: bool, batches: int) -> dict[str, float]:
    """W1: build the datums of a batch and send it."""
    numbers = _numbers(datums, length, arrays)
    trainer = client.trainer()
    trainer.forward_backward([client.datum([1, 2], [2, 3], [1.0, 1.0])], "cross_entropy").result(_LIMIT_S)
    meter = Meter()
    costs = []
    for _ in range(batches):
        wall, cpu = time.perf_counter(), time.process_time()
        data = [client.datum(*parts) for parts in numbers]
        built = time.process_time() - cpu
        trainer.forward_backward(data, "cross_entropy").result(_LIMIT_S)
        del data
        costs.append((time.perf_counter() - wall, time.process_time() - cpu, built))
    peak = meter.stop()
    walls, cpus, builds = map(statistics.median, zip(*costs, strict=True))
    return {**peak, "wall": walls, "cpu": cpus, "build": builds}


def decode(client: Client, *, datums: int, batches: int, values: int) -> dict[str, float]:
    """W5: send little, read many logprobs, and have them as arrays."""
    trainer = client.trainer()
    # One datum asks for it all, so that next to nothing of the cost is that of sending.
    data = [client.datum([1], [2], [1.0])]
    trainer.forward_backward(data, "cross_entropy").result(_LIMIT_S)
    meter = Meter()
    costs = []
    for _ in range(batches):
        cpu = time.process_time()
        output = trainer.forward_backward(data, "cross_entropy").result(_LIMIT_S)
        arrays = [result["logprobs"].to_numpy() for result in output.loss_fn_outputs]
        costs.append(time.process_time() - cpu)
        assert len(arrays) == datums
        assert arrays[-1].shape == (values,)
        del output, arrays
    return {**meter.stop(), "cpu": statistics.median(costs)}


def steps(client: Client, *, count: int) -> dict[str, float]:
    """W2, W2x: training steps, the next one submitted before this one is waited for."""
    trainer = client.trainer()
    data = [client.datum([1, 2, 3], [2, 3, 4], [1.0] * 3)]
    for future in client.step(trainer, data):
        future.result(_LIMIT_S)
    meter = Meter()
    _pipeline(lambda: client.step(trainer, data), count)
    figures = meter.stop()
    return {**figures, "cpu_each": figures["cpu"] / count}


def _pipeline(step: Callable[[], tuple[Any, Any]], count: int) -> int:
    """Run steps one ahead; return how many operations were lost."""
    lost = 0
    waiting: deque[Any] = deque()
    for _ in range(count):
        try:
            waiting.append(step())
        except Exception:
            lost += 2
        if len(waiting) > 1:
            lost += _lost(waiting.popleft())
    return lost + sum(_lost(futures) for futures in waiting)


def _lost(futures: Any) -> int:
    lost = 0
    for future in futures:
        try:
            future.result(_LIMIT_S)
        except Exception:
            lost += 1
    return lost


def _draw(client: Client, sampler: Any, count: int, prompt: int) -> list[Any]:
    text = client.types.ModelInput.from_ints(list(range(1, prompt + 1)))
    params = client.types.SamplingParams(max_tokens=16, temperature=1.0)
    return [sampler.sample(prompt=text, num_samples=1, sampling_params=params) for _ in range(count)]


def samples(client: Client, *, count: int, prompt: int = 128) -> dict[str, float]:
    """W3, W3L, W7: many samples at once."""
    sampler = client.sampler()
    for future in _draw(client, sampler, 4, prompt):
        future.result(_LIMIT_S)
    meter = Meter()
    futures = _draw(client, sampler, count, prompt)
    for future in futures:
        assert len(future.result(_LIMIT_S).sequences[0].tokens) > 0
    figures = meter.stop()
    return {**figures, "cpu_each": figures["cpu"] / count}


def models(client: Client, *, count: int, total: int) -> dict[str, float]:
    """W7: the steps of many models in one process."""
    trainers = [client.trainer() for _ in range(count)]
    data = [client.datum([1, 2, 3], [2, 3, 4], [1.0] * 3)]
    meter = Meter()
    futures = [client.step(trainer, data) for _ in range(total // count) for trainer in trainers]
    lost = sum(map(_lost, futures))
    figures = meter.stop()
    return {**figures, "cpu_each": figures["cpu"] / len(futures), "lost": lost}


def faults(client: Client, *, steps: int, samples: int) -> dict[str, float]:
    """W6: steps and samples side by side, on a server that fails now and then."""
    trainer, sampler = client.trainer(), client.sampler()
    data = [client.datum([1, 2, 3], [2, 3, 4], [1.0] * 3)]
    meter = Meter()
    drawn = _draw(client, sampler, samples, 128)
    lost = _pipeline(lambda: client.step(trainer, data), steps)
    lost += _lost(drawn)
    return {**meter.stop(), "lost": lost}


def first_result(name: str, url: str) -> dict[str, float]:
    """W4: import what a program needs, then get the first result."""
    started, cpu = time.perf_counter(), time.process_time()
    sdk = importlib.import_module(name)
    imported, imported_cpu = time.perf_counter() - started, time.process_time() - cpu
    # Names may be loaded when they are first used.
    assert all((sdk.ServiceClient, sdk.types.Datum, sdk.types.AdamParams, sdk.types.SamplingParams))
    used = time.perf_counter() - started
    client = Client(name, url)
    data = [client.datum([1, 2, 3], [2, 3, 4], [1.0] * 3)]
    client.trainer().forward_backward(data, "cross_entropy").result(_LIMIT_S)
    first = time.perf_counter() - started
    client.close()
    return {"import": imported, "import_cpu": imported_cpu, "names": used, "first": first}


WORKLOADS: dict[str, Callable[..., dict[str, float]]] = {
    "encode": encode,
    "decode": decode,
    "steps": steps,
    "samples": samples,
    "models": models,
    "faults": faults,
}


@contextlib.contextmanager
def _closing(client: Client) -> Iterator[Client]:
    yield client
    client.close()


def main(name: str, url: str, workload: str, options: dict[str, Any]) -> None:
    """Run and print."""
    if workload == "first_result":
        figures = first_result(name, url)
    else:
        with _closing(Client(name, url)) as client:
            figures = WORKLOADS[workload](client, **options)
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    # The official SDK has no way to end its threads; nothing that matters is left to do.
    os._exit(0)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
