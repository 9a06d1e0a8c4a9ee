"""Check the distribution: build it, look into it, install it alone and use it.

    python tools/check_package.py [FOLDER]

FOLDER (a temporary one by default) receives the archives and a virtual environment without any extra.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 4_000_000
TINY_FILES = ("MODEL_CARD.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
IN_SDIST = ("LICENSE", "README.md", "setup.cfg", "tox.ini", "docs/tutorial.md", "tests/test_package.py")

SMOKE = """
import os, pathlib, sys

for name in ("TINKER_API_KEY", "TINKER_BASE_URL"):
    os.environ.pop(name, None)

import tinkex
import tinkex.cli

where = pathlib.Path(tinkex.__file__).resolve()
assert "site-packages" in where.parts, f"the checkout was imported, not the wheel: {where}"
heavy = {"numpy", "torch", "transformers", "peft", "google.protobuf", "matplotlib"} & set(sys.modules)
assert not heavy, f"import tinkex loads {heavy}"

try:
    tinkex.ServiceClient()
except tinkex.ConfigurationError as error:
    assert "TINKER_API_KEY" in str(error) and "local" in str(error), error
else:
    raise AssertionError("ServiceClient() without a key did not raise")

try:
    tinkex.ServiceClient(base_url="local")
except (ImportError, tinkex.ConfigurationError) as error:
    assert 'pip install "tinkex[local]"' in str(error), error
else:
    raise AssertionError("the embedded server started without its extra")

datum = tinkex.Datum(tinkex.ModelInput.from_ints([1, 2]), {"target_tokens": [2, 3], "weights": [0, 1]})
assert datum.loss_fn_inputs["weights"].tolist() == [0.0, 1.0]
with tinkex.ServiceClient(api_key="tml-check", base_url="http://127.0.0.1:9"):
    pass
"""


def main(folder: Path) -> None:
    """Run all checks; raises at the first that fails."""
    archives = folder / "dist"
    build(archives)
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, archives.iterdir()))
    (wheel,), (sdist,) = archives.glob("*.whl"), archives.glob("*.tar.gz")
    look_into_wheel(wheel)
    look_into_sdist(sdist)
    python = install(wheel, folder / "venv")
    use(python, folder)
    print(f"{wheel.name}: {wheel.stat().st_size} bytes, installs alone")


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a command, without the caller's Python path; return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TINKER_"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(archives: Path) -> None:
    """Build the sdist, and the wheel from it."""
    run(sys.executable, "-m", "build", "--outdir", str(archives), str(ROOT))


def look_into_wheel(wheel: Path) -> None:
    """Check that everything is in it, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    needed = {"tinkex/py.typed", "tinkex/wire/tinker.proto", *(f"tinkex/data/tiny/{name}" for name in TINY_FILES)}
    assert needed <= names, f"the wheel lacks {needed - names}"
    info = {name for name in names if PurePosixPath(name).parts[0].endswith(".dist-info")}
    assert any(name.endswith("licenses/LICENSE") for name in info), "the wheel lacks the licence"
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tinkex").rglob("*.py*") if path.suffix != ".pyc"}
    code = {name for name in names if name.endswith((".py", ".pyi"))}
    assert code == sources, f"modules of the checkout and of the wheel differ: {code ^ sources}"
    stray = {name for name in names - info - code - needed if not name.startswith("tinkex/data/tiny/")}
    assert not stray, f"stray files in the wheel: {sorted(stray)}"
    assert wheel.stat().st_size < MOST_BYTES, f"{wheel.name} has {wheel.stat().st_size} bytes, at most {MOST_BYTES}"


def look_into_sdist(sdist: Path) -> None:
    """Check that the source archive has what a packager needs, and no leftovers."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = {name for name in IN_SDIST if name not in names}
    assert not missing, f"the sdist lacks {missing}"
    leftovers = {name for name in names if "__pycache__" in name or name.startswith(("docs/_build", "runs/", "."))}
    assert not leftovers, f"leftovers in the sdist: {sorted(leftovers)[:5]}"


def install(wheel: Path, where: Path) -> str:
    """Install the wheel without extras into a fresh environment; return its Python."""
    venv.create(where, with_pip=True, clear=True)
    python = str(where / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    run(python, "-m", "pip", "check")
    return python


def use(python: str, folder: Path) -> None:
    """Use the installed package from outside the checkout."""
    run(python, "-c", SMOKE, cwd=folder)
    program = str(Path(python).with_name("tinkex"))
    for command in ((program,), (python, "-m", "tinkex")):
        assert "Usage: tinkex" in run(*command, "--help", cwd=folder)
    version = run(program, "version", cwd=folder)
    assert version.startswith("tinkex "), version


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
