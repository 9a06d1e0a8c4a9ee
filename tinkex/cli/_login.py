"""The stored login: where the key of the hosted service waits for the next program."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tinkex.config import Secret, login_path, stored_key
from tinkex.errors import ConfigurationError

__all__ = ["credential_source", "forget", "store"]

VARIABLES = ("TINKER_API_KEY", "TINKER_CREDENTIAL_CMD")
"""Where a credential may be besides; these go before the stored one."""

_ID = "tinkex"
"""Name of our key in the file, which may hold others."""


def credential_source() -> str | None:
    """Say where the credential for the hosted service comes from: a variable, the file, or None for nowhere.

    Raises:
        ConfigurationError: There is a stored login, and it cannot be read.
    """
    for name in VARIABLES:
        if os.environ.get(name, "").strip():
            return name
    return str(login_path()) if stored_key() else None


def store(key: str) -> Path:
    """Make a key the default one of the file, and let nobody else read the file.

    Returns:
        The file.

    Raises:
        ConfigurationError: It is no key, or the file cannot be read or written.
    """
    Secret(key)
    path, stored = login_path(), _read()
    stored["keys"] = {**_keys(stored), _ID: {"type": "manual", "key": key, "name": _ID}}
    stored["default"] = _ID
    _write(path, stored)
    return path


def forget() -> bool:
    """Delete the default key of the file; False if there is none.

    Raises:
        ConfigurationError: The file cannot be read, or others of its keys not be written back.
    """
    if stored_key() is None:
        return False
    path, stored = login_path(), _read()
    default = stored.pop("default")
    stored["keys"] = {name: record for name, record in _keys(stored).items() if name != default}
    if stored["keys"]:
        _write(path, stored)
    else:
        path.unlink()
    return True


def _keys(stored: dict[str, Any]) -> dict[str, Any]:
    keys = stored.get("keys")
    return keys if isinstance(keys, dict) else {}


def _read() -> dict[str, Any]:
    stored_key()  # says what is wrong with a file that cannot be read
    try:
        stored = json.loads(login_path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        stored = None
    return stored if isinstance(stored, dict) else {"version": 1}


def _write(path: Path, stored: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made with mode 0600, and in place at once: at no time can others read it, or a program half of it.
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(stored, stream, indent=2)
            Path(made).replace(path)
        finally:
            Path(made).unlink(missing_ok=True)  # is there only if that failed
    except OSError as error:
        raise ConfigurationError(f"the login cannot be stored in {path} ({error}); set TINKER_API_KEY") from error
