"""``tox -e strict`` says where the SDKs are to be installed; elsewhere there is nothing to hold the bodies against."""

from __future__ import annotations

import os

collect_ignore = [] if "TINKEX_STRICT_SDKS" in os.environ else ["test_strict.py"]
