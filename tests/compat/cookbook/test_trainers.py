"""The cookbook, as it comes from PyPI, trains on tinkex and the embedded server."""

from __future__ import annotations

import math

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def check_finished(run, steps: int) -> None:
    """Check what every trainer must have done."""
    assert run.is_ours
    assert run.official == []
    assert max(row["step"] for row in run.rows) >= steps - 1
    last = run.checkpoints[-1]
    assert last["state_path"].endswith("/weights/final")
    assert last["sampler_path"].endswith("/sampler_weights/final")


def test_supervised_trainer_learns_and_resumes(train) -> None:
    """Its loss falls, on the held-out answers too; started again, it goes on from its last checkpoint."""
    run = train("sft.py", "2")
    check_finished(run, steps=4)
    assert [row["step"] for row in run.rows] == [0, 1, 2, 3]
    assert run.rows[3]["train_mean_nll"] < run.rows[0]["train_mean_nll"] - 0.5
    assert run.rows[2]["test/nll"] < run.rows[0]["test/nll"] - 0.5
    again = train("sft.py", "3")
    assert [row["step"] for row in again.rows] == [0, 1, 2, 3, 4, 5]
    assert again.rows[5]["train_mean_nll"] < run.rows[2]["train_mean_nll"]


def test_preference_trainer_learns(train) -> None:
    """At first policy and reference are the same: the loss is ln 2 and the margin 0; then the better answer wins."""
    run = train("dpo.py")
    check_finished(run, steps=6)
    first, last = run.rows[0], run.rows[-1]
    assert first["dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert last["accuracy"] == 1.0
    assert last["dpo_loss"] < 0.5
    assert last["loss:sum"] == last["dpo_loss"]


@pytest.mark.parametrize("kind", ["importance_sampling", "ppo", "kl"])
def test_reinforcement_trainer_runs(train, kind: str) -> None:
    """Each of its forms finishes; while the sampler has the trained weights, both compute the same logprobs."""
    run = train("rl.py", kind)
    check_finished(run, steps=4)
    assert all(0 <= row["env/all/reward/total"] <= 1 for row in run.rows[:4])
    if kind != "ppo":
        # Two optimizer steps on one batch leave the sampler behind.
        assert [row["optim/kl_sample_train_v2"] for row in run.rows[:4]] == pytest.approx([0] * 4, abs=1e-6)
    if kind == "kl":
        assert run.rows[0]["kl_policy_base"] == pytest.approx(0, abs=1e-5)
        assert run.rows[0]["kl_pre_post_v2"] > 1e-4
