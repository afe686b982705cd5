"""The command of a trainer, with placeholders that are filled for each attempt.

    {parameters.KEY}        a value of `trainer.parameters`, as the rung has it
    {flags}                 all of them, as words for argparse or tyro (`trainer.flags`)
    {hydra}                 all of them, as words for Hydra
    {checkpoint}            path of the checkpoint to start from
    {folder}                folder of the attempt
    {seed}                  `training.seed`
    {python}                the Python that runs `ladder`
    {training.episodes}     any other key of the configuration
    {{ }}                   the braces themselves

Where there is no checkpoint to start from, the word with `{checkpoint}` is left out. If it is the whole word, the flag
before it is left out too: both words of `--resume {checkpoint}`.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.attempt.file import WarmStart
from pipeline.config import ExperimentConfig, flatten
from pipeline.foreign.flags import text, words_of

CHECKPOINT = "checkpoint"
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
_WHOLE_WORD = ("flags", "hydra")
"""Placeholders that are a word by themselves, and become several."""


@dataclass(frozen=True)
class Filling:
    """What an attempt puts in the places of a command."""

    config: ExperimentConfig
    folder: str
    checkpoint: str | None

    def value(self, name: str) -> Any:
        """Raises KeyError: there is no such placeholder."""
        parameters = self.config.trainer.parameters
        simple: dict[str, Callable[[], Any]] = {
            CHECKPOINT: lambda: self.checkpoint,
            "folder": lambda: self.folder,
            "seed": lambda: self.config.training.seed,
            "python": lambda: sys.executable,
            "flags": lambda: words_of(parameters, self.config.trainer.flags),
            "hydra": lambda: words_of(parameters, "hydra"),
        }
        if name in simple:
            return simple[name]()
        for prefix in ("parameters.", "trainer.parameters."):
            if name.startswith(prefix):
                return _inside(parameters, name.removeprefix(prefix))
        return _keys(self.config)[name]


def fill(command: Sequence[str], filling: Filling) -> tuple[str, ...]:
    """The words to start. Raises ValueError: a placeholder cannot be filled; the message names the nearest that can."""
    words: list[str] = []
    for word in command:
        names = _names(word)
        if CHECKPOINT in names and filling.checkpoint is None:
            if word == f"{{{CHECKPOINT}}}" and words and _is_flag(words[-1]):
                words.pop()
            continue
        for name in names:
            if name in _WHOLE_WORD and word != f"{{{name}}}":
                raise ValueError(f"{{{name}}} stands for several words, so it must be one by itself, not {word!r}")
        if len(names) == 1 and word == f"{{{names[0]}}}":
            value = _value(filling, names[0])
            words += map(text, value) if isinstance(value, list | tuple) else [text(value)]
        else:
            words.append(_PARTS.sub(lambda part: _part(part, filling), word))
    return tuple(words)


def command_of(config: ExperimentConfig, folder: str, start: WarmStart | None) -> tuple[str, ...] | None:
    """The words that start an attempt of a trainer of the user's own; None: it is this project's."""
    if config.trainer.command is None:
        return None
    return fill(config.trainer.command, Filling(config, folder, start.checkpoint if start else None))


def takes_checkpoint(config: ExperimentConfig) -> bool:
    """Whether a trainer is told of a checkpoint: by its command, or by its attempt's file if it describes its own."""
    command = config.trainer.command
    if command is None or config.trainer.checkpoints is None:
        return True
    return any(CHECKPOINT in _names(word) for word in command)


def check(config: ExperimentConfig) -> None:
    """Raises ValueError where the command of a configuration cannot be filled; the message begins with the key."""
    if config.trainer.command is None:
        return
    try:
        for checkpoint in (None, "checkpoint"):
            words = fill(config.trainer.command, Filling(config, "folder", checkpoint))
            if not words or not words[0]:
                raise ValueError(f"names no program: {list(config.trainer.command)}")
    except ValueError as error:
        raise ValueError(f"trainer.command: {error}") from error


def interpolation(command: Any) -> str | None:
    """What is wrong with `${…}` in a command that has not been resolved; None: nothing.

    OmegaConf resolves it once, when the file is read, and a rung that changes the value would not change the command.
    Its resolvers, such as `${oc.env:HOME}`, are no such trap.
    """
    for word in command if isinstance(command, list | tuple) else [command]:
        for name in _INTERPOLATION.findall(str(word)):
            if ":" in name:
                continue
            key = name.lstrip(".").removeprefix("trainer.")
            said = "seed" if key == "training.seed" else key
            return (
                f"${{{name}}} is filled once, when the file is read, so no rung could change it; "
                f"write the placeholder {{{said}}}"
            )
    return None


def _part(part: re.Match[str], filling: Filling) -> str:
    found = part.group()
    return found[0] if part.group(1) is None else text(_value(filling, part.group(1)))


def _names(word: str) -> list[str]:
    """The placeholders of a word. Raises ValueError: a brace that is neither a placeholder's nor written twice."""
    names = []
    for part in _PARTS.finditer(word):
        if part.group(1) is not None:
            names.append(part.group(1))
        elif part.group() in ("{", "}"):
            raise ValueError(f"{word!r} has a single {part.group()}; write {part.group() * 2} for the brace itself")
    return names


def _value(filling: Filling, name: str) -> Any:
    try:
        return filling.value(name)
    except KeyError:
        pass
    known = [CHECKPOINT, "folder", "seed", "python", *_WHOLE_WORD, *_parameters(filling.config.trainer.parameters)]
    pool = known if "." not in name or name.startswith("param") else [*known, *_keys(filling.config)]
    nearest = difflib.get_close_matches(name, pool, n=1, cutoff=0.0)[0]
    shown = ", ".join(f"{{{each}}}" for each in known)
    raise ValueError(
        f"unknown placeholder {{{name}}}; nearest: {{{nearest}}}; allowed: {shown}; a brace itself is written twice"
    )


def _inside(parameters: Mapping[str, Any], path: str) -> Any:
    if path in parameters:
        return parameters[path]
    head, dot, rest = path.partition(".")
    if dot and isinstance(parameters.get(head), Mapping):
        return _inside(parameters[head], rest)
    raise KeyError(path)


def _parameters(parameters: Mapping[str, Any], prefix: str = "parameters.") -> list[str]:
    names = []
    for key, value in parameters.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            names += _parameters(value, f"{prefix}{key}.")
    return names


def _keys(config: ExperimentConfig) -> dict[str, Any]:
    """Every key that is one value."""
    return {key: value for key, value in flatten(config).items() if not isinstance(value, Mapping | list)}


def _is_flag(word: str) -> bool:
    return word.startswith("-") and "=" not in word
