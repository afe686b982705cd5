"""The attention of the hero's node, drawn as SVG on the NetHack map of a real moment."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from nle import nethack

from pipeline.environments.entity_graph import KINDS
from pipeline.training.film import COLOURS, GROUND
from pipeline.training.player import Player
from pipeline.training.recording import Frame, Recording

_CELL, _LINE = 9.0, 17.0
_MARGIN = 3  # squares around what is shown
_LIVELY = 2.0  # how many other entities a monster counts for, in addition to itself


def liveliest(player: Player, recording: Recording) -> Frame:
    """The moment with the most entities around the hero; monsters count more than others."""
    step = max(1, len(recording.frames) // 400)
    frames = recording.frames[::step]
    kinds = player.encoded(player.batched([frame.observation for frame in frames]))["node_kind"].numpy()
    interest = (kinds > 1).sum(-1) + _LIVELY * (kinds == KINDS.index("monster")).sum(-1)
    return frames[int(interest.argmax())]


def draw(player: Player, frame: Frame, experts: Sequence[str]) -> bytes | None:
    """The figure as an SVG file; None if the policy has no graph encoder."""
    seen = player.attention(player.batched([frame.observation]))
    if seen is None:
        return None
    attention, offsets = seen[0][0], seen[1][0]
    blstats = frame.observation["blstats"]
    x, y = int(blstats[nethack.NLE_BL_X]), int(blstats[nethack.NLE_BL_Y])
    nodes = [(x + int(dx), y + int(dy), float(a)) for (dx, dy), a in zip(offsets, attention, strict=True) if a > 0]
    left = max(0, min(node[0] for node in nodes) - 2 * _MARGIN)
    right = min(79, max(node[0] for node in nodes) + 2 * _MARGIN + 1)
    top, bottom = (
        max(0, min(node[1] for node in nodes) - _MARGIN),
        min(21, max(node[1] for node in nodes) + _MARGIN + 1),
    )
    right, bottom = min(79, max(right, left + 34)), min(21, max(bottom, top + 9))

    def centre(column: int, row: int) -> tuple[float, float]:
        return 16 + (column - left + 0.5) * _CELL, 44 + (row - top + 0.5) * _LINE

    bars_at = 16 + (right - left) * _CELL + 28
    width, height = bars_at + 176, max(44 + (bottom - top) * _LINE + 14, 60 + 40 * len(experts))
    hero = centre(x, y)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="attention of the hero on the map">',
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
        f'<text x="16" y="24" font-family="monospace" font-size="13" fill="#c9ccd1">{escape(_message(frame))}</text>',
    ]
    strongest = max(a for column, row, a in nodes if (column, row) != (x, y)) if len(nodes) > 1 else 1.0
    for column, row, a in sorted(nodes, key=lambda node: node[2]):
        end, share = centre(column, row), a / max(strongest, 1e-9)
        if (column, row) != (x, y):
            parts.append(
                f'<line x1="{hero[0]:.1f}" y1="{hero[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="#ffb454" '
                f'stroke-opacity="{0.15 + 0.75 * share:.2f}" stroke-width="{0.6 + 3.4 * share:.2f}" '
                f'stroke-linecap="round"><title>{a:.1%} of the attention</title></line>'
            )
    for column, row, a in nodes:
        at = centre(column, row)
        colour = "#ffffff" if (column, row) == (x, y) else "#ffb454"
        parts.append(
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="9" fill="{GROUND}" fill-opacity=".75" stroke="{colour}" '
            f'stroke-opacity=".8" stroke-width="1"><title>{a:.1%} of the attention</title></circle>'
        )
    parts += _map(frame, left, right, top, bottom)
    parts += _bars(frame.weights, experts, bars_at)
    own = sum(a for column, row, a in nodes if (column, row) == (x, y))
    parts.append(
        f'<text x="16" y="{height - 8:.0f}" font-family="sans-serif" font-size="11" fill="#9aa1ab">'
        f"strongest line {strongest:.0%} of the attention, the hero's own square {own:.0%}</text></svg>"
    )
    return "".join(parts).encode()


def _map(frame: Frame, left: int, right: int, top: int, bottom: int) -> list[str]:
    """SVG of the map's letters in the terminal's colours; the map begins at row 1 of the screen, below the message."""
    parts = []
    for row in range(top, bottom):
        for column in range(left, right):
            letter = chr(int(frame.chars[row + 1, column]))
            if letter.strip():
                colour = COLOURS[int(frame.colours[row + 1, column])]
                place = f'x="{16 + (column - left) * _CELL:.1f}" y="{44 + (row - top) * _LINE + 13:.1f}"'
                parts.append(
                    f'<text {place} font-family="monospace" font-size="14" fill="{colour}">{escape(letter)}</text>'
                )
    return parts


def _bars(weights: np.ndarray, experts: Sequence[str], left: float) -> list[str]:
    """SVG of the router's weights as bars."""
    words = 'font-family="sans-serif" font-size="13" fill="#e7e5df"'
    parts = [f'<text x="{left}" y="24" font-family="sans-serif" font-size="12" fill="#9aa1ab">router</text>']
    for index, (name, weight) in enumerate(zip(experts, weights, strict=False)):
        y = 48 + 40 * index
        colour = ("#5b93dd", "#e39a5b", "#66b98b", "#cbb682", "#a98adb", "#a3afbc")[index % 6]
        share = f'{weight:.0%}</text><rect x="{left}" y="{y + 12}" height="6" rx="3"'
        parts.append(f'<text x="{left}" y="{y + 6}" {words}>{escape(name)}</text>')
        parts.append(
            f'<text x="{left + 150}" y="{y + 6}" text-anchor="end" {words}>{share} width="150" fill="#30343b"/>'
        )
        length = 150 * float(weight)
        parts.append(f'<rect x="{left}" y="{y + 12}" height="6" rx="3" width="{length:.1f}" fill="{colour}"/>')
    return parts


def _message(frame: Frame) -> str:
    """The game's message, or a placeholder."""
    said = bytes(frame.chars[0]).decode("latin-1").strip()
    return said[:70] or "(a quiet moment)"
