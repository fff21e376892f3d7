"""Which cells have salient latents: a model whose minibatches say so, while it answers one question."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from ..core import IS_TARGET
from ..core.arguments import parameters_of
from ..dataloaders.row_sources.source import as_indices
from .base import AnsweringWith, Model

__all__ = ["LATENTS", "Kind", "asked_of_kind", "asked_of_targets", "marking"]

Kind = Literal["background", "salient"]
LATENTS: tuple[Kind, ...] = ("background", "salient")
"""Latents that all cells have, and those that only target cells have."""

M = TypeVar("M", bound=Model)
T = TypeVar("T")
Minibatches = Iterable[dict[str, Tensor]]


class _Marking(AnsweringWith):
    """Its minibatches have a column :data:`~celbo.core.IS_TARGET`."""

    def __init__(self, model: Model, module: object, of: object) -> None:
        super().__init__(model, module, model.registry_)
        self._of = of

    def _make_data_loader(self, adata: AnnData, indices: Iterable[Any] | None = None, **options: Any) -> Minibatches:
        is_target_n = np.full(adata.n_obs, isinstance(self._of, str) and self._of == "salient")
        if not isinstance(self._of, str):
            is_target_n[as_indices(self._of, adata.n_obs, what="cell")] = True
        rows = np.arange(adata.n_obs) if indices is None else as_indices(indices, adata.n_obs, what="cell")
        return _Marked(self._model._make_data_loader(adata=adata, indices=indices, **options), is_target_n[rows])


class _Marked(Iterable[dict[str, Tensor]]):
    """Minibatches of cells in their order, and whether each has salient latents."""

    def __init__(self, minibatches: Minibatches, is_target_n: np.ndarray) -> None:
        self._minibatches, self._is_target_n1 = minibatches, torch.from_numpy(is_target_n[:, None].astype(np.float32))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        start = 0
        for tensors in self._minibatches:
            stop = start + len(next(iter(tensors.values())))
            yield {**tensors, IS_TARGET: self._is_target_n1[start:stop]}
            start = stop


def marking(model: M, module: object, of: object) -> M:
    """What stands for a model in a call of one of its verbs: :func:`~celbo.verbs.base.answering_with` for cells of
    which it says whether they have salient latents.

    Parameters
    ----------
    model
        The model; it is not changed.
    module
        What answers.
    of
        ``"salient"``: all cells have, ``"background"``: none has; else row numbers or a mask of those that have.

    Returns
    -------
    The model, as far as its verbs can tell.
    """
    return cast(M, _Marking(model, module, of))


class _Choice(NamedTuple):
    """An argument that says which cells have salient latents."""

    name: str
    kind: Any
    default: str | None
    text: str


_OF_KIND = _Choice(
    "representation_kind", Kind, "salient", 'Decode all cells without their salient latents (``"background"``) or with.'
)
_OF_TARGETS = _Choice(
    "target_idx",
    Sequence[int] | Sequence[bool] | None,
    None,
    "Row numbers or a mask of the cells that have salient latents, the others none; None: all have.",
)


def asked_of_kind(verb: Callable[..., T]) -> Callable[..., T]:
    """A verb with an argument ``representation_kind``, whether cells are decoded with their salient latents.

    Parameters
    ----------
    verb
        Of a model whose module takes :data:`~celbo.core.IS_TARGET`.
    """
    return _asked_of(verb, _OF_KIND)


def asked_of_targets(verb: Callable[..., T]) -> Callable[..., T]:
    """A verb with an argument ``target_idx``, which cells have salient latents.

    Parameters
    ----------
    verb
        As in :func:`asked_of_kind`.

    Raises
    ------
    ValueError
        The verb is asked about a ``dataloader``, whose cells have no row numbers.
    """
    return _asked_of(verb, _OF_TARGETS)


def _asked_of(verb: Callable[..., T], choice: _Choice) -> Callable[..., T]:
    @functools.wraps(verb)
    def asking(self: Model, *args: Any, **kwargs: Any) -> T:
        of = kwargs.pop(choice.name, choice.default)
        if choice is _OF_TARGETS and of is not None and kwargs.get("dataloader") is not None:
            raise ValueError("target_idx is about rows of adata=: leave out dataloader=, or give it is_target itself.")
        return verb(marking(self, self.module, "salient" if of is None else of), *args, **kwargs)

    for of_the_verb in ("__wrapped__", "__celbo_door__"):  # this one takes more, by a door of its own
        vars(asking).pop(of_the_verb, None)
    signature, parameters = inspect.signature(verb), parameters_of(verb)
    by_name = next((i for i, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY), len(parameters))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.insert(by_name, inspect.Parameter(choice.name, keyword, default=choice.default, annotation=choice.kind))
    asking.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    before, heading, after = (inspect.getdoc(verb) or "").partition("Parameters\n----------\n")
    asking.__doc__ = f"{before}{heading}{choice.name}\n    {choice.text}\n{after}"
    return asking
