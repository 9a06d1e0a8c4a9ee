"""``python -m tests.benchmarks``: tinkex and the official SDK, in turn, on the same server."""

import sys

from tests.benchmarks.run import main

if __name__ == "__main__":
    sys.exit(main())
