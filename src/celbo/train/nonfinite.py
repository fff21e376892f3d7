"""What goes wrong in training, in words: cells that are all alike, and a loss that is not finite, or beyond sense.

Of a loss: which term, which cells, which parameter. Copies of weights to fall back on lie on disk: they are written
often, and read when training goes wrong or ends.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core import REGISTRY_KEYS, number_of
from ..dataloaders.base import Loader
from ..module.base import LossOutput
from ..store.mapped import put, rewrite

__all__ = [
    "Copy",
    "FiniteGuard",
    "NonFiniteLossError",
    "copied",
    "explain_nonfinite",
    "say_where_cells_are_alike",
]

logger = logging.getLogger("celbo")

_SHOWN = 5
_BEYOND_SENSE = 1000.0
"""A loss this many times the first one says that the weights diverge."""


class NonFiniteLossError(FloatingPointError):
    """The training loss became NaN or infinite, or a thousand times the first one.

    Attributes
    ----------
    rows
        Rows of the data with a non-finite term; empty if none can be named.
    from_data
        Whether the minibatch itself is not finite, so that training again cannot help.
    inputs
        Registry keys of what is wrong in the minibatch.
    """

    def __init__(
        self, message: str, rows: Sequence[int] = (), from_data: bool = False, inputs: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.rows = list(rows)
        self.from_data = from_data
        self.inputs = list(inputs)


def explain_nonfinite(
    module: nn.Module,
    loss: Tensor,
    loss_output: LossOutput | None,
    batch: object,
    rows: Sequence[int] | None,
    where: str,
) -> NonFiniteLossError:
    """The error for a non-finite loss.

    Parameters
    ----------
    module
        Whose parameters are looked through.
    loss, loss_output
        The loss of the step and, where the plan has it, the record.
    batch
        The minibatch.
    rows
        Rows of the data in the minibatch, where the loader says.
    where
        For example ``"epoch 3, step 71"``.
    """
    findings: list[str] = []
    bad_terms: set[int] = set()
    for name, term in _terms(loss_output):
        bad = _bad_positions(term)
        if bad:
            findings.append(f"{name} of {len(bad)} of {number_of(term.shape[0], 'cell')}" if term.dim() else name)
        bad_terms |= set(bad) if term.dim() else set()
    bad_parameters = [name for name, p in module.named_parameters() if not torch.isfinite(p).all()]
    findings += [f"parameter {name}" for name in bad_parameters[:_SHOWN]]
    bad_inputs: set[int] = set()
    bad_keys: list[str] = []
    for key, value in _inputs(batch):
        bad, what = _bad_positions(value), "input"
        if key == REGISTRY_KEYS.SIZE_FACTOR_KEY and not bad:
            bad, what = torch.nonzero(value.flatten() <= 0).flatten().tolist(), "logarithm of the input"
        findings += [f"{what} {key!r} of {number_of(len(bad), 'cell')}"] if bad else []
        bad_keys += [key] if bad else []
        bad_inputs |= set(bad)
    # A cell with a bad input spoils the others through batch normalisation: bad inputs are the culprits.
    positions = sorted(bad_inputs or bad_terms)
    named = [int(rows[i]) for i in positions if i < len(rows)] if rows is not None else []
    message = f"Training stopped at {where}: the loss is {loss.item()}."
    if findings:
        message += f" Not finite: {'; '.join(findings)}."
    if named:
        message += f" Rows of the data: {', '.join(map(str, named[:_SHOWN]))}{' ...' if len(named) > _SHOWN else ''}."
    message += f" {_advice(bool(bad_inputs), bool(bad_parameters))}"
    return NonFiniteLossError(message, named, bool(bad_inputs), bad_keys)


def _advice(from_data: bool, from_weights: bool) -> str:
    if from_data:
        return "Mend or leave out these cells and set the data up again."
    if from_weights:
        return "The weights diverged: try a smaller plan_kwargs={'lr': ...} or gradient_clip_val=10."
    return "Try a smaller plan_kwargs={'lr': ...} or gradient_clip_val=10, and look at these cells' counts."


def _terms(record: LossOutput | None) -> Iterator[tuple[str, Tensor]]:
    if record is None:
        return
    for field in ("reconstruction_loss", "kl_local", "kl_global"):
        for key, term in getattr(record, field).items():
            yield (field if key == field else f"{field}[{key!r}]"), term
    if record.classification_loss is not None:
        yield "classification_loss", record.classification_loss


def _bad_positions(term: Tensor) -> list[int]:
    bad = ~torch.isfinite(term.detach())
    if term.dim() == 0:
        return [0] if bool(bad) else []
    return torch.nonzero(bad.flatten(1).any(1) if term.dim() > 1 else bad).flatten().tolist()


def _inputs(batch: object) -> Iterator[tuple[str, Tensor]]:
    for part in batch if isinstance(batch, tuple | list) else [batch]:
        if isinstance(part, Mapping):
            yield from (
                (k, v)
                for k, v in part.items()
                if isinstance(v, Tensor) and v.is_floating_point() and not v.is_sparse_csr
            )


class FiniteGuard:
    """Stops a run at the first non-finite loss and keeps the last finite weights.

    Parameters
    ----------
    module
        The module being trained.
    check_every
        Minibatches between looks at the loss: reading it stalls an accelerator.
    any_process
        Whether a flag is set in one of several processes: they stop together.
    may_retry
        Whether the run can start again. Then a loss a thousand times the first ends this attempt; else it is logged.

    Attributes
    ----------
    first_loss
        Size of the first finite loss, at least 1; None before it.
    """

    def __init__(
        self,
        module: nn.Module,
        check_every: int = 1,
        any_process: Callable[[bool], bool] = lambda flag: flag,
        may_retry: bool = False,
    ) -> None:
        self.module = module
        self.check_every = check_every
        self.may_retry = may_retry
        self.first_loss: float | None = None
        self._any_process = any_process
        self._copy = Copy()
        self._has_said = False

    def start_epoch(self) -> None:
        """Keep a copy of weights and buffers (the running means of batch normalisation too), if they are finite.

        Of a run that may start again, and whose losses are looked at before each step, only the buffers: a minibatch
        that is not finite itself spoils these alone, and after any other the run starts again.
        """
        if not self.weights_are_finite():
            return
        if self.may_retry and self.check_every == 1:
            trained = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
            state = self.module.state_dict().items()
            self._copy.take({name: value for name, value in state if name not in trained})
        else:
            self._copy.take(self.module.state_dict())

    def check(self, loss: Tensor, record: LossOutput | None, batch: Any, batch_idx: int, rows: Any, where: str) -> None:
        """Raise :class:`NonFiniteLossError` for a loss that is not finite, with the last finite weights put back."""
        if batch_idx % self.check_every:
            return
        value = loss.item()
        is_finite = math.isfinite(value)
        if self.first_loss is None and is_finite:
            self.first_loss = max(abs(value), 1.0)
        if not self._any_process(not is_finite or self._is_beyond_sense(value)):
            return
        if not self._any_process(not is_finite):
            return self._say_beyond_sense("the loss", value, where)
        if is_finite:
            error = NonFiniteLossError(f"Training stopped at {where}: the loss of another process is not finite.")
        else:
            error = explain_nonfinite(self.module, loss, record, batch, rows, where)
        error.from_data = self._any_process(error.from_data)
        if self._copy.tensors and not self.weights_are_finite():
            self.module.load_state_dict(self._copy.tensors, strict=False)
        raise error

    def check_validation(self, elbo: float | None, where: str) -> None:
        """Raise :class:`NonFiniteLossError` for a validation ELBO beyond sense where the run can start again.

        Parameters
        ----------
        elbo
            Of the validation cells, the same in all processes; None: not known.
        where
            For example ``"epoch 3"``.
        """
        if elbo is not None and self._is_beyond_sense(elbo):
            self._say_beyond_sense("the validation ELBO", elbo, where)

    def _is_beyond_sense(self, value: float) -> bool:
        return self.first_loss is not None and value > _BEYOND_SENSE * self.first_loss

    def _say_beyond_sense(self, what: str, value: float, where: str) -> None:
        found = f"{what} is {value:.4g}, the first loss was {self.first_loss:.4g}: the weights diverge."
        if self.may_retry:
            raise NonFiniteLossError(f"Training stopped at {where}: {found}")
        if not self._has_said:
            self._has_said = True
            logger.warning(f"At {where} {found} Try a smaller plan_kwargs={{'lr': ...}} or gradient_clip_val=10.")

    def weights_are_finite(self) -> bool:
        """Whether the weights and buffers are."""
        floats = [t for t in self.module.state_dict().values() if t.is_floating_point() and t.numel()]
        if not floats:
            return True
        largest = torch.stack([size.float() for size in torch._foreach_norm(floats, math.inf)])  # NaN where one is
        return bool(torch.isfinite(largest).all())  # waits but once


_LARGE_FROM, _ON_DISK_FROM = 1 << 16, 1 << 20
"""Bytes from which a tensor is large, and bytes of all large ones from which their copies lie in a temporary file.

