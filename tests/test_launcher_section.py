"""The section `launcher`: what is refused, and in which words."""

from __future__ import annotations

import pytest

from pipeline.errors import BadInput
from pipeline.experiment_file import with_overrides


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launcher.kind=slrum"], "launcher.kind: unknown value 'slrum'; nearest: slurm"),
        (["launcher.parallel=0"], "launcher.parallel"),
        (["launcher.lease_seconds=-1"], "launcher.lease_seconds"),
        (["launcher.options=[--time=1]"], "launcher.options: are sbatch's, and launcher.kind is local"),
        (["launcher.kind=slurm", "launcher.options=[--array=1-3]"], "launcher.options: --array: the launcher sets"),
        (["launcher.kind=slurm", "launcher.options=[-J, name]"], "launcher.options: -J: the launcher sets"),
        (["launcher.kind=slurm", "launcher.options=[--requeue]"], "launcher.options: --requeue: the launcher sets"),
        (["launcher.kind=slurm", "launcher.options=[gpu]"], "launcher.options: each is one word of sbatch's"),
        (["launcher.kind=slurm", "launcher.request.cores=2"], "launcher.request: cores: sbatch is asked by"),
        (["launcher.kind=ray"], "launcher.address: is missing"),
        (["launcher.kind=ray", "launcher.address=head:8265"], "launcher.address: must be http://HOST:PORT"),
        (["launcher.address=http://h:1"], "launcher.address: is Ray's, and launcher.kind is local"),
        (["launcher.kind=ray", "launcher.address=http://h:1", "launcher.request.cores=1"], "launcher.request: cores"),
        (["launcher.request.gpus=1"], "launcher.request: gpus: unknown; allowed with kind local: cores, memory_gb"),
        (["launcher.request.cores=0"], "launcher.request: cores: must be a number above 0"),
        (["launcher.request.memory_gb=all"], "launcher.request: memory_gb: must be a number above 0, not 'all'"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(overrides: list[str], said: str) -> None:
    with pytest.raises(BadInput) as error:
        with_overrides(overrides)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_what_is_allowed() -> None:
    slurm = ["launcher.kind=slurm", "launcher.options=[--partition=gpu, -t4:00:00, --gres=gpu:1]"]
    assert with_overrides(slurm).launcher.options[1] == "-t4:00:00"
    ray = ["launcher.kind=ray", "launcher.address=https://user:word@h:1/ray", "launcher.request.entrypoint_num_gpus=1"]
    assert with_overrides(ray).launcher.request == {"entrypoint_num_gpus": 1}
    assert with_overrides(["launcher.parallel=4", "launcher.request.cores=0.5"]).launcher.parallel == 4


def test_no_rung_can_change_it() -> None:
    with pytest.raises(BadInput, match=r"launcher.options belongs to the whole experiment"):
        with_overrides(["ladder.rungs=[{name: other, set: {launcher.options: [--time=1]}}]"])
