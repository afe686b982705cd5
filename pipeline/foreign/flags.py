"""`trainer.parameters` as the words of a command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Style = Literal["argparse", "tyro", "hydra"]


def words_of(parameters: Mapping[str, Any], style: Style) -> list[str]:
    """Every parameter as words, in the order of the mapping; nested ones with dots.

    | value | argparse (also click, HfArgumentParser) | tyro | hydra |
    |---|---|---|---|
    | `{lr: 0.1}` | `--lr=0.1` | `--lr=0.1` | `lr=0.1` |
    | `{optim: {lr: 0.1}}` | `--optim.lr=0.1` | `--optim.lr=0.1` | `optim.lr=0.1` |
    | `{cuda: true}` | `--cuda` | `--cuda` | `cuda=true` |
    | `{cuda: false}` | left out | `--no-cuda` | `cuda=false` |
    | `{cuda: null}` | left out | left out | `cuda=null` |
    | `{layers: [64, 32]}` | `--layers 64 32` | `--layers 64 32` | `layers=[64,32]` |
    """
    words: list[str] = []
    for key, value in leaves(parameters):
        words += [f"{key}={text(value)}"] if style == "hydra" else _flag(key, value, style)
    return words


def _flag(key: str, value: Any, style: Style) -> list[str]:
    if value is None or (value is False and style == "argparse"):
        return []
    if isinstance(value, bool):
        head, _, last = key.rpartition(".")
        return [f"--{key}"] if value else [f"--{head}.no-{last}" if head else f"--no-{last}"]
    if isinstance(value, list | tuple):
        return [f"--{key}", *map(text, value)] if value else []
    # One word: argparse would take `-1e-4` by itself for a flag.
    return [f"--{key}={text(value)}"]


def leaves(values: Mapping[str, Any], joint: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, with their keys joined into one."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, joint, f"{prefix}{key}{joint}")
        else:
            yield f"{prefix}{key}", value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turns keys with dots into nested mappings: {"a.b": x} → {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = str(key).split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = {**node.get(last, {}), **nested(value)} if isinstance(value, Mapping) else value
    return tree


def text(value: Any) -> str:
    """A value as it stands in one word: `true`, `null` and lists as in JSON, everything else as Python prints it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, list | tuple):
        return f"[{','.join(map(text, value))}]"
    return str(value)
