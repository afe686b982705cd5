"""Verdicts and outcomes in words, and the CSS class of each."""

from __future__ import annotations


def words(name: str) -> str:
    """A verdict or outcome as words."""
    return name.replace("_", " ")


def tone(verdict: str) -> str:
    """The CSS class of a verdict or outcome."""
    return {"healthy": "good", "compared": "good", "running": "wait", "interrupted": "wait"}.get(verdict, "bad")
