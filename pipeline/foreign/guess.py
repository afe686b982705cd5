"""Proposes the experiment of a script: YAML of ten lines, and what was not found, in comments.

Everything here is a guess from names. `ladder check` says whether it holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from pipeline.foreign.flags import leaves, nested
from pipeline.foreign.help_text import Flag, plain_of, value_of
from pipeline.foreign.source import Facts
from pipeline.health.names import NO_LEVELS, SCORES, has_word

ROLES = {
    "learning rate": ("learning_rate", "lr", "base_lr", "init_lr", "initial_lr", "max_lr", "lr0", "eta", "rate"),
    "batch size": ("batch_size", "per_device_train_batch_size", "train_batch_size", "per_rank_batch_size",
                   "micro_batch_size", "batch", "bs", "num_envs", "n_envs"),
    "seed": ("seed", "random_seed", "rng_seed", "manual_seed", "random_state"),
    "steps": ("total_timesteps", "total_steps", "n_timesteps", "timesteps", "max_steps", "max_iters", "iterations",
              "max_epochs", "num_train_epochs", "num_epochs", "epochs", "n_epochs", "episodes", "num_episodes", "steps",
              "num_steps", "num_boost_round", "n_estimators"),
    "gradient clipping": ("max_grad_norm", "gradient_clip_val", "grad_clip", "clip_grad_norm", "clip_grad",
                          "grad_norm_clip", "gradient_clipping", "max_norm"),
    "folder": ("output_dir", "out_dir", "outdir", "out", "output", "save_dir", "log_folder", "log_dir", "logdir",
               "default_root_dir", "run_dir", "workdir", "work_dir", "results_dir"),
    "checkpoint": ("resume_from_checkpoint", "resume_from", "resume", "ckpt_path", "load_checkpoint", "load", "restore",
                   "trained_agent", "load_path", "checkpoint", "ckpt"),
    "TensorBoard": ("tensorboard_log", "tb_log", "tensorboard_dir", "tensorboard"),
}  # fmt: skip
"""What a flag is for → its usual names, the most telling first."""
_NUMBERS = ("learning rate", "batch size", "steps", "gradient clipping")
_COUNT_STEPS = ("total_timesteps", "total_steps", "n_timesteps", "timesteps", "max_steps", "max_iters")
"""Names of a length in the steps with which metrics are logged."""
_FRAMEWORKS = {
    "Stable-Baselines3": ("stable_baselines3", "sb3_contrib", "rl_zoo3"),
    "Lightning": ("lightning", "pytorch_lightning"),
    "Transformers": ("transformers",),
    "Keras": ("keras",),
    "XGBoost": ("xgboost",),
    "LightGBM": ("lightgbm",),
    "scikit-learn": ("sklearn",),
}
_PRESETS = {"Stable-Baselines3": "sb3", "Lightning": "lightning", "Transformers": "huggingface"}
_TENSORBOARD = ("tensorboardX", "torch.utils.tensorboard", "tensorflow.summary")
_SCORES = ("charts/episodic_return", "rollout/ep_rew_mean", "val_acc", "eval_accuracy")
_LONGEST, _MOST_LINES = 120, 10


@dataclass(frozen=True)
class Script:
    """What is known of a script."""

    name: str
    start: tuple[str, ...]
    """The words that start it: its interpreter, and itself."""
    words: tuple[str, ...]
    """What the user gives it beside that."""
    flags: tuple[Flag, ...]
    """As it says them itself; those of its sources are in the facts."""
    style: Literal["argparse", "tyro", "hydra"]
    facts: Facts
    installed: frozenset[str] = frozenset()
    """Of some libraries, those that its interpreter has."""


@dataclass(frozen=True)
class Proposal:
    """An experiment, and what the user should know of it."""

    sections: dict[str, Any]
    framework: str
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The YAML, with the notes as comments above it."""
        comments = [f"# {note}" for note in self.notes]
        return "\n".join([*comments, *_lines(self.sections)]) + "\n"


