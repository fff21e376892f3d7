"""AmortizedLDA: topics of cells and the genes of each topic.

Reference: Blei, Ng and Jordan, *Latent Dirichlet allocation*, Journal of Machine Learning Research 2003.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import posterior
from ..core import REGISTRY_KEYS, ArgumentError
from ..data.fields import bundles
from ..module import AmortizedLDAModule
from ..posterior.passes import evaluating, on_device
from ..train import merge_kwargs
from ..train.method import NO_PYRO, SPLIT, training, without_pyro
from ..train.recipes import default_recipe
from ..verbs.cells import asked
from ..verbs.keys import offers_key
from .base import BaseModelClass, UnsupervisedTrainingMixin, setup_method

__all__ = ["AmortizedLDA"]

_ONE_CYCLE_LR = 5e-2
"""Topics are parameters of their own: at the recipe's 2e-2 they have not settled after its 700 steps."""


class AmortizedLDA(UnsupervisedTrainingMixin, BaseModelClass):
    r"""Latent Dirichlet allocation: each cell is a mixture of topics, each topic a distribution over features.

    .. math::
        \beta_k \sim \mathrm{Dir}(\eta), \qquad \theta_n \sim \mathrm{Dir}(\alpha), \qquad
        x_{n} \sim \mathrm{Multinomial}\Bigl(\sum_k \theta_{nk} \beta_k\Bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_topics, n_hidden, cell_topic_prior, topic_feature_prior
        See :class:`~celbo.module.AmortizedLDAModule`.

    Raises
    ------
    ArgumentError
        There is one feature only.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.AmortizedLDA.setup_anndata(adata)
    >>> model = celbo.model.AmortizedLDA(adata, n_topics=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_feature_by_topic(n_samples=10).shape
    (100, 5)
    """

    _module_cls: ClassVar[type[AmortizedLDAModule]] = AmortizedLDAModule
    _plan_defaults: Mapping[str, Any] = MappingProxyType({"eps": 1e-8, "weight_decay": 0.0})  # Pyro's Adam

    def __init__(
        self,
        adata: AnnData,
        n_topics: int = 20,
        n_hidden: int = 128,
        cell_topic_prior: float | Sequence[float] | None = None,
        topic_feature_prior: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(adata)
        if self.summary_stats["n_vars"] < 2:
            raise ArgumentError("Topics are shares of features, and there is one feature: take two or more.")
        self._build_module()

    def _options_of_training(self, options: dict[str, Any]) -> dict[str, Any]:
        options = without_pyro(self, options)
        recipe = options.get("recipe") or default_recipe(type(self), self._training_plan_cls)
        if options["lr"] is None:
            del options["lr"]
            return options if recipe == "classic" else options | {"lr": _ONE_CYCLE_LR}
        given = merge_kwargs(options.pop("plan_config"), options["plan_kwargs"], name="plan")
        return options | {"plan_kwargs": given | {"lr": options["lr"]}}

    train = training(
        {"max_epochs": None, "accelerator": "auto", "device": "auto"},
        SPLIT,
        {"batch_size": 128, "early_stopping": False, "lr": None, "training_plan": None, "datasplitter_kwargs": None},
        {"plan_config": None, "plan_kwargs": None, "trainer_config": None},
        own={"training_plan": NO_PYRO},
        prepare=_options_of_training,
    )

    def get_feature_by_topic(self, n_samples: int = 5000, *, seed: int | None = None) -> pd.DataFrame:
        """Features of each topic, averaged over draws from the posterior.

        Parameters
        ----------
        n_samples
            Draws.
        seed
            Of the draws; None: ``celbo.settings.seed``, and fresh randomness where that is None too.

        Returns
        -------
        ``(g, k)``, rows by feature name, columns ``topic_0``, ``topic_1``, ... that sum to 1.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_feature_by_topic(n_samples=10).shape[0]
        100
        """
        self._check_if_trained(warn=False)
        with evaluating(self.module, seed):
            features_kg = self.module.topic_by_feature(n_samples)
        return pd.DataFrame(features_kg.cpu().numpy().T, index=self.get_var_names(), columns=self._topics())

    @offers_key()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        n_samples: int = 5000,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Topics of each cell, averaged over draws from the posterior.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws.

        Returns
        -------
        ``(n, k)``, rows by cell name that sum to 1, columns ``topic_0``, ``topic_1``, ...

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> topics = model.get_latent_representation(n_samples=10)
        >>> float(topics.sum(1).round(3).max())
        1.0
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size)
        topics_nk = posterior.latent_representation(
            self.module, cells.batches, mc_samples=n_samples, n_cells=cells.n_cells, seed=seed
        )
        return pd.DataFrame(topics_nk, index=cells.names, columns=self._topics())

    def get_elbo(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
    ) -> float:
        """Evidence lower bound of all the cells together in nats, larger is better.

        Parameters
        ----------
        adata, indices, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        The bound, below 0. The topics' divergence enters by the share of these cells in the training data (at most 1).
        scvi-tools 1.4.2 returns it with the other sign.

        Examples
        --------
        >>> model.get_elbo(seed=0) < 0
        True
        """
        return self._elbo_and_counts(adata, indices, batch_size, seed)[0]

    def get_perplexity(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
    ) -> float:
        r"""Perplexity, :math:`\exp(-\mathrm{ELBO} / \sum_{ng} x_{ng})`, smaller is better.

        Parameters
        ----------
        adata, indices, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Number of equally likely features that would surprise as much; scvi-tools 1.4.2 returns its reciprocal.

        Examples
        --------
        >>> bool(model.get_perplexity() > 1)
        True
        """
        elbo, n_counts = self._elbo_and_counts(adata, indices, batch_size, seed)
        return float(np.exp(-elbo / n_counts))

    def _elbo_and_counts(
        self, adata: object, indices: object, batch_size: int | None, seed: int | None
    ) -> tuple[float, float]:
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size)
        loss = n_counts = kl_global = 0.0
        with evaluating(self.module, seed):
            for tensors in on_device(cells.batches, self.module):
                record = self.module(tensors)[2]
                loss += float(record.reconstruction_loss_sum.double() + record.kl_local_sum.double())
                n_counts += float(tensors[REGISTRY_KEYS.X_KEY].double().sum())
                kl_global = float(record.kl_global_sum)
        share = min(1.0, cells.require_cells("get_elbo").size / self.summary_stats["n_cells"])
        return -(loss + share * kl_global), n_counts

    def _topics(self) -> list[str]:
        return [f"topic_{k}" for k in range(self.module.n_topics)]

    @classmethod
    @setup_method
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, *, use_raw: bool = False) -> bundles.Fields:
        """Register an AnnData with counts."""
        return bundles.counts(layer, use_raw)
