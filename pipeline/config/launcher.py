"""The section `launcher`: where trainers run."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.section import NonNegative, Section, refuse_what_json_cannot_hold, sequence

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
    options: tuple[Annotated[str, Field(min_length=1)], ...] = sequence(())
    """sbatch's own, as a list: `[--partition=gpu, --gres=gpu:1, --time=4:00:00]`."""
    address: Annotated[str, Field(min_length=1)] | None = None
    """Of Ray's dashboard, such as `http://127.0.0.1:8265`."""
    request: dict[str, Any] = Field(default_factory=dict)
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
        refuse_what_json_cannot_hold("request", self.request)
        return self
