"""Rules that hold for the project as a whole."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinkex

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "tinkex").rglob("*.py"))
PUBLIC_MODULES = [
    "tinkex.errors",
    "tinkex.types",
    "tinkex.config",
    "tinkex.clients",
    "tinkex.pipeline",
    "tinkex.resources",
]
HEAVY = ("numpy", "torch", "transformers", "peft", "google.protobuf", "matplotlib", "starlette", "requests")
MOST_LINES, MOST_FUNCTION_LINES = 600, 80


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield the name and the syntax tree of each module."""
    for path in SOURCES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["tinkex", "tinkex.cli", "tinkex.local"])
def test_import_is_light(module: str) -> None:
    """Importing the package, its command line or the embedded server's door loads no heavy library."""
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_client_needs_no_array_library() -> None:
    """A client can be made, and a datum built from lists, without NumPy or any other heavy library."""
    code = (
        "import sys, tinkex; tinkex.ServiceClient(api_key='k', base_url='http://127.0.0.1:9').create_rest_client(); "
        "tinkex.Datum(tinkex.ModelInput.from_ints([1]), {'target_tokens': [2]}); print(*sys.modules)"
    )
    allowed = {"requests"}
    assert sorted((set(HEAVY) - allowed) & set(run_python(code).split())) == []


def test_public_names_load() -> None:
    """Each name that dir(tinkex) lists is there, and a name that is not there is an AttributeError."""
    assert [name for name in dir(tinkex) if not hasattr(tinkex, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(tinkex, "no_such_name")  # noqa: B009 - the point is the error


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_public_names_are_documented(name: str) -> None:
    """Each public class, its public methods and each public function say what they are."""
    module = importlib.import_module(name)
    assert [one for one in module.__all__ if not hasattr(module, one)] == []
    objects = {one: getattr(module, one) for one in module.__all__}
    silent = [one for one, value in objects.items() if inspect.isroutine(value) and not value.__doc__]
    for one, value in objects.items():
        if inspect.isclass(value) and typing.get_origin(value) is None:  # Python 3.10 takes list[int] for a class
            # A generated docstring repeats the signature; it counts as none.
            silent += [] if value.__doc__ and not value.__doc__.startswith(f"{one}(") else [one]
            members = {key: member for key, member in vars(value).items() if not key.startswith("_")}
            silent += [
                f"{one}.{key}"
                for key, member in members.items()
                if (inspect.isroutine(member) or isinstance(member, property)) and not inspect.getdoc(member)
            ]
    assert silent == []


def test_the_syntax_is_that_of_the_oldest_python() -> None:
    """Every module can be parsed by Python 3.10, which setup.cfg promises to suffice."""
    for path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    assert "python_requires = >=3.10" in (ROOT / "setup.cfg").read_text(encoding="utf-8")


def test_modules_and_functions_are_small() -> None:
    """No module is longer than 600 lines, no function than 80, and each module says what it is for."""
    faults = []
    for name, tree in trees():
        lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        faults += [f"{name} has {lines} lines"] if lines > MOST_LINES else []
        faults += [] if ast.get_docstring(tree) else [f"{name} has no docstring"]
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                faults += [f"{name}: {node.name} has {length} lines"] if length > MOST_FUNCTION_LINES else []
    assert faults == []


def calls_of(*names: str) -> set[str]:
    """Return the modules that use one of these dotted names or attributes."""
    users = set()
    for module, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (node.attr in names or ast.unparse(node) in names):
                users.add(module)
    return users


def test_waits_can_be_interrupted() -> None:
    """Nothing sleeps or measures durations with the clock on the wall."""
    assert calls_of("time.sleep", "time.time", "asyncio.sleep") == set()


def test_only_the_pipeline_resolves_futures() -> None:
    """No other room of the client writes to a future: there is one place to look for a lost result."""
    users = calls_of("set_result", "set_exception")
    assert users
    assert [name for name in users if not name.startswith(("tinkex/pipeline/", "tinkex/testing/"))] == []


def shell_lines(text: str) -> list[str]:
    """Return the lines of the shell blocks of a page."""
    return [line for block in re.findall(r"^```shell\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]


def test_readme_commands() -> None:
    """The README has one line for set-up and work and one for set-up and tests; CI runs the second as it stands."""
    lines = shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    work, tests = (line for line in lines if " && " in line)
    example = work.rpartition(" ")[2]
    assert work == f'pip install ".[local]" && tinkex train sft {example}'
    assert (ROOT / example).is_file()
    assert tests == "pip install tox && tox"
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()[-1]
    assert last.replace(" --quiet", "") == tests


def test_changelog_has_this_version() -> None:
    """The changelog has a section for the version of the package."""
    assert re.search(
        rf"^## {re.escape(tinkex.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    )


def test_no_paths_of_a_machine() -> None:
    """No file names a folder of somebody's machine."""
    machine = re.compile("/(?:" + "|".join(("work", "home", "root", "opt", "Users")) + r")/\w")
    folders = ("tinkex", "tests", "docs", "tools")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if "_build" not in path.parts]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".cfg", ".toml", ".ini")]
    text = {".py", ".md", ".cfg", ".toml", ".ini", ".ipynb", ".json", ".jsonl"}
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.suffix in text and (match := machine.search(path.read_text(encoding="utf-8")))
    ]
    assert found == []
