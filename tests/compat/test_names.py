"""What ``import tinker`` gives: every public name of the official SDK, or the reason why not."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import types as stdlib_types

import pytest

import tinkex
from tests.compat.official import PATHS, TOP, TYPE_MODULES, TYPES
from tinkex.compat import distribution, install, uninstall
from tinkex.compat.modules import LEFT_OUT
from tinkex.errors import ConfigurationError


def missing(module: object, names: list[str]) -> list[str]:
    return [name for name in names if not hasattr(module, name)]


def test_every_public_name_is_there(tinker) -> None:
    """Each name of 0.7.0, 0.24.1 and 0.38.0 is found in tinker or tinker.types, or LEFT_OUT says what to do instead."""
    left_out = missing(tinker, TOP) + missing(tinker.types, TYPES)
    assert sorted(left_out) == sorted(LEFT_OUT)
    with pytest.raises(AttributeError, match="the body of a request, which its method writes"):
        tinker.types.TelemetryBatch  # noqa: B018 - the point is the error


def test_tinkex_itself_can_be_imported_as_tinker() -> None:
    """``import tinkex as tinker`` has the names too, without listing those that are only there for old programs."""
    assert sorted({*missing(tinkex, TOP), *missing(tinkex, TYPES)}) == sorted(LEFT_OUT)
    assert tinkex.TinkerError is tinkex.TinkexError
    assert "TinkerError" not in dir(tinkex)


@pytest.mark.parametrize("path", PATHS)
def test_modules_can_be_imported(tinker, path: str) -> None:
    """Each import path that programs use leads to the same object as the short one."""
    module, name = importlib.import_module(path), PATHS[path]
    shorter = next((place for place in (tinker, tinker.types) if hasattr(place, name)), module)
    assert getattr(module, name) is getattr(shorter, name)
    assert name in module.__all__


@pytest.mark.parametrize("module", TYPE_MODULES)
def test_modules_of_types_can_be_imported(tinker, module: str) -> None:
    """Each module below tinker.types that holds a public class has it, and what it uses of the others."""
    found = importlib.import_module(f"tinker.types.{module}")
    assert all(getattr(found, name) is getattr(tinker.types, name) for name in found.__all__)
    assert found.TensorData is tinkex.TensorData
    assert found.__all__ or module in ("_pydantic_types", "shared")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("lib.public_interfaces.service_client", "RetryConfig"),
        ("lib.public_interfaces.sampling_client", "RetryConfig"),
        ("lib.public_interfaces.training_client", "SamplingClient"),
        ("lib.public_interfaces.rest_client", "APIFuture"),
        ("types._pydantic_types.tensor_data", "TensorData"),
        ("types.save_weights_for_sampler_response", "SaveWeightsForSamplerResponseInternal"),
        ("lib.api_future_impl", "QueueState"),
        ("lib.experimental", "ExperimentalWarning"),
    ],
)
def test_names_are_where_the_sdk_uses_them(tinker, module: str, name: str) -> None:
    """Programs also import a name from a module that only imports it."""
    assert getattr(importlib.import_module(f"tinker.{module}"), name) is getattr(tinker, name)


def test_the_version_is_that_of_the_sdk(tinker) -> None:
    """A program that asks which SDK it runs on is told the one whose names it gets, in each of three ways."""
    from tinker._version import __version__

    assert __version__ == tinker.__version__ == importlib.metadata.version("tinker") == "0.38.0"
    assert importlib.metadata.metadata("tinker")["Name"] == "tinker"
    assert "tinker" in [found.metadata["Name"] for found in importlib.metadata.distributions()]
    assert importlib.metadata.version("attrs")
    assert tinkex.__version__ != tinker.__version__


def test_no_distribution_is_left_behind() -> None:
    """After uninstall, nothing pretends to be there."""
    install()
    uninstall()
    assert not any(isinstance(finder, distribution._Finder) for finder in sys.meta_path)


def test_the_parts_of_a_path_are_attributes(tinker) -> None:
    """``tinker.lib.public_interfaces.rest_client`` works after ``import tinker`` alone; a wrong module does not."""
    assert isinstance(tinker.lib.public_interfaces.rest_client, stdlib_types.ModuleType)
    assert tinker.types.tensor_data.TensorData is tinkex.TensorData
    with pytest.raises(ModuleNotFoundError, match=r"tinker\.types\.tensor_datum"):
        importlib.import_module("tinker.types.tensor_datum")


def test_an_imported_official_sdk_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing over another ``tinker`` is refused and leaves it alone; installing twice is not an error."""
    other = stdlib_types.ModuleType("tinker")
    monkeypatch.setitem(sys.modules, "tinker", other)
    with pytest.raises(ConfigurationError, match="before anything imports it"):
        install()
    assert sys.modules["tinker"] is other
    monkeypatch.delitem(sys.modules, "tinker")
    install()
    install()
    uninstall()
    assert [name for name in sys.modules if name.partition(".")[0] == "tinker"] == []


def test_a_script_runs_unchanged(tmp_path) -> None:
    """``python -m tinkex.compat script.py`` runs it with its arguments and the modules beside it."""
    (tmp_path / "beside.py").write_text("from tinker.types import ModelInput\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, tinker\nfrom beside import ModelInput\nprint(sys.argv[1], ModelInput is tinker.ModelInput)\n"
    )
    command = [sys.executable, "-m", "tinkex.compat", str(script), "word"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert ended.stdout.split() == ["word", "True"]
    usage = subprocess.run(command[:3], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert "usage: python -m tinkex.compat" in usage.stderr
