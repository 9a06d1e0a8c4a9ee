"""``python -m tests.servers NAME``: one user's program on a server that others wrote, with both clients."""

import sys

from tests.servers.run import main

if __name__ == "__main__":
    sys.exit(main())
