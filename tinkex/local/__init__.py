"""The embedded server: Tinker's API on this machine, over PyTorch, with no key, no network and no GPU.

Needs ``pip install "tinkex[local]"``; importing this module does not. ::

    with tinkex.local.local_server() as server:
        client = tinkex.ServiceClient(base_url=server.base_url, api_key=server.api_key)
"""

from tinkex.local.limits import Limits
from tinkex.local.runtime import (
    LocalServer,
    default_data_dir,
    is_available,
    local_server,
    shared_local_server,
)
from tinkex.local.serving import serve

__all__ = [
    "Limits",
    "LocalServer",
    "default_data_dir",
    "is_available",
    "local_server",
    "serve",
    "shared_local_server",
]
