"""The two experiments of a study: the base, which the best coefficients are for, and what a trial shortens in it.

    experiments/score.yaml        study.base names it; without one, the study's own file is the base
      ◂ the study's own sections  what the study changes in it, such as experiment.name
      ◂ key.sub=value             of the command line
      = the base                  validated on fresh seeds, and written as tuned.yaml with the best coefficients
      ◂ study.trial               what a trial shortens
      = a trial                   evaluated with each set of coefficients

Interpolations (`${training.steps}`) are resolved last, so they follow what a trial shortens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import ExperimentConfig, difference
from pipeline.errors import BadInput
from pipeline.experiment_file import check_shape, merge, read_yaml, seeds_of, validate
from pipeline.foreign.flags import nested

NOT_OF_A_TRIAL = ("experiment", "tracking", "launcher", "training.seed")
"""Keys that a trial cannot change: they belong to the whole study, or are given by `study.seeds`."""
EXAMPLE = "such as study.trial: {training.steps: 80000}"


@dataclass(frozen=True)
class Base:
    """What a study is about, before the study itself is known."""

    config: ExperimentConfig
    """The base."""
    seeds: tuple[int, ...]
    """The seeds of a base that has a list of them; empty if it has one."""
    experiment: dict[str, Any] | None
    """Section `experiment` of the base's own file; None without `study.base`."""
    trial: dict[str, Any]
    """Dotted key → value, for each key in which a trial differs from the base."""
    written: tuple[str, ...]
    """The dotted keys of `study.trial`, as the user wrote them."""
    data: Any
    """A trial's configuration as an OmegaConf mapping, with its interpolations."""

    def following(self, key: str, value: Any, source: str) -> list[str]:
        """The keys that would follow this one by an interpolation. A trial sets the tuned key alone.

        Raises:
            BadInput: the value is not allowed.
        """
        if "${" not in OmegaConf.to_yaml(self.data):
            return []
        tree = OmegaConf.create(nested({key: value}))
        plain, changed = (
            validate(_one_seed(merge(each, [], source)), source)
            for each in (self.data, OmegaConf.merge(self.data, tree))
        )
        return [each for each in difference(plain, changed) if each != key]


def read_base(path: Path, file: Any, base: Any, trial: Mapping[str, Any], words: Sequence[str]) -> Base:
    """Reads the base of a study, and finds out in what a trial differs from it.

    Args:
        path: the study's file.
        file: its content, an OmegaConf mapping.
        base: value of `study.base`, None if there is none.
        trial: value of `study.trial`, as nested mappings.
        words: the overrides `key.sub=value` of the experiment.

    Raises:
        BadInput: the base is missing or no experiment, or a key or a value is wrong.
    """
    content = OmegaConf.to_container(file, resolve=False)
    sections = {key: each for key, each in content.items() if key != "study"}  # type: ignore[union-attr]
    # An empty section (`training:` with nothing under it) changes nothing.
    said = {key: each for key, each in sections.items() if each is not None or key not in ExperimentConfig.model_fields}
    own: Any = OmegaConf.create(said)
    experiment = None
    if base is not None:
        place, content = _read(path, base)
        data = merge(content, [], str(place))
        validate(_one_seed(data), str(place))
        check_shape(own, str(path))
        experiment, own = data["experiment"], OmegaConf.merge(content, own)
    given = merge(own, words, str(path))
    config = validate(_one_seed(given), str(path))
    seeds = seeds_of(given, str(path)) or ()
    for seed in seeds:
        validate({**given, "training": {**given["training"], "seed": seed}}, str(path))
    written = tuple(_leaves(trial))
    _refuse_foreign_keys(path, config, written)
    source = f"{path}: study.trial"
    check_shape(trial, source)
    try:
        layered = OmegaConf.merge(own, OmegaConf.from_dotlist(list(words)), OmegaConf.create(dict(trial)))
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
        raise BadInput(f"{source}: {' '.join(str(error).split())}") from error
    shortened = validate(_one_seed(merge(layered, [], source)), source)
    changes = {key: after for key, (_, after) in difference(config, shortened).items()}
    try:
        same = config.with_values(changes) == shortened
    except (KeyError, ValueError):
        same = False
    if not same:
        raise BadInput(f"{source}: a name with a dot in it cannot be changed for a trial: {', '.join(changes)}")
    return Base(config, tuple(seeds), experiment, changes, written, layered)


