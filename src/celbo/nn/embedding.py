"""Embedding whose table can grow."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..ops.draws import randn

__all__ = ["Embedding"]


class Embedding(nn.Embedding):
    """:class:`torch.nn.Embedding` that can be extended by new rows.

    Notes
    -----
    As in scvi-tools, ``load_state_dict`` takes the number of rows from what is loaded: a table saved before (or after)
    new categories came loads as it is. The embedding dimension must agree.
    """

    @classmethod
    def extend(cls, embedding: nn.Embedding, init: int | list[int], freeze_prev: bool = True) -> Self:
        """New embedding with the rows of another one first and new ones after them.

        Parameters
        ----------
        embedding
            The embedding to extend, ``(c, k)``; it is not changed.
        init
            Number of new rows, drawn from N(0, 1), or for each new row the number of the old row it starts as.
        freeze_prev
            Whether the gradient of the old rows is zero from now on.

        Returns
        -------
        Embedding of ``(c + new, k)``.

        Raises
        ------
        TypeError
            ``init`` that is neither an integer nor a list.
        ValueError
            An integer ``init`` below 1.
        IndexError
            A row number that the old embedding does not have.
        """
        old_ck = embedding.weight.detach()
        weight = torch.cat([old_ck, _new_rows(old_ck, init)])
        extended = cls(weight.shape[0], weight.shape[1], padding_idx=embedding.padding_idx, _weight=weight)
        if freeze_prev:
            extended.weight.register_hook(_without_first_rows(old_ck.shape[0]))
        return extended

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        loaded = state_dict.get(f"{prefix}weight")
        if loaded is not None and loaded.shape[0] != self.num_embeddings:
            self.num_embeddings = loaded.shape[0]
            table = self.weight.new_empty(self.num_embeddings, self.embedding_dim)
            self.weight = nn.Parameter(table, requires_grad=self.weight.requires_grad)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _new_rows(old_ck: Tensor, init: int | list[int]) -> Tensor:
    if isinstance(init, list):
        return old_ck[torch.as_tensor(init, dtype=torch.long, device=old_ck.device)]
    if not isinstance(init, int):
        raise TypeError(
            f"`init` must be a number of new rows (int) or a list of old rows (list[int]), got {type(init).__name__}."
        )
    if init < 1:
        raise ValueError(f"`init` must be greater than 0, got {init}: it is the number of new rows.")
    return randn(init, old_ck.shape[1], dtype=old_ck.dtype, device=old_ck.device)


def _without_first_rows(n_rows: int) -> Callable[[Tensor], Tensor]:
    """Hook that sets the first rows of a gradient to zero."""

    def hook(grad: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(grad[:n_rows]), grad[n_rows:]])

    return hook