def propose(script: Script) -> Proposal:
    """The experiment that a script's flags, libraries and files suggest."""
    words, given = _given(script)
    known = _known_flags(script, given)
    roles = {role: flag for role in ROLES if (flag := _find(role, known)) is not None}
    parameters = {role: roles[role] for role in _NUMBERS if role in roles and roles[role].number is not None}
    seed, notes = given.get(roles["seed"].name) if "seed" in roles else None, list[str]()
    framework = _framework(script.facts)
    command = [*script.start, *words, *_placeholders(script, roles, parameters, given)]
    trainer: dict[str, Any] = {"command": command}
    if parameters:
        trainer["parameters"] = nested({flag.key: flag.number for flag in parameters.values()})
    if script.style == "tyro":
        trainer["flags"] = "tyro"
    metrics, more = _metrics(script, framework, {flag.plain: flag for flag in known}, roles)
    command += more
    if metrics is None:
        notes.append("not found: where it logs its metrics (trainer.metrics); what a script only prints is not read")
    elif metrics != "mlflow":
        trainer["metrics"] = metrics
    if names := _names(script.facts, framework, metrics, parameters.get("steps")):
        trainer["names"] = names
    if "score" not in names:
        notes.append("not found: a metric that should rise; if it logs one: trainer.names: {score: ITS_NAME}")
    if (checkpoints := _checkpoints(script.facts, framework)) is not None:
        trainer["checkpoints"] = checkpoints
        if "checkpoint" not in roles:
            notes.append("not found: a flag for the checkpoint to start from, so each attempt begins from scratch")
    else:
        notes.append("not found: where it saves checkpoints (trainer.checkpoints), so each attempt begins from scratch")
    if batch := parameters.get("batch size"):
        trainer["on_out_of_memory"] = {"scale": {_key(batch): 0.5}}
    notes += [f"not found: a flag for the {role}" for role in (*_NUMBERS[:2], "seed") if role not in roles]
    notes += [
        f"{roles[role].name} has no default that is known: give it after the script, as in {roles[role].name}=1"
        for role in _NUMBERS[:2]
        if role in roles and role not in parameters
    ]
    sections: dict[str, Any] = {"experiment": {"name": script.name}}
    if isinstance(seed, int) and seed >= 0:
        sections["training"] = {"seed": seed}
    sections["trainer"] = trainer
    if rungs := _rungs(parameters):
        sections["ladder"] = {"rungs": ["v3", *rungs]}
    else:
        notes.append("without a flag to change there is no rung below the first")
    return Proposal(sections, framework, tuple(notes))


def _given(script: Script) -> tuple[list[str], dict[str, Any]]:
    """The user's words without the flags that become parameters or placeholders; and those, with their values."""
    rest, given, words = list[str](), dict[str, Any](), list(script.words)
    by_name = {form: flag for flag in (*script.flags, *script.facts.flags) for form in (flag.name, *flag.others)}
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        is_flag = name.startswith("-") or (script.style == "hydra" and equals)
        long = by_name[name].name if name in by_name else name
        role = next((role for role, usual in ROLES.items() if plain_of(long) in usual), None)
        if not is_flag or role not in (*_NUMBERS, "seed") or "{" in word or re.match(r"-[^-]", long):
            rest.append(word)
            continue
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        given[long if long.startswith("--") else f"--{long}"] = value_of(value)
    return rest, given


def _known_flags(script: Script, given: Mapping[str, Any]) -> list[Flag]:
    """The flags that the script says, with the defaults of its sources where it says none, and what the user gives."""
    static = {plain_of(flag.name): flag for flag in script.facts.flags}
    said = script.flags or (script.facts.flags if script.style != "hydra" else ())
    found = [
        replace(flag, default=static[flag.plain].default) if flag.default is None and flag.plain in static else flag
        for flag in said
    ]
    names = {flag.name for flag in found}
    found += [Flag(name) for name in given if name not in names]
    return [replace(flag, default=given[flag.name]) if flag.name in given else flag for flag in found]


