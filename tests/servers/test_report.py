"""What the tables say, and when the command fails."""

from __future__ import annotations

import pytest

from tests.servers import launch, report, run
from tests.servers.user import CHECKS, NAMES, SECTIONS


def make_report(client: str, **errors: str | None) -> dict:
    """Make the report of a client."""
    return {"client": client, "checks": {name: {"error": error} for name, error in errors.items()}}


SDK = make_report("tinker 0.25.0", save=None, load="NotFoundError: no", copy=None)
TINKEX = make_report("tinkex 1.0", save=None, load=None, copy="NotFoundError: HTTP 404 | gone (POST /api/v1/x, key 1)")


def test_a_table_has_each_check_with_both_clients():
    """A failure has its reason, without what would break the table or differ from run to run."""
    assert report.table(SDK, TINKEX) == [
        "| check | SDK 0.25.0            | tinkex                           |",
        "|-------|-----------------------|----------------------------------|",
        "| save  | yes                   | yes                              |",
        "| load  | no: NotFoundError: no | yes                              |",
        "| copy  | yes                   | no: NotFoundError: HTTP 404 gone |",
    ]


def test_the_counts_name_what_one_client_alone_passes():
    """The line that fails the command says which checks."""
    assert report.counts(SDK, TINKEX) == [
        "Of 3 checks, 2 pass with tinker 0.25.0 and 2 with tinkex.",
        "With the SDK only: copy.",
        "With tinkex only: load.",
    ]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("E: HTTP 404: gone (POST /api/v1/x, idempotency key abc)", "E: HTTP 404: gone"),
        ("E: at http://127.0.0.1:4711/api", "E: at http://.../api"),
        ("E: run 0f1e2d3c-4b5a-5968-8776-655443322110 is not there", "E: run ... is not there"),
        ("E: two\nlines | and `marks`", "E: two lines and marks "),
    ],
)
def test_a_reason_is_the_same_in_every_run(error, shown):
    """Ports, ids and keys are left out."""
    assert report.reason(error) == shown


def test_a_table_is_put_between_its_marks(tmp_path):
    """The rest of the page, and the tables of other servers, stay."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tuft: begin -->\nold\n<!-- tuft: end -->\n<!-- skyrl: begin --><!-- skyrl: end -->\n")
    report.write(page, "tuft", ["new"])
    assert page.read_text() == (
        "before\n<!-- tuft: begin -->\n\nnew\n\n<!-- tuft: end -->\n<!-- skyrl: begin --><!-- skyrl: end -->\n"
    )
    with pytest.raises(AssertionError, match="no place for other"):
        report.write(page, "other", ["new"])


@pytest.mark.parametrize(("tinkex", "good"), [(TINKEX, False), (SDK, True)])
def test_the_command_fails_if_only_the_sdk_passes_a_check(tinkex, good, tmp_path, monkeypatch):
    """What neither passes is the server's business."""

    class Server:
        def __enter__(self) -> str:
            return "http://127.0.0.1:1"

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setitem(run.SERVERS, "tuft", ("TuFT", lambda *_: Server(), 1.0))
    monkeypatch.setattr(run, "_use", lambda client, *_: SDK if client == "tinker" else tinkex)
    assert run.checks("tuft", tmp_path, [])[1] is good


def test_shards_that_disagree_fail_the_command(tmp_path, monkeypatch):
    """A thousandth is too much."""

    class Server:
        def __init__(self, _: object, __: object, backend: object) -> None:
            self.split = backend is launch.TWO_DEVICES

        def __enter__(self) -> str:
            return "split" if self.split else "whole"

        def __exit__(self, *_: object) -> None:
            pass

    losses = {"whole": [2.0, 1.0], "split": [2.0, 1.00001]}
    monkeypatch.setattr(launch, "skyrl", Server)
    monkeypatch.setattr(run, "_train", lambda url, _: losses[url])
    lines, same = run.shards(tmp_path)
    assert same
    assert "the largest difference is 1.0e-05, and 1e-04 is allowed" in lines[0]
    losses["split"][1] = 1.001
    assert not run.shards(tmp_path)[1]


def test_every_check_is_run():
    """The order is that of the sections; no module of checks is left out."""
    assert sorted(NAMES) == sorted(CHECKS)
    assert {function.__module__ for function in CHECKS.values()} == set(SECTIONS)
    assert len(NAMES) > 80
