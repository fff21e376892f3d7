"""Decipher: cell states in two readable dimensions, and the time and genes of trajectories through them.

Reference: Nazaret, Fan, Lavallée, Burdziak, Cornish, Kiseliovas, Bowman, Masilionis, Chun, Eisman, Wang, Hong, Shi,
Levine, Mazutis, Blei, Pe'er and Azizi, *Joint representation and visualization of derailed cell states with Decipher*,
bioRxiv 2023.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from anndata import AnnData
from torch import Tensor

from ...core import REGISTRY_KEYS, ArgumentError, unknown_name
from ...core.kinds import Number, Text, Whole
from ...data.fields import bundles
from ...model.base import BaseModelClass, UnsupervisedTrainingMixin, VAEMixin, setup_method
from ...posterior.passes import Rows, evaluating, on_device
from ...train.method import NO_PYRO, PASSED_ON, SPLIT, training, without_pyro
from ...verbs.cells import asked
from ...verbs.keys import offers_key
from .lookup import column_of, latents_of
from .module import DecipherModule
from .patterns import covariances, gene_patterns, time_of
from .utils import Trajectory

__all__ = ["Decipher"]


class Decipher(VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Autoencoder of counts with two stacked latent spaces, the upper of which can be drawn and read.

    .. math:: v_n \sim N(0, I_2), \qquad z_n \mid v_n \sim N\bigl(\mu(v_n), \sigma(v_n)\bigr), \qquad
              x_n \mid z_n \sim \mathrm{NB}\bigl(\ell_n\,\mathrm{softmax}(f(z_n)), \theta\bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    **kwargs
        Arguments of :class:`~celbo.external.decipher.DecipherModule`: ``dim_v``, ``dim_z``, ``layers_v_to_z``,
        ``layers_z_to_x``, ``beta``.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.external.Decipher.setup_anndata(adata)
    >>> model = celbo.external.Decipher(adata)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_latent_representation().shape
    (400, 2)
    """

    _module_cls: ClassVar[type[DecipherModule]] = DecipherModule
    _sizes: ClassVar[Mapping[str, str]] = {"dim_genes": "n_vars"}
    _recipe: ClassVar[str | None] = "long_cycle"  # lineages come apart late: ELBO 1884 against 1901 of one_cycle
    _plan_defaults: Mapping[str, Any] = MappingProxyType({"eps": 1e-8, "weight_decay": 0.0})

    def __init__(self, adata: AnnData, **kwargs: Any) -> None:
        super().__init__(adata)
        self._build_module()

    train = training(
        {"max_epochs": None, "accelerator": "auto", "device": "auto"},
        SPLIT,
        {"train_size": 0.9, "batch_size": 128, "early_stopping": False, "training_plan": None},
        PASSED_ON,
        own={"training_plan": NO_PYRO},
        prepare=without_pyro,
    )

    @offers_key()
    def get_latent_representation(  # type: ignore[override]  # arguments as in scvi-tools
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        give_z: bool = False,
        *,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Posterior mean of v, the readable dimensions, or of z, the latents.

        Parameters
        ----------
        adata, indices, batch_size, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        give_z
            z and not v.

        Returns
        -------
        ``(n, dim_v)``, or ``(n, dim_z)``.

        Examples
        --------
        >>> model.get_latent_representation(give_z=True).shape
        (400, 10)
        """
        return self._of_cells(adata, indices, batch_size, lambda x: self.module.locations(x)[0 if give_z else 1])

    @offers_key("features")
    def compute_imputed_gene_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        compute_covariances: bool = False,
        v_obsm_key: Annotated[str | None, Text()] = None,
        z_obsm_key: Annotated[str | None, Text()] = None,
        *,
        key_added: str | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expected counts of each cell at its latents.

        Parameters
        ----------
        adata, indices, batch_size, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        compute_covariances
            Give the covariance of each gene with v and with z too.
        v_obsm_key, z_obsm_key
            Keys of ``adata.obsm`` of v and z for the covariances, rotated maybe; None: as the model has them.

        Returns
        -------
        ``(n, g)``; with ``compute_covariances`` also ``(g, dim_v)`` and ``(g, dim_z)``.

        Raises
        ------
        ArgumentError
            A key that ``adata.obsm`` does not have.

        Examples
        --------
        >>> model.compute_imputed_gene_expression(indices=range(50)).shape
        (50, 100)
        """
        expression_ng = self._of_cells(adata, indices, batch_size, self.module.expected_counts)
        if not compute_covariances:
            return expression_ng
        data = self._validate_anndata(adata)
        rows = slice(None) if indices is None else indices
        v, z = (
            self.get_latent_representation(data, indices, batch_size, is_z)
            if key is None
            else latents_of(data, key)[rows]
            for is_z, key in ((False, v_obsm_key), (True, z_obsm_key))
        )
        return expression_ng, covariances(expression_ng, v), covariances(expression_ng, z)

    @staticmethod
    def compute_decipher_time(
        adata: AnnData,
        cluster_obs_key: Annotated[str, Text()],
        trajectory: Trajectory,
        n_neighbors: Annotated[int, Whole(1)] = 10,
    ) -> np.ndarray:
        """Place of each cell on a trajectory: the mean time of the points that are nearest to the cell.

        Parameters
        ----------
        adata
            Cells, with the trajectory's latent space in ``adata.obsm``.
        cluster_obs_key
            Column of ``adata.obs`` with the cluster of each cell.
        trajectory
            A way through clusters.
        n_neighbors
            Points that are averaged.

        Returns
        -------
        ``(n,)``; NaN for cells of clusters that the trajectory does not go through.

        Raises
        ------
        ArgumentError
            A column, a key or a cluster that is not there.

        Examples
        --------
        >>> adata.obsm["v"] = model.get_latent_representation()
        >>> from celbo.external.decipher.utils import Trajectory
        >>> way = Trajectory("v", [[0.0, 0.0], [1.0, 0.5]], ["label_0", "label_1"])
        >>> model.compute_decipher_time(adata, "labels", way).shape
        (400,)
        """
        clusters = column_of(adata, cluster_obs_key)
        missing = [name for name in trajectory.cluster_ids if not (clusters == name).any()]
        if missing:
            raise ArgumentError(unknown_name(f"cluster in {cluster_obs_key!r}", missing[0], list(clusters.unique())))
        on_the_way = clusters.isin(trajectory.cluster_ids).to_numpy()
        time_n = np.full(adata.n_obs, np.nan)
        time_n[on_the_way] = time_of(latents_of(adata, trajectory.rep_key)[on_the_way], trajectory, n_neighbors)
        return time_n

    def compute_gene_patterns(
        self,
        adata: AnnData,
        trajectory: Trajectory,
        l_scale: Annotated[float, Number(0, above=True)] = 10000,
        n_samples: Annotated[int, Whole(1)] = 100,
        *,
        seed: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Expression of each gene along a trajectory through v.

        Parameters
        ----------
        adata
            Accepted for compatibility with scvi-tools: patterns are those of the trained decoders.
        trajectory
            A way through v as the model has it, not rotated.
        l_scale
            Library size.
        n_samples
            Draws of z at each point, for the quartiles.
        seed
            Of the draws; None: ``celbo.settings.seed``, or fresh randomness.

        Returns
        -------
        ``mean`` (at the mean of z), ``q25`` and ``q75``, each ``(p, g)`` for the p points, and their ``times``
        ``(p,)``.

        Raises
        ------
        ArgumentError
            A trajectory through another space.

        Examples
        --------
        >>> from celbo.external.decipher.utils import Trajectory
        >>> way = Trajectory("v", [[0.0, 0.0], [1.0, 0.5]], ["label_0", "label_1"])
        >>> sorted(model.compute_gene_patterns(adata, way, n_samples=5))
        ['mean', 'q25', 'q75', 'times']
        """
        self._check_if_trained(warn=False)
        width = trajectory.trajectory_latent.shape[1]
        if width != self.module.dim_v:
            raise ArgumentError(
                f"trajectory goes through {width} dimensions, v has {self.module.dim_v}: make it from the v that "
                "get_latent_representation gives."
            )
        return gene_patterns(self.module, trajectory, l_scale, n_samples, seed)

    def _of_cells(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
        answer: Callable[[Tensor], Tensor],
    ) -> np.ndarray:
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size)
        rows = Rows(cells.n_cells)
        with evaluating(self.module):
            for tensors in on_device(cells.batches, self.module):
                rows.append(answer(tensors[REGISTRY_KEYS.X_KEY]))
        return rows.array()

    @classmethod
    @setup_method
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, *, use_raw: bool = False) -> bundles.Fields:
        """Register an AnnData with counts."""
        return bundles.counts(layer, use_raw)
