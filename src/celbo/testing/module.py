"""The contract of a module as one call: arguments bind, the loss record is whole, gradients flow, cells stand alone.

Dims: n cells.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..core import REGISTRY_KEYS, checked
from ..module.base import BaseModuleClass, LossOutput
from ..module.base.module import accepts
from ..ops.draws import initial_weights, randomness_of

__all__ = ["check_module"]

Batch = Mapping[str, Tensor]


@checked
def check_module(
    make_module: Callable[[], BaseModuleClass],
    batch: Batch,
    *,
    unused: Sequence[str] = (),
    count_keys: Sequence[str] = (REGISTRY_KEYS.X_KEY,),
    seed: int = 0,
) -> None:
    """Check everything that celbo asks of a module; the first breach raises.

    1. ``module(batch)`` finds the arguments of ``inference``, ``generative`` and ``loss`` and gives a
       :class:`~celbo.module.base.LossOutput`: a finite loss, reconstruction and local KL terms of shape ``(n,)``.
    2. Every parameter that requires a gradient gets a finite one, the unused ones aside.
    3. ``kl_weight``, where ``loss`` has it, changes the loss and none of the terms in the record.
    4. In evaluation mode, the same noise gives the same loss, and neither weights nor buffers move.
    5. A cell without a single count gives finite losses and gradients.
    6. A fresh module with the ``state_dict`` of another computes the same.
    7. Minibatches of 1, 2 and 3 cells work in evaluation mode, and ``qz``, where ``inference`` gives one, does not
       depend on the other cells.

    Parameters
    ----------
    make_module
        Makes a new module; called several times.
    batch
        A minibatch by registry key, at least 4 cells.
    unused
        Beginnings of the names of parameters that need no gradient under these options.
    count_keys
        Keys of the counts, of which a cell may have none.
    seed
        Of weights and noise. The global generator is left as it was.

    Raises
    ------
    AssertionError
        With what was expected, what came and where.
    ValueError
        The minibatch has fewer than 4 cells.

    Examples
    --------
    >>> import torch
    >>> from celbo.module import VAE
    >>> batch = {"X": torch.poisson(torch.full((6, 8), 2.0)), "batch": torch.tensor([[0], [1]] * 3)}
    >>> unused = ["l_encoder", "decoder.px_r_decoder"]
    >>> check_module(lambda: VAE(8, n_batch=2, n_hidden=4), batch | {"labels": batch["batch"]}, unused=unused)
    """
    n = len(next(iter(batch.values())))
    if n < 4:
        raise ValueError(f"check_module needs a minibatch of at least 4 cells, got {n}.")
    with initial_weights(seed):
        module = make_module()
    with randomness_of(module, seed, torch.device("cpu")):
        _check_record(module.train(), batch, n)
        _check_gradients(module, batch, unused, "of the minibatch")
        _check_kl_weight(module.eval(), batch, seed)
        _check_evaluation(module, batch, seed)
        _check_gradients(module.train(), _with_an_empty_cell(batch, count_keys), unused, "with a cell without counts")
        with initial_weights(seed + 1):
            other = make_module()
        _check_state_dict(module.eval(), other, batch, seed)
        _check_few_cells(module, batch)


def _check_record(module: BaseModuleClass, batch: Batch, n: int) -> None:
    outputs = module(batch)
    _require(
        isinstance(outputs, tuple) and len(outputs) == 3, "forward gives inference outputs, generative outputs, loss"
    )
    record = outputs[2]
    _require(isinstance(record, LossOutput), f"loss() returns a LossOutput, got a {type(record).__name__}")
    _require(bool(torch.isfinite(record.loss)), f"the loss is finite, got {record.loss}")
    _require(record.loss.requires_grad, "the loss has a graph")
    _require(record.n_obs_minibatch == n, f"n_obs_minibatch is {n}, got {record.n_obs_minibatch}")
    for field in ("reconstruction_loss", "kl_local"):
        for name, term in getattr(record, field).items():
            given = term.dim() > 0 or bool(term != 0)  # a term that was not given is a plain zero
            _require(
                not given or term.shape == (n,),
                f"{field} {name!r} is {(n,)}, one value a cell, got {tuple(term.shape)}",
            )


def _check_gradients(module: BaseModuleClass, batch: Batch, unused: Sequence[str], where: str) -> None:
    module.zero_grad(set_to_none=True)
    try:
        loss = module(batch)[2].loss
    except ValueError as error:  # torch's distributions refuse parameters that are NaN
        raise AssertionError(f"Wanted: the loss {where} is finite, but: {error}") from error
    _require(bool(torch.isfinite(loss)), f"the loss {where} is finite, got {loss}")
    loss.backward()
    wanted = {
        name: p.grad for name, p in module.named_parameters() if p.requires_grad and not name.startswith(tuple(unused))
    }
    none = [name for name, gradient in wanted.items() if gradient is None]
    _require(
        not none,
        f"a gradient {where} reaches every parameter, not {', '.join(none)}. Those left out on purpose go in unused=",
    )
    bad = [name for name, gradient in wanted.items() if gradient is not None and not torch.isfinite(gradient).all()]
    _require(not bad, f"gradients {where} are finite, not those of {', '.join(bad)}")
    module.zero_grad(set_to_none=True)


def _check_kl_weight(module: BaseModuleClass, batch: Batch, seed: int) -> None:
    if not accepts(module.loss, "kl_weight"):
        return
    none, full = (_record(module, batch, seed, kl_weight=weight) for weight in (0.0, 1.0))
    for field in ("reconstruction_loss_sum", "kl_local_sum", "kl_global_sum"):
        torch.testing.assert_close(getattr(none, field), getattr(full, field), msg=f"{field} changes with kl_weight")
    if full.kl_local_sum != 0:
        _require(bool(none.loss != full.loss), "kl_weight=0 and kl_weight=1 give different losses: it weighs kl_local")


def _check_evaluation(module: BaseModuleClass, batch: Batch, seed: int) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first, second = _record(module, batch, seed).loss, _record(module, batch, seed).loss
    _require(
        torch.equal(first, second), f"the same noise gives the same loss in evaluation mode, got {first} and {second}"
    )
    moved = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    _require(not moved, f"nothing moves in evaluation mode, but {', '.join(moved)} did")


def _check_state_dict(module: BaseModuleClass, fresh: BaseModuleClass, batch: Batch, seed: int) -> None:
    fresh.load_state_dict(module.state_dict())
    one, other = _record(module, batch, seed).loss, _record(fresh.eval(), batch, seed).loss
    _require(
        torch.equal(one, other), f"a new module with the same state_dict gives the same loss, got {one} and {other}"
    )


def _check_few_cells(module: BaseModuleClass, batch: Batch) -> None:
    with torch.no_grad():
        together = module(batch, compute_loss=False)[0].get("qz")
        for n in (1, 2, 3):
            inference_outputs, _, record = module({key: value[:n] for key, value in batch.items()})
            _require(bool(torch.isfinite(record.loss)), f"the loss of {n} cells is finite, got {record.loss}")
            _require(record.n_obs_minibatch == n, f"n_obs_minibatch of {n} cells is {n}, got {record.n_obs_minibatch}")
            if together is not None:
                alone_nk, all_nk = inference_outputs["qz"].mean, together.mean[:n]
                apart = float((alone_nk - all_nk).abs().max())
                _require(
                    apart < 1e-4,
                    f"qz of a cell does not depend on the others of its minibatch: means differ by {apart:.2g}",
                )


def _record(module: BaseModuleClass, batch: Batch, seed: int, **loss_kwargs: float) -> LossOutput:
    with torch.no_grad(), randomness_of(module, seed, torch.device("cpu")):
        return module(batch, loss_kwargs=loss_kwargs)[2]


def _with_an_empty_cell(batch: Batch, count_keys: Sequence[str]) -> dict[str, Tensor]:
    emptied = {key: value.clone() for key, value in batch.items()}
    for key in count_keys:
        emptied[key][0] = 0
    return emptied


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"Wanted: {what}.")
