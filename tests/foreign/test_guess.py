"""What a script's help and source tell, and the experiment that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.experiment_file import merge, validate
from pipeline.foreign.guess import Script, flags_of_settings, parses_flags, propose
from pipeline.foreign.help_text import Flag, flags_in
from pipeline.foreign.source import Facts, read

ARGPARSE = """
usage: train.py [-h] [--lr LR] [-n N] [--cuda]
                [--resume PATH]

options:
  -h, --help            show this help message and exit
  --lr LR               the learning rate (default: 0.001)
  -n N, --n-timesteps N
                        how many steps to train
                        (default: 5e4)
  --cuda                use the GPU, by default not
  --resume PATH         a checkpoint
"""
TYRO = """
╭─ options ────────────────────────────────────────────────────────────────────╮
│ -h, --help            show this help message and exit                        │
│ --learning-rate FLOAT                                                        │
│                       the learning rate of the optimizer (default: 0.00025)  │
│ --cuda, --no-cuda     if toggled, cuda will be enabled by default (default:  │
│                       True)                                                  │
│ --optim.target-kl {None}|FLOAT                                               │
│                       the target KL divergence threshold (default: None)     │
╰──────────────────────────────────────────────────────────────────────────────╯
"""
CLICK = """Usage: train.py [OPTIONS]

Options:
  --lr FLOAT                 Learning rate.  [default: 0.1]
  --shuffle / --no-shuffle   Shuffle.  [default: shuffle]
  --help                     Show this message and exit.
"""
JSONARGPARSE = """  --trainer.max_epochs MAX_EPOCHS
                        Stop training once so many are done. (type: int | None, default: null)
  --seed_everything SEED  (type: bool | int, default: 42)
"""


def found(text: str) -> dict[str, tuple[Any, bool]]:
    return {flag.name: (flag.default, flag.takes_value) for flag in flags_in(text)}


def test_help_texts() -> None:
    assert found(ARGPARSE) == {
        "--lr": (0.001, True),
        "--n-timesteps": (5e4, True),
        "--cuda": (None, False),
        "--resume": (None, True),
    }
    assert found(TYRO) == {
        "--learning-rate": (0.00025, True),
        "--cuda": (True, False),
        "--optim.target-kl": (None, True),
    }
    assert found(CLICK) == {"--lr": (0.1, True), "--shuffle": ("shuffle", False)}
    assert found(JSONARGPARSE) == {"--trainer.max_epochs": (None, True), "--seed_everything": (42, True)}
    assert flags_in("nothing of use\n--\n") == []


SOURCE = """
import argparse, torch
from beside import Net
from torch.utils.tensorboard import SummaryWriter
parser = argparse.ArgumentParser()
parser.add_argument("-l", "--lr", type=float, default=3e-4)
parser.add_argument("--resume", action="store_true")
writer = SummaryWriter()
data = pandas.read_csv("data.csv")
for step in range(100):
    writer.add_scalar("charts/episodic_return", 0, step)
    path = out / f"agent_{name}_{step}.pt"
    torch.save(net, path)
