"""Compile the schema of the binary form into the package; with ``--check``, only compare with what is there.

It needs grpcio-tools in the version that ``tox.ini`` names: another one writes other files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
# Relative to the root, because the schema is known to the protobuf library by this name.
SCHEMA = "tinkex/wire/tinker.proto"
GENERATED = ("tinkex/wire/tinker_pb2.py", "tinkex/wire/tinker_pb2.pyi")


def compile_into(folder: Path) -> None:
    options = [f"--proto_path={ROOT}", f"--python_out={folder}", f"--pyi_out={folder}"]
    if protoc.main(["protoc", *options, SCHEMA]) != 0:
        raise SystemExit(f"{SCHEMA} does not compile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the files in the package are not up to date")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as name:
        compile_into(Path(name))
        made = {path: (Path(name) / path).read_text() for path in GENERATED}
    stale = [path for path in GENERATED if not (ROOT / path).exists() or (ROOT / path).read_text() != made[path]]
    if check and stale:
        sys.exit(f"{', '.join(stale)} differ from what {SCHEMA} compiles to: run tools/compile_proto.py")
    for path in stale:
        (ROOT / path).write_text(made[path])
    print("up to date" if not stale else f"wrote {', '.join(stale)}")


if __name__ == "__main__":
    main()
