"""The official SDK on the embedded server: nothing is refused, and tinkex gets the same numbers."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def theirs(peer) -> dict:
    """What the official SDK reports."""
    return peer("--client", "tinker")


@pytest.fixture(scope="module")
def ours(peer, theirs: dict) -> dict:
    """What tinkex reports of the steps of the same generation."""
    return peer("--client", "tinkex", "--generation", theirs["client"].split()[1])


@pytest.mark.parametrize("client", ["theirs", "ours"])
def test_every_step_succeeds(client: str, request: pytest.FixtureRequest, subtests: pytest.Subtests) -> None:
    """Each step of this generation gets from the server what it expects."""
    report = request.getfixturevalue(client)
    assert len(report["steps"]) >= 20
    for name, result in report["steps"].items():
        with subtests.test(client=report["client"], step=name):
            assert result["error"] is None, result["error"]


def test_both_clients_get_the_same_numbers(theirs: dict, ours: dict, subtests: pytest.Subtests) -> None:
    """Losses, logprobs and tokens of a step agree to 1e-5 between the official SDK and tinkex."""
    compared = {name: result["numbers"] for name, result in ours["steps"].items() if result["numbers"]}
    assert len(compared) >= 14
    for name, numbers in compared.items():
        with subtests.test(step=name):
            expected = theirs["steps"][name]["numbers"]
            assert numbers.keys() == expected.keys()
            for what, values in numbers.items():
                assert values == pytest.approx(expected[what], rel=1e-5, abs=1e-5), what
