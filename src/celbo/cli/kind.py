"""What a row of the table of models says, and how most of them are set up and trained.

Dims: n cells, g genes, k latents, c classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..data.modality_roles import RNA
from ..model.base import ArchesMixin
from .errors import UserError
from .options import TrainOptions

__all__ = ["Fitted", "Kind", "fit", "latents"]

_OF_SETUP = {
    "batch_key": "batch_key",
    "labels_key": "labels_key",
    "unlabeled_category": "unlabeled_category",
    "size_factor_key": "size_factor_key",
    "categorical_covariates": "categorical_covariate_keys",
    "continuous_covariates": "continuous_covariate_keys",
    "sample_key": "sample_key",
    "spliced_layer": "spliced_layer",
    "unspliced_layer": "unspliced_layer",
    "nan_layer": "nan_layer",
    "contexts": "methylation_contexts",
    "mc_layer": "mc_layer",
    "cov_layer": "cov_layer",
    "spatial_key": "cell_coordinates_key",
    "embedding_key": "expression_embedding_key",
}
"""Setting -> argument of ``setup_anndata``."""

_OF_MODEL = {"n_latent": "n_latent", "encode_covariates": "encode_covariates", "n_topics": "n_topics"}
"""Setting -> argument of the model's class, or of its module's."""

_SEVERAL = ("categorical_covariates", "continuous_covariates", "contexts")
"""Settings that may be given more than once."""


@dataclass(frozen=True)
class Fitted:
    """A trained model, and models that it was made from and cannot do without.

    Attributes
    ----------
    model
        The model.
    parts
        Name to model; they were trained first, in this order.
    writes
        Writes what else the run's folder holds into it; None: nothing.
    """

    model: Any
    parts: Mapping[str, Any] = field(default_factory=dict)
    writes: Callable[[Path], None] | None = None

    @property
    def trained(self) -> tuple[Any, ...]:
        """All of them in the order in which they were trained."""
        return (*self.parts.values(), self.model)

    def save(self, folder: Path) -> None:
        """Write the model, and each part into a folder of its name in the model's."""
        self.model.save(str(folder))
        for name, part in self.parts.items():
            part.save(str(folder / name))


def fit(
    kind: "Kind",
    adata: AnnData,
    options: TrainOptions,
    training: Mapping[str, Any],
    *groups: np.ndarray,
    setup: Mapping[str, Any] = MappingProxyType({}),
    made_with: Mapping[str, Any] = MappingProxyType({}),
) -> Fitted:
    """Set up, make and train a model as most are.

    Parameters
    ----------
    kind, adata, options, training
        As :attr:`Kind.fit` takes them.
    groups
        Row numbers of groups of cells, each ``(k,)``, that ``train`` takes first.
    setup, made_with
        Arguments of ``setup_anndata`` and of the class beside those that the options give.
    """
    kind.cls.setup_anndata(adata, **kind.setup_arguments(options), **setup)
    model = kind.cls(adata, **kind.model_arguments(options), **made_with)
    model.train(*groups, **{kind.renamed.get(name, name): value for name, value in training.items()})
    return Fitted(model)


def latents(fitted: Fitted, adata: AnnData | None = None, indices: np.ndarray | None = None) -> np.ndarray:
    """Latent representation of a model that has one, ``(n, k)``."""
    return fitted.model.get_latent_representation(adata, indices=indices)