"""


def facts(tmp_path: Path, source: str) -> Facts:
    (tmp_path / "train.py").write_text(source)
    return read(tmp_path / "train.py")


def test_facts_of_a_source_and_of_a_module_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import mlflow\n@dataclass\nclass Args:\n    seed: int = 3\n")
    seen = facts(tmp_path, SOURCE)
    assert seen.imports("argparse") and seen.imports("mlflow") and parses_flags(seen.modules)
    assert {flag.name: (flag.default, flag.takes_value) for flag in seen.flags} == {
        "--lr": (3e-4, True),
        "--resume": (None, False),
        "--seed": (3, True),
    }
    assert seen.metrics == ["charts/episodic_return"] and seen.tables == []
    assert seen.checkpoint == ("**/agent_*_*.pt", "_([0-9]+)")


@pytest.mark.parametrize(
    ("save", "checkpoint"),
    [
        ('np.savez(f"{out}/m{step:06d}.npz", w=w)', ("**/m*.npz", "m([0-9]+)")),
        ('torch.save(net, "last.pt")', ("**/last.pt", None)),
        ('torch.save(net, os.path.join(out, f"epoch{epoch}.pt"))', ("**/epoch*.pt", None)),
        ('pickle.dump(net, open("net.pkl", "wb"))', ("**/net.pkl", None)),
        ('joblib.dump(net, out + "/net.joblib")', ("**/net.joblib", None)),
        ('plt.savefig("loss.png"); np.save("data.npy", x)', None),
        ('np.load("model.npz")', None),
    ],
)
def test_where_a_script_saves(save: str, checkpoint: Any, tmp_path: Path) -> None:
    assert facts(tmp_path, save).checkpoint == checkpoint


def proposed(seen: Facts, *words: str, help_text: str = "", style: Any = "argparse", **more: Any) -> dict[str, Any]:
    """The trainer and the rungs of a proposal, which is accepted as an experiment."""
    flags = tuple(flags_in(help_text)) or more.pop("flags", ())
    script = Script("train", ("python", "train.py"), words, flags, style, seen, **more)
    proposal = propose(script)
    lines = [line for line in proposal.text.splitlines() if not line.startswith("#")]
    assert len(lines) <= 10, proposal.text
    data = yaml.safe_load(proposal.text)
    validate(merge(data, [], "it"), "it")
    return {**data["trainer"], "rungs": data.get("ladder", {}).get("rungs"), "training": data.get("training")}


def test_flags_become_parameters_and_rungs() -> None:
    text = "  --lr LR  (default: 0.1)\n  --batch-size N  (default: 64)\n  --seed S\n  --grad-clip C  (default: 0)\n"
    made = proposed(Facts(), "--data", "x y", "--seed=3", "--lr", "0.2", help_text=text)
    assert made["command"] == ["python", "train.py", "--data", "x y", "{flags}", "--seed={seed}"]
    assert made["parameters"] == {"lr": 0.2, "batch-size": 64, "grad-clip": 0} and made["training"] == {"seed": 3}
    assert made["rungs"] == [
        "v3",
        {"name": "slower", "set": {"trainer.parameters.lr": 0.1}},
        {"name": "clipped", "set": {"trainer.parameters.grad-clip": 1.0}},
        {"name": "smaller", "set": {"trainer.parameters.batch-size": 32}},
    ]
    assert made["on_out_of_memory"] == {"scale": {"trainer.parameters.batch-size": 0.5}}


def test_frameworks(tmp_path: Path) -> None:
    sb3 = (
        "from stable_baselines3 import PPO\nPPO('MlpPolicy', env, tensorboard_log=out)\nCheckpointCallback(100, out)\n"
    )
    text = "  --total-timesteps N  (default: 1000)\n  --out OUT\n  --resume PATH\n"
    made = proposed(facts(tmp_path, sb3), help_text=text)
    assert made["metrics"] == "tensorboard" and made["checkpoints"] == "sb3"
    assert made["command"][2:] == ["{flags}", "--out={folder}", "--resume={checkpoint}"]
    of = "{parameters.total-timesteps}"
    assert made["names"] == {"score": "rollout/ep_rew_mean", "progress": {"of": of}}
    sb3 = "from stable_baselines3 import PPO\nsettings = {'tensorboard_log': out}\nPPO('MlpPolicy', env, **settings)\n"
    assert proposed(facts(tmp_path, sb3))["metrics"] == "tensorboard"
    sb3 = "from stable_baselines3 import PPO\nlogger = configure(out, ['csv'])\n"
    made = proposed(facts(tmp_path, sb3), help_text=text)
    assert made["metrics"] == "csv" and made["names"]["progress"] == {"metric": "time/total_timesteps", "of": of}
    lightning = "import lightning as L\nL.Trainer()\nself.log('val_loss', x)\nself.log('val_acc', x)\n"
    made = proposed(facts(tmp_path, lightning))
    assert (made["metrics"], made["checkpoints"], made["names"]) == ("csv", "lightning", {"score": "val_acc"})
    assert proposed(facts(tmp_path, lightning), installed=frozenset({"tensorboard"}))["metrics"] == "tensorboard"
    trainer = "from transformers import Trainer, TrainingArguments\nTrainer(args=TrainingArguments())\n"
    text = "  --report_to R  (default: none)\n  --logging_nan_inf_filter [B]  (default: True)\n  --max_steps N\n"
    made = proposed(facts(tmp_path, trainer), "--max_steps", "30", help_text=text, installed=frozenset({"mlflow"}))
    assert made["command"][-2:] == ["--report_to=mlflow", "--logging_nan_inf_filter=false"]
    assert made["checkpoints"] == "huggingface" and made["names"] == {"progress": {"of": "{parameters.max_steps}"}}
    assert "checkpoints" not in proposed(facts(tmp_path, "from transformers import GPT2Model\nGPT2Model()\n"))


def test_hydra() -> None:
    settings = {"model": {"optim": {"lr": 0.001}}, "data": {"batch_size": 128}, "seed": None, "name": "${x}"}
    made = proposed(Facts(), "logger=csv", flags=tuple(flags_of_settings(settings)), style="hydra")
    assert made["command"][2:] == ["logger=csv", "{hydra}", "seed={seed}", "hydra.run.dir={folder}"]
    assert made["parameters"] == {"model": {"optim": {"lr": 0.001}}, "data": {"batch_size": 128}}
    assert made["metrics"] == "csv"
    made = proposed(Facts(), "model.optim.lr=0.5", flags=tuple(flags_of_settings(settings)), style="hydra")
    assert made["command"][2] == "{hydra}" and made["parameters"]["model"]["optim"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("source", "metrics"),
    [
        ("import mlflow", None),  # the default
        ('open("progress.csv", "a")', "csv"),
        ('open(f"{out}/curve.csv", "a")', {"kind": "csv", "path": "**/curve.csv"}),
        ('(out / "metrics.jsonl").open("a")', "jsonl"),
        ('pandas.read_csv("data.csv")', None),
    ],
)
def test_where_metrics_come_from(source: str, metrics: Any, tmp_path: Path) -> None:
    assert proposed(facts(tmp_path, source)).get("metrics") == metrics


def test_a_script_without_anything_has_a_ladder_of_one_rung() -> None:
    made = proposed(Facts())
    assert made["command"] == ["python", "train.py"] and made["rungs"] is None


def test_a_loss_is_no_score_and_a_computed_flag_no_parameter(tmp_path: Path) -> None:
    seen = facts(tmp_path, "self.log('val_loss', 1)\nself.log('train_acc', 1)")
    made = proposed(seen, flags=(Flag("--batch-size", 0), Flag("--num-envs", 4), Flag("--lr", None)))
    assert made["names"] == {"score": "train_acc"} and made["parameters"] == {"num-envs": 4}