Overwriting a file takes as long as overwriting memory; making one takes about as long as copying 1 MiB.
"""
_ALIGNED = 64


class Copy:
    """Copy of a state dict, whose large tensors on the CPU lie in one temporary file and take no memory until read.

    Parameters
    ----------
    state
        Tensors by name.

    Attributes
    ----------
    tensors
        The copies by name; those of the next :meth:`take` may take their place.
    """

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._large: list[str] = []
        self._in_file = np.empty(0, np.uint8)
        self.take(state or {})

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state dict, to where the copy before is if its tensors are alike."""
        if not self._is_like(state):
            return self._begin(state)
        if self._large:
            try:
                rewrite(self._in_file, _bytes_of(state[name] for name in self._large))
            except OSError:  # no room, on a disk that writes what changes to another place
                return self._begin(state)
        if small := [name for name in state if name not in self._large]:
            with torch.no_grad():
                torch._foreach_copy_([self.tensors[name] for name in small], [state[name] for name in small])

    def _is_like(self, state: Mapping[str, Tensor]) -> bool:
        alike = (_kind(copy) == _kind(state[name]) for name, copy in self.tensors.items())
        return self.tensors.keys() == state.keys() and all(alike)

    def _begin(self, state: Mapping[str, Tensor]) -> None:
        large = [name for name, value in state.items() if value.device.type == "cpu" and value.nbytes >= _LARGE_FROM]
        self._large = large if sum(state[name].nbytes for name in large) >= _ON_DISK_FROM else []
        made = {name: value.detach().clone() for name, value in state.items() if name not in self._large}
        if self._large:
            self._in_file = put(lambda: _bytes_of(state[name] for name in self._large), np.uint8)
            made |= dict(zip(self._large, _tensors_in(self._in_file, [state[name] for name in self._large])))
        self.tensors = {name: made[name] for name in state}


