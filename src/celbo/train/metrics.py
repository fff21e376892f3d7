"""Epoch metrics from the minibatches' :class:`LossOutput` records.

Over the minibatches b of a split (R, K, G the record's three sums, n its observations, N observations of the split):
``reconstruction_loss = ΣR/Σn``, ``kl_local = ΣK/Σn``, ``kl_global = mean_b G``, ``elbo = reconstruction_loss +
kl_local + kl_global/N`` (a negative ELBO, in nats per observation), everything else an n-weighted mean.

Sums are kept in float64 on the device and read by the host once an epoch; over processes they are added before the
division.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core import checked, unknown_name
from ..core.kinds import Text
from ..module.base import LossOutput

__all__ = ["ElboMetric", "EpochMetrics", "find_metric", "scalar_extra_metrics"]

_ELBO_SUMS = ("reconstruction_loss", "kl_local", "kl_global")


def scalar_extra_metrics(loss_output: LossOutput) -> dict[str, Any]:
    """The extra metrics that can be logged: numbers and one-element arrays, those of a nested dict as ``name_key``."""
    flat: dict[str, Any] = {}
    for name, value in loss_output.extra_metrics.items():
        parts = {f"{name}_{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
        flat |= {key: part for key, part in parts.items() if _is_one_number(part)}
    return flat


def _is_one_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else np.size(value) == 1


class EpochMetrics:
    """Sums of one split's minibatches.

    Parameters
    ----------
    mode
        ``"train"`` or ``"validation"``: the suffix of the names.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.reset()

    def reset(self) -> None:
        """Forget the minibatches seen."""
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._n_without: dict[str, int] = {}
        self._kept: dict[str, tuple[Tensor, float]] = {}
        self.n_obs = 0
        self.n_batches = 0

    def update(self, loss_output: LossOutput) -> None:
        """Add a minibatch."""
        n = int(loss_output.n_obs_minibatch or 0)
        weighted = {f"{self.mode}_loss": loss_output.loss, **scalar_extra_metrics(loss_output)}
        names = [*_ELBO_SUMS, *weighted]
        with torch.no_grad():
            device = loss_output.loss.device
            elbo = (loss_output.reconstruction_loss_sum, loss_output.kl_local_sum, loss_output.kl_global_sum)
            sums = _doubles([*elbo, *weighted.values()], device)
            sums[len(elbo) :] *= n
            self._add(names, sums, n)
        self.n_obs += n
        self.n_batches += 1

    def add(self, other: "EpochMetrics") -> None:
        """Add the minibatches of other sums, which stay as they are."""
        if other._sums is not None:
            self._add(other._names, other._sums if self._sums is not None else other._sums.clone(), other.n_obs)
        for name, (total, weight) in other._kept.items():
            before, weight_before = self._kept.get(name, (0.0, 0.0))
            self._kept[name] = (before + total, weight_before + weight)
        self.n_obs += other.n_obs
        self.n_batches += other.n_batches

    def _add(self, names: list[str], sums: Tensor, n: int) -> None:
        if self._sums is None or names != self._names:
            self._sums = self._aligned(names, sums, n)
        else:
            self._sums += sums

    def _aligned(self, names: list[str], sums: Tensor, n: int) -> Tensor:
        """First minibatch, or one with other extra metrics than those before: join by name."""
        if self._sums is None:
            self._names = names
            return sums
        index = {name: i for i, name in enumerate(self._names)}
        for name in names:
            index.setdefault(name, len(index))
        joined = self._sums.new_zeros(len(index))
        joined[: len(self._names)] = self._sums
        joined[[index[name] for name in names]] += sums
        for name in index:  # observations of minibatches without it do not weigh in its mean
            before = self._n_without.get(name, 0 if name in self._names else self.n_obs)
            self._n_without[name] = before + (0 if name in names else n)
        self._names = list(index)
        return joined

    def keep(self, name: str, value: Tensor | float, weight: float) -> None:
        """Add to the weighted mean of a free-standing name (what a plan's ``log`` gives)."""
        value = _double(value, value.device if isinstance(value, Tensor) else torch.device("cpu")).detach() * weight
        total, total_weight = self._kept.get(name, (0.0, 0.0))
        self._kept[name] = (total + value, total_weight + weight)

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, for a checkpoint."""
        kept = {name: [total, weight] for name, (total, weight) in self._kept.items()}
        return {
            "names": self._names,
            "sums": self._sums,
            "n_without": self._n_without,
            "kept": kept,
            "n_obs": self.n_obs,
            "n_batches": self.n_batches,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Put kept sums back, to add to them on a device."""
        sums = state["sums"]
        self._names, self._n_without = list(state["names"]), dict(state["n_without"])
        self._sums = None if sums is None else sums.clone().to(device)
        self._kept = {name: (total.clone().to(device), weight) for name, (total, weight) in state["kept"].items()}
        self.n_obs, self.n_batches = state["n_obs"], state["n_batches"]

    def totals(self) -> "Totals":
        """The sums so far as plain numbers: the one time an epoch that the device is read."""
        sums = [] if self._sums is None else self._sums.tolist()
        by_name = zip(self._names, sums, strict=True)
        return Totals(
            {name: (total, self.n_obs - self._n_without.get(name, 0)) for name, total in by_name},
            {name: (float(total), weight) for name, (total, weight) in self._kept.items()},
            self.n_batches,
        )

    def compute(self, n_obs_total: int | None, gather: Callable[[Any], list[Any]] | None = None) -> dict[str, float]:
        """Metrics of the epoch by the names of ``model.history``.

        Parameters
        ----------
        n_obs_total
            Observations N of the split; None or below 1 counts as 1.
        gather
            Gives what each process has, where there are several.
        """
        mine = self.totals()
        return _means(mine if gather is None else Totals.sum(gather(mine)), self.mode, max(n_obs_total or 1, 1))


