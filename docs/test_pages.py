"""Pages that list things list all of them."""

import re
from pathlib import Path

import click
import pytest

import tinkex
from tinkex import errors
from tinkex.cli import main
from tinkex.types import LOSS_INPUTS

HERE = Path(__file__).parent
BASES = {"TinkexError", "APIError", "APIStatusError", "LifecycleError", "OperationError"}


def test_every_error_is_explained():
    """The table of errors has every class that is raised."""
    raised = {name for name in errors.__all__ if name[0].isupper()} - BASES
    assert raised <= set(re.findall(r"`(\w+)`", (HERE / "how-to" / "errors.md").read_text()))


def test_every_loss_is_explained():
    """The table of losses has every loss with its inputs and settings."""
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", (HERE / "explanation" / "losses.md").read_text(), re.M))
    assert set(rows) == set(LOSS_INPUTS)
    for loss, spec in LOSS_INPUTS.items():
        same = rows["importance_sampling"] if "the same" in rows[loss] else ""
        assert [name for name in (*spec.names, *spec.config) if f"`{name}`" not in rows[loss] + same] == []


def test_every_thread_is_explained():
    """The table of threads has every name that the code gives to a thread."""
    sources = (path.read_text() for path in Path(tinkex.__file__).parent.rglob("*.py"))
    named = {
        name for text in sources for name in re.findall(r'(?:name=|name_prefix=|Periodic\()f?"(tinkex-[a-z]+)', text)
    }
    shown = set(re.findall(r"`(tinkex-[a-z]+)", (HERE / "explanation" / "architecture.md").read_text()))
    assert named == shown


@pytest.mark.parametrize("page", sorted(HERE.rglob("*.md")), ids=lambda path: path.name)
def test_commands_exist(page):
    """Each tinkex command in a page, and each of its options, is one that the program has."""
    blocks = re.findall(r"^```shell\n(.*?)^```", page.read_text(), re.M | re.S)
    for line in re.findall(r"^tinkex (.+)$", "".join(blocks), re.M):
        command, words = main, line.split()
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
