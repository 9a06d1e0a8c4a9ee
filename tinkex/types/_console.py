"""Pages of the hosted service's console, by what they show."""

from __future__ import annotations

from urllib.parse import quote

_CONSOLE = "https://tinker.thinkingmachines.ai"


def session_page(session_id: str | None) -> str:
    """Return the page of a session, or of all sessions."""
    return f"{_CONSOLE}/sessions" if session_id is None else f"{_CONSOLE}/sessions/{session_id}"


def run_page(training_run_id: str) -> str:
    """Return the page of a training run."""
    return f"{_CONSOLE}/training_runs/{training_run_id}"


def checkpoint_page(training_run_id: str, checkpoint_id: str) -> str:
    """Return the page of a checkpoint."""
    return f"{_CONSOLE}/checkpoints/{quote(training_run_id, safe='')}/{quote(checkpoint_id, safe='')}"


def playground_page(tinker_path: str) -> str:
    """Return the page to talk to a sampler checkpoint."""
    return f"{_CONSOLE}/playground?mode=checkpoint&checkpoint={quote(tinker_path, safe='')}"
