"""DRVI: latent dimensions that stand for one process each, and the genes of each.

Reference: Moinfar and Theis, *Unsupervised deep disentangled representation of single-cell omics*, bioRxiv 2024.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError, checked_methods, unknown_name
from ...core.kinds import Number, Whole
from ...model import SCVI
from ...model.base import Registry
from ...verbs.cells import asked
from .decoder import Aggregation, SplitMethod
from .effects import effects_at_extremes, effects_in_cells, reconstruction_effects
from .module import DRVIModule, SplitLikelihood

__all__ = ["DRVI"]

_SIDES = ("+", "-")
_CELLS_DECODED = 64


@checked_methods
class DRVI(SCVI):
    r"""Variational autoencoder of UMI counts whose latents are decoded apart, so that each stands for one process.

    .. math::
        z_n \sim N(0, I), \qquad x_{ng} \mid z_n \sim \mathrm{NB}\Bigl(\ell_n\,
            \mathrm{softmax}_g\bigl(\log \textstyle\sum_s e^{f_g(z_{ns}, b_n)}\bigr),\; \theta_g\Bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    registry
        See :class:`~celbo.model.SCVI`.
    n_latent
        Number of latents, more than there are processes: those that are not needed vanish.
    n_split_latent
        Number of splits, which divides ``n_latent``; None: one for each latent.
    split_method
        ``"split_map"`` or ``"split_mask"``, see :class:`~celbo.external.drvi.DecoderDRVI`.
    split_aggregation
        ``"logsumexp"``: the splits' expression adds up; ``"sum"``: its logarithm.
    gene_likelihood
        ``"pnb"`` (negative binomial), ``"nb"``, ``"zinb"``, ``"poisson"`` or ``"normal"``.
    **kwargs
        Further arguments of :class:`~celbo.external.drvi.DRVIModule`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.external.DRVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.external.DRVI(adata, n_latent=6)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> embed = model.get_embedding()
    >>> model.calculate_interpretability_scores(embed)
    >>> model.get_interpretability_scores(embed).shape
    (100, 12)
    """

    _module_cls: ClassVar[type[DRVIModule]] = DRVIModule
    # A step's time is that of its cells, once for each split; it is the number of steps that the ELBO depends on.
    _most_cells_a_batch: ClassVar[int] = 32
    _LATENT_QZM_KEY, _LATENT_QZV_KEY = "drvi_latent_qzm", "drvi_latent_qzv"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: Registry | None = None,
        n_latent: int = 32,
        n_split_latent: Annotated[int | None, Whole(-1)] = None,
        split_method: SplitMethod = "split_map",
        split_aggregation: Aggregation = "logsumexp",
        gene_likelihood: SplitLikelihood = "pnb",
        **kwargs: Any,
    ) -> None:
        super(SCVI, self).__init__(adata, registry)
        self._build_module()

    def get_embedding(self, adata: AnnData | None = None, *, batch_size: int | None = None) -> AnnData:
        """Latents as an AnnData of cells by factors, with :meth:`set_latent_dimension_stats` of each.

        Parameters
        ----------
        adata, batch_size
            See :class:`~celbo.model.base.VAEMixin`.

        Examples
        --------
        >>> model.get_embedding().shape
        (400, 6)
        """
        z_nk = self.get_latent_representation(adata, batch_size=batch_size)
        known = asked(self, adata)
        assert known.adata is not None
        embed = AnnData(np.asarray(z_nk), obs=known.adata.obs.copy())
        self.set_latent_dimension_stats(embed, adata=adata, batch_size=batch_size)
        return embed

    def set_latent_dimension_stats(
        self,
        embed: AnnData,
        vanished_threshold: Annotated[float, Number(0)] = 0.1,
        *,
        adata: AnnData | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Write statistics of each latent to ``embed.var``.

        Parameters
        ----------
        embed
            Latents of cells in ``X``, see :meth:`get_embedding`.
        vanished_threshold
            A latent that is nowhere farther from 0 has vanished.
        adata, batch_size
            The cells, see :class:`~celbo.model.base.VAEMixin`.

        Notes
        -----
        Columns: ``original_dim_id``, its number; ``min``, ``max``, ``mean``, ``std`` and ``max_value`` (the largest
        absolute one); ``reconstruction_effect``, how much of the expression changes without its split, see
        :func:`~celbo.external.drvi.effects.reconstruction_effects`; ``order``, 0 for the largest; ``title``, that one's
        being ``"DR 1"``; ``vanished``, and of sides ``vanished_positive_direction``, ``vanished_negative_direction``.

        Examples
        --------
        >>> embed = model.get_embedding()
        >>> model.set_latent_dimension_stats(embed)
        >>> embed.var["reconstruction_effect"].shape
        (6,)
        """
        z_nk, k = self._latents_of(embed), self.module.n_latent
        cells = asked(self, adata, None, batch_size)
        effect_k = np.repeat(reconstruction_effects(self.module, cells.batches), k // self.module.n_split)
        low_k, high_k = z_nk.min(0), z_nk.max(0)
        order_k = np.empty(k, int)
        order_k[np.argsort(-effect_k, kind="stable")] = np.arange(k)
        columns: Mapping[str, Any] = {
            "original_dim_id": np.arange(k),
            "reconstruction_effect": effect_k,
            "order": order_k,
            "max_value": np.abs(z_nk).max(0),
            "mean": z_nk.mean(0),
            "min": low_k,
            "max": high_k,
            "std": z_nk.std(0),
            "title": [f"DR {i + 1}" for i in order_k],
            "vanished": np.abs(z_nk).max(0) < vanished_threshold,
            "vanished_positive_direction": high_k < vanished_threshold,
            "vanished_negative_direction": low_k > -vanished_threshold,
        }
        for name, values in columns.items():
            embed.var[name] = values

    def calculate_interpretability_scores(
        self,
        embed: AnnData,
        methods: Literal["OOD", "IND", "ALL"] = "OOD",
        add_to_counts: Annotated[float, Number(0, above=True)] = 1.0,
        *,
        adata: AnnData | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Write the effect of each latent on each gene to ``embed.varm``, see :mod:`celbo.external.drvi.effects`.

        Parameters
        ----------
        embed
            Latents of cells, see :meth:`get_embedding`.
        methods
            ``"OOD"``: a latent at its extremes, all others being 0; ``"IND"``: with and without it in the cells that
            have it; ``"ALL"``: both.
        add_to_counts
            Pseudocount of expression per 10,000.
        adata, batch_size
            The cells, see :class:`~celbo.model.base.VAEMixin`.

        Notes
        -----
        Entries ``"OOD+"``, ``"OOD-"``, ``"IND+"``, ``"IND-"``, latents by genes: natural log fold changes at positive
        and at negative latents.

        Examples
        --------
        >>> model.calculate_interpretability_scores(embed)
        >>> sorted(embed.varm)
        ['OOD+', 'OOD-']
        """
        z_nk, repeats = self._latents_of(embed), self.module.n_latent // self.module.n_split
        cells = asked(self, adata, None, batch_size)
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if methods in ("OOD", "ALL"):
            rows = cells.require_cells("calculate_interpretability_scores")
            some = rows[np.linspace(0, len(rows) - 1, min(_CELLS_DECODED, len(rows))).astype(int)]
            tensors = next(iter(self._make_data_loader(cells.adata, indices=some, batch_size=len(some))))
            extremes = np.minimum(z_nk.min(0), 0), np.maximum(z_nk.max(0), 0)
            found["OOD"] = effects_at_extremes(self.module, tensors, *extremes, add_to_counts)
        if methods in ("IND", "ALL"):
            found["IND"] = effects_in_cells(self.module, cells.batches, add_to_counts)
        for name, both in found.items():
            for side, effect_sg in zip(_SIDES, both, strict=True):
                embed.varm[f"{name}{side}"] = np.repeat(effect_sg, repeats, 0)

    def get_interpretability_scores(
        self, embed: AnnData, key: Literal["OOD", "IND"] = "OOD", *, hide_vanished: bool = False
    ) -> pd.DataFrame:
        """The scores that :meth:`calculate_interpretability_scores` wrote, as genes by factors.

        Parameters
        ----------
        embed
            Latents with these scores.
        key
            ``"OOD"`` or ``"IND"``.
        hide_vanished
            Leave out sides of latents that have vanished.

        Returns
        -------
        A column for each side of each latent, ``"DR 1+"``, ``"DR 1-"``, in the order of their effect.

        Raises
        ------
        ArgumentError
            ``embed`` has no such scores; the message says how to make them.

        Examples
        --------
        >>> model.get_interpretability_scores(embed).shape
        (100, 12)
        """
        for name in (f"{key}{side}" for side in _SIDES):
            if name not in embed.varm:
                there = list(map(str, embed.varm))
                raise ArgumentError(
                    f"{unknown_name('entry of embed.varm', name, there)} calculate_interpretability_scores(embed, "
                    f"methods={key!r}) makes it."
                )
        gone = {"+": "vanished_positive_direction", "-": "vanished_negative_direction"}
        columns = {}
        for k in np.argsort(embed.var["order"].to_numpy()):
            for side in _SIDES:
                if not (hide_vanished and embed.var[gone[side]].iloc[k]):
                    columns[f"{embed.var['title'].iloc[k]}{side}"] = np.asarray(embed.varm[f"{key}{side}"])[k]
        return pd.DataFrame(columns, index=self.get_var_names())

    def get_top_genes(
        self, embed: AnnData, n_genes: Annotated[int, Whole(1)] = 10, key: Literal["OOD", "IND"] = "OOD"
    ) -> pd.DataFrame:
        """Genes that each side of each factor raises most.

        Parameters
        ----------
        embed, key
            See :meth:`get_interpretability_scores`; sides that have vanished are left out.
        n_genes
            How many of each.

        Returns
        -------
        Columns ``factor``, ``gene``, ``score``, the largest score of each factor first.

        Examples
        --------
        >>> list(model.get_top_genes(embed, n_genes=3))
        ['factor', 'gene', 'score']
        """
        scores = self.get_interpretability_scores(embed, key, hide_vanished=True)
        tops = [(name, scores[name].nlargest(n_genes)) for name in map(str, scores)]
        rows = [(name, gene, score) for name, top in tops for gene, score in top.items()]
        return pd.DataFrame(rows, columns=["factor", "gene", "score"])

    def _latents_of(self, embed: AnnData) -> np.ndarray:
        z_nk = np.asarray(embed.X)
        if z_nk.ndim != 2 or z_nk.shape[1] != self.module.n_latent:
            raise ArgumentError(
                f"embed must have the {self.module.n_latent} latents of this model as columns, got shape {z_nk.shape}: "
                "model.get_embedding() makes it."
            )
        return z_nk
