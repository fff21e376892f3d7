"""EmbeddingMixin: verbs of models that learn an embedding of their batches."""

from collections.abc import Iterable, Sequence

import numpy as np
from anndata import AnnData
from torch import Tensor

from .. import posterior
from ..core import checked_methods
from .base import Model
from .cells import asked
from .keys import offers_key

__all__ = ["EmbeddingMixin"]


@checked_methods
class EmbeddingMixin(Model):
    """Embedding of batches, for models made with ``batch_representation="embedding"``."""

    @offers_key()
    def get_batch_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Learned embedding of each cell's batch.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`; nothing is drawn.

        Returns
        -------
        ``(n, k)``.

        Raises
        ------
        RuntimeError
            Before training.
        KeyError
            When the model has no such embedding.

        Examples
        --------
        >>> embedded = celbo.model.SCVI(adata, batch_representation="embedding")
        >>> embedded.train(max_epochs=1, verbose=0)
        >>> embedded.get_batch_representation().shape
        (400, 5)
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, dataloader)
        return posterior.batch_representation(self.module, cells.batches, n_cells=cells.n_cells)
