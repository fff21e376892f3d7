"""SemisupervisedTrainingMixin: ``train`` and ``predict`` of models that learn labels."""

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor

from ...core import REGISTRY_KEYS, checked_methods, optional
from ...data import AnnDataManager, state_registry_of
from ...data.access import minify_type_of
from ...data.fields import LabelsWithUnlabeledObsField
from ...dataloaders import SemiSupervisedDataSplitter
from ...module.base.minified import LATENT_POSTERIOR
from ...posterior import Output
from ...posterior.attribution import class_attributions, ranked_features, with_counts
from ...posterior.classification import class_probabilities
from ...train import KwargsLike, Plan, SemiSupervisedTrainingPlan, merge_kwargs
from ...train import SemiSupervisedAdversarialTrainingPlan as WithAdversary
from ...verbs.cells import asked
from ...verbs.keys import offers_key
from ...verbs.outputs import names_of
from .made_with import flat
from .relabelled import columns_by_label, setup_with_labels, warn_ignored
from .training import Trainable, train_model, trainer_settings

__all__ = ["SemisupervisedTrainingMixin"]

_SPELT = {"SCVI": "scVI", "SCANVI": "scANVI"}
"""Names of models as scvi-tools' messages have them."""


@checked_methods
class SemisupervisedTrainingMixin(Trainable):
    """Training on cells of which some have labels, and prediction of labels.

    Attributes
    ----------
    n_labels
        Classes; cells without label are none of them.
    classes
        Their names, in the order of the classifier's outputs.
    unlabeled_category_
        Name of "not labelled".
    was_pretrained
        Whether the module began with the weights of a trained model.
    """

    _data_splitter_cls: ClassVar[type] = SemiSupervisedDataSplitter
    _training_plan_cls: ClassVar[type[Plan]] = SemiSupervisedTrainingPlan

    n_labels: int
    classes: np.ndarray
    was_pretrained: bool
    unlabeled_category_: Any
    _without_labels: ClassVar[str] = "SCVI"

    def _take_classes(self) -> None:
        """Read the classes off the registry; a ``ValueError`` where no cell has a label."""
        labels = state_registry_of(self.registry_, REGISTRY_KEYS.LABELS_KEY)
        self.classes = np.asarray(labels["categorical_mapping"])[:-1]
        self.n_labels = len(self.classes)
        self.unlabeled_category_ = labels[LabelsWithUnlabeledObsField.UNLABELED_CATEGORY]
        self.was_pretrained = False
        if not self.n_labels:
            raise ValueError(
                f"No cell has a label: all are {self.unlabeled_category_!r}. {type(self).__name__} learns from "
                f"labelled cells; use {self._without_labels} for data without labels."
            )

    @classmethod
    def _from_unlabelled(
        cls,
        source: Any,
        unlabeled_category: str | int | float | None,
        labels_key: str | None,
        adata: Any,
        registry: Mapping[str, Any] | None,
        kwargs: dict[str, Any],
    ) -> Self:
        """Model that begins with the weights of one without labels: the ``from_..._model`` of the class."""
        name, spelt = cls._without_labels, _SPELT.get(cls._without_labels, cls._without_labels)
        own = _SPELT.get(cls.__name__, cls.__name__)
        source._check_if_trained(message=f"Passed in {name.lower()} model hasn't been trained yet.")
        init = flat(source.init_params_)
        warn_ignored(sorted(init.keys() & kwargs.keys()), init, name)
        if source.minified_data_type == LATENT_POSTERIOR:  # the words of both refusals are scvi-tools'
            raise ValueError(
                f"We cannot use the given {spelt} model to initialize {own} because it has "
                "minified adata. Keep counts when minifying model using "
                "minified_data_type='latent_posterior_parameters_with_counts'."
            )
        if minify_type_of(adata) == LATENT_POSTERIOR:
            raise ValueError(f"Please provide a non-minified `adata` to initialize {own}.")
        adata = source.adata if adata is None and registry is None else adata
        if adata is not None:
            of_setup, arguments = setup_with_labels(source.registry_, adata, labels_key, unlabeled_category, name)
            setup = getattr(cls, source.registry_.get("setup_method_name") or "setup_anndata")
            taken = {one: value for one, value in arguments.items() if one in signature(setup).parameters}
            setup(adata, **taken, source_registry=of_setup)
        arguments = ({} if registry is None else {"registry": registry}) | kwargs | init
        model = cls(adata, **arguments)  # type: ignore[call-arg]  # a subclass names them
        model._take_weights(source)
        return model

    def _take_weights(self, source: Any) -> None:
        weights = source.module.state_dict()
        for name in source.module.parameters_by_label:
            old = state_registry_of(source.registry_, REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"]
            weights[name] = columns_by_label(weights[name], old, [*self.classes, self.unlabeled_category_])
        missing, unexpected = self.module.load_state_dict(weights, strict=False)
        own = ("y_prior", "classifier.", "encoder_z2_z1.", "decoder_z1_z2.")
        lost = [*unexpected, *(name for name in missing if not name.startswith(own))]
        if lost:
            raise ValueError(
                f"The weights of this {self._without_labels} do not fit {type(self).__name__}: {', '.join(lost)}."
            )
        self.was_pretrained = source.is_trained_

    def train(
        self,
        max_epochs: int | None = None,
        n_samples_per_label: float | None = None,
        check_val_every_n_epoch: int | None = None,
        train_size: float | None = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 128,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        adversarial_classifier: bool | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_config: KwargsLike | None = None,
        plan_kwargs: KwargsLike | None = None,
        datamodule: object = None,
        trainer_config: KwargsLike | None = None,
        *,
        recipe: str | None = None,
        seed: int | None = None,
        verbose: int = 1,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; None: what the recipe says for this number of cells, fewer for a model made
            from a trained one.
        n_samples_per_label
            Labelled cells of each label an epoch, redrawn each epoch; None: all.
        check_val_every_n_epoch
            Epochs between validations; None: 1, and 0 turns validation off.
        train_size, validation_size, shuffle_set_split
            Fractions of the labelled cells, and of the others, to train on and to validate on (the rest).
        batch_size
            Cells a minibatch; as many labelled ones come with it.
        accelerator, devices
            Where to compute: ``"auto"``, ``"cpu"``, ``"gpu"``; number or list of devices.
        adversarial_classifier
            Let a classifier take the batch out of the latents, by ``recipe="classic"``: TOTALANVI alone has one.
        datasplitter_kwargs
            For :class:`~celbo.dataloaders.SemiSupervisedDataSplitter`: ``external_indexing``, ``stratify_by``, ...
        plan_config, plan_kwargs
            For :class:`~celbo.train.SemiSupervisedTrainingPlan`: ``classification_ratio``, ``lr``, ...; win over the
            recipe.
        datamodule
            Loaders of your own that give pairs, with ``n_train`` and ``n_val``.
        trainer_config, **trainer_kwargs
            For :class:`~celbo.train.Trainer`: ``callbacks``, ``early_stopping``, ``logger``, and
            ``checkpoint_every`` and ``resume``, as in :meth:`SCVI.train <celbo.model.SCVI.train>`.
        recipe
            ``"long_cycle"`` (default; a one-cycle learning rate over a fifth of scvi-tools' epochs), ``"classic"``
            (scvi-tools' defaults) or ``"one_cycle"`` (fewer epochs still, and fewer labels right: see
            :class:`~celbo.train.SemiSupervisedTrainingPlan`).
        seed, verbose
            As in :meth:`SCVI.train <celbo.model.SCVI.train>`.

        Raises
        ------
        TypeError
            An argument that nobody knows, with the nearest known one.
        NonFiniteLossError
            The loss became NaN or infinite. The last finite weights are kept.
        ValueError
            ``adversarial_classifier`` for a model that has none.
        """
        of_plan: dict[str, Any] = {"n_classes": self.n_labels}
        if adversarial_classifier:
            if not issubclass(self._training_plan_cls, WithAdversary):
                raise ValueError(f"{type(self).__name__} has no adversary: leave adversarial_classifier out.")
            of_plan["adversarial_classifier"] = True
            recipe = recipe or "classic"
        splitter_kwargs = {
            "train_size": train_size,
            "validation_size": validation_size,
            "shuffle_set_split": shuffle_set_split,
            "n_samples_per_label": None if n_samples_per_label is None else int(n_samples_per_label),
        }
        trainer = trainer_settings(
            trainer_config,
            trainer_kwargs,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            check_val_every_n_epoch=check_val_every_n_epoch,
        )
        train_model(
            self,
            recipe=recipe,
            max_epochs=trainer.pop("max_epochs"),
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
            plan_kwargs=of_plan | merge_kwargs(plan_config, plan_kwargs, name="plan"),
            splitter_kwargs=splitter_kwargs | (datasplitter_kwargs or {}),
            trainer_kwargs=trainer,
            datamodule=datamodule,
            pretrained=self.was_pretrained,
        )

    @offers_key()
    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = None,
        use_posterior_mean: bool = True,
        ig_interpretability: bool = False,
        ig_args: dict[str, Any] | None = None,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Any:
        """Predict the label of each cell.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`. Cells without a column of labels are taken as unlabelled.
        soft
            Give the probability of each label instead of the most probable one.
        use_posterior_mean
            Classify the mean of the latents' posterior, or a draw from it.
        ig_interpretability
            Also say which genes make the predictions, by integrated gradients.
        ig_args
            Its arguments, see :func:`~celbo.posterior.attribution.class_attributions`: ``n_steps``, ``baselines``.

        Returns
        -------
        Names of labels, ``(n,)``; with ``soft`` a frame of cells by labels, rows that sum to 1. With
        ``ig_interpretability`` a pair of that and the table of :meth:`get_ranked_features`.

        Raises
        ------
        RuntimeError
            Before training, unless the model was made by ``load_query_data`` from a trained one.
        ValueError
            ``ig_interpretability`` of data without counts.

        Examples
        --------
        >>> labels = model.predict()
        >>> model.predict(soft=True).shape  # a probability of each label
        (400, 3)
        """
        if self.surgery_ is None or not self.surgery_["of_trained"]:  # else it has its reference's classifier
            self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, dataloader)
        options: dict[str, Any] = {
            "use_posterior_mean": use_posterior_mean,
            "n_cells": cells.n_cells,
            "seed": seed,
        }
        if ig_interpretability:
            _require_counts(self, cells.adata, "predict(ig_interpretability=True)", of_genes=False)
            probability_nc, attribution_ng = class_attributions(
                self.module, cells.batches, **options, **(ig_args or {})
            )
        else:
            probability_nc = class_probabilities(self.module, cells.batches, **options)
        if soft:
            predicted: Any = pd.DataFrame(probability_nc, index=cells.names, columns=self.classes)
        else:
            predicted = self.classes[probability_nc.argmax(1)]
        return (predicted, self.get_ranked_features(attrs=attribution_ng)) if ig_interpretability else predicted

    def _manager_like_training(self, adata: AnnData, **kwargs: Any) -> AnnDataManager:
        # Labels are what is asked for: data without them can be asked about.
        return super()._manager_like_training(adata, **({"allow_missing_labels": True} | kwargs))

    def shap_predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        shap_args: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Shapley values of genes for the probability of each label, by the package ``shap`` (``KernelExplainer``).

        The background are the training data; covariates are those of :meth:`shap_adata_predict`.

        Parameters
        ----------
        adata, indices
            The cells to explain, as in :meth:`predict`.
        shap_args
            Arguments of ``KernelExplainer`` and of its ``shap_values``: ``nsamples``, ``link``, ``silent``, ...

        Returns
        -------
        ``(n, g, c)``.

        Raises
        ------
        ModuleNotFoundError
            When the package ``shap`` is not installed.
        ValueError
            Data without counts.
        """
        shap = optional("shap", extra="shap", purpose="shap_predict")
        self._check_if_trained(warn=False)
        background_ng, x_ng = self._dense_counts(), self._dense_counts(adata, indices)
        explainer = shap.KernelExplainer(self.shap_adata_predict, background_ng, **(shap_args or {}))
        return explainer.shap_values(x_ng, **(shap_args or {}))

    def _dense_counts(self, adata: AnnData | None = None, indices: Sequence[int] | None = None) -> np.ndarray:
        """Counts of cells over the model's genes, ``(n, g)``."""
        cells = asked(self, adata, indices)
        _require_counts(self, cells.adata, "shap_predict")
        return np.concatenate([tensors[REGISTRY_KEYS.X_KEY].numpy() for tensors in cells.batches])

    def shap_adata_predict(self, X: object) -> np.ndarray:
        """Probability of each label for counts of one's own: the function that :meth:`shap_predict` explains.

        Parameters
        ----------
        X
            Counts over the model's genes, ``(n, g)``. Their cells have the covariates of the training data, in their
            order, from the first again where there are more.

        Returns
        -------
        ``(n, c)``, rows that sum to 1.

        Examples
        --------
        >>> model.shap_adata_predict(adata.X[:5]).shape
        (5, 3)
        """
        _require_counts(self, self.adata, "shap_adata_predict")
        x_ng = np.asarray(X)
        n_training = self._validate_anndata().n_obs
        cells = asked(self, None, np.arange(len(x_ng)) % n_training)
        return class_probabilities(self.module, with_counts(cells.batches, x_ng), n_cells=len(x_ng))

    def get_ranked_features(self, adata: AnnData | None = None, attrs: np.ndarray | None = None) -> pd.DataFrame | None:
        """Genes by their mean attribution over cells, the largest first.

        Parameters
        ----------
        adata
            Accepted for compatibility with scvi-tools.
        attrs
            Attributions, ``(n, g)``: of :meth:`predict`, or one label of :meth:`shap_predict`.

        Returns
        -------
        See :func:`~celbo.posterior.attribution.ranked_features`; None without attributions.

        Examples
        --------
        >>> predicted, ranked = model.predict(ig_interpretability=True, ig_args={"n_steps": 5})
        >>> len(ranked)
        100
        """
        features = {output.name: names_of(self, output) for output in self._explaining}
        return None if attrs is None else ranked_features(attrs, features)

    @property
    def _explaining(self) -> Sequence[Output]:
        """Whose features explain what is predicted: genes, the first that a model has."""
        return self._outputs[:1]


def _require_counts(model: Trainable, adata: AnnData | None, purpose: str, of_genes: bool = True) -> None:
    if of_genes and REGISTRY_KEYS.X_KEY not in model.registry_["field_registries"]:
        raise NotImplementedError(
            f"{purpose} explains predictions by counts of genes; {type(model).__name__} has none."
        )
    if minify_type_of(adata) == LATENT_POSTERIOR:
        raise ValueError(f"{purpose} explains predictions by counts, and these data are minified without them.")
