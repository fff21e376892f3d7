"""Denoised expression of more cells than memory holds, written to a file as it is computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from anndata import AnnData
from torch import Tensor

from ..core import checked_methods
from ..posterior import gene_columns, normalized_blocks
from ..store.writing.matrix import matrix_writer
from .base import Model
from .cells import asked, codes_of_batches
from .outputs import names_of, output_of

__all__ = ["ExpressionWriterMixin"]


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
            File to write, ``.h5ad`` or ``.zarr``: ``X`` dense float32 ``(n, g)``, with ``obs`` and ``var`` of the cells
            and genes. It is there whole or not at all.
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
        all_in_order = indices is None  # then nothing is copied: names and columns may lie on disk
        obs = cells.adata.obs if all_in_order else cells.adata.obs.iloc[cells.cells].copy()
        var = pd.DataFrame(index=pd.Index(names if genes is None else names[genes]))
        outputs = [wanted.at_library(library_size)]
        options: dict[str, Any] = {"transform_batch": codes, "columns": genes, "n_samples": n_samples, "seed": seed}
        blocks = normalized_blocks(self.module, cells.batches, outputs, **options)
        with matrix_writer(path, obs, var, overwrite=overwrite) as writer:
            for block in blocks:
                writer.append(block.cpu().numpy() if isinstance(block, Tensor) else block)
        return Path(path)
