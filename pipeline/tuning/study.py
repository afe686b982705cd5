"""A study's YAML file: the section `study`, and beside it an experiment's configuration, whose coefficients are tuned.

Everything is checked before anything starts: unknown keys, empty ranges, keys that the configuration does not have,
ends of a range that it does not allow, samplers and pruners that cannot be built, a storage without a driver.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import sqlalchemy
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from pydantic import Field, ValidationError

from fallbacks.ladder import Ladder
from pipeline.config import ExperimentConfig, Positive, PositiveInt, Section, difference, flatten
from pipeline.errors import BadInput
from pipeline.experiment_file import check_override, explain, nearest_key, read_yaml, require_games
from pipeline.foreign.flags import nested
from pipeline.secrets import HIDDEN, hidden_in, lacks_password, without_passwords
from pipeline.tuning.base import Base, overlapping, read_base, trial_section
from pipeline.tuning.dimension import Dimension
from pipeline.tuning.pruning import make_pruner

SAMPLERS: dict[str, type[BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler, "qmc": QMCSampler}
_NOT_TUNED = ("experiment", "tracking", "faults", "training.device")


class Objective(Section):
    """What is tuned: a logged metric at the end of a run, averaged over the seeds."""

    metric: Annotated[str, Field(min_length=1)] = "score_window"
    direction: Literal["maximize", "minimize"] = "maximize"
    average_over: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the run, from its end, over whose reports the metric is averaged, such as 0.5. 0: its last value."""


class StudySection(Section):
    """The section `study`: what is tuned, how, and with which budget."""

    base: str | None = None
    """The experiment that is tuned: a YAML file, relative to this one or else to the working folder. The sections
    beside `study` then change it. Default: these sections are the experiment."""
    trial: dict[str, Any] = Field(default={})
    """What a trial changes in it, so that it takes less time: `{training.steps: 80000}`."""
    trials: PositiveInt = 20
    """Number of trials in all; a study that is continued runs the ones that are missing."""
    hours: Positive = 12.0
    """Hours after which the workers of this command begin no trial; trials that are running are finished."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of trials that run at the same time on this machine, each in a process of its own. Another machine joins
    with the same file and the same `study.storage`."""
    storage: str | None = None
    """`sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`; default: `optuna.db` under `tracking.root`."""
    objective: Objective = Objective()
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of seeds of a trial: `training.seed` and the next ones, the same for every trial."""
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    sampler_options: dict[str, Any] = Field(default={})
    """Arguments of Optuna's sampler of that name."""
    pruner: Literal["median", "percentile", "successive_halving", "hyperband", "none"] = "median"
    pruner_options: dict[str, Any] = Field(default={})
    """Arguments of Optuna's pruner of that name. Its steps are per cent of a trial (5, 10, …, 100)."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of the sampler."""
    ladder: bool | None = None
    """Whether a trial whose training fails continues down the experiment's ladder; if not, it is pruned at once.
    Default: if `hours` leave time for it beside the trials that are missing. The trial is infeasible in any case: what
    another rung reaches is not the objective of its coefficients."""
    heartbeat_seconds: Annotated[int, Field(ge=1, le=3600)] = 20
    """Seconds between two heartbeats of a worker. A trial is given to another worker after three missed heartbeats."""
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """Key of the configuration → the values that it may take."""

    def make_sampler(self, number: int) -> BaseSampler:
        """The sampler for the trial with this number.

        However many workers draw, and however often the study is continued, no two trials draw alike. Random and QMC
        are one sequence each, the one that Optuna itself draws with this seed. The storage keeps the place in QMC's;
        the number of the trial is the place in the other. With TPE each trial has a seed of its own.
        """
        seed = self.seed
        if self.sampler == "tpe":
            seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        sampler = SAMPLERS[self.sampler](**{"seed": seed, **self.sampler_options})  # type: ignore[call-arg]
        if isinstance(sampler, RandomSampler):
            for _ in range(number):
                for key, distribution in self.distributions.items():
                    sampler.sample_independent(None, None, key, distribution)  # type: ignore[arg-type]
        return sampler

    def make_pruner(self) -> BasePruner:
        """The pruner that the section names."""
        return make_pruner(self.pruner, self.pruner_options)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The search space as Optuna takes it."""
        return {key: dimension.distribution for key, dimension in self.space.items()}


class _File(Section):
    """The section under its key, so that error messages name keys as `study.…`."""

    study: StudySection


class StudyPlan(Section):
    """A checked study: its section, and the experiment that it tunes."""

    study: StudySection
    """`study.trial` has each key in which a trial differs from the base, with dots."""
    config: ExperimentConfig
    """The base with its own coefficients, with which the best ones are compared."""
    base_experiment: dict[str, Any] | None = None
    """Section `experiment` of the file that `study.base` names."""
    base_seeds: tuple[int, ...] = Field(default=(), strict=False)
    """The base's list of seeds, if it has one; the first is that of `config`."""

    @property
    def name(self) -> str:
        """Name of the study in Optuna and of the experiment in MLflow."""
        return self.config.experiment.name

    @property
    def default(self) -> dict[str, Any]:
        """The values of the tuned keys in the base."""
        return {key: value_of(self.config, key) for key in self.study.space}

    @property
    def shown(self) -> StudyPlan:
        """The same plan without passwords, as it is kept and compared."""
        return StudyPlan.model_validate(hidden_in(self.model_dump(by_alias=True)))

    def to_yaml(self, storage: str) -> str:
        """The plan as one file that `ladder tune` takes, with the base in it.

        `storage` replaces the storage's URL, which may hold a password.
        """
        study = self.study.model_copy(update={"storage": storage, "base": None}).model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
        content = {"study": study, **self.config.model_dump(mode="json")}
        return yaml.safe_dump(hidden_in(content), sort_keys=False, allow_unicode=True)

    @property
    def shortened(self) -> ExperimentConfig:
        """The configuration of a trial with the base's own coefficients."""
        return self.config.with_values(self.study.trial)

    def tuned(self, params: dict[str, Any]) -> ExperimentConfig:
        """The base with these coefficients.

        Raises:
            ValueError: the coefficients do not go together.
        """
        return _with(self.config, params)

    def configured(self, params: dict[str, Any]) -> ExperimentConfig:
        """The configuration of a trial with these coefficients.

        Raises:
            ValueError: the coefficients do not go together, in a trial or in the base.
        """
        self.tuned(params)
        return _with(self.shortened, params)

    def incomparable(self, begun: StudyPlan) -> str | None:
        """Why trials of this plan cannot be compared with those of a study begun earlier; None if they can."""
        for name in ("objective", "seeds"):
            before, now = getattr(begun.study, name), getattr(self.study, name)
            if before != now:
                return f"study.{name} was {before!s}, now {now!s}"
        for key in {**begun.study.space, **self.study.space}:
            old, new = begun.study.space.get(key), self.study.space.get(key)
            if old is None or new is None or (old != new and (old.choices is not None or old.kind != new.kind)):
                return f"study.space.{key} was {_shown(old)}, now {_shown(new)}"
        for where, before, now in (
            ("", begun.config, self.config),
            (" in a trial", begun.shortened, self.shortened),
        ):
            for key, (then, at_present) in difference(before, now).items():
                if key.split(".")[0] not in ("tracking", "budget", "preflight") and key != "experiment.description":
                    return f"{key} was {then!s}{where}, now {at_present!s}"
        return None


