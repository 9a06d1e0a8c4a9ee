"""What telemetry tells of an exception: its kind, its words and where it came from; no values, and no credential."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from tinkex.config import ClientConfig
from tinkex.errors import APIStatusError, InvalidInputError, RequestFailedError
from tinkex.http import Credentials
from tinkex.http.credentials import SHORTEST_SECRET

__all__ = ["Redactor", "Report", "is_user_error", "plain", "watch"]

_HIDDEN = "********"
_LONGEST_TEXT = 2_000
_MOST_FRAMES = 50
_MOST_LINKS = 5

# An API key, a JWT, user and password in an address, and what stands behind a name that promises a credential.
_KEY = r"tml-[\w-]+|eyJ[\w-]+\.[\w.-]+"
_ADDRESS = r"(?<=://)[^/@\s]+(?=@)"
_NAMED = (
    r"(?P<name>[\w-]*(?:key|token|secret|password|authorization|cookie|credential|jwt)[\"']?\s*[:=]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|(?:bearer\s+|basic\s+)?[^\s&,;)}\]]+)"
)
_CREDENTIAL = re.compile(f"{_NAMED}|{_ADDRESS}|{_KEY}", re.IGNORECASE)


class Redactor:
    """Hides what is, or may be, a credential in a text. Safe for any number of threads."""

    def __init__(self, config: ClientConfig, credentials: Credentials) -> None:
        """Know the credentials of a client, also those that it will have later."""
        self._credentials = credentials
        values = [*config.default_headers.values(), *config.default_query.values()]
        values += [config.credential_cmd or "", urlsplit(config.base_url).password or ""]
        # A header may also say something that is no secret, and is short then.
        self._values = [value for value in values if len(value) >= SHORTEST_SECRET]

    def __call__(self, text: str) -> str:
        """Return the text with stars in their places."""
        text = self._credentials.blot_out(text.encode("utf-8", "replace")).decode("utf-8", "replace")
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        return _CREDENTIAL.sub(lambda found: f"{found['name'] or ''}{_HIDDEN}", text)


@attrs.frozen(kw_only=True, slots=True)
class Report:
    """An exception in words.

    Attributes:
        kind: Name of its class.
        message: What it says, at most 2,000 characters of it.
        trace: Its causes, and for each the functions that it went through: module, line and name. Neither lines of
            source nor variables nor paths of files, which may be the program's own affair.
    """

    kind: str
    message: str
    trace: str

    @classmethod
    def of(cls, error: BaseException, hide: Callable[[str], str]) -> Report:
        """Describe an exception, with ``hide`` applied to each text."""
        lines = [line for link in itertools.islice(_chain(error), _MOST_LINKS) for line in _lines(link)]
        return cls(kind=type(error).__name__, message=hide(_words(error)), trace=hide("\n".join(lines)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _lines(error: BaseException) -> Iterator[str]:
    yield f"{type(error).__module__}.{type(error).__qualname__}: {_words(error)}"
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, line in frames[-_MOST_FRAMES:]:
        yield f"  {frame.f_globals.get('__name__', '?')}:{line} in {frame.f_code.co_name}"


def _words(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST_TEXT]
    except Exception:  # the text of an exception is foreign code
        return ""


def is_user_error(error: BaseException) -> bool:
    """Tell a mistake of the program from a fault of client or server, as the official SDK's events do.

    That is a status 4xx other than 408, a failure of the category ``user``, or an argument that was refused here.
    """
    if isinstance(error, APIStatusError):
        return 400 <= error.status_code < 500 and error.status_code != 408
    if isinstance(error, RequestFailedError):
        return error.category == "user"
    return isinstance(error, InvalidInputError)


def plain(value: Any, hide: Callable[[str], str]) -> Any:
    """Return a value as JSON has it, with ``hide`` applied to each text; what JSON has no form for becomes a text."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {hide(str(name)): plain(inner, hide) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, hide) for inner in value]
    return hide(repr(value)[:_LONGEST_TEXT])


def watch(client: object, report: Callable[[BaseException], object]) -> None:
    """Report what the public methods of a client raise.

    The methods are wrapped in this one object, so that a client that is not watched is as it always was.
    """
    for name, method in inspect.getmembers(type(client), inspect.isfunction):
        if not name.startswith("_") and not inspect.iscoroutinefunction(method):
            setattr(client, name, _reporting(getattr(client, name), report))


def _reporting(method: Callable[..., Any], report: Callable[[BaseException], object]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            report(error)
            raise

    return call
