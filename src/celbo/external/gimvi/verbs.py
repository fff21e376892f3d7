"""GimviMixin: verbs of a model of two data sets; answers are lists with an entry for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor

from ...core import REGISTRY_KEYS, checked_methods
from ...core.kinds import OneOf
from ...data import AnnDataManager
from ...dataloaders import AnnDataLoader
from ...model.base.face import ModelFace, keep_manager, kept_manager
from ...posterior import EXPRESSION, gene_columns
from ...posterior.passes import Rows, evaluating, on_device
from ...verbs.base import answering_with
from ...verbs.cells import asked
from ...verbs.keys import offers_key
from ...verbs.outputs import names_of, normalized
from .module import OneSet

__all__ = ["GimviMixin"]

Answer = Callable[[int, Mapping[str, Tensor]], Tensor]


def _data_sets(model: "GimviMixin", given: Mapping[str, Any]) -> list[AnnData]:
    """The data sets that a verb is asked about, for what it writes into them."""
    return list(model.adatas if given.get("adatas") is None else given["adatas"])


@checked_methods
class GimviMixin(ModelFace):
    """Latents and expression of the cells of both data sets.

    Attributes
    ----------
    adatas
        The two data sets that the model was made with; none of a model that was loaded without data.
    registries_
        Registries of both.
    """

    adatas: list[AnnData]
    registries_: list[Mapping[str, object]]

    @offers_key(about=_data_sets)
    def get_latent_representation(
        self,
        adatas: list[AnnData] | None = None,
        deterministic: bool = True,
        batch_size: int = 128,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> list[np.ndarray]:
        """Latents of each cell of each data set.

        Parameters
        ----------
        adatas
            ``[dissociated cells, spatial cells]``, or one of the two that the model was made with; None: both.
        deterministic
            The mean of the posterior, or a draw.
        batch_size
            Cells per minibatch.
        seed
            Of the draws; None: ``celbo.settings.seed``, or fresh randomness.
        key_added
            Write each answer into its data set too, under this key of ``obsm``; None: write nothing.

        Returns
        -------
        An array ``(n, k)`` for each.

        Examples
        --------
        >>> [latent.shape for latent in model.get_latent_representation()]
        [(400, 10), (400, 10)]
        """

        def latents(mode: int, tensors: Mapping[str, Tensor]) -> Tensor:
            return self.module.sample_from_posterior_z(tensors[REGISTRY_KEYS.X_KEY], mode, deterministic)

        return self._of_each(adatas, batch_size, seed, latents)

    @offers_key(about=_data_sets)
    def get_imputed_values(
        self,
        adatas: list[AnnData] | None = None,
        deterministic: bool = True,
        normalized: bool = True,
        decode_mode: Annotated[int | None, OneOf((0, 1))] = None,
        batch_size: int = 128,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> list[np.ndarray]:
        """Expression of all genes in each cell of each data set.

        Parameters
        ----------
        adatas, deterministic, batch_size, seed, key_added
            As in :meth:`get_latent_representation`.
        normalized
            Shares of the library, or expected counts.
        decode_mode
            0: shares of all genes sum to 1; 1: those of spatial genes do; None: as the cells' own data set.

        Returns
        -------
        An array ``(n, g)`` for each, with the genes of the dissociated cells.

        Examples
        --------
        >>> [values.shape for values in model.get_imputed_values()]
        [(400, 30), (400, 30)]
        """
        decoded = self.module.sample_scale if normalized else self.module.sample_rate

        def expression(mode: int, tensors: Mapping[str, Tensor]) -> Tensor:
            x, batch = tensors[REGISTRY_KEYS.X_KEY], tensors[REGISTRY_KEYS.BATCH_KEY]
            return decoded(x, mode, batch, deterministic=deterministic, decode_mode=decode_mode)

        return self._of_each(adatas, batch_size, seed, expression)

    @offers_key("features")
    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Denoised expression of the genes that one data set has; of all genes: :meth:`get_imputed_values`.

        Parameters
        ----------
        adata
            One of the two data sets that the model was made with; others are taken as dissociated cells. None: the
            dissociated cells.
        transform_batch
            Batches of that data set to decode as.
        indices, gene_list, library_size, n_samples, n_samples_overall, batch_size, return_mean, return_numpy, seed, \
key_added
            As in :meth:`RNASeqMixin.get_normalized_expression
            <celbo.model.base.RNASeqMixin.get_normalized_expression>`.

        Returns
        -------
        Cells by the genes of their data set.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_normalized_expression().shape
        (400, 30)
        """
        self._check_if_trained(warn=False)
        mode = int(len(self.adatas) == 2 and adata is self.adatas[1])
        one = answering_with(self, OneSet(self.module, mode), self.registries_[mode])
        return normalized(
            one,
            asked(one, adata, indices, batch_size),
            [EXPRESSION.at_library(library_size)],
            transform_batch=transform_batch,
            columns=gene_columns(gene_list, names_of(one, EXPRESSION)),
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )

    def _of_each(
        self, adatas: Sequence[AnnData] | None, batch_size: int, seed: int | None, answer: Answer
    ) -> list[np.ndarray]:
        self._check_if_trained(warn=False)
        results = []
        for mode, manager in self._managers_of(adatas):
            with evaluating(self.module, seed):
                rows = Rows(None)
                for tensors in on_device(AnnDataLoader(manager, batch_size=batch_size), self.module):
                    rows.append(answer(mode, tensors))
                results.append(rows.array())
        return results

    def _managers_of(self, adatas: Sequence[AnnData] | None) -> Iterator[tuple[int, AnnDataManager]]:
        """Number and manager of each data set; one that is not the model's own counts as the one at its position."""
        adatas = self.adatas if adatas is None else adatas
        if not adatas:
            raise ValueError("This model was loaded without data: pass adatas=[adata_seq, adata_spatial].")
        if len(adatas) > 2:
            raise ValueError(f"adatas has {len(adatas)} data sets: give the dissociated cells, then the spatial ones.")
        for place, adata in enumerate(adatas):
            own = [mode for mode, one in enumerate(self.adatas) if one is adata]
            mode = own[0] if own and place not in own else place
            manager = kept_manager(self, adata)
            if manager is None:
                manager = self._replay_setup(adata, self.registries_[mode])
                keep_manager(self, manager)
            yield mode, manager