def _with(config: ExperimentConfig, params: dict[str, Any]) -> ExperimentConfig:
    changed = config.with_values(params)
    Ladder(changed)
    return changed


def _shown(dimension: Dimension | None) -> str:
    return "not tuned" if dimension is None else str(dimension.model_dump(by_alias=True, exclude_defaults=True))


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyPlan:
    """The plan in a file, with the overrides merged over it and everything checked. Nothing is written.

    Raises:
        BadInput: the file or an override is wrong; the message names the file or the key, the value, what is allowed
            and the nearest valid name.
    """
    path = Path(path)
    file = read_yaml(path)
    words = {own: [word for word in overrides if word.startswith("study.") == own] for own in (True, False)}
    of_a_trial = [word for word in words[True] if re.match(r"study\.trial[.=]", word)]
    for word in words[True]:
        check_override(word)
    try:
        written = OmegaConf.to_container(OmegaConf.create({"study": file.get("study") or {}}), resolve=False)
        section = written["study"]  # type: ignore[call-overload,index]
        trial = trial_section(section.pop("trial", None) if isinstance(section, dict) else None, path, of_a_trial)
        # A key with dots means the same as nested keys, so that an override can reach a range of the file.
        if isinstance(section, dict) and isinstance(section.get("space"), dict):
            section["space"] = nested(section["space"])
        dots = OmegaConf.from_dotlist([word for word in words[True] if word not in of_a_trial])
        merged = OmegaConf.to_container(OmegaConf.merge(written, dots), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
        raise BadInput(f"{path}: study: {' '.join(str(error).split())}") from error
    assert isinstance(merged, dict)
    section = merged["study"]
    base = read_base(path, file, section.get("base") if isinstance(section, dict) else None, trial, words[False])
    if not section:
        raise BadInput(f"{path}: study: is missing; it says what to tune, such as study.space and study.trials")
    if isinstance(section, dict):
        if isinstance(section.get("space"), dict):
            section["space"] = _dotted(section["space"])
        if isinstance(section.get("trials"), dict):
            raise BadInput(f"{path}: study.trials: is the number of trials; what a trial changes is study.trial")
        section["trial"] = base.trial
    try:
        study = _File.model_validate(merged).study
    except ValidationError as error:
        raise BadInput(f"{path}: {explain(error, _File)}") from error
    plan = StudyPlan(study=study, config=base.config, base_experiment=base.experiment, base_seeds=base.seeds)
    for source, config in ((f"{path}", plan.config), (f"{path}: study.trial", plan.shortened)):
        require_games(config, source)
        if config.ladder.compares:
            raise BadInput(
                f"{source}: ladder.until: a trial ends with its first healthy attempt; allowed: healthy, not 'end'"
            )
    _check_space(plan, base, path)
    _check_optuna(study, path)
    return plan


def _dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nested`; a mapping that holds anything but mappings is a dimension."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def value_of(config: ExperimentConfig, key: str) -> Any:
    """The value of a key. Raises KeyError if the configuration does not have it."""
    prefix, _, name = key.rpartition(".")
    if prefix == "trainer.parameters":
        return config.trainer.parameters[name]
    return flatten(config)[key]


def _check_space(plan: StudyPlan, base: Base, path: Path) -> None:
    if twice := overlapping((*base.written, *plan.study.trial), plan.study.space):
        raise BadInput(f"{path}: study.trial.{twice[0]}: is tuned (study.space.{twice[1]}); allowed: in one of them")
    for key, dimension in plan.study.space.items():
        where = f"{path}: study.space.{key}"
        try:
            value_of(plan.config, key)
        except KeyError:
            if key.startswith("trainer.parameters."):
                raise BadInput(f"{where}: trainer.parameters has no such key, so there is no default") from None
            raise BadInput(f"{where}: unknown key{nearest_key(key)}") from None
        if key == "training.seed":
            raise BadInput(f"{where}: a seed is no coefficient; the seeds of a trial are study.seeds")
        if key in _NOT_TUNED or key.split(".")[0] in _NOT_TUNED:
            raise BadInput(f"{where}: cannot be tuned; not tuned are: {', '.join(_NOT_TUNED)}, training.seed")
        for value in dimension.extremes:
            try:
                plan.configured({key: value})
            except ValidationError as error:
                raise BadInput(f"{where}: a value of the range is not allowed: {explain(error)}") from error
            except (KeyError, ValueError) as error:
                raise BadInput(f"{where}: the value {value!r} is not allowed: {error}") from error
        followers = [each for value in dimension.extremes for each in base.following(key, value, where)]
        if followers:
            raise BadInput(
                f"{where}: {followers[0]} follows it by ${{{key}}}, and a trial sets the tuned key alone; "
                f"give {followers[0]} a value of its own"
            )


def _check_optuna(study: StudySection, path: Path) -> None:
    if "seed" in study.sampler_options:
        raise BadInput(f"{path}: study.sampler_options.seed: is study.seed")
    for kind, make in (("sampler", lambda: study.make_sampler(0)), ("pruner", study.make_pruner)):
        try:
            make()
        except (TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            raise BadInput(f"{path}: study.{kind}_options: {message} (study.{kind}={getattr(study, kind)})") from error
    if study.storage is None:
        return
    where = f"{path}: study.storage"
    try:
        url = sqlalchemy.make_url(study.storage)
    except sqlalchemy.exc.ArgumentError:
        raise BadInput(f"{where}: not a URL; allowed: sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    shown, backend = without_passwords(url.render_as_string(hide_password=True)), url.get_backend_name()
    if lacks_password(study.storage):
        raise BadInput(f"{where}: {shown}: put the password in the place of {HIDDEN}")
    if backend not in ("sqlite", "postgresql"):
        raise BadInput(f"{where}: {shown}: allowed are sqlite:///FILE and postgresql://USER@HOST/DATABASE")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise BadInput(f"{where}: {shown}: a file is needed, such as sqlite:////data/optuna.db")
    try:
        with_driver(study.storage).get_dialect().import_dbapi()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError):
        raise BadInput(f"{where}: {shown}: its driver is not installed: pip install psycopg2-binary") from None


def with_driver(storage: str) -> sqlalchemy.URL:
    """The URL with a driver that is installed. SQLAlchemy 2.1 uses psycopg alone for `postgresql:`."""
    url = sqlalchemy.make_url(storage)
    if url.drivername == "postgresql" and importlib.util.find_spec("psycopg") is None:
        return url.set(drivername="postgresql+psycopg2")
    return url
