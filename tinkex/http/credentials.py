"""What stands in the ``X-API-Key`` header: a key, what a command prints, or a token that the server gives for either.

A token is renewed by whoever sends a request after about half of its life, while others go on with the old one; nobody
waits for it before its last minute. So there is no thread for it, and a client that is idle asks for nothing.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import attrs

from tinkex.config import ClientConfig, Secret
from tinkex.errors import AuthenticationError, ConfigurationError, TinkexError

__all__ = ["SHORTEST_SECRET", "Credentials", "Exchange", "hide", "read_claims"]

_log = logging.getLogger(__name__)

Exchange = Callable[[str, bool], str]
"""Takes a credential and whether it is worth trying long, and returns the server's token for it."""

_LAST_MINUTE_S = 60.0
_BACK_OFF_S = 60.0
_SHARE_OF_LIFE = (0.45, 0.55)
_COMMAND_S = 60.0
_KEPT_SECRETS = 8
_STARS = b"********"
SHORTEST_SECRET = 8
"""What is shorter may be a part of many words: hiding every ``x`` would leave nothing to read."""


def read_claims(token: str) -> dict[str, Any]:
    """Read what a JWT says of itself (RFC 7519); its signature is for the server to check.

    Raises:
        ConfigurationError: It is no JWT.
    """
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError) as error:
        raise ConfigurationError("a credential that begins with 'eyJ' must be a JWT, and this one is not") from error
    if not isinstance(claims, dict):
        raise ConfigurationError("the claims of a JWT must be a JSON object")
    return claims


def is_jwt(credential: str) -> bool:
    """Tell a JWT from a key: it begins with an encoded brace."""
    return credential.startswith("eyJ")


def hide(content: bytes, secret: bytes) -> bytes:
    """Put stars in the place of a secret; of a short one only where it stands by itself."""
    if len(secret) >= SHORTEST_SECRET:
        return content.replace(secret, _STARS)
    return re.sub(rb"(?<![\w-])" + re.escape(secret) + rb"(?![\w-])", _STARS, content)


def _wall_clock() -> float:
    return datetime.now(timezone.utc).timestamp()


def run_command(command: str) -> str:
    """Run the user's command and return what it prints, without blanks at its ends.

    Raises:
        ConfigurationError: It failed, printed nothing that can be a credential, or took longer than a minute.
    """
    import subprocess

    try:
        done = subprocess.run(  # noqa: S602 - a line for the shell is what the variable is documented to hold
            command, shell=True, capture_output=True, timeout=_COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"TINKER_CREDENTIAL_CMD printed nothing within {_COMMAND_S:g} s") from None
    said = done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
    printed = done.stdout.decode(errors="replace").strip()
    if done.returncode or not printed:
        what = f"ended with status {done.returncode}" if done.returncode else "printed nothing"
        raise ConfigurationError(f"TINKER_CREDENTIAL_CMD {what}{': ' + said if said else ''}; run it in a shell")
    try:
        return Secret(printed).reveal()
    except ConfigurationError:
        raise ConfigurationError("TINKER_CREDENTIAL_CMD must print one credential and nothing else") from None


@attrs.frozen(slots=True)
class _Held:
    """A value that was obtained; times are on the monotonic clock."""

    value: str = attrs.field(repr=False)
    renew_at: float = math.inf
    expires_at: float = math.inf


class _Renewable:
    """A value that is obtained when it is needed, and again before it expires. Safe for any number of threads."""

    def __init__(self, obtain: Callable[[bool], _Held], clock: Callable[[], float]) -> None:
        """Obtain nothing yet; ``obtain`` is told if there is no value to fall back on."""
        self._obtain = obtain
        self._clock = clock
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._held: _Held | None = None
        self._busy = False
        self._try_at = -math.inf

    def value(self) -> str:
        """Return the value, after obtaining it if need be.

        Raises:
            TinkexError: It could not be obtained, and there is none that still lives.
        """
        with self._changed:
            held = self._usable_locked()
            if held is not None:
                return held.value
            self._busy = True
        return self._renew()

    def replace(self, rejected: str) -> str:
        """Return another value than the one that the server rejected, which nobody will be given again."""
        with self._changed:
            if self._held is not None and self._held.value == rejected:
                self._held = None
        return self.value()

    def _usable_locked(self) -> _Held | None:
        """Return what the caller may use as it is; None if the caller has to renew it."""
        while True:
            held, now = self._held, self._clock()
            if held is not None:
                left = held.expires_at - now
                fresh = left > _LAST_MINUTE_S and (self._busy or now < held.renew_at)
                if fresh or (left > 0 and now < self._try_at):
                    return held
            if not self._busy:
                return None
            self._changed.wait()

    def _renew(self) -> str:
        with self._changed:
            old = self._held
        try:
            fresh = self._obtain(old is None or old.expires_at <= self._clock())
        except TinkexError as error:
            now = self._clock()
            refused = isinstance(error, AuthenticationError) and (old is None or old.expires_at - now <= _LAST_MINUTE_S)
            if old is None or old.expires_at <= now or refused:
                raise
            _log.warning("the credential could not be renewed, the old one is used meanwhile: %s", error)
            with self._changed:
                self._try_at = now + _BACK_OFF_S
            return old.value
        else:
            with self._changed:
                self._held, self._try_at = fresh, -math.inf
            return fresh.value
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()


