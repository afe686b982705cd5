"""From an experiment's YAML file and `key.sub=value` overrides to a validated configuration, or one clear line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fallbacks.ladder import BUILT_IN, Ladder
from fallbacks.smaller import smaller
from pipeline.config import AS_IT_STANDS, ExperimentConfig
from pipeline.errors import BadInput
from pipeline.foreign import event_files
from pipeline.foreign.command import check, interpolation
from pipeline.foreign.names import Names
from pipeline.health.kinds import fields_at

_OWN_TRAINER = ("torch", "torch_geometric", "entmax", "gymnasium", "nle")
"""The packages of the trainer that ships, which are installed with the extra `nethack`."""
_LONGEST = 200
"""Characters of a value in a line."""
_MOST_SEEDS = 500
"""Each parent run has all of them in a tag."""
_DOLLAR = (
    "${key} stands for another key of the experiment, ${oc.env:NAME} for a variable of the environment; "
    r"what is to reach a command as ${NAME} is written \${{NAME}} in trainer.command"
)


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The file's configuration with the overrides merged over it, wholly checked; nothing is written.

    Raises:
        BadInput: names the file or the key, the value, what is allowed and the nearest valid name.
    """
    path = Path(path)
    config = validate(merge(read_yaml(path), overrides, str(path)), str(path))
    require_games(config, str(path))
    return config


def load_experiments(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ExperimentConfig, ...]:
    """The same, where `training.seed` may also be a list of seeds: one configuration for each, else alike.

    A configuration itself always has one seed, so that nothing else needs to know of siblings.

    Raises:
        BadInput: as above; or the list is empty, or holds a seed twice.
    """
    path = Path(path)
    data = merge(read_yaml(path), overrides, str(path))
    seeds = seeds_of(data, str(path))
    if seeds is None:
        return (load_experiment(path, overrides),)
    training = data["training"]
    configs = tuple(validate({**data, "training": {**training, "seed": seed}}, str(path)) for seed in seeds)
    require_games(configs[0], str(path))
    return configs


def seeds_of(data: Mapping[str, Any], source: str) -> list[Any] | None:
    """The list of seeds in `training.seed`; None if it is no list.

    Raises:
        BadInput: the list is empty, too long, or holds a seed twice.
    """
    given = data.get("training")
    seeds = given.get("seed") if isinstance(given, dict) else None
    if not isinstance(seeds, list):
        return None
    if not seeds or len(set(map(str, seeds))) != len(seeds):
        raise BadInput(f"{source}: training.seed: a list of seeds must hold each of them once, not {seeds}")
    if len(seeds) > _MOST_SEEDS:
        raise BadInput(f"{source}: training.seed: a list of seeds may hold {_MOST_SEEDS}, not {len(seeds)}")
    return seeds


def with_overrides(overrides: Sequence[str], data: Mapping[str, Any] | None = None) -> ExperimentConfig:
    """The configuration of `key.sub=value` overrides over the defaults, or over another configuration's data.

    Raises:
        BadInput: as above.
    """
    return validate(merge(data or {}, overrides, "overrides"), "overrides")


