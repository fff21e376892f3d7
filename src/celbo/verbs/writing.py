"""Denoised expression of more cells than memory holds, written to a file as it is computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor

from ..core import checked_methods
from ..data import data_registry_of
from ..data.modalities import gathered_obs, without_notes
from ..posterior import gene_columns, normalized_blocks
from ..store.writing.matrix import matrix_writer
from .base import Model
from .cells import asked, codes_of_batches
from .outputs import names_of, output_of

__all__ = ["ExpressionWriterMixin", "features_of"]


def features_of(model: Model, data: AnnData, key: str, names: Sequence[str] | np.ndarray) -> pd.DataFrame:
    """The user's table of some features, which has columns where the data have the features in ``var``.

    Parameters
    ----------
    model
        The model.
    data
        An AnnData or MuData that it knows.
    key
        Registry key of the matrix whose features these are.
    names
        Their names.
    """
    modality = data_registry_of(model.registry_)[key].get("mod_key")
    var, wanted = (data if modality is None else data.mod[modality]).var, pd.Index(names)
    known = var.index.is_unique and wanted.isin(var.index).all()
    return without_notes(var).loc[wanted] if known else pd.DataFrame(index=wanted)


@checked_methods
class ExpressionWriterMixin(Model):
    """``write_normalized_expression`` of models of counts."""

    def write_normalized_expression(
        self,
        path: str | Path,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        n_samples: int = 1,
        batch_size: int | None = None,
        overwrite: bool = False,
        *,
        output: str | None = None,
        seed: int | None = None,
    ) -> Path:
        """Write denoised expression straight to an AnnData file; memory holds one minibatch of it.

        Parameters
        ----------
        path
            File to write, ``.h5ad`` or ``.zarr``: ``X`` dense float32 ``(n, g)``, with the user's columns of ``obs``
            and ``var`` (of a MuData also those of its modalities). It is there whole or not at all.
        adata, indices, transform_batch, gene_list, library_size, n_samples, batch_size, output, seed
            As of ``get_normalized_expression``; draws are averaged.
        overwrite
            Whether a file that is there may be replaced.

        Returns
        -------
        The path.

        Raises
        ------
        FileExistsError
            A file is there and may not be replaced.
        ValueError
            An unknown batch, no known gene, or another suffix.

        Examples
        --------
        >>> model.write_normalized_expression("denoised.h5ad", library_size=1e4).name
        'denoised.h5ad'
        """
        cells = asked(self, adata, indices, batch_size)
        wanted = output_of(self, output)
        names = names_of(self, wanted).astype(object)
        genes = gene_columns(gene_list, names)
        codes = codes_of_batches(self, transform_batch)
        assert cells.adata is not None
        assert cells.cells is not None
        all_in_order = indices is None  # then nothing is copied: names and columns may lie on disk
        obs = gathered_obs(cells.adata)
        obs = obs if all_in_order else obs.iloc[cells.cells].copy()
        var = features_of(self, cells.adata, wanted.data, names if genes is None else names[genes])
        outputs = [wanted.at_library(library_size)]
        options: dict[str, Any] = {"transform_batch": codes, "columns": genes, "n_samples": n_samples, "seed": seed}
        blocks = normalized_blocks(self.module, cells.batches, outputs, **options)
        with matrix_writer(path, obs, var, overwrite=overwrite) as writer:
            for block in blocks:
                writer.append(block.cpu().numpy() if isinstance(block, Tensor) else block)
        return Path(path)
