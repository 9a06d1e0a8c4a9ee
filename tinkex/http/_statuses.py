"""Error statuses in words: what the server said, and what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from tinkex.errors import APIStatusError, error_from_status
from tinkex.http.transport import Response

__all__ = ["lacks_endpoint", "status_error"]

_LONGEST_DETAIL = 500


_UNKNOWN = re.compile(r"(?i)\b(extra|additional|unknown|unexpected|unrecogni[sz]ed|not permitted)\b")
"""How servers say that they do not know a field, in the words of pydantic, JSON Schema and others."""


def status_error(
    response: Response,
    *,
    method: str,
    path: str,
    base_url: str,
    has_key: bool,
    hint: str | None = None,
    late: Mapping[str, str] = MappingProxyType({}),
    known: bool = False,
) -> APIStatusError:
    """Build the error for an answer with an error status.

    Args:
        response: The answer.
        method: HTTP method.
        path: Path and query.
        base_url: The server, without credentials.
        has_key: An API key was sent.
        hint: What this endpoint has to add for this status.
        late: What was in the body that the server may be too old to know, with the version of the SDK of each.
        known: Other requests have shown that the address is that of a server of this API.

    Returns:
        The error to raise: "HTTP <status> <name>: <what the server said>; <what to do>".
    """
    body = _parse(response.content)
    detail = _detail(body)
    advice = _too_old(detail, late) or hint
    if known and not advice and (response.status == 405 or _is_missing_path(response.status, body)):
        advice = f"this server does not offer {method} {path.partition('?')[0]}"
    advice = advice or _advice(response, body, base_url, has_key)
    said = ": ".join(filter(None, [f"HTTP {response.status} {_name(response.status)}".strip(), detail]))
    return error_from_status(
        f"{said}; {advice}" if advice else said,
        status_code=response.status,
        body=body,
        headers=response.headers,
        method=method,
        path=path,
    )


def _is_missing_path(status: int, body: object) -> bool:
    """Tell whether a server does not have an endpoint at all, from its status and its decoded body.

    A server that has the endpoint, and not what was asked for, says in JSON what it did not find; a web framework says
    only that.
    """
    return status == 404 and (not isinstance(body, Mapping) or body.get("detail") == "Not Found")


def lacks_endpoint(error: APIStatusError) -> bool:
    """Tell whether a server has answered that it does not offer what an endpoint is for."""
    return error.status_code in (405, 501) or _is_missing_path(error.status_code, error.body)


def _name(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _parse(content: bytes) -> Any:
    if not content:
        return None
    text = content.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _detail(body: Any) -> str:
    """Find the text in a body: FastAPI's ``detail`` (a text or a list), other servers' keys, or HTML."""
    if isinstance(body, Mapping):
        found = next((body[key] for key in ("detail", "error", "message") if body.get(key)), "")
        text = _list_mistakes(found) if isinstance(found, list) else _plain(found)
    else:
        text = _strip_html(body) if isinstance(body, str) else _plain(body)
    return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "..."


def _plain(value: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("message"), str):
        return str(value["message"])
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _list_mistakes(mistakes: list[Any]) -> str:
    """Render ``[{"loc": ["body", "seq_id"], "msg": "..."}]`` as ``seq_id: ...``."""
    lines = []
    for mistake in mistakes:
        if isinstance(mistake, Mapping) and "msg" in mistake:
            place = ".".join(str(part) for part in mistake.get("loc", ()) if part != "body")
            lines.append(f"{place}: {mistake['msg']}" if place else str(mistake["msg"]))
        else:
            lines.append(_plain(mistake))
    return "; ".join(lines)


def _strip_html(text: str) -> str:
    if "<" not in text:
        return text.strip()
    import html

    without_code = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without_code)).split())


def _too_old(detail: str, late: Mapping[str, str]) -> str:
    """Say of the fields that the server does not know which SDK each came with."""
    unknown = [mistake for mistake in detail.split("; ") if _UNKNOWN.search(mistake)]
    named = [name for name in late if any(re.search(rf"\b{name}\b", mistake) for mistake in unknown)]
    if not named:
        return ""
    what = " and ".join(f"{name}, which came with SDK {late[name]}" for name in named)
    return f"this server does not know {what}: leave it out, or use a server for that SDK"


def _advice(response: Response, body: Any, base_url: str, has_key: bool) -> str:
    if response.status == 401 and not has_key:
        return "no API key was sent: set TINKER_API_KEY or pass api_key="
    if response.status == 401:
        return "the API key that was sent is not accepted: check TINKER_API_KEY or api_key="
    if _is_missing_path(response.status, body):
        return f"this server has no such endpoint: check base_url={base_url}"
    if 300 <= response.status < 400:
        target = response.headers.get("location", "nowhere").split("?", 1)[0]
        return f"the server redirects to {target}: correct base_url={base_url}"
    return ""