def read_yaml(path: Path) -> Any:
    """An OmegaConf mapping. Raises BadInput: missing, unreadable, not YAML, not a mapping."""
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, not an experiment's YAML file")
    if not _is_file(path):
        beside = [str(each) for each in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        shipped = [str(each) for each in sorted(Path("experiments").glob("*.yaml"))]
        raise BadInput(f"{path}: no such file" + _nearest(str(path), beside or shipped))
    try:
        loaded = OmegaConf.load(path)
        problem = _sixties(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path}: not readable as YAML: {_one_line(error)}") from error
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{path}: not readable as YAML: {_beyond(error)}") from error
    if problem is not None:
        raise BadInput(f"{path}: {problem}")
    if not OmegaConf.is_dict(loaded):
        raise BadInput(f"{path}: must be a mapping of sections, such as `training:`, not a list")
    return loaded


def _misfit(defaults: Any, given: Any, key: str = "") -> str | None:
    """What is wrong where a list stands for a mapping, a mapping for a list, or nothing for a value."""
    if isinstance(given, str) and given == "???":
        return f"{key}: a value is missing: it is ???"
    if isinstance(defaults, dict) and isinstance(given, list):
        return f"{key}: must be a mapping, such as `{key.rpartition('.')[2]}: {{key: value}}`, not a list"
    if isinstance(defaults, list) and isinstance(given, Mapping):
        return f"{key}: must be a list, such as `{key.rpartition('.')[2]}: [{{…}}]`, not a mapping"
    if isinstance(defaults, dict) and isinstance(given, Mapping):
        found = (_misfit(defaults.get(name), given[name], f"{key}.{name}".lstrip(".")) for name in given)
        return next((problem for problem in found if problem is not None), None)
    return None


def _sixties(text: str, at: str = "") -> str | None:
    """What is wrong where a number is written like a time of day: YAML 1.1 counts it in sixties (12:30 is 750)."""

    def visit(node: yaml.Node | None, key: str) -> str | None:
        if isinstance(node, yaml.MappingNode):
            parts = [(value, f"{key}.{name.value}".lstrip(".")) for name, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            parts = [(value, f"{key}.{index}") for index, value in enumerate(node.value)]
        elif isinstance(node, yaml.ScalarNode) and ":" in node.value and node.tag.endswith((":int", ":float")):
            where = f"{key}: " if key else ""
            return f"{where}{node.value} is a number in sixties to YAML; write a number such as 12.5, or {node.value!r}"
        else:
            return None
        return next((found for value, name in parts if (found := visit(value, name)) is not None), None)

    if ":" not in text:
        return None
    try:
        return visit(yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), at)
    except yaml.YAMLError:  # whoever reads it says so
        return None


def _beyond(error: RecursionError | ValueError) -> str:
    """What is wrong with a text that is beyond what can be read."""
    if isinstance(error, RecursionError):
        return "lists or mappings are nested too deeply"
    return "a number has too many digits" if "digits" in str(error) else _one_line(error)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def check_override(word: str) -> None:
    """Raises BadInput: a word is not `key.sub=value`, or its value cannot be read."""
    if not re.match(r"[^=.\s][^=\s]*=", word):
        raise BadInput(f"{word}: not an override; write key.sub=value")
    key, _, value = word.partition("=")
    try:
        OmegaConf.from_dotlist([word])
        problem = _sixties(value, key)
    except (yaml.YAMLError, OmegaConfBaseException, TypeError) as error:
        raise BadInput(f"{word}: not readable as YAML: {_one_line(error)}") from error
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{word[:_LONGEST]}: not readable as YAML: {_beyond(error)}") from error
    if problem is not None:
        raise BadInput(problem)


def check_shape(given: Any, source: str) -> None:
    """Raises BadInput: a list stands for a mapping, a mapping for a list, or nothing for a value."""
    plain = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    if problem := _misfit(ExperimentConfig().model_dump(mode="json"), plain):
        raise BadInput(f"{source}: {problem}")


def merge(file: Any, overrides: Iterable[str], source: str) -> dict[str, Any]:
    """Defaults, the file's mapping over them, and `key.sub=value` overrides over both. Raises BadInput."""
    words = list(overrides)
    for word in words:
        check_override(word)
    check_shape(file, source)
    check_shape(OmegaConf.from_dotlist(words), "overrides")
    try:
        # Not validated: what depends on other keys is still open.
        defaults = ExperimentConfig.model_construct().model_dump(mode="json")
        for key in ("rungs", "remedies", "warm_start"):  # these defaults depend on the trainer, and on ladder.until
            del defaults["ladder"][key]
        # An empty section (`training:` with nothing under it) means its defaults.
        given = {key: file[key] for key in file if file[key] is not None or key not in defaults}
        merged = OmegaConf.merge(defaults, given, OmegaConf.from_dotlist(words))
        written = OmegaConf.to_container(merged, resolve=False)
        data = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = str(error).split("full_key: ")[-1].split("\n")[0].strip()
        raise BadInput(f"{source}: {key}: a value is missing: it is ???") from error
    except RecursionError as error:
        raise BadInput(f"{source}: {_beyond(error)}") from error
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
        overridden = f" (overrides: {' '.join(words)})" if words else ""
        raise BadInput(f"{source}: {_one_line(error)}{overridden}") from error
    assert isinstance(data, dict) and isinstance(written, dict)
    if isinstance(trainer := written["trainer"], dict) and (problem := interpolation(trainer["command"])):
        raise BadInput(f"{source}: trainer.command: {problem}")
    return {str(key): value for key, value in data.items()}


def validate(data: dict[str, Any], source: str) -> ExperimentConfig:
    """The configuration, with its ladder built once to see that every rung fits. Raises BadInput."""
    try:
        config = ExperimentConfig.model_validate(data)
        ladder = Ladder(config)
        _only_rungs_that_change_something(config)
        for each in (config, *ladder.configs):
            check(each)
            check(smaller(each))
            Names.of(each)
            if each.trainer.metrics.kind == "tensorboard" and not event_files.is_there():
                raise ValueError(event_files.MISSING)
    except ValidationError as error:
        raise BadInput(f"{source}: {explain(error)}") from error
    except KeyError as error:
        raise BadInput(f"{source}: ladder.rungs: a rung sets {error.args[0]}, which is no key") from error
    except ValueError as error:
        raise BadInput(f"{source}: {_one_line(error)}") from error
    return config


def _only_rungs_that_change_something(config: ExperimentConfig) -> None:
    """Raises ValueError: a built-in rung sets keys that a trainer of the user's own does not read."""
    if config.trainer.command is None:
        return
    for rung in config.ladder.rungs:
        if isinstance(rung, str) and rung != AS_IT_STANDS:
            raise ValueError(
                f"ladder.rungs: {rung} sets keys of this project's own trainer, and trainer.command names another; "
                f"allowed: {AS_IT_STANDS} (the experiment as it stands), or {{name: …, set: {{key: value}}}}"
            )
    if config.ladder.remedies:
        raise ValueError(
            "ladder.remedies: remedies set keys of this project's own trainer, and trainer.command names another; "
            f"allowed: 0, not {config.ladder.remedies}"
        )


def require_games(config: ExperimentConfig, source: str) -> None:
    """Refuses an experiment of the project's own trainer that this installation cannot play.

    Raises:
        BadInput: a package of the trainer is missing, or the environment or character of a rung is unknown.
    """
    for each in (config, *Ladder(config).configs):
        if each.trainer.command is not None:
            continue
        if missing := [package for package in _OWN_TRAINER if find_spec(package) is None]:
            raise BadInput(
                f"{source}: trainer.command: not given, and the trainer that ships needs {', '.join(missing)}; "
                "pip install 'ladder[nethack]', or name a command of your own"
            )
        from pipeline.environments.nethack import check_character, check_environment

        if problem := check_environment(each.environment.id):
            raise BadInput(f"{source}: environment.id: {problem}")
        if problem := check_character(each.environment.character):
            raise BadInput(f"{source}: environment.character: {problem}")


def explain(error: ValidationError, model: type[BaseModel] = ExperimentConfig) -> str:
    """The first problem of a pydantic error as one line: key, value, what is allowed, nearest name that there is."""
    problems = error.errors()
    first = problems[0]
    if first["loc"][:2] == ("ladder", "rungs") and isinstance(first["input"], dict):
        first = next(each for each in problems if each["type"] != "literal_error")  # it is one written in YAML
    inner = ("literal[", "function-", "CustomRung", "kind:")  # pydantic's names for the members of a union
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(inner))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 and not key.startswith("ladder.rungs") else ""
    if key.startswith("ladder.rungs") and first["type"] in ("literal_error", "model_type", "model_attributes_type"):
        return (
            f"ladder.rungs: unknown rung {first['input']!r}{_nearest(str(first['input']), list(BUILT_IN))}; allowed: "
            f"{', '.join(BUILT_IN)}, or {{name: …, set: {{key: value}}}}"
        )
    if first["type"] == "extra_forbidden" and first["loc"][:2] in (("health", "extra"), ("health", "override")):
        return f"{key}: unknown key{_nearest(str(first['loc'][-1]), fields_at(first['loc']))}{more}"
    if first["type"] == "extra_forbidden" and key == "study":
        return "study: no experiment has this section; a study's file is for `ladder tune`"
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest_key(key, model)}{more}"
    complaint = _complaint(first)
    # A check across keys names its key itself, relative to the section.
    names_a_key = first["type"] == "value_error" and re.match(r"[\w.]+: ", complaint)
    joint = "." if names_a_key and key else ": " if key else ""
    return f"{key}{joint}{complaint}{more}"


