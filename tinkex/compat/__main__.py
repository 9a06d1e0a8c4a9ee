"""``python -m tinkex.compat script.py``: run a program written for the official SDK on tinkex."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from tinkex.compat import install

USAGE = "usage: python -m tinkex.compat SCRIPT [ARGUMENTS], or -m MODULE [ARGUMENTS]"


def main(arguments: list[str]) -> None:
    """Run a script or a module with ``tinker`` meaning tinkex."""
    is_module = arguments[:1] == ["-m"]
    sys.argv = arguments[1:] if is_module else arguments
    if not sys.argv:
        raise SystemExit(USAGE)
    install()
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        # What ``python SCRIPT`` does.
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
