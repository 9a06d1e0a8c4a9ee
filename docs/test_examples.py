"""The script and the notebook do what they are said to do."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
SCRIPT = HERE / "examples" / "first_finetune.py"
NOTEBOOK = HERE / "examples" / "first_finetune.ipynb"
LEARNT = "Ada and Ben, in a shed."

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("no_key")]


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """An environment with no key, and checkpoints of its own."""
    monkeypatch.setenv("TINKEX_LOCAL_DIR", str(tmp_path / "checkpoints"))
    for name in ("TINKER_API_KEY", "TINKER_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def check(output):
    """The loss fell by more than half, the answer is the trained one, and the resumed run goes on from there."""
    losses = [float(number) for number in re.search(r"^loss: (.*)$", output, re.M).group(1).split()]
    assert losses[-1] < losses[0] / 2
    assert re.search(r"^answer: (.*)$", output, re.M).group(1) == LEARNT
    assert float(re.search(r"^resumed: ([0-9.e-]+)$", output, re.M).group(1)) < losses[0] / 2


def test_script(tmp_path):
    """The script runs from anywhere, in at most 25 lines."""
    assert len(SCRIPT.read_text().splitlines()) <= 25
    run = subprocess.run([sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    check(run.stdout)


def test_notebook(tmp_path):
    """The notebook is stored without outputs and runs from top to bottom in a kernel."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=100, kernel_name="python3", resources=place).execute()
    check("".join(output.get("text", "") for cell in cells for output in cell.outputs))


def test_readme_shows_the_script():
    """The script in the README is the one that runs here."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    assert SCRIPT.read_text() in blocks