def _complaint(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return message
    if problem["type"] == "string_pattern_mismatch":
        return f"may have letters, digits, `_`, `-` and, but for its first, `.`, not {_short(problem['input'])}"
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "literal_error":
        expected = problem["ctx"]["expected"].replace("'", "").split(" or ")
        names = [name.strip() for part in expected for name in part.split(",")]
        return (
            f"unknown value {problem['input']!r}{_nearest(str(problem['input']), names)}; allowed: {', '.join(names)}"
        )
    return f"{message}, not {_short(problem['input'])}"


def _short(value: object) -> str:
    """A value as a line shows it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _valid_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        candidates = [info.annotation, *get_args(info.annotation)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                keys += _valid_keys(candidate, f"{prefix}{name}.")
    return keys


def nearest_key(key: str, model: type[BaseModel] = ExperimentConfig) -> str:
    """The same last word in another section, else the nearest key."""
    keys = _valid_keys(model)
    close = [each for each in keys if each.rpartition(".")[2] == key.rpartition(".")[2]]
    close = close or difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
    return f"; nearest valid: {close[0]}"


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return f"; nearest: {close[0]}" if close else ""


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    if isinstance(error, GrammarParseError | InterpolationResolutionError):
        key = f"{error.full_key}: " if error.full_key else ""
        return f"{key}{str(error.msg).splitlines()[0].strip()}; {_DOLLAR}"
    return " ".join(str(error).split())