def _find(role: str, flags: Sequence[Flag]) -> Flag | None:
    """The flag for this, with a number that can be halved if there is one."""
    for name in ROLES[role]:
        for flag in flags:
            if flag.plain != name or not flag.takes_value:
                continue
            if role in ("learning rate", "batch size", "steps") and flag.number is not None and flag.number <= 0:
                continue  # it is computed, or off
            if role == "batch size" and isinstance(flag.number, float):
                continue
            return flag
    return None


def _placeholders(
    script: Script, roles: Mapping[str, Flag], parameters: Mapping[str, Flag], given: Mapping[str, Any]
) -> list[str]:
    """The end of the command."""
    there = {plain_of(word.partition("=")[0]) for word in script.words}
    own = {
        role: roles[role].key
        for role in ("seed", "folder", "checkpoint")
        if role in roles and (roles[role].plain not in there or roles[role].name in given)
    }
    filled = {"seed": "{seed}", "folder": "{folder}", "checkpoint": "{checkpoint}"}
    if script.style == "hydra":
        words = [f"{key}={filled[role]}" for role, key in own.items() if role != "folder"]
        return [*(["{hydra}"] if parameters else []), *words, "hydra.run.dir={folder}"]
    return [*(["{flags}"] if parameters else []), *(f"--{key}={filled[role]}" for role, key in own.items())]


def _framework(facts: Facts) -> str:
    """The library that trains. Some are imported for a model alone, or as a loop of the user's own (Fabric)."""
    for name, modules in _FRAMEWORKS.items():
        of_another = name == "Lightning" and "Fabric" in facts.calls
        of_a_model = name == "Transformers" and not any(call.endswith(("Trainer", "Arguments")) for call in facts.calls)
        if facts.imports(*modules) and not of_another and not of_a_model:
            return name
    return "plain"


def _metrics(
    script: Script, framework: str, flags: Mapping[str, Flag], roles: Mapping[str, Flag]
) -> tuple[Any, list[str]]:
    """`trainer.metrics`, and words that the command needs for it; None: not found."""
    facts, words = script.facts, " ".join(script.words)
    if found := re.search(r"(?:^| )\S*logger[= ](csv|tensorboard|mlflow)(?: |$)", words):
        return found[1], []
    if framework == "Transformers" and "report_to" in flags:
        kind = "mlflow" if "mlflow" in script.installed else "tensorboard"
        more = [] if "--report_to" in words else [f"--report_to={kind}"]
        if "logging_nan_inf_filter" in flags and "--logging_nan_inf_filter" not in words:
            more.append("--logging_nan_inf_filter=false")  # it would show a loss that is NaN as 0
        return (kind if more and "report_to" in more[0] else _kind_in(words)), more
    if framework == "Transformers" and isinstance(reports := facts.keywords.get("report_to"), str | list):
        return _kind_in(str(reports)), []
    if "MLFlowLogger" in facts.calls or facts.imports("mlflow"):
        return "mlflow", []
    if (flag := roles.get("TensorBoard")) is not None and f"{flag.name}" not in words and flag.plain != "tensorboard":
        return "tensorboard", [f"{flag.name}={{folder}}"]
    tensorboard = {"SummaryWriter", "TensorBoardLogger", "TensorBoard"} & facts.calls or facts.imports(*_TENSORBOARD)
    if tensorboard or "tensorboard_log" in facts.keywords or roles.get("TensorBoard") is not None:
        return "tensorboard", []
    if "CSVLogger" in facts.calls or (framework == "Stable-Baselines3" and {"Monitor", "configure"} & facts.calls):
        return "csv", []
    if framework == "Lightning" and facts.keywords.get("logger", True) is not False:
        return ("tensorboard" if {"tensorboard", "tensorboardX"} & script.installed else "csv"), []
    if facts.tables:
        name = facts.tables[0]
        kind = "csv" if name.endswith(".csv") else "jsonl"
        usual = name in (
            "progress.csv",
            "metrics.csv",
            "log.csv",
            "logs.csv",
            "results.csv",
            "metrics.jsonl",
            "log.jsonl",
        )
        return (kind if usual else {"kind": kind, "path": f"**/{name}"}), []
    return None, []