@dataclass(frozen=True)
class Kind:
    """What a model of the command line needs and answers; functions that answer take None for the training data.

    Attributes
    ----------
    name
        What is typed after ``--model``.
    cls
        Its class.
    further
        Settings that are no argument of its class, and None when not given.
    leaves_out
        Settings that it does not take, though they are arguments of its class.
    needs
        Settings that must be given -> what they are.
    defaults
        Settings -> what they are when not given, where its class does not say.
    fit
        Set it up on the data and train it: this row, the data, the settings, and the arguments of ``train``.
    parts
        Names and classes of the models that :attr:`Fitted.parts` holds.
    prepare
        Add to cells of files what it must be asked with: the model and the data. None: nothing.
    check
        Refuse settings that are wrong whatever the data.
    embed
        Latent representation of cells, all or those with some row numbers, ``(n, k)``; None: it has none.
    predict
        Probability of each class for each cell, cells by classes; cells it says nothing about are left out. None: it
        predicts nothing, or answers so.
    predicts_by
        Setting without which it predicts nothing; empty: it does anyway.
    genes
        What it says of each gene, rows by name; None: nothing.
    denoise
        Write denoised values of cells to a file and say what they are: the model, the data, the file, and the options
        of the command. None: it has none.
    compares
        Output of the model -> its verb that compares groups of cells in it; none: it compares nothing.
    renamed
        Arguments of ``train`` that go by another name.
    role
        What its one matrix holds, one of :data:`celbo.data.modality_roles.ROLES`.
    roles
        Of a model of several modalities: what they hold -> whether it cannot do without.
    of_contexts
        Whether it takes modalities by their names, all of the same kind.
    takes_counts
        Whether its data are counts.
    all_layers
        Whether its setup looks for layers that no setting names.
    streams
        Whether its data may stay on disk.
    """

    name: str
    cls: Any
    further: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fit: Callable[["Kind", AnnData, TrainOptions, Mapping[str, Any]], Fitted] = fit
    parts: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any, AnnData], AnnData] | None = None
    check: Callable[[TrainOptions], Any] | None = None
    embed: Callable[[Fitted, AnnData | None, np.ndarray | None], np.ndarray] | None = latents
    predict: Callable[[Fitted, AnnData | None], pd.DataFrame | None] | None = None
    predicts_by: str = ""
    genes: Callable[[Fitted], pd.DataFrame] | None = None
    denoise: Callable[..., str] | None = None
    compares: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    role: str = RNA
    roles: Mapping[str, bool] = field(default_factory=dict)
    of_contexts: bool = False
    takes_counts: bool = True
    all_layers: bool = False
    streams: bool = True

    @property
    def is_of_two_sets(self) -> bool:
        """Whether it is trained on cells of another file too."""
        return "reference" in self.needs

    @property
    def maps(self) -> bool:
        """Whether it takes queries: new cells, of new batches too, of which nothing else must be told to train on."""
        return issubclass(self.cls, ArchesMixin) and "background_key" not in self.needs

    def predicted(self, fitted: Fitted, adata: AnnData | None = None) -> pd.DataFrame | None:
        """Probability of each class for each cell; None: this model predicts nothing."""
        of_setup = _OF_SETUP.get(self.predicts_by)
        if self.predict is None or (of_setup and fitted.model.get_setup_arg(of_setup) is None):
            return None
        return self.predict(fitted, adata)

    @cached_property
    def places(self) -> frozenset[str]:
        """Which of ``layer`` and ``raw`` it can be set up with; of several modalities the layer is that of genes."""
        names = {"layer": "layer", "rna_layer": "layer", "use_raw": "raw"}
        return frozenset(names[one] for one in self._setup if one in names)

    @property
    def _setup(self) -> Mapping[str, Parameter]:
        cls = next(iter(self.parts.values()), self.cls)
        return signature(cls.setup_mudata if self.roles or self.of_contexts else cls.setup_anndata).parameters

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Settings that it takes beside those of every model, with what they are when not given.

        They are arguments of its class, or of the model that is trained first, with their defaults; and a model of
        several modalities takes the name of each.
        """
        cls = next(iter(self.parts.values()), self.cls)
        of_setup = self._setup
        of_model = {**signature(cls._module_cls.__init__).parameters, **signature(cls.__init__).parameters}
        taken: dict[str, Any] = {n: () if n in _SEVERAL else None for n, arg in _OF_SETUP.items() if arg in of_setup}
        taken |= {name: of_model[arg].default for name, arg in _OF_MODEL.items() if arg in of_model}
        taken |= {**dict.fromkeys((*self.further, *self.roles)), **self.defaults}
        return {name: value for name, value in taken.items() if name not in self.leaves_out}

    def load(self, archive: Path) -> Fitted:
        """Read a model of this kind, and its parts, without data."""
        no_data = False  # second of every model's ``load``, whatever it is called
        return Fitted(self.cls.load(str(archive), no_data), {n: self._part(archive, n) for n in self.parts})

    def _part(self, archive: Path, name: str) -> Any:
        if not (archive / name).is_dir():
            raise UserError(
                f"{archive} holds a {self.cls.__name__} without its {self.parts[name].__name__}, which belongs in "
                f"{archive / name}: save that one there."
            )
        return self.parts[name].load(str(archive / name), adata=False)

    def setup_arguments(self, options: TrainOptions) -> dict[str, Any]:
        """Arguments of ``setup_anndata``: the settings given that this model takes."""
        place: dict[str, Any] = {"use_raw": True} if options.raw else {"layer": options.layer}
        of_setup = {name: argument for name, argument in _OF_SETUP.items() if argument in self._setup}
        return {**(place if self.places else {}), **self._given(options, of_setup)}

    def model_arguments(self, options: TrainOptions) -> dict[str, Any]:
        """Arguments of the class."""
        return self._given(options, _OF_MODEL)

    def _given(self, options: TrainOptions, argument_of: Mapping[str, str]) -> dict[str, Any]:
        taken = {argument: getattr(options, name) for name, argument in argument_of.items() if name in self.settings}
        as_lists = {name: list(value) if isinstance(value, tuple) else value for name, value in taken.items()}
        return {name: value for name, value in as_lists.items() if value is not None and value != []}
