"""Run the Python blocks of the pages, in order, as tests."""

import shutil
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def clean_place(tmp_path_factory):
    """A working directory with the examples, checkpoints of its own and no key."""
    place = tmp_path_factory.mktemp("page")
    shutil.copytree(HERE / "examples", place / "docs" / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TINKEX_LOCAL_DIR", str(place / "checkpoints"))
        for name in ("TINKER_API_KEY", "TINKER_BASE_URL"):
            patch.delenv(name, raising=False)
        yield place


PAGES = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    excludes=["_build/**"],
    fixtures=["clean_place"],
)
pytest_collect_file = PAGES.pytest()
