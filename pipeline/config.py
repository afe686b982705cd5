"""The whole configuration of an experiment: frozen, validated, with the brief's V3 values as defaults.

A rung of the ladder is a pure function on :class:`ExperimentConfig`, so :func:`difference` of two of these objects says
how two attempts differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.health.definitions import definition
from pipeline.health.kinds import AnyRule
from pipeline.health.rule import Name, Rule
from pipeline.health.rule_sets import RULE_SETS

EXPERTS = ("survival", "combat", "exploration", "general")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Discount = Annotated[float, Field(gt=0, le=1)]


def _executable(command: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if command is not None and not command[0].strip():
        raise PydanticCustomError("command", "The first word must name a program")
    if command is not None and any("\0" in word for word in command):
        raise PydanticCustomError("command", "No word can have a NUL character in it")
    return command


Command = Annotated[tuple[str, ...] | None, Field(strict=False, min_length=1), AfterValidator(_executable)]
"""A program and its arguments, as a list of words."""


def _sequence(default: tuple[Any, ...], **constraints: Any) -> Any:
    """A tuple field that accepts the list which YAML gives."""
    return Field(default=default, strict=False, **constraints)


class Section(BaseModel):
    """Frozen, strict (a string is no number), finite, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ExperimentSection(Section):
    name: Annotated[str, Field(min_length=1, max_length=200)] = "ladder"
    """Name of the MLflow experiment."""
    description: str = ""


class Shaping(Section):
    """Coefficients of the training reward. The `score` that is reported never contains any of it."""

    task: float = 0.5
    """Times sign(r)·log(1 + |r|) of the environment's own reward r."""
    exploration: float = 0.1
    """Times log(1 + map squares seen for the first time on this dungeon level)."""
    descent: float = 3.0
    """For each dungeon level deeper than any before in this episode."""
    stairs: float = 0.1
    """For each square by which the hero gets nearer to known stairs down than ever before on this level."""


