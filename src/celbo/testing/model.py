"""The contract of a model as one call: set up, train, ask, save, load; nothing of the user's is touched.

Dims: n cells, k latents.
"""

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from anndata import AnnData

from ..core import checked
from ..core.kinds import Instance
from ..model.base import BaseModelClass

__all__ = ["check_model"]

_MODEL_CLASS = Instance("a class of model", lambda value: isinstance(value, type) and hasattr(value, "setup_anndata"))
_ELBO = (
    "elbo_train",
    "reconstruction_loss_train",
    "kl_local_train",
    "kl_global_train",
    "train_loss",
    "elbo_validation",
)


@checked
def check_model(
    model_cls: Annotated[type[BaseModelClass], _MODEL_CLASS],
    make_adata: Callable[[], AnnData],
    *,
    setup: Mapping[str, Any] | None = None,
    init: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    history: Sequence[str] = _ELBO,
    answers: Sequence[str] = ("get_latent_representation",),
) -> None:
    """Check everything that celbo asks of a model; the first breach raises.

    1. ``setup_anndata``, the constructor and one epoch of ``train`` work, leave the module in evaluation mode, and the
       history has the names asked for, all finite.
    2. The same seed gives the same weights to the bit, twice.
    3. Each answer is a finite array with one row a cell, in the order of ``indices``.
    4. A saved model, loaded with the data or without, has the same weights and gives the same answers.
    5. The counts, and the global generators of Python, numpy and torch, are as they were.

    Parameters
    ----------
    model_cls
        The model.
    make_adata
        Makes the same data at each call, 20 cells or more.
    setup, init, train
        Arguments of ``setup_anndata``, of the constructor, of ``train``.
    history
        Names that the history must have.
    answers
        Methods that give one row a cell, and the same rows each time.

    Raises
    ------
    AssertionError
        With what was expected, what came and where.

    Examples
    --------
    >>> import celbo
    >>> from functools import partial
    >>> make_adata = partial(celbo.data.synthetic_iid, batch_size=20, seed=0)
    >>> check_model(celbo.model.SCVI, make_adata, setup={"batch_key": "batch"}, init={"n_hidden": 8})
    """
    before = _generators()
    options = {"max_epochs": 1, "verbose": 0, "seed": 0, "accelerator": "cpu"} | dict(train or {})
    first, second = (_trained(model_cls, make_adata(), setup or {}, init or {}, options) for _ in range(2))
    _check_state(first, history)
    _require_same_weights(first, second, "of two trainings with the same seed")
    given = make_adata()
    _require(_equal(first.adata.X, given.X), "training leaves adata.X as it was")  # type: ignore[union-attr]
    for answer in answers:
        _check_answer(first, answer)
    _check_archive(first, given, make_adata(), answers)
    after = _generators()
    moved = [name for name, state in before.items() if state != after[name]]
    _require(not moved, f"the global random state is left alone, but that of {', '.join(moved)} was changed")


def _trained(
    model_cls: type[BaseModelClass],
    adata: AnnData,
    setup: Mapping[str, Any],
    init: Mapping[str, Any],
    train: Mapping[str, Any],
) -> BaseModelClass:
    model_cls.setup_anndata(adata, **setup)
    model = model_cls(adata, **init)
    _require(not model.is_trained, "a new model is not trained")
    _require(model_cls.__name__ in repr(model), f"repr names the class {model_cls.__name__}, got {model!r}")
    model.train(**train)
    return model


def _check_state(model: BaseModelClass, history: Sequence[str]) -> None:
    _require(model.is_trained, "is_trained after training")
    _require(not model.module.training, "the module is in evaluation mode after training")
    found = model.history or {}
    missing = [name for name in history if name not in found]
    _require(not missing, f"the history has {', '.join(missing)}; it has {', '.join(found)}")
    bad = [name for name, frame in found.items() if not np.isfinite(frame.to_numpy(dtype=float)).all()]
    _require(not bad, f"the history is finite, not {', '.join(bad)}")


def _check_answer(model: BaseModelClass, answer: str) -> None:
    rows_n = _ask(model, answer)
    n = model.adata.n_obs  # type: ignore[union-attr]
    _require(rows_n.ndim >= 1 and len(rows_n) == n, f"{answer}() has {n} rows, one a cell, got shape {rows_n.shape}")
    _require(bool(np.isfinite(rows_n).all()), f"{answer}() is finite")
    some = [n - 1, 3, 0, 3]
    again = _ask(model, answer, indices=some)
    close = again.shape == rows_n[some].shape and np.allclose(again, rows_n[some], rtol=1e-4, atol=1e-5)
    _require(close, f"{answer}(indices={some}) gives the rows of these cells in this order")


def _check_archive(model: BaseModelClass, data: AnnData, later: AnnData, answers: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        model.save(path)
        loaded = type(model).load(path, adata=data, accelerator="cpu")
        bare = type(model).load(path, adata=False, accelerator="cpu")
    for other, how in ((loaded, "loaded with its data"), (bare, "loaded without data")):
        _require_same_weights(model, other, f"of the model and of the one {how}")
        _require(other.is_trained and not other.module.training, f"a model {how} is trained and in evaluation mode")
    for answer in answers:
        expected = _ask(model, answer)
        _require(np.allclose(_ask(loaded, answer), expected, atol=1e-5), f"a loaded model gives the same {answer}()")
        _require(
            np.allclose(_ask(bare, answer, adata=later), expected, atol=1e-5),
            f"{answer}(adata) of a model loaded without",
        )


def _ask(model: BaseModelClass, answer: str, **kwargs: Any) -> np.ndarray:
    return np.asarray(getattr(model, answer)(**kwargs))


def _require_same_weights(a: BaseModelClass, b: BaseModelClass, which: str) -> None:
    x, y = a.module.state_dict(), b.module.state_dict()
    _require(list(x) == list(y), f"names of the weights {which} are the same")
    differ = [name for name in x if not torch.equal(x[name].cpu(), y[name].cpu())]
    _require(not differ, f"the weights {which} are the same, not {', '.join(differ)}")


def _equal(x: Any, y: Any) -> bool:
    different = x != y
    return not (different.nnz if type(different).__module__.startswith("scipy") else np.any(different))


def _generators() -> dict[str, bytes]:
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002  the state is looked at, not used
    return {
        "random": repr(random.getstate()).encode(),
        "numpy.random": np.asarray(keys).tobytes() + str(position).encode(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"Wanted: {what}.")
