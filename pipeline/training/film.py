"""A recorded game as an animated GIF, which every browser and the MLflow UI can show.

Each picture is composed from an atlas of letters of one size, which takes some milliseconds.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.training.recording import Recording

COLOURS = (
    "#5b6570", "#e06c65", "#7bc275", "#c9a15a", "#6f9be8", "#c586c9", "#56b6c2", "#c9ccd1",
    "#7d8793", "#ff9a5c", "#a5e075", "#f5d76e", "#8fb8ff", "#e6a3ea", "#7fe0ea", "#ffffff",
)  # fmt: skip
"""The terminal's sixteen colours on a dark ground, for the film and the attention figure."""
GROUND = "#14161a"
"""The background colour."""
_WIDTH, _HEIGHT, _SHADES = 7, 14, 6
_PANEL = 24  # columns beside the screen
_BAR = 18
_BLOCK = "\x01"  # the character that bars are made of; NetHack does not use it
_FRAMES = 240
_MILLISECONDS = 110


def film(recording: Recording, experts: Sequence[str], title: str) -> bytes:
    """The game as a GIF. A long game is thinned to every k-th moment, and the last one is always shown."""
    count = len(recording.frames)
    chosen = sorted({*range(0, count, -(-count // _FRAMES)), count - 1})
    palette = [value for colour in COLOURS for shade in range(_SHADES) for value in _mixed(colour, shade)]
    pictures = []
    for index in chosen:
        frame = recording.frames[index]
        chars = np.full((24, 80 + _PANEL), ord(" "), dtype=np.uint8)
        colours = np.zeros(chars.shape, dtype=np.uint8)
        chars[:, :80], colours[:, :80] = frame.chars, frame.colours
        for row, text, colour in _beside(frame.weights, experts, title, index + 1, count):
            letters = np.frombuffer(text.encode("latin-1", "replace")[:_PANEL], dtype=np.uint8)
            chars[row, 80 : 80 + len(letters)], colours[row, 80 : 80 + len(letters)] = letters, colour
        shades = _atlas()[chars] + (colours * _SHADES)[..., None, None]
        pixels = shades.transpose(0, 2, 1, 3).reshape(24 * _HEIGHT, -1).astype(np.uint8)
        picture = Image.fromarray(pixels, mode="P")
        picture.putpalette(palette)
        pictures.append(picture)
    times = [_MILLISECONDS] * (len(pictures) - 1) + [2500]
    content = io.BytesIO()
    pictures[0].save(
        content, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=False, disposal=1
    )
    return content.getvalue()


def _beside(
    weights: np.ndarray, experts: Sequence[str], title: str, step: int, count: int
) -> list[tuple[int, str, int]]:
    """Lines of the panel beside the screen, (row, text, colour) each: title, step, and the router's weights as bars."""
    lines = [(1, f"  {title}", 15), (2, f"  step {step} of {count}", 7)]
    for index, (name, weight) in enumerate(zip(experts, weights, strict=False)):
        row = 4 + 3 * index
        if row > 22:
            break
        lines.append((row, f"  {name:<13.13}{weight:5.0%}", 7))
        lines.append((row + 1, "  " + _BLOCK * round(_BAR * float(weight)), (12, 9, 10, 11, 13, 14)[index % 6]))
    return lines


@cache
def _atlas() -> np.ndarray:
    """The letters of Latin-1 as shades 0 … `_SHADES` − 1, (256, height, width), in a font of matplotlib's."""
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"), 11)
    atlas = np.zeros((256, _HEIGHT, _WIDTH), dtype=np.uint8)
    atlas[ord(_BLOCK), 3:9] = _SHADES - 1
    for code in (*range(33, 127), *range(161, 256)):
        image = Image.new("L", (_WIDTH, _HEIGHT))
        ImageDraw.Draw(image).text((0, 0), chr(code), fill=255, font=font)
        atlas[code] = np.round(np.asarray(image) / 255 * (_SHADES - 1))
    return atlas


def _mixed(colour: str, shade: int) -> tuple[int, ...]:
    """RGB of a shade between the ground and the colour."""
    share = shade / (_SHADES - 1)
    ends = zip(bytes.fromhex(GROUND[1:]), bytes.fromhex(colour[1:]), strict=True)
    return tuple(round(ground + share * (top - ground)) for ground, top in ends)
