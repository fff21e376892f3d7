"""What DIAGVI answers: latents of each modality, what the other one would have measured, labels carried over."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from ...core import REGISTRY_KEYS, ArgumentError, checked_methods, settings, unknown_name
from ...core.kinds import Instance, Text
from ...data import AnnDataManager, state_registry_of
from ...dataloaders import AnnDataLoader
from ...model.base.face import keep_manager, kept_manager
from ...model.base.several import SeveralSetsMixin
from ...ops.draws import sample
from ...posterior.passes import Rows, evaluating, on_device
from ...verbs.keys import offers_key
from .asked import cells_to_impute, cells_to_label, data_sets
from .graph import GuidanceGraph
from .start import COUNTS

__all__ = ["DiagviMixin"]

Indices = Mapping[str, Sequence[int]]
Answer = Callable[[Mapping[str, Tensor], int], Tensor]
Batch = Annotated[
    int | str | np.ndarray | None,
    Instance("a batch, or one for each cell", lambda value: isinstance(value, int | str | np.integer | np.ndarray)),
]
Libsize = Annotated[
    float | np.ndarray | None,
    Instance("a positive number, or one for each cell", lambda value: _is_positive(value)),
]
Name = Annotated[str, Text()]


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray):
        return False
    return bool((np.isfinite(value) & (np.asarray(value) > 0)).all())


@checked_methods
class DiagviMixin(SeveralSetsMixin):
    """Latents, imputed data and labels of the cells of two modalities.

    Attributes
    ----------
    adatas
        The data sets that the model was made with, by the name of their modality; none of a model loaded without data.
    guidance_graph
        Which features go together.
    """

    adatas: dict[str, AnnData]
    guidance_graph: GuidanceGraph

    @offers_key(about=data_sets)
    def get_latent_representation(
        self,
        adatas: dict[str, AnnData] | list[AnnData] | None = None,
        indices: Indices | None = None,
        batch_size: int = 1024,
        *,
        key_added: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Latents of each cell of each modality: the mean of their posterior.

        Parameters
        ----------
        adatas
            Data sets by the name of their modality, or in the order of the model's; None: those of the model.
        indices
            Row numbers of the cells asked for, by the name of the modality; None: all.
        batch_size
            Cells a minibatch.
        key_added
            Write the answer into the data too, under this key of ``obsm`` or ``obs``; None: write nothing.

        Returns
        -------
        Name of the modality -> ``(n, k)``.

        Raises
        ------
        ArgumentError
            A modality that the model does not have, or no data.

        Examples
        --------
        >>> model.get_latent_representation(indices={"rna": [3, 0]})["rna"].shape
        (2, 5)
        """

        def latents(name: str) -> Answer:
            return lambda tensors, start: self._encoded(tensors, name)["qz"].loc

        return self._of_each(adatas, indices, batch_size, None, latents)

    @offers_key(about=cells_to_impute)
    def get_imputed_values(
        self,
        query_name: Name,
        query_adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        deterministic: bool = True,
        batch_size: int = 2048,
        reference_batch: Batch = None,
        reference_libsize: Libsize = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """What the other modality would have measured in the cells of one.

        Parameters
        ----------
        query_name
            Modality of the cells.
        query_adata
            The cells; None: those of the model.
        indices
            Row numbers of the cells asked for; None: all.
        deterministic
            Decode the means of cells and features, or draws.
        batch_size, key_added
            As in :meth:`get_latent_representation`.
        reference_batch
            Batch of the other modality to decode as: its name, its number, or one of these for each cell; None: the
            mean over all.
        reference_libsize
            Total of each cell in the other modality, where that has one; one number, or one for each cell. None: the
            cell's own total where both are counts, else the other modality's geometric mean.
        seed
            Of the draws; None: ``celbo.settings.seed``, or fresh randomness.

        Returns
        -------
        Expected values, without the zeros that a zero-inflated likelihood adds, ``(n, g)`` with the features of the
        other modality.

        Raises
        ------
        ArgumentError
            A modality or batch that the model does not have; another number of batches or totals than of cells.

        Examples
        --------
        >>> model.get_imputed_values("rna", indices=[0, 1], reference_batch="batch_1").shape
        (2, 20)
        """
        query = self._known(query_name, "query_name")
        (other,) = (name for name in self.set_names if name != query)
        manager = self._manager_of(query, query_adata)
        cells = _rows_of(manager, indices)
        codes = self._batches_to_decode(other, reference_batch, len(cells))
        log_libraries = self._log_library(query, other, reference_libsize, len(cells))

        def imputed(tensors: Mapping[str, Tensor], start: int) -> Tensor:
            encoded = self._encoded(tensors, query, deterministic)
            n = len(encoded["z"])
            if log_libraries is not None:
                library = log_libraries if len(log_libraries) == 1 else log_libraries[start : start + n]
                encoded["library"] = torch.as_tensor(library).to(encoded["z"]).expand(n)[:, None]
            decoded = [self._decoded(encoded, other, one, start) for one in codes]
            return torch.stack(decoded).mean(0)

        return self._answers(manager, cells, batch_size, seed, imputed)

    @offers_key(about=cells_to_label)
    def predict_celltype(
        self,
        labeled_modality: Name,
        target_modality: Name | None = None,
        target_adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int = 2048,
        deterministic: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Labels of cells by the classifier that was trained on those of one modality.

        Parameters
        ----------
        labeled_modality
            Modality whose labels the classifier learned.
        target_modality
            Modality of the cells to label; None: the other one.
        target_adata
            The cells; None: those of the model.
        indices, batch_size, seed, key_added
            As in :meth:`get_imputed_values`.
        deterministic
            Classify the means of the cells, or draws.

        Returns
        -------
        ``"predictions"``: the labels, ``(n,)``; ``"probabilities"``: of each label, ``(n, c)``; ``"confidence"``: of
        the predicted one, ``(n,)``.

        Raises
        ------
        ArgumentError
            That modality was set up without labels.

        Examples
        --------
        >>> model.predict_celltype("rna", indices=[0, 1])["probabilities"].shape
        (2, 3)
        """
        labelled = self._known(labeled_modality, "labeled_modality")
        if not self.module.has_labels[labelled]:
            raise ArgumentError(
                f"{labelled!r} was set up without labels, so that no classifier learned them: set it up with "
                "labels_key=, and train."
            )
        others = (name for name in self.set_names if name != labelled)
        target = next(others) if target_modality is None else self._known(target_modality, "target_modality")
        manager = self._manager_of(target, target_adata)

        def probabilities(tensors: Mapping[str, Tensor], start: int) -> Tensor:
            z_nk = self._encoded(tensors, target, deterministic)["z"]
            return self.module.label_logits(z_nk, labelled).softmax(-1)

        p_nc = self._answers(manager, _rows_of(manager, indices), batch_size, seed, probabilities)
        labels_c = self._categories(labelled, REGISTRY_KEYS.LABELS_KEY)
        best_n = p_nc.argmax(1)
        confidence_n = p_nc[np.arange(len(p_nc)), best_n]
        return {"predictions": labels_c[best_n], "probabilities": p_nc, "confidence": confidence_n}

    @offers_key(about=data_sets)
    def posterior_predictive_sample(
        self,
        adatas: dict[str, AnnData] | None = None,
        indices: Indices | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Data that the model gives for each cell, with latents drawn from their posterior.

        Parameters
        ----------
        adatas, indices, key_added
            As in :meth:`get_latent_representation`.
        n_samples
            Draws of each cell.
        batch_size, seed
            Cells a minibatch, None: ``celbo.settings.batch_size``; of the draws, None: ``celbo.settings.seed``.

        Returns
        -------
        Name of the modality -> ``(n, g)``, or ``(n, g, s)`` for more than one draw.

        Examples
        --------
        >>> model.posterior_predictive_sample(n_samples=2)["atac"].shape
        (80, 20, 2)
        """

        def drawn(name: str) -> Answer:
            def samples(tensors: Mapping[str, Tensor], start: int) -> Tensor:
                draws = [self._sampled(tensors, name) for _ in range(n_samples)]
                return draws[0] if n_samples == 1 else torch.stack(draws, -1)

            return samples

        return self._of_each(adatas, indices, batch_size or settings.batch_size, seed, drawn)

    # One minibatch.

    def _encoded(self, tensors: Mapping[str, Tensor], name: str, deterministic: bool = True) -> dict[str, Any]:
        x_ng = tensors[REGISTRY_KEYS.X_KEY]
        encoded: dict[str, Any] = self.module.inference(x_ng, mode=name, deterministic=deterministic)
        return encoded

    def _decoded(self, encoded: Mapping[str, Any], name: str, codes: np.ndarray, start: int) -> Tensor:
        n = len(encoded["z"])
        codes_n = torch.as_tensor(codes if len(codes) == 1 else codes[start : start + n]).expand(n)
        z, batch_n1 = encoded["z"], codes_n[:, None].to(encoded["z"].device)
        generated = self.module.generative(z, encoded["library"], encoded["v_all"], batch_n1, mode=name)
        value: Tensor = generated["px"].get_normalized("mu")
        return value

    def _sampled(self, tensors: Mapping[str, Tensor], name: str) -> Tensor:
        encoded = self._encoded(tensors, name, deterministic=False)
        codes = tensors[REGISTRY_KEYS.BATCH_KEY]
        generated = self.module.generative(encoded["z"], encoded["library"], encoded["v_all"], codes, mode=name)
        return sample(generated["px"])

    # Which cells, batches and totals.

    def _known(self, name: str, argument: str) -> str:
        if name not in self.set_names:
            raise ArgumentError(unknown_name(f"modality for {argument}", name, self.set_names))
        return name

    def _categories(self, name: str, key: str) -> np.ndarray:
        registry = self.registries_[self.set_names.index(name)]
        return np.asarray(state_registry_of(registry, key)["categorical_mapping"])

    def _manager_of(self, name: str, adata: AnnData | None) -> AnnDataManager:
        """Manager of the cells asked about, set up as those of this modality that the model was made with."""
        if adata is None:
            if name not in self.adatas:
                raise ArgumentError(f"This model was loaded without data: pass the cells of {name!r}.")
            adata = self.adatas[name]
        manager = kept_manager(self, adata)
        if manager is None:
            manager = self._replay_setup(adata, self.registries_[self.set_names.index(name)])
            keep_manager(self, manager)
        return manager

    def _batches_to_decode(self, name: str, wanted: int | str | np.ndarray | None, n: int) -> list[np.ndarray]:
        """Codes to decode as, for all cells or for each; several where their mean is asked for."""
        known = self._categories(name, REGISTRY_KEYS.BATCH_KEY)
        if wanted is None:
            return [np.array([code]) for code in range(len(known))]
        given = np.atleast_1d(np.asarray(wanted)).ravel()
        if len(given) not in (1, n):
            raise ArgumentError(f"reference_batch has {len(given)} batches for {n} cells: give one, or one for each.")
        place = {str(batch): code for code, batch in enumerate(known)}
        by_number = given.dtype.kind in "iu" and not set(map(str, given)) <= set(place)
        names = [str(known[one]) if by_number and 0 <= one < len(known) else str(one) for one in given]
        for one in names:
            if one not in place:
                raise ArgumentError(unknown_name(f"batch of {name!r}", one, place))
        return [np.array([place[one] for one in names])]

    def _log_library(self, query: str, other: str, wanted: float | np.ndarray | None, n: int) -> np.ndarray | None:
        """Natural log of the totals to decode with; None: of each cell its own."""
        if wanted is not None:
            given = np.atleast_1d(np.asarray(wanted, float)).ravel()
            if len(given) not in (1, n):
                raise ArgumentError(
                    f"reference_libsize has {len(given)} numbers for {n} cells: give 1, or one for each."
                )
            return np.log(given)
        both_count = all(self.module.likelihoods[one] in COUNTS for one in (query, other))
        if both_count or not self.module.reads_library(other):
            return None
        if other not in self.adatas:
            raise ArgumentError(f"This model was loaded without data: pass reference_libsize=, the total of {other!r}.")
        totals_n = np.asarray(self._manager_of(other, None).get_from_registry(REGISTRY_KEYS.X_KEY).sum(1)).ravel()
        return np.log(totals_n[totals_n > 0]).mean(keepdims=True)

    def _of_each(
        self,
        adatas: Mapping[str, AnnData] | Sequence[AnnData] | None,
        indices: Indices | None,
        batch_size: int,
        seed: int | None,
        answer: Callable[[str], Answer],
    ) -> dict[str, np.ndarray]:
        rows = dict(indices or {})
        for name in rows:
            self._known(name, "indices")
        return {
            name: self._answers(manager, _rows_of(manager, rows.get(name)), batch_size, seed, answer(name))
            for name, manager in self._managers_of(adatas)
        }

    def _managers_of(
        self, adatas: Mapping[str, AnnData] | Sequence[AnnData] | None
    ) -> Iterator[tuple[str, AnnDataManager]]:
        if adatas is None:
            given = dict.fromkeys(self.set_names)
        elif isinstance(adatas, Mapping):
            given = {self._known(name, "adatas"): adata for name, adata in adatas.items()}
        elif len(adatas) > len(self.set_names):
            raise ArgumentError(f"adatas has {len(adatas)} data sets, the model has {len(self.set_names)} modalities.")
        else:
            given = dict(zip(self.set_names, adatas, strict=False))
        return ((name, self._manager_of(name, adata)) for name, adata in given.items())

    def _answers(
        self, manager: AnnDataManager, cells: np.ndarray, batch_size: int, seed: int | None, answer: Answer
    ) -> np.ndarray:
        self._check_if_trained(warn=False)
        rows = Rows(len(cells))
        with evaluating(self.module, seed):
            loader = AnnDataLoader(manager, indices=cells, batch_size=batch_size)
            for tensors in on_device(loader, self.module):
                rows.append(answer(tensors, rows.filled))
        return rows.array()


def _rows_of(manager: AnnDataManager, indices: Sequence[int] | None) -> np.ndarray:
    """Row numbers of the cells asked for."""
    assert manager.adata is not None
    if indices is None:
        return np.arange(manager.adata.n_obs)
    rows = np.asarray(indices)
    return np.flatnonzero(rows) if rows.dtype == bool else rows