def _kind(value: Tensor) -> tuple[Any, ...]:
    return value.shape, value.dtype, value.device


def _bytes_of(tensors: Iterator[Tensor]) -> Iterator[np.ndarray]:
    """The bytes of each, and as many zeros as let the next one begin aligned."""
    for value in tensors:
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        if value.nbytes % _ALIGNED:
            yield np.zeros(-value.nbytes % _ALIGNED, np.uint8)


def _tensors_in(raw: np.ndarray, like: list[Tensor]) -> Iterator[Tensor]:
    start = 0
    for value in like:
        part = torch.from_numpy(raw[start : start + value.nbytes])
        yield part.view(value.dtype).reshape(value.shape)
        start += value.nbytes + -value.nbytes % _ALIGNED


def copied(nest: object) -> Any:
    """The same nest of mappings, tuples and lists with tensors of its own, none of which shares memory with another."""
    if isinstance(nest, Tensor):
        return nest.clone()
    if isinstance(nest, Mapping):
        return {key: copied(part) for key, part in nest.items()}
    return type(nest)(copied(part) for part in nest) if isinstance(nest, list | tuple) else nest


_LOOKED_AT = 16


def say_where_cells_are_alike(loader: Loader) -> None:
    """Warn where evenly spaced cells of the data all have the same counts.

    Parameters
    ----------
    loader
        Of the training cells. Those without tables, as third-party ones, are not read.
    """
    tables = loader.tables
    if tables is None or len(tables) < 2:
        return
    rows = np.linspace(0, len(tables) - 1, min(_LOOKED_AT, len(tables))).astype(np.int64)
    x = tables.fetch(rows).get(REGISTRY_KEYS.X_KEY)  # latents alone may be left of the data
    if x is None or not _are_alike(x):
        return
    which = f"All {len(rows)} cells" if len(rows) == len(tables) else f"{len(rows)} of {len(tables)} cells looked at"
    logger.warning(f"{which} have the same counts: there is nothing to learn from. Look at the data's counts.")


def _are_alike(x: Tensor) -> bool:
    if x.layout == torch.strided:
        return bool((x == x[:1]).all())
    x = x.to_sparse_csr()
    n_n = x.crow_indices().diff()  # wide data stay sparse
    if (n_n != n_n[0]).any():
        return False
    parts = (part.view(len(x), -1) for part in (x.col_indices(), x.values()))
    return all(bool((part == part[:1]).all()) for part in parts)