class Credentials:
    """The credential of one client, in whatever form the server wants it. Safe for any number of threads."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        run: Callable[[str], str] = run_command,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = _wall_clock,
    ) -> None:
        """Run no command and ask no server yet.

        Args:
            config: The key, and the command that prints one.
            run: Runs the command.
            clock: Monotonic seconds.
            wall_clock: Seconds since 1970, which JWTs are dated in.
        """
        self._key = None if config.api_key is None else config.api_key.reveal()
        self._command = config.credential_cmd
        self._run = run
        self._clock = clock
        self._wall_clock = wall_clock
        self._known: deque[bytes] = deque(maxlen=_KEPT_SECRETS)
        self._prefer_command = False
        self._printed = _Renewable(lambda _: self._from_command(), clock)
        self._exchanged: _Renewable | None = None
        if self._key is not None:
            self._known.append(self._key.encode("ascii"))

    def value(self) -> str | None:
        """Return what to put into the header; None for nothing.

        Raises:
            ConfigurationError: The key is a JWT that has expired, or the command failed.
            APIError: The server gave no token for it.
        """
        if self._exchanged is not None:
            return self._exchanged.value()
        return self._printed.value() if self._uses_command() else self._checked_key()

    def replace(self, rejected: str) -> str | None:
        """Return another value after the server called this one an invalid token; None if there is no other."""
        if self._exchanged is not None:
            return self._exchanged.replace(rejected)
        return self._printed.replace(rejected) if self._uses_command() else None

    def exchange_with(self, exchange: Exchange, *, prefer_command: bool = False) -> None:
        """From now on, send the server's token for the credential instead of the credential itself.

        Args:
            exchange: Asks the server.
            prefer_command: The command goes before the key, unless the key is a JWT itself.
        """
        if prefer_command and self._command is None and not (self._key and is_jwt(self._key)):
            raise ConfigurationError(
                "your organization wants credentials that change: set TINKER_CREDENTIAL_CMD to a command for that"
            )
        self._prefer_command = prefer_command
        self._exchanged = _Renewable(lambda worth_waiting: self._from_server(exchange, worth_waiting), self._clock)

    def identity(self) -> str | None:
        """Return the JWT that says who is calling; None if only a plain key is known."""
        value = self.value()
        return value if value is not None and is_jwt(value) else None

    def blot_out(self, content: bytes) -> bytes:
        """Hide every credential that was used where a server repeats it."""
        for secret in list(self._known):
            content = hide(content, secret)
        return content

    def _uses_command(self) -> bool:
        if self._command is None or (self._key is not None and is_jwt(self._key)):
            return False
        return self._key is None or self._prefer_command

    def _checked_key(self) -> str | None:
        if self._key is not None and is_jwt(self._key):
            self._refuse_expired(self._key, "api_key is a JWT that has expired: pass a fresh one")
        return self._key

    def _refuse_expired(self, token: str, problem: str) -> float:
        """Return how many seconds a JWT that was not made just now has left."""
        expires = read_claims(token).get("exp")
        left = math.inf if not isinstance(expires, (int, float)) else expires - self._wall_clock()
        if left <= 0:
            raise ConfigurationError(f"{problem}, or set TINKER_CREDENTIAL_CMD to a command that prints one")
        return left

    def _from_command(self) -> _Held:
        printed = self._run(self._command or "")
        self._known.append(printed.encode("ascii"))
        if not is_jwt(printed):
            return _Held(printed)
        left = self._refuse_expired(printed, "TINKER_CREDENTIAL_CMD printed a JWT that has expired: see to the command")
        ends = self._clock() + left
        return _Held(printed, ends - _LAST_MINUTE_S, ends)

    def _from_server(self, exchange: Exchange, worth_waiting: bool) -> _Held:
        # The command is run for each exchange: what it printed before may have ended.
        credential = self._from_command().value if self._uses_command() else self._checked_key()
        token = exchange(credential or "", worth_waiting)
        self._known.append(token.encode("utf-8"))
        received = self._clock()
        life = _life_of(token)
        if life is None:
            return _Held(token, received + _BACK_OFF_S)
        return _Held(token, received + life * random.uniform(*_SHARE_OF_LIFE), received + life)  # noqa: S311


def _life_of(token: str) -> float | None:
    """Return for how long a token that was made just now is good; both dates are of the server's own clock."""
    try:
        claims = read_claims(token)
        life = float(claims["exp"]) - float(claims["iat"])
    except (ConfigurationError, KeyError, TypeError, ValueError):
        return None
    return life if life > 0 else None