@dataclass
class Totals:
    """Sums over minibatches, of one process or of all.

    Attributes
    ----------
    weighted
        Name in the records -> sum, and observations that had it.
    kept
        Name of a free-standing number -> sum, and weight.
    n_batches
        Minibatches.
    """

    weighted: dict[str, tuple[float, float]] = field(default_factory=dict)
    kept: dict[str, tuple[float, float]] = field(default_factory=dict)
    n_batches: int = 0

    @classmethod
    def sum(cls, parts: "list[Totals]") -> "Totals":
        """The sums of several processes added up, by name: one may have minibatches with metrics that others lack."""
        together = cls(n_batches=sum(part.n_batches for part in parts))
        for part in parts:
            for into, values in ((together.weighted, part.weighted), (together.kept, part.kept)):
                for name, (total, weight) in values.items():
                    before, weight_before = into.get(name, (0.0, 0.0))
                    into[name] = (before + total, weight_before + weight)
        return together


def _means(totals: Totals, mode: str, n_obs_total: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if totals.weighted:
        means = {name: total / n for name, (total, n) in totals.weighted.items()}
        loss = means.pop(f"{mode}_loss")
        kl_global = totals.weighted["kl_global"][0] / totals.n_batches
        metrics[f"{mode}_loss"] = loss
        metrics[f"elbo_{mode}"] = means["reconstruction_loss"] + means["kl_local"] + kl_global / n_obs_total
        metrics |= {f"{name}_{mode}": mean for name, mean in (means | {"kl_global": kl_global}).items()}
    return metrics | {name: total / weight for name, (total, weight) in totals.kept.items()}


def _doubles(values: list[Any], device: torch.device) -> Tensor:
    """The numbers as one tensor of float64; those of a usual minibatch, all tensors of one kind, by two operations."""
    first = values[0]
    if all(isinstance(v, Tensor) and v.dim() == 0 and v.dtype is first.dtype for v in values):
        return torch.stack(values).double()
    return torch.stack([_double(v, device) for v in values])


def _double(value: object, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().reshape(()).double()
    return torch.full((), np.asarray(value).item(), dtype=torch.float64, device=device)  # fills there: nothing waits


class ElboMetric:
    """One component of the ELBO over an epoch, for plans that keep their metrics themselves.

    Parameters
    ----------
    name
        Which of the values given to :meth:`update` is summed.
    mode
        ``"train"`` or ``"validation"``.
    interval
        ``"obs"``: mean over observations; ``"batch"``: mean over minibatches.

    Raises
    ------
    ValueError
        ``interval`` is neither ``"obs"`` nor ``"batch"``.
    """

    @checked
    def __init__(
        self,
        name: Annotated[str, Text()],
        mode: Literal["train", "validation"],
        interval: Literal["obs", "batch"],
    ) -> None:
        if interval not in ("obs", "batch"):
            raise ValueError(f"interval must be 'obs' or 'batch', got {interval!r}.")
        self._name, self.mode, self.interval = name, mode, interval
        self.reset()

    @property
    def name(self) -> str:
        """Name in the history."""
        return f"{self._name}_{self.mode}"

    def reset(self) -> None:
        """Forget the minibatches seen."""
        self.elbo_component: Any = torch.zeros((), dtype=torch.float64)
        self.n_obs: Any = 0
        self.n_batches: Any = 0

    def update(self, **kwargs: Any) -> None:
        """Add a minibatch: needs the component by its name and ``n_obs_minibatch``, or raises a ``ValueError``."""
        for needed in (self._name, "n_obs_minibatch"):
            if needed not in kwargs:
                raise ValueError(f"Missing {needed!r} value in metrics update.")
        self.elbo_component = self.elbo_component + torch.as_tensor(kwargs[self._name]).detach().double().cpu()
        self.n_obs = self.n_obs + int(kwargs["n_obs_minibatch"])
        self.n_batches = self.n_batches + 1

    def compute(self) -> Tensor:
        """The mean; NaN before the first update."""
        return self.elbo_component / (self.n_obs if self.interval == "obs" else self.n_batches)


def find_metric(metrics: Mapping[str, Tensor], name: str, who: str) -> Tensor:
    """A metric by name, or a ``KeyError`` that lists those there are."""
    if name not in metrics:
        raise KeyError(f"{who}: {unknown_name('metric of this training', name, metrics)}")
    return metrics[name]