class EnvironmentSection(Section):
    id: str = "NetHackScore-v0"
    """A Gymnasium id that NLE registers."""
    character: str = "mon-hum-neu-mal"
    """Role, race, alignment, gender, as NetHack abbreviates them."""
    max_episode_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Step cap of an episode; reaching it is a truncation, never a death."""
    num_envs: Annotated[int, Field(ge=1, le=1024)] = 16
    crop_size: Annotated[int, Field(ge=3, le=21)] = 9
    """Side, in squares, of the glyph crop around the hero (odd)."""
    max_entities: Annotated[int, Field(ge=2, le=128)] = 16
    """Nodes of the entity graph, the hero included; the farthest are dropped."""
    neighbours: Annotated[int, Field(ge=1, le=16)] = 3
    """Each entity is linked to this many nearest others, beside hero ↔ all."""
    shaping: Shaping = Shaping()
    random_episodes: Annotated[int, Field(ge=2)] = 100
    """Episodes of the random baseline, played once per experiment under the same step cap."""

    @model_validator(mode="after")
    def _odd_crop(self) -> EnvironmentSection:
        if self.crop_size % 2 == 0:
            raise ValueError(f"crop_size: must be odd, so that the hero is in the middle, not {self.crop_size}")
        return self


class PolicySection(Section):
    kind: Literal["v3", "v2", "v2_gat", "ppo"] = "v3"
    """v3: graph attention and a softmax/sparsemax router. v2: flat state and a Gumbel router. v2_gat: V2 whose
    state also holds the (detached) output of the graph encoder. ppo: a plain policy of the same size."""
    graph: bool = True
    """Whether V3 has its graph encoder; without it is an ablation."""
    experts: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)] = _sequence(EXPERTS)
    hidden_size: Annotated[int, Field(ge=4, le=1024)] = 64
    expert_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Hidden units of each expert (default: hidden_size), or of the plain policy's actor (default: 8 × hidden_size)."""
    glyph_embedding: Annotated[int, Field(ge=1, le=128)] = 8
    gat_layers: Annotated[int, Field(ge=1, le=16)] = 2
    gat_heads: Annotated[int, Field(ge=1, le=16)] = 4
    gat_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gat_residual: bool = True
    gat_layer_norm: bool = True
    gat_frozen: bool = False
    """The graph encoder's parameters are not trained."""
    attention_temperature: Positive = 1.0
    """Divides the attention scores: near 0 each node attends to one other, far above 1 to all alike."""
    router_bias: tuple[float, ...] = _sequence(())
    """The router's logits at initialisation, one for each expert; empty: all 0."""
    gumbel_temperature: Positive = 1.0
    """Temperature of V2's Gumbel router."""

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph encoder."""
        return self.kind == "v2_gat" or (self.kind == "v3" and self.graph)

    @model_validator(mode="after")
    def _consistent(self) -> PolicySection:
        if len(set(self.experts)) != len(self.experts):
            raise ValueError(f"experts: names must differ, not {list(self.experts)}")
        if self.hidden_size % self.gat_heads:
            raise ValueError(f"hidden_size: must be a multiple of gat_heads={self.gat_heads}, not {self.hidden_size}")
        if self.router_bias and len(self.router_bias) != len(self.experts):
            raise ValueError(
                f"router_bias: must have one value for each of {list(self.experts)}, not {list(self.router_bias)}"
            )
        return self


class TrainingSection(Section):
    """PPO. Defaults are the brief's V3 values; V2's stand in `fallbacks/v2_router_gat.py`."""

    episodes: PositiveInt = 5000
    """The run is done after this many finished episodes."""
    steps: PositiveInt | None = None
    """The run is done after this many environment steps, if that is earlier."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU only for a policy so large (`policy.hidden_size` above 256) that it should be faster there."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of one tensor operation; more than one seldom pays at these sizes."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Workers that share the games and the samples of each minibatch in equal parts (rounded up).
    Another number gives other results."""
    parallel: bool = True
    """Each worker has a process of its own, if there is a core for each and the device is the CPU; otherwise they take
    turns. The results are the same bit for bit."""
    rollout_steps: PositiveInt = 128
    """Steps of each environment between two updates."""

    learning_rate: NonNegative = 1e-4
    """With which the warm-up phase begins; later phases scale it (`phases.*.learning_rate_factor`)."""
    gat_learning_rate_factor: NonNegative = 1.0
    router_learning_rate_factor: NonNegative = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 1000
    """Optimiser steps of the linear learning-rate warm-up."""
    cosine: bool = True
    """Cosine annealing over the episodes of each phase, from its own rate to that of the next phase."""
    cosine_floor: Probability = 0.1
    """The last phase ends at this share of its rate."""
    clip_ratio: Positive = 0.15
    batch_size: PositiveInt = 256
    ppo_epochs: PositiveInt = 4
    gamma: Discount = 0.995
    gae_lambda: Probability = 0.97
    critic_coef: float = 0.5
    entropy_coef: float = 0.01
    alpha_entropy_coef: float = 0.05
    alpha_entropy_of: Literal["load", "sample"] = "load"
    """Entropy of the batch mean of α, or mean entropy of each α. The latter pins the router at uniform."""
    load_balance_coef: float = 0.01
    diversity_coef: float = 0.01
    max_grad_norm: Positive = 1.0

    reward_clip: Positive = 10.0
    reward_centring: bool = False
    """Subtract the running mean too: it turns nearly every reward of zero into a penalty for being alive."""
    checkpoint_every_episodes: PositiveInt = 100
    checkpoints_kept: Annotated[int, Field(ge=2)] = 5
    score_window: PositiveInt = 100
    """Episodes over which `score_window` is averaged; the best checkpoint is chosen by it."""


class PhaseSettings(Section):
    routing: Literal["softmax", "sparsemax"]
    learning_rate_factor: NonNegative


class PhasesSection(Section):
    """Three phases by finished episodes (the brief's table): warm-up, transition, fine-tune."""

    warmup_until: Annotated[int, Field(ge=0)] = 1000
    transition_until: Annotated[int, Field(ge=0)] = 3000
    warmup: PhaseSettings = PhaseSettings(routing="softmax", learning_rate_factor=1.0)
    transition: PhaseSettings = PhaseSettings(routing="sparsemax", learning_rate_factor=0.5)
    finetune: PhaseSettings = PhaseSettings(routing="sparsemax", learning_rate_factor=0.1)
    temperature_start: Positive = 1.0
    temperature_end: Positive = 0.5
    """The temperature divides the router's logits; linear in the episode between the two, over the transition."""

    def of(self, phase: int) -> PhaseSettings:
        """The settings of one phase."""
        return (self.warmup, self.transition, self.finetune)[phase]

    @model_validator(mode="after")
    def _ordered(self) -> PhasesSection:
        if self.transition_until < self.warmup_until:
            raise ValueError(
                f"transition_until: must not lie before warmup_until={self.warmup_until}, not {self.transition_until}"
            )
        return self


def _within(error: ValidationError, *place: str) -> ValidationError:
    """The same error, of something that stands at this place."""
    lines: list[InitErrorDetails] = []
    for each in error.errors(include_url=False):
        kind = each["type"]
        context = each.get("ctx", {})
        problem = PydanticCustomError("verdict", "{words}", {"words": each["msg"]}) if kind == "verdict" else kind
        lines.append({"type": problem, "loc": (*place, *each["loc"]), "input": each["input"], "ctx": context})
    return ValidationError.from_exception_data(error.title, lines)


class HealthSection(Section):
    rules: Literal["v3", "seed", "generic", "none"] | None = None
    """`v3`: calibrated on healthy runs of this project's trainer. `seed`: the brief's thresholds, literally.
    `generic`: for any training, by the names of its metrics. `none`: only `extra` (docs/health.md).
    Default: `v3`, and `generic` with a `trainer.command`."""
    override: dict[str, dict[str, Any]] = {}
    """Fields of rules to change, by the rule's name: `{reward_plateau: {window_episodes: 400}}`. With `generic` and
    `none`, a rule of `v3` that is named here is in force too."""
    extra: tuple[AnyRule, ...] = _sequence(())
    """Rules of your own on any logged metric, of any kind."""
    poll_seconds: Positive = 3.0

    @model_validator(mode="after")
    def _buildable(self) -> HealthSection:
        self.build()
        return self

    def build(self) -> tuple[Rule, ...]:
        """The rules in force: the set by name, with its overrides, and the extra ones.

        Before the default is known, any rule that ships may be changed.
        """
        rules: dict[str, Rule] = {rule.name: rule for rule in RULE_SETS[self.rules or "generic"]}
        own = self.rules in ("v3", "seed")
        others = {} if own else {rule.name: rule for rule in RULE_SETS["v3"]}
        for name, changes in self.override.items():
            rule = rules.get(name, others.get(name))
            if rule is None:
                raise ValueError(f"override.{name}: unknown rule; allowed: {', '.join({**rules, **others})}")
            try:
                rules[name] = type(rule).model_validate({**rule.model_dump(), **changes})
            except ValidationError as error:
                raise _within(error, "override", name) from None
        names = [*(rule.name for rule in rules.values()), *(rule.name for rule in self.extra)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            written = sum(rule.name == twice for rule in self.extra)
            set_name = self.rules or "generic"
            taken = f"the name of {written} of them" if written > 1 else f"the name of a rule of the set {set_name}"
            raise ValueError(f"extra: the names of rules must differ; {twice} is {taken}")
        return (*rules.values(), *self.extra)

    @property
    def chosen(self) -> tuple[Rule, ...]:
        """The rules that the user has written or changed."""
        own = {*self.override, *(rule.name for rule in self.extra)}
        return tuple(rule for rule in self.build() if rule.name in own)


_WHOLE_EXPERIMENT = ("experiment", "ladder", "preflight", "tracking", "notify", "launcher", "budget", "faults")
"""Sections that no rung can change."""


class CustomRung(Section):
    """A rung written in YAML: `{name: smaller_steps, set: {training.learning_rate: 1e-5}}`."""

    name: Name
    set: dict[str, Any]
    """Keys and their values. Empty for a first rung that is the experiment as it stands."""
    warm_start: bool = True
    """Continue from the newest healthy checkpoint, if `ladder.warm_start` says so too. False: from scratch, as for a
    network of another size."""

    @model_validator(mode="after")
    def _about_training(self) -> CustomRung:
        for key in self.set:
            if key.split(".")[0] in _WHOLE_EXPERIMENT:
                raise ValueError(f"set: {key} belongs to the whole experiment; a rung cannot change it")
        return self


RUNGS = ("v3", "freeze_gat", "softmax_only", "two_experts", "v2_router_gat")
"""The names of the built-in rungs, in their order. `fallbacks/ladder.py` has the rungs and refuses to differ."""
AS_IT_STANDS = "v3"
"""The built-in rung that sets no key. The others set keys of this project's own trainer."""


class LadderSection(Section):
    rungs: Annotated[tuple[Literal[RUNGS] | CustomRung, ...], Field(min_length=1)] = _sequence(RUNGS)  # type: ignore[valid-type]
    """From the most ambitious to the safest; the first one is where the experiment starts. Default with a
    `trainer.command`: `v3` alone, which is the experiment as it stands."""
    cumulative: bool = False
    """Each rung on top of the ones before it, instead of each on the base configuration."""
    until: Literal["healthy", "end"] = "healthy"
    """When the ladder ends: `healthy`, with the first attempt that is; `end`, when every rung has been trained to its
    end, whatever became of those before it. With `end` a rule's verdict stops no attempt, no remedy is tried, and
    `guided` skips no rung."""
    guided: bool = False
    """Skip the rungs that cannot remove the cause of the verdict; the order stays."""
    warm_start: bool | None = None
    """Continue from the newest healthy checkpoint; otherwise every rung starts from scratch. Default: true, and false
    with `until: end`. There, true lets all rungs start from one checkpoint of the first (docs/ladder.md)."""
    remedies: Annotated[int, Field(ge=0)] = 1
    """How many of the brief's remedies are tried on a rung that failed, before the next rung (docs/ladder.md). 0: the
    rungs alone. Default with a `trainer.command`: 0, since remedies set keys of this project's own trainer."""
    speculate: bool = False
    """On a cluster, hold a place in the queue for the next attempt as soon as a rule has half of its patience, or a run
    has been silent for half of `budget.hang_after_seconds`. It is given up where no verdict comes (docs/cluster.md).
    With `until: end` it has no effect."""

    @model_validator(mode="after")
    def _starts_as_it_ends(self) -> LadderSection:
        if self.warm_start is None:
            object.__setattr__(self, "warm_start", not self.compares)
        return self

    @property
    def compares(self) -> bool:
        """Whether every rung is trained to its end."""
        return self.until == "end"

    @model_validator(mode="after")
    def _every_rung_changes_something(self) -> LadderSection:
        for rung in self.rungs[1:]:
            if isinstance(rung, CustomRung) and not rung.set and rung.warm_start:
                raise ValueError(f"rungs: set: the rung {rung.name} sets no key, so it would change nothing")
        return self


PREFLIGHT_ITEMS = (
    "learning_rate", "load_balance", "diversity", "warm_up", "temperature", "nan_rollback", "monitor", "clipping",
    "logits", "checkpoints", "entropy", "encoder",
)  # fmt: skip
"""The names of what `ladder check` looks at. `pipeline/preflight.py` has the items and refuses to differ."""


class PreflightSection(Section):
    accept: tuple[Literal[PREFLIGHT_ITEMS], ...] = _sequence(())  # type: ignore[valid-type]
    """Items of the brief's checklist from which the experiment differs on purpose. `ladder run` refuses a V3 experiment
    of this project's trainer that differs in any other."""


class BudgetSection(Section):
    hours: Positive = 12.0
    attempts: PositiveInt = 20
    retries: Annotated[int, Field(ge=0)] = 2
    """Infrastructure failures (crash, hang, out of memory) that a rung may have before the ladder steps down."""
    hang_after_seconds: Positive = 300.0
    """Silence of a run (no new metric) that counts as a hang."""
    store_away_seconds: Positive = 1800.0
    """How long to wait for a store that is out of reach, while training goes on; then the experiment ends in order."""


class TrackingSection(Section):
    root: Annotated[str, Field(min_length=1)] = "mlruns"
    """Everything that an experiment writes is under this folder."""
    uri: str | None = None
    """MLflow tracking URI; default: the SQLite file under the root. MLFLOW_TRACKING_URI, if set, wins."""
    publish: bool = True
    """A healthy attempt leaves its policy as a logged model, a film of its best game, and its attention on the map."""


_OWN_OPTIONS = (
    "--array", "-a", "--chdir", "-D", "--error", "-e", "--export", "--export-file", "--get-user-env", "--ignore-pbs",
    "--input", "-i", "--job-name", "-J", "--no-requeue", "--output", "-o", "--parsable", "--requeue", "--test-only",
    "--wait", "-W", "--wrap",
)  # fmt: skip
"""Options of sbatch that the launcher sets itself, or whose meaning it relies on."""


_OF_RAY = (
    "entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources", "runtime_env", "metadata"
)  # fmt: skip
"""Fields of a submission to Ray that the launcher does not set itself."""


class LauncherSection(Section):
    """Where trainers run (docs/cluster.md)."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """`local`: processes of this machine. `slurm`: jobs by sbatch. `ray`: jobs by Ray's Jobs API."""
    options: tuple[Annotated[str, Field(min_length=1)], ...] = _sequence(())
    """sbatch's own, as a list: `[--partition=gpu, --gres=gpu:1, --time=4:00:00]`."""
    address: Annotated[str, Field(min_length=1)] | None = None
    """Of Ray's dashboard, such as `http://127.0.0.1:8265`."""
    request: dict[str, Any] = {}
    """What an attempt needs. `local`: `{cores: 2, memory_gb: 4}`. `ray`: fields of a submission, such as
    `{entrypoint_num_gpus: 1}`."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 1
    """How many experiments of a series (seeds) run at a time, each down its own ladder."""
    lease_seconds: NonNegative = 3600.0
    """On a cluster, a trainer whose orchestrator is silent for so long is ended in order. 0: never."""
    lost: Annotated[int, Field(ge=0)] = 20
    """How often an engine may take a trainer away (preemption, a lost node, a time limit) without progress between,
    before that counts as a crash."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> LauncherSection:
        if self.options and self.kind != "slurm":
            raise ValueError(f"options: are sbatch's, and launcher.kind is {self.kind}; allowed: kind: slurm")
        if self.address is not None and self.kind != "ray":
            raise ValueError(f"address: is Ray's, and launcher.kind is {self.kind}; allowed: kind: ray")
        if self.address is None and self.kind == "ray":
            raise ValueError("address: is missing; launcher.kind: ray needs that of Ray, such as http://127.0.0.1:8265")
        if self.address is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.address):
            raise ValueError(f"address: must be http://HOST:PORT, not {self.address!r}")
        for option in self.options:
            name = option.partition("=")[0]
            short = next((own for own in _OWN_OPTIONS if len(own) == 2 and option.startswith(own)), None)
            if (name in _OWN_OPTIONS and name.startswith("--")) or (short and not option.startswith("--")):
                raise ValueError(f"options: {short or name}: the launcher sets that itself, so it cannot be given")
            if not option.startswith("-") or any(character in option for character in "\0\n"):
                raise ValueError(f"options: each is one word of sbatch's, such as --partition=gpu, not {option!r}")
        if self.kind == "slurm" and self.request:
            raise ValueError(
                f"request: {', '.join(self.request)}: sbatch is asked by launcher.options, such as --cpus-per-task=2"
            )
        for name in self.request if self.kind == "ray" else ():
            if name not in _OF_RAY:
                raise ValueError(f"request: {name}: unknown; allowed with kind ray: {', '.join(_OF_RAY)}")
        if self.kind == "local":
            for name, value in self.request.items():
                if name not in ("cores", "memory_gb"):
                    raise ValueError(f"request: {name}: unknown; allowed with kind local: cores, memory_gb")
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                    raise ValueError(f"request: {name}: must be a number above 0, not {value!r}")
        _refuse_what_json_cannot_hold("request", self.request)
        return self


class NotifySection(Section):
    command: Command = None
    """Run at each verdict and at the end, as a list of words (no shell), with the facts as JSON on its input."""


def _words(value: Any) -> Any:
    """A command as YAML has it: numbers are words too."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"must be a list of words, such as [python, train.py, --epochs, 3], not {value!r}")
    for word in value:
        if isinstance(word, bool) or not isinstance(word, str | int | float):
            raise ValueError(f"words are texts or numbers, not {word!r}; put it in quotes")
    return tuple(map(str, value))


class NamedMetric(Section):
    """A metric of a script's, scaled: `{metric: time/total_timesteps, of: 500000}`."""

    metric: Annotated[str, Field(min_length=1)] | None = None
    """Default: the step with which metrics are logged."""
    of: Positive | str = 1.0
    """Divides it. A number, or a placeholder, such as `{parameters.total_timesteps}`."""


def _by_name(key: str) -> BeforeValidator:
    """A section that may also be written as the value of one of its keys alone."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class MetricsSource(Section):
    """Where a script's metrics come from: `csv`, or `{kind: csv, path: "logs/*.csv", step: epoch}`."""

    kind: Literal["mlflow", "tensorboard", "csv", "jsonl"] = "mlflow"
    """`mlflow`: it logs to MLflow itself, or to `metrics.jsonl` in its folder. Otherwise its files are read."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """Which files: a pattern, relative to the attempt's folder or to the folder in which the script runs. Default: all
    of the kind in the attempt's folder; of the other, those with the usual names."""
    step: Annotated[str, Field(min_length=1)] | None = None
    """Column or key of the step. Default: the first of the usual names that is there, else the number of the row."""


BY_TIME = "mtime"
PRESETS = {
    "sb3": {"pattern": "**/*_steps.zip", "step": r"_(\d+)_steps"},
    "lightning": {"pattern": "**/*.ckpt", "step": r"step=(\d+)"},
    "huggingface": {"pattern": "**/checkpoint-*", "step": r"checkpoint-(\d+)$"},
}
"""Where libraries write their checkpoints by default."""


def _preset(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"unknown preset {value!r}; allowed: {', '.join(PRESETS)}, or {{pattern: …, step: …}}")
    return PRESETS[value]


class CheckpointSource(Section):
    """The checkpoints that a script writes of itself: `{pattern: "ckpts/*.zip", step: "_([0-9]+)"}`."""

    pattern: Annotated[str, Field(min_length=1)]
    """Files or folders, relative to the attempt's folder or to the one in which the script runs."""
    step: str = BY_TIME
    """A regular expression whose group is the step, as metrics are logged with. `mtime`: the step of the newest metrics
    when it was written, for a file that is overwritten."""
    keep: Annotated[int, Field(ge=2)] = 5
    """How many are kept of each attempt: the newest two, the oldest, and others between them."""

    @model_validator(mode="after")
    def _has_a_group(self) -> CheckpointSource:
        if self.step == BY_TIME:
            return self
        try:
            groups = re.compile(self.step).groups
        except re.error as error:
            raise ValueError(f"step: {self.step!r} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"step: {self.step!r} must have one group, as in 'step_([0-9]+)'; or mtime")
        return self


class OutOfMemory(Section):
    """What a retry has less of: `{set: {trainer.parameters.batch_size: 64}}`, or `{scale: {…: 0.5}}`."""

    set: dict[str, Any] = {}
    """Keys and their values."""
    scale: dict[str, Positive] = {}
    """Keys and factors."""

    @model_validator(mode="after")
    def _is_something(self) -> OutOfMemory:
        if not self.set and not self.scale:
            raise ValueError("must have set: {key: value}, or scale: {key: factor}")
        return self


def _refuse_what_json_cannot_hold(key: str, value: Any) -> None:
    """A trainer reads its parameters from a JSON file, which would have null in place of infinity."""
    if isinstance(value, dict):
        for name, each in value.items():
            _refuse_what_json_cannot_hold(f"{key}.{name}", each)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _refuse_what_json_cannot_hold(f"{key}.{index}", each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}: must be finite, not {value}; a text such as '{value}' is allowed")
    elif not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise ValueError(f"{key}: must be text, a number, true, false, null, a list or a mapping, not {kind} {value!r}")


class TrainerSection(Section):
    command: Annotated[Command, BeforeValidator(_words)] = None
    """The trainer, as a list of words (no shell), with placeholders (docs/your-own.md). Default: this project's own."""
    parameters: dict[str, Any] = {}
    """Free keys for a trainer of your own: `{parameters.KEY}` in its command."""
    flags: Literal["argparse", "tyro"] = "argparse"
    """How `{flags}` says that a parameter is false: not at all, or `--no-KEY`."""
    redirect: bool = True
    """A Python script that calls `mlflow.set_experiment`, `set_tracking_uri` or `start_run` in its own way is led to
    the run of its attempt. It says so in its log."""
    metrics: Annotated[MetricsSource, _by_name("kind")] = MetricsSource()
    checkpoints: Annotated[CheckpointSource | None, BeforeValidator(_preset)] = None
    """Which of a script's files are checkpoints: a preset (`sb3`, `lightning`, `huggingface`), or pattern and step."""
    on_out_of_memory: OutOfMemory | None = None
    """What a retry has less of. Default: nothing, with a trainer of your own."""
    grace_seconds: NonNegative = 8.0
    """Between SIGTERM and SIGKILL, for a trainer that is asked to end: it may write a checkpoint."""
    names: dict[Name, Annotated[str, Field(min_length=1)] | NamedMetric] = {}
    """What the ladder knows by a name (`score`, `score_window`, `progress`, `episodes`, `steps_per_second`, those of
    the rules), and the metric of the script's that it is."""

    @property
    def counts(self) -> str:
        """What the number of a checkpoint counts."""
        return "episode" if self.checkpoints is None else "step"

    @model_validator(mode="after")
    def _plain(self) -> TrainerSection:
        _refuse_what_json_cannot_hold("parameters", self.parameters)
        return self


class Fault(Section):
    """An infrastructure fault, for drills and tests."""

    kind: Literal["crash", "hang", "out_of_memory", "nan_gradient", "nan_observation"]
    at_update: PositiveInt
    times: PositiveInt = 1
    """How many attempts it strikes; nan_gradient: how many minibatches; nan_observation: how many rollouts."""


class ExperimentConfig(Section):
    """Everything that defines an experiment."""

    experiment: ExperimentSection = ExperimentSection()
    environment: EnvironmentSection = EnvironmentSection()
    policy: PolicySection = PolicySection()
    training: TrainingSection = TrainingSection()
    phases: PhasesSection = PhasesSection()
    health: HealthSection = HealthSection()
    ladder: LadderSection = LadderSection()
    preflight: PreflightSection = PreflightSection()
    budget: BudgetSection = BudgetSection()
    tracking: TrackingSection = TrackingSection()
    notify: NotifySection = NotifySection()
    launcher: LauncherSection = LauncherSection()
    trainer: TrainerSection = TrainerSection()
    faults: tuple[Fault, ...] = _sequence(())

    @model_validator(mode="before")
    @classmethod
    def _rungs_of_another_trainer(cls, data: Any) -> Any:
        """A trainer of the user's own has built-in rungs and remedies only where they are asked for."""
        if not isinstance(data, dict):
            return data
        trainer, ladder = data.get("trainer") or {}, data.get("ladder", {})
        command = trainer.get("command") if isinstance(trainer, dict) else getattr(trainer, "command", None)
        if command is None or not isinstance(ladder, dict):
            return data
        return {**data, "ladder": {"rungs": (AS_IT_STANDS,), "remedies": 0, **ladder}}

    @model_validator(mode="after")
    def _has_rules(self) -> ExperimentConfig:
        if self.health.rules is None:
            name = "v3" if self.trainer.command is None else "generic"
            object.__setattr__(self, "health", self.health.model_copy(update={"rules": name}))
            try:
                self.health.build()
            except ValidationError:
                raise
            except ValueError as error:
                raise ValueError(f"health.{error}") from None
        return self

    @model_validator(mode="after")
    def _divisible(self) -> ExperimentConfig:
        games, workers = self.environment.num_envs, self.training.workers
        if games % workers and self.trainer.command is None:
            raise ValueError(f"environment.num_envs: must be a multiple of training.workers={workers}, not {games}")
        return self

    @property
    def rules_to_be_judged(self) -> tuple[Rule, ...]:
        """The rules of the user's own that miss their purpose if they are never judged.

        Of this project's trainer, only those on a metric that it never logs: others may be absent at some rungs.
        """
        if self.trainer.command is not None:
            return self.health.chosen
        return tuple(rule for rule in self.health.chosen if any(definition(metric) is None for metric in rule.metrics))

    def with_values(self, changes: Mapping[str, Any]) -> ExperimentConfig:
        """A copy with dotted keys replaced, validated anew. A mapping is merged into the one that is there.

        Raises:
            KeyError: a key that does not exist (closed sections only).
            pydantic.ValidationError: a value that is not allowed.
        """
        data = self.model_dump()
        for key, value in changes.items():
            *path, last = key.split(".")
            node = data
            for part in path:
                if not isinstance(node.get(part), dict):
                    raise KeyError(key)
                node = node[part]
            node[last] = _merged(node.get(last), value)
        return ExperimentConfig.model_validate(data)


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(value, Mapping):
        return value
    return {**before, **{key: _merged(before.get(key), each) for key, each in value.items()}}


def flatten(config: ExperimentConfig) -> dict[str, Any]:
    """Dotted key → value; lists and free-form mappings stay whole."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, model: BaseModel) -> None:
        for name in type(model).model_fields:
            value = getattr(model, name)
            key = f"{prefix}{name}"
            if isinstance(value, BaseModel):
                visit(f"{key}.", value)
            elif isinstance(value, tuple):
                flat[key] = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
            elif isinstance(value, dict):
                flat[key] = {
                    name: item.model_dump() if isinstance(item, BaseModel) else item for name, item in value.items()
                }
            else:
                flat[key] = value

    visit("", config)
    return flat


def difference(before: ExperimentConfig, after: ExperimentConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with (before, after); of a mapping, the keys inside. None: it is not there."""
    old, new = flatten(before), flatten(after)
    return changed_keys({key: (old[key], new[key]) for key in new})


def changed_keys(values: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, Any]]:
    """The keys whose two values differ; in place of a mapping, the keys inside it."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key, (old, new) in values.items():
        if isinstance(old, dict) and isinstance(new, dict):
            inside = dict.fromkeys((*old, *new))
            changed |= changed_keys({f"{key}.{name}": (old.get(name), new.get(name)) for name in inside})
        elif old != new:
            changed[key] = (old, new)
    return changed
