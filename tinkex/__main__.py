"""``python -m tinkex`` is the command ``tinkex``."""

from tinkex.cli import main

if __name__ == "__main__":
    main(prog_name="tinkex")
