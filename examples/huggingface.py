"""A Hugging Face script: a tiny GPT-2 with random weights learns to count, without a download.

It knows nothing of `ladder run examples/huggingface.yaml`. `--decay` multiplies its learning rate at each quarter.
"""

import os
from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser, Trainer, TrainingArguments


@dataclass
class Schedule:
    decay: float = 0.5


class Counting(torch.utils.data.Dataset):
    """Sequences of 16 numbers that rise by 1, from anywhere, modulo 32."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        numbers = (torch.arange(16) + index) % 32
        return {"input_ids": numbers, "labels": numbers}


def main() -> None:
    parser = HfArgumentParser((TrainingArguments, Schedule))
    args, schedule = parser.parse_args_into_dataclasses()
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", args.output_dir)
    torch.manual_seed(args.seed)
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)

    def factor(step: int) -> float:
        return schedule.decay ** (4 * step // args.max_steps)

    both = optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    trainer = Trainer(model, args, train_dataset=Counting(), optimizers=both)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)


if __name__ == "__main__":
    main()
