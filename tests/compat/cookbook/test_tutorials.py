"""The cookbook's tutorials 101 to 204 run unchanged, on the built-in model under the names of theirs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.cookbook import standins, suite
from tinkex.local import LocalServer

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

Run = Callable[[str], str]


@pytest.fixture(scope="module")
def tutorial(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a tutorial as a program; return what it printed."""
    folder = tmp_path_factory.mktemp("tutorials")
    model = standins.make_model(folder / "model")
    hub = standins.make_hub_cache(folder / "hub", model)
    standins.make_gsm8k(folder)
    models = dict.fromkeys(standins.MODELS, model)
    with LocalServer(models=models, data_dir=folder / "data", threads=1) as server:
        settings = suite.environment(
            TINKER_BASE_URL=server.base_url,
            TINKER_API_KEY=server.api_key,
            HF_HOME=str(hub),
            PYTHONPATH=str(sources),
        )
        sdk = [] if suite.IS_OFFICIAL else ["-m", "tinkex.compat"]

        def run(number: str) -> str:
            (script,) = sources.glob(f"tutorials/{number}_*.py")
            command = [sys.executable, *sdk, str(script)]
            ended = subprocess.run(command, env=settings, cwd=folder, capture_output=True, text=True)
            assert ended.returncode == 0, (ended.stdout + ended.stderr)[-5000:]
            return ended.stdout

        yield run


def test_101_samples(tutorial: Run) -> None:
    """It lists the models of the server, and samples once and three times."""
    printed = tutorial("101")
    assert "- Qwen/Qwen3.5-9B-Base" in printed
    assert printed.count("The three largest cities") == 4


def test_102_learns(tutorial: Run) -> None:
    """Both models learn the answers that they are shown."""
    losses = [float(loss) for loss in re.findall(r"loss = ([\d.]+)", tutorial("102"))]
    assert len(losses) > 20
    assert losses[14] < losses[0] - 0.5
    assert losses[-1] < losses[15] - 0.5


def test_103_samples_at_once(tutorial: Run) -> None:
    """It samples one after the other, all at once, and in groups."""
    assert "Total: 32 completions" in tutorial("103")


def test_104_goes_through_its_steps(tutorial: Run) -> None:
    """Every step saves, samples and grades. No group has a datum: of this model no answer is right."""
    steps = re.findall(r"Step +\d+ \| reward: (\S+) \| degenerate: (\S+) \| datums: (\d+)", tutorial("104"))
    assert steps == [("0.000", "100%", "0")] * 10


def test_201_renders(tutorial: Run) -> None:
    """Conversations become the tokens of two families."""
    printed = tutorial("201")
    assert "--- moonshotai/Kimi-K2.6 (kimi_k26) ---" in printed
    assert "is_clean=True" in printed


def test_202_computes_each_loss(tutorial: Run) -> None:
    """Four losses, two with other thresholds, and one of its own."""
    printed = tutorial("202")
    sums = {name: float(value) for name, value in re.findall(r"^(.+?) +loss:sum = (\S+)$", printed, re.MULTILINE)}
    assert {"cross_entropy", "importance_sampling", "ppo", "cispo", "PPO (tight clip)", "PPO (wide clip)"} == set(sums)
    assert sums["cross_entropy"] > 0
    assert "'logprob_sq'" in printed


def test_203_completes(tutorial: Run) -> None:
    """Tokens and messages are completed, and a judge is asked."""
    printed = tutorial("203")
    assert "Role: assistant" in printed
    assert "Parsed score:" in printed


def test_204_evaluates(tutorial: Run) -> None:
    """One evaluator reads logprobs, the other samples answers."""
    printed = tutorial("204")
    assert re.search(r"'held_out/nll': [\d.]+", printed)
    assert "'eval/correct':" in printed
