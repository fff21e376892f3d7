"""SCBASSET: cells and the activity of transcription factors, from the sequences of open chromatin (scATAC-seq).

Reference: Yuan and Kelley, *scBasset: sequence-based modeling of single-cell ATAC-seq using convolutional neural
networks*, Nature Methods 2022.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from ...core import REGISTRY_KEYS, ArgumentError
from ...core.kinds import Number, Text, Whole
from ...data.fields import CategoricalVarField, LayerField, bundles
from ...model.base import BaseModelClass, UnsupervisedTrainingMixin, setup_method
from ...ops.random import fresh_seed
from ...posterior.passes import device_of, evaluating
from ...train.method import PASSED_ON, SPLIT, WHERE, Argument, training
from ...verbs.keys import offers_key
from .dna import SequenceField
from .module import DNA_CODE_KEY, ScBassetModule
from .motifs import Motif, injected, motif_chances, of_files, shuffled
from .plan import RankingPlan

__all__ = ["SCBASSET"]

_MOST_REGIONS = 2000
"""Regions whose bases say how often one follows another."""

_OWN = {
    "early_stopping_monitor": Argument(str, "What early stopping looks at, and whether it is to fall or to rise."),
    "early_stopping_mode": Argument(
        Literal["min", "max"], "What early stopping looks at, and whether it is to fall or to rise."
    ),
}


class SCBASSET(UnsupervisedTrainingMixin, BaseModelClass):
    r"""Convolutional network from the sequence of a region to the cells in which it is open.

    .. math:: [x_{rn} > 0] \sim \mathrm{Bernoulli}\bigl(\sigma(\mathrm{tower}(s_r) \cdot e_n + a_n)\bigr)

    Parameters
    ----------
    adata
        Regions by cells, set up with :meth:`setup_anndata`.
    n_bottleneck_layer
        Dimensions of the embedding of a cell.
    l2_reg_cell_embedding
        Weight of the mean squared embedding; small ones help where cells are of several batches.
    **model_kwargs
        Further arguments of :class:`~celbo.external.scbasset.ScBassetModule`: ``n_filters_init``,
        ``n_repeat_blocks_tower``, ...

    Raises
    ------
    ArgumentError
        Sequences that are too short for the tower.

    Examples
    --------
    >>> import anndata, celbo, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> adata = anndata.AnnData((rng.random((60, 20)) < 0.3).astype("float32"))  # regions by cells
    >>> adata.obsm["dna_code"] = rng.integers(0, 4, (60, 96))
    >>> celbo.external.SCBASSET.setup_anndata(adata, dna_code_key="dna_code")
    >>> model = celbo.external.SCBASSET(adata, 4, n_filters_init=8, n_repeat_blocks_tower=2)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation().shape
    (20, 4)
    """

    _module_cls: ClassVar[type[ScBassetModule]] = ScBassetModule
    _training_plan_cls: ClassVar[type[RankingPlan]] = RankingPlan
    _sizes: ClassVar[Mapping[str, str]] = {"n_cells": "n_vars", "sequence_length": f"n_{DNA_CODE_KEY}"}
    # gradients of a mean over cells are small: under scvi-tools' eps of 0.01 the tower hardly moves
    _own_recipe: ClassVar[Mapping[str, Any]] = {"max_epochs": None, "lr": 1e-2, "eps": 1e-8, "early_stopping": False}

    def __init__(
        self,
        adata: AnnData,
        n_bottleneck_layer: Annotated[int, Whole(1)] = 32,
        l2_reg_cell_embedding: Annotated[float, Number(0)] = 0.0,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def _computed_arguments(self) -> dict[str, Any]:
        return {"batch_ids": self._batches_of_cells()}

    def _batches_of_cells(self) -> np.ndarray | None:
        """Codes of the cells' batches; None where there is only one."""
        n_batch = self.summary_stats["n_batch"]
        if n_batch < 2:
            return None
        if self.adata is None:  # an archive has the codes themselves
            return np.arange(self.summary_stats["n_vars"]) % n_batch
        return np.asarray(self.data_registry(REGISTRY_KEYS.BATCH_KEY)).reshape(-1, 1)

    train = training(
        {"max_epochs": 1000, "lr": 0.01},
        WHERE,
        SPLIT,
        {"batch_size": 128, "early_stopping": True, "early_stopping_monitor": "auroc_train"},
        {"early_stopping_mode": "max", "early_stopping_min_delta": 1e-6},
        PASSED_ON,
        own=_OWN,
    )

    @offers_key(of="var")
    def get_latent_representation(self, *, key_added: str | None = None) -> np.ndarray:
        """Embedding of each cell, ``(n, k)``, apart from that of its batch.

        Parameters
        ----------
        key_added
            Write the answer into the data too, under this key of ``adata.varm``; None: write nothing.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_latent_representation().shape
        (20, 4)
        """
        self._check_if_trained(warn=False)
        return self.module.cell_embedding.detach().cpu().numpy().T

    @offers_key(of="var")
    def get_cell_bias(self, *, key_added: str | None = None) -> np.ndarray:
        """Log odds of a region to be open in each cell, all else equal, ``(n,)``.

        Parameters
        ----------
        key_added
            Write the answer into the data too, under this key of ``adata.var``; None: write nothing.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_cell_bias().shape
        (20,)
        """
        self._check_if_trained(warn=False)
        return self.module.cell_bias.detach().cpu().numpy()

    @offers_key(of="var")
    def get_tf_activity(
        self,
        tf: Annotated[str, Text()],
        genome: Annotated[str, Text()] = "human",
        motif_dir: str | Path | None = None,
        lib_size_norm: bool | None = True,
        batch_size: Annotated[int, Whole(1)] = 256,
        *,
        motif: Motif | None = None,
        n_sequences: Annotated[int, Whole(1)] = 1000,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """How much more open a region becomes in each cell when the motif of a transcription factor is inserted.

        Parameters
        ----------
        tf
            Name of the factor.
        genome
            Species, for files below ``motif_dir``.
        motif_dir
            Folder with ``shuffled_peaks.fasta`` and ``shuffled_peaks_motifs/{tf}.fasta``. Nothing is downloaded.
        lib_size_norm
            Accepted for compatibility with scvi-tools: a cell's openness is the same with and without the motif.
        batch_size
            Sequences per minibatch.
        motif
            Instead of files: the motif in IUPAC letters (``"TGASTCA"``), or chances or counts of A, C, G and T at each
            base, ``(bases, 4)``. It is put into the middle of sequences drawn from the pairs of bases of the regions.
        n_sequences
            How many such sequences.
        seed
            Of them; None: ``celbo.settings.seed``, or fresh randomness.
        key_added
            As in :meth:`get_cell_bias`.

        Returns
        -------
        ``(n,)``, with mean 0 and standard deviation 1 over the cells.

        Raises
        ------
        ArgumentError
            Neither a motif nor files of it; sequences of another length than the model's.

        Examples
        --------
        >>> model.get_tf_activity("AP-1", motif="TGASTCA", n_sequences=20, seed=0).shape
        (20,)
        """
        self._check_if_trained(warn=False)
        length = self.module.sequence_length
        rng = np.random.default_rng(fresh_seed(seed))
        if motif is not None:
            background = shuffled(self._some_sequences(), n_sequences, rng)
            changed = injected(background, motif_chances(motif), rng)
        elif motif_dir is not None:
            background, changed = of_files(Path(motif_dir), tf, genome, length)
        else:
            raise ArgumentError(f"Give motif=, that of {tf}, or motif_dir=, a folder of files. Nothing is downloaded.")
        change_n = self._openness(changed, batch_size) - self._openness(background, batch_size)
        return (change_n - change_n.mean()) / max(change_n.std(), np.finfo(change_n.dtype).tiny)

    def _some_sequences(self) -> np.ndarray:
        codes = self.data_registry(DNA_CODE_KEY)
        rows = np.unique(np.linspace(0, len(codes) - 1, _MOST_REGIONS).astype(int))
        return np.asarray(codes)[rows].astype(np.uint8)

    def _openness(self, codes_sl: np.ndarray, batch_size: int) -> np.ndarray:
        """Mean log odds over sequences of being open in each cell, apart from batch and openness, ``(n,)``."""
        total: Tensor | float = 0.0
        with evaluating(self.module):
            for some in torch.as_tensor(codes_sl, device=device_of(self.module)).split(batch_size):
                total = total + self.module.inference(some)["region_embedding"].double().sum(0)
            per_cell = (total / len(codes_sl)) @ self.module.cell_embedding.double()
        return per_cell.cpu().numpy()

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        dna_code_key: str,
        layer: str | None = None,
        batch_key: str | None = None,
    ) -> bundles.Fields:
        """Register regions by cells.

        Parameters
        ----------
        adata
            Regions in rows, cells in columns: what other models take, transposed (``adata.T``). A region is open in a
            cell where its number is not 0.
        dna_code_key
            Key of ``adata.obsm`` with the sequence of each region: 0 to 3 for A, C, G, T, 4 for N.
        layer
            Layer with the matrix; None: ``X``.
        batch_key
            Column of ``adata.var`` with the batch of each cell.

        Raises
        ------
        ArgumentError
            Numbers that are not codes of bases.
        """
        return [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True, axes=("regions", "cells")),
            SequenceField(DNA_CODE_KEY, dna_code_key),
            CategoricalVarField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        ]