def trial_section(value: Any, path: Path, words: Iterable[str]) -> dict[str, Any]:
    """The section `study.trial` with its overrides, as nested mappings.

    Raises:
        BadInput: it is no mapping.
    """
    words = [word.removeprefix("study.") for word in words]
    whole = [word for word in words if word.startswith("trial=")]
    layers = [value, *(OmegaConf.to_container(OmegaConf.from_dotlist([word]))["trial"] for word in whole)]  # type: ignore[call-overload,index]
    for each in layers:
        if each is not None and not isinstance(each, Mapping):
            raise BadInput(
                f"{path}: study.trial: is what a trial changes in its base, {EXAMPLE}, not {each!r}; "
                "the number of trials is study.trials"
            )
    rest = [word.removeprefix("trial.") for word in words if not word.startswith("trial=")]
    try:
        trees = [OmegaConf.create(nested(each)) for each in layers if each]
        merged = OmegaConf.to_container(OmegaConf.merge(*trees, OmegaConf.from_dotlist(rest)), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: study.trial: {' '.join(str(error).split())}") from error
    assert isinstance(merged, dict)
    return {str(key): each for key, each in merged.items()}


def overlapping(keys: Iterable[str], tuned: Iterable[str]) -> tuple[str, str] | None:
    """The first key that contains a tuned one, is one, or lies in one, and that one."""
    pairs = ((key, other) for key in keys for other in tuned)
    return next((pair for pair in pairs if _inside(*pair) or _inside(*reversed(pair))), None)


def _inside(outer: str, key: str) -> bool:
    """Whether a dotted key is another one or lies in it."""
    return f"{key}.".startswith(f"{outer}.")


def _read(path: Path, base: Any) -> tuple[Path, Any]:
    """The base's place and content."""
    source = f"{path}: study.base"
    if not isinstance(base, str) or not base.strip():
        raise BadInput(f"{source}: must be an experiment's YAML file, such as experiments/score.yaml, not {base!r}")
    named = Path(base).expanduser()
    place = next((each for each in (path.parent / named, named) if each.exists()), path.parent / named)
    try:
        content = read_yaml(place)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error
    if "study" in content:
        itself = place.resolve() == path.resolve()
        raise BadInput(
            f"{source}: {place}: is the study's own file; without study.base its sections beside `study` are the base"
            if itself
            else f"{source}: {place}: has a section `study` itself; allowed: an experiment that `ladder run` takes"
        )
    return place, content


def _one_seed(data: dict[str, Any]) -> dict[str, Any]:
    """The same with the first of a list of seeds: a study counts its own from there (`study.seeds`)."""
    training = data.get("training")
    if not isinstance(training, dict) or not isinstance(training.get("seed"), list) or not training["seed"]:
        return data
    return {**data, "training": {**training, "seed": training["seed"][0]}}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of the values in nested mappings."""
    found: list[str] = []
    for key, value in tree.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return found


def _refuse_foreign_keys(path: Path, config: ExperimentConfig, keys: Iterable[str]) -> None:
    for key in keys:
        where = f"{path}: study.trial.{key}"
        if any(_inside(each, key) for each in NOT_OF_A_TRIAL):
            raise BadInput(
                f"{where}: a trial cannot change it; not of a trial are: {', '.join(NOT_OF_A_TRIAL)} (study.seeds)"
            )
        section, _, name = key.partition("trainer.parameters.")
        if not section and name and name.split(".")[0] not in config.trainer.parameters:
            raise BadInput(f"{where}: trainer.parameters of the base has no such key, so it would shorten nothing")
