"""SpotStatesMixin: the state of each cell type in each spot. No logic here: :mod:`celbo.posterior` answers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..core import checked_methods, position_of
from ..posterior.deconvolution import spot_gamma, type_profile
from .base import Model
from .cells import Asked, asked
from .keys import offers_key

__all__ = ["SpotStatesMixin"]


@checked_methods
class SpotStatesMixin(Model):
    """States of the cell types in spots, and their expression in these states.

    Attributes
    ----------
    cell_type_mapping
        Names of the cell types, ``(c,)``.
    """

    cell_type_mapping: np.ndarray

    @offers_key()
    def get_gamma(
        self,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_numpy: bool = False,
        *,
        key_added: str | None = None,
    ) -> np.ndarray | dict[str, pd.DataFrame]:
        """State of each cell type in each spot, in the latent space of the single cells.

        Parameters
        ----------
        indices, batch_size, key_added
            See the class.
        return_numpy
            An array instead of frames.

        Returns
        -------
        For each type a frame of spots by latents; or ``(s, k, c)``.

        Examples
        --------
        >>> sorted(model.get_gamma())
        ['label_0', 'label_1', 'label_2']
        >>> model.get_gamma(return_numpy=True).shape
        (200, 5, 3)
        """
        cells = self._asked(indices, batch_size)
        gamma_skc = spot_gamma(self.module, cells.batches, n_cells=cells.n_cells)
        if return_numpy:
            return gamma_skc
        columns = [str(k) for k in range(gamma_skc.shape[1])]
        return {
            name: pd.DataFrame(gamma_skc[:, :, c], index=cells.names, columns=columns)
            for c, name in enumerate(self.cell_type_mapping)
        }

    @offers_key("features")
    def get_scale_for_ct(
        self,
        label: str,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        r"""Expression of a cell type in the state that it has in each spot, whether the spot has such cells or not.

        Parameters
        ----------
        label, indices, batch_size
            See the class.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Spots by genes: the type's :math:`h_g(\gamma_{sc}, c)`, before it is multiplied by proportion and library.

        Examples
        --------
        >>> model.get_scale_for_ct("label_0").shape
        (200, 100)
        """
        code = self._code_of(label)
        cells = self._asked(indices, batch_size)
        scale_sg = type_profile(self.module, cells.batches, code, n_cells=cells.n_cells)
        return pd.DataFrame(scale_sg, index=cells.names, columns=self.get_var_names())

    def get_expression_for_ct(
        self,
        label: str,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_sparse_array: bool = False,
    ) -> pd.DataFrame | sp.csr_matrix:
        """Counts of each spot that come from a cell type.

        Parameters
        ----------
        label, indices, batch_size
            See the class.
        return_sparse_array
            A CSR matrix instead of a frame.

        Returns
        -------
        Spots by genes: each count times the share that the type has in its expectation.

        Examples
        --------
        >>> model.get_expression_for_ct("label_0", indices=range(50)).shape
        (50, 100)
        """
        code = self._code_of(label)
        cells = self._asked(indices, batch_size)
        counts_sg = type_profile(self.module, cells.batches, code, as_counts=True, n_cells=cells.n_cells)
        if return_sparse_array:
            return sp.csr_matrix(counts_sg)
        return pd.DataFrame(counts_sg, index=cells.names, columns=self.get_var_names())

    def _asked(self, indices: Sequence[int] | None, batch_size: int | None) -> Asked:
        self._check_if_trained(warn=False)
        return asked(self, None, indices, batch_size)

    def _code_of(self, label: str) -> int:
        return position_of(label, list(self.cell_type_mapping), "cell type")