def _kind_in(text: str) -> str | None:
    return next((kind for kind in ("mlflow", "tensorboard") if kind in text), None)


def _names(facts: Facts, framework: str, metrics: Any, steps: Flag | None) -> dict[str, Any]:
    """`trainer.names`. A loss is no score: a score should rise."""
    names: dict[str, Any] = {}
    logged = [*facts.metrics, *(["rollout/ep_rew_mean"] if framework == "Stable-Baselines3" else [])]
    rising = [name for name in logged if has_word(name, SCORES) and not has_word(name, NO_LEVELS)]
    held_out = [name for name in rising if has_word(name, ("val", "valid", "validation", "eval"))]
    if best := next((each for each in (*_SCORES, *held_out, *rising) if each in logged), None):
        names["score"] = best
    if steps is not None and steps.plain in _COUNT_STEPS and metrics is not None:
        of = {"of": f"{{parameters.{steps.key}}}"}
        own = framework == "Stable-Baselines3" and metrics != "tensorboard"  # there it is the step, and no metric
        names["progress"] = {"metric": "time/total_timesteps", **of} if own else of
    return names


def _checkpoints(facts: Facts, framework: str) -> Any:
    """`trainer.checkpoints`; None: not found."""
    if framework == "Stable-Baselines3" and "CheckpointCallback" not in facts.calls:
        return None
    if framework in _PRESETS:
        return _PRESETS[framework]
    if facts.checkpoint is None:
        return None
    pattern, step = facts.checkpoint
    return {"pattern": pattern} if step is None else {"pattern": pattern, "step": step}


def _rungs(parameters: Mapping[str, Flag]) -> list[dict[str, Any]]:
    """Half the learning rate, clipped gradients, smaller batches."""
    changes: dict[str, tuple[Flag, float]] = {}
    if rate := parameters.get("learning rate"):
        changes["slower"] = rate, float(f"{(rate.number or 0) / 2:.6g}")
    if clip := parameters.get("gradient clipping"):
        changes["clipped"] = clip, float(f"{clip.number / 2:.6g}") if clip.number and clip.number < 1e6 else 1.0
    if (batch := parameters.get("batch size")) and (batch.number or 0) > 1:
        changes["smaller"] = batch, int(batch.number or 0) // 2
    return [{"name": name, "set": {_key(flag): value}} for name, (flag, value) in changes.items()]


def _key(flag: Flag) -> str:
    return f"trainer.parameters.{flag.key}"


def _lines(sections: Mapping[str, Any]) -> list[str]:
    """The sections as YAML: a line for each key of the trainer; the rungs in one line, if that is not too long."""
    lines = []
    for name, content in sections.items():
        if name == "trainer":
            lines += ["trainer:", *(f"  {key}: {_flow(value)}" for key, value in content.items())]
        elif name != "ladder":
            lines.append(f"{name}: {_flow(content)}")
    if (ladder := sections.get("ladder")) is not None:
        one = f"  rungs: {_flow(ladder['rungs'])}"
        apart = ["  rungs:", *(f"    - {_flow(rung)}" for rung in ladder["rungs"])]
        fits = len(one) <= _LONGEST or len(lines) + 1 + len(apart) > _MOST_LINES
        lines += ["ladder:", *([one] if fits else apart)]
    return lines


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")


def flags_of_settings(settings: Mapping[str, Any]) -> list[Flag]:
    """Hydra's configuration as flags: one for each value, with dots."""
    return [Flag(f"--{key}", value) for key, value in leaves(settings)]


def parses_flags(modules: Collection[str]) -> bool:
    """Whether a script that imports these modules has a parser of flags, which knows `--help`."""
    parsers = {"argparse", "click", "tyro", "hydra", "typer", "jsonargparse", "configargparse", "absl",
               "simple_parsing", "docopt", "optparse", "fire", "rl_zoo3"}  # fmt: skip
    whole = {"transformers.HfArgumentParser", "lightning.pytorch.cli", "pytorch_lightning.cli"}
    return not (parsers | whole).isdisjoint(modules)
