"""Modules that keep named embeddings of categorical covariates."""

from typing import Any

from torch import Tensor, nn

from ...core import unknown_name
from ...nn import Embedding

__all__ = ["EmbeddingModuleMixin"]

_CHILD = "_embeddings_dict"


class EmbeddingModuleMixin(nn.Module):
    """Named embeddings, kept in the child module ``_embeddings_dict``, which exists once the first one is added."""

    @property
    def embeddings_dict(self) -> nn.ModuleDict:
        """The embeddings by name."""
        if _CHILD not in self._modules:
            self.add_module(_CHILD, nn.ModuleDict())
        return self._modules[_CHILD]  # type: ignore[return-value]

    def add_embedding(self, key: str, embedding: nn.Embedding, overwrite: bool = False) -> None:
        """Add an embedding.

        Parameters
        ----------
        key
            Its name.
        embedding
            The embedding.
        overwrite
            Whether it may take the place of one of that name.

        Raises
        ------
        KeyError
            There is one of that name and ``overwrite`` is False.
        """
        if key in self.embeddings_dict and not overwrite:
            raise KeyError(f"Embedding {key!r} already exists: pass overwrite=True to replace it.")
        self.embeddings_dict[key] = embedding

    def remove_embedding(self, key: str) -> None:
        """Remove the embedding of that name; ``KeyError`` if there is none."""
        self.get_embedding(key)
        del self.embeddings_dict[key]

    def get_embedding(self, key: str) -> Embedding:
        """The embedding of that name; ``KeyError`` if there is none."""
        if key not in self.embeddings_dict:
            raise KeyError(unknown_name("embedding", key, self.embeddings_dict))
        return self.embeddings_dict[key]  # type: ignore[return-value]

    def init_embedding(self, key: str, num_embeddings: int, embedding_dim: int = 5, **kwargs: Any) -> None:
        """Add a new :class:`~celbo.nn.Embedding`, drawn from N(0, 1).

        Parameters
        ----------
        key
            Its name.
        num_embeddings, embedding_dim
            Number of rows (categories) and columns.
        **kwargs
            Further arguments of :class:`~celbo.nn.Embedding`.
        """
        self.add_embedding(key, Embedding(num_embeddings, embedding_dim, **kwargs))

    def compute_embedding(self, key: str, indices: Tensor) -> Tensor:
        """Rows of an embedding.

        Parameters
        ----------
        key
            Its name.
        indices
            Codes, ``(n, 1)``, ``(s, n, 1)`` or ``(n,)``.

        Returns
        -------
        ``(n, k)`` or ``(s, n, k)``.
        """
        return self.get_embedding(key)(indices.squeeze(-1) if indices.dim() > 1 else indices)
