"""A module whose every term is a column of its input, so that all figures of training can be worked out by hand."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from celbo.module.base import BaseModuleClass, LossOutput
from celbo.train import Trainer, TrainingPlan


class Columns(BaseModuleClass):
    """Reconstruction, KL and global KL are columns of ``X``; the one weight ``w`` is pulled to ``target``."""

    def __init__(self, pull: float = 0.0, target: float = 3.0):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.pull, self.target = pull, target

    def inference(self, x):
        return {"x": x}

    def generative(self, x):
        return {}

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight: float = 1.0):
        x = tensors["X"]
        rec_n, kl_n = x[:, 0] + self.pull * (self.w - self.target) ** 2 + 0 * self.w, x[:, 1]
        return LossOutput(
            loss=(rec_n + kl_weight * kl_n).mean(),
            reconstruction_loss=rec_n,
            kl_local=kl_n,
            kl_global=x[:, 2].max(),
            extra_metrics={"top": x[:, 0].max()},
        )


class Batches:
    """Rows of ``X`` in order; remembers how often it was read."""

    def __init__(self, x: torch.Tensor, batch_size: int = 16):
        self.x, self.batch_size, self.n_read = x, batch_size, 0

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self):
        for start in range(0, len(self.x), self.batch_size):
            self.n_read += 1
            yield {"X": self.x[start : start + self.batch_size]}


def columns(n: int) -> torch.Tensor:
    i = np.arange(n)
    return torch.tensor(np.stack([(i * i) % 83 + 0.25, (7 * i) % 31 + 0.5, i // 16 + 1.0], 1), dtype=torch.float32)


@pytest.fixture
def batches() -> type[Batches]:
    return Batches


@pytest.fixture
def x_n3() -> torch.Tensor:
    """74 rows: 60 to train on, 14 to validate on."""
    return columns(74)


@pytest.fixture
def module_cls() -> type[Columns]:
    return Columns


@pytest.fixture
def fit(x_n3):
    """Train a module of columns (or any plan) on 60 rows and validate on 14; gives the trainer."""

    def run(plan=None, module=None, train=None, validation="rows", plan_kwargs=None, **kwargs) -> Trainer:
        if plan is None:
            plan = TrainingPlan(module or Columns(), **(plan_kwargs or {}))
        plan.n_obs_training, plan.n_obs_validation = 60, 14
        options = {"accelerator": "cpu", "devices": 1, "verbose": 0, "seed": 0, "max_epochs": 3} | kwargs
        trainer = Trainer(**options)
        rows = Batches(x_n3[60:], 8) if validation == "rows" else validation
        trainer.fit(plan, Batches(x_n3[:60]) if train is None else train, rows)
        return trainer

    return run


@pytest.fixture
def series():
    """One metric of a history as a list."""
    return lambda trainer, name: trainer.history.frames()[name][name].tolist()


@pytest.fixture
def said():
    """What celbo's logger said at a level or above, in order."""

    class Keeping(logging.Handler):
        def emit(self, record):
            records.append(record)

    records: list[logging.LogRecord] = []
    handler = Keeping()
    logging.getLogger("celbo").addHandler(handler)
    yield lambda level: [record.getMessage() for record in records if record.levelno >= level]
    logging.getLogger("celbo").removeHandler(handler)
