"""Labels of which some cells have none."""

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import misspelt, nearest_first, settings
from ...core.rules import rules
from ...store.tables.columns import column_parts
from ..categories import encode, extend_mapping, same_text, unknown_categories, used_categories
from .categorical import CategoricalObsField

__all__ = ["LabelsWithUnlabeledObsField"]

logger = logging.getLogger("celbo")


class LabelsWithUnlabeledObsField(CategoricalObsField):
    """A label for each cell, where one label means "not labelled". That one always gets the last code.

    It changes places with the label that would have been last: ``[a, unknown, b, c]`` becomes ``[a, c, b, unknown]``.
    Cells without a value (NaN, None) are not labelled either.

    Parameters
    ----------
    registry_key
        Name under which models know it.
    obs_key
        Column of ``adata.obs``. None: every cell has the label 0.
    unlabeled_category
        The label that means "not labelled". It gets a code also when no cell has it. None or NaN: only cells without a
        value are not labelled; they go by the name ``"Unknown"``.
    """

    UNLABELED_CATEGORY = "unlabeled_category"
    DEFAULT_UNLABELED = "Unknown"

    def __init__(
        self, registry_key: str, obs_key: str | None, unlabeled_category: str | int | float | None = None
    ) -> None:
        super().__init__(registry_key, obs_key)
        self._unlabeled_category = None if pd.isna(unlabeled_category) else unlabeled_category

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Find the labels, put the unlabelled one last, write the codes.

        Raises
        ------
        ValueError
            No ``unlabeled_category`` was given and a label is called ``"Unknown"``; or no cell has the one that was
            given, and a label differs from it by a slip of the keys.
        """
        self.validate_field(adata)
        given = self.source_column(adata)
        unlabeled = self._unlabeled_among(given)
        column = _filled(given, unlabeled)
        labels = used_categories(column, self.source_place)
        self._say_unused(given, labels)
        mapping = _unlabeled_last(labels, unlabeled)
        if len(mapping) > len(labels):
            self._refuse_a_slip(labels)
            self._say_all_labelled(labels, unlabeled)
        return self._labelled(self._write(adata, column, mapping, is_new=True), unlabeled)

    def _unlabeled_among(self, column: pd.Series) -> str | int | float:
        """The label that means "not labelled", in the type that the labels have."""
        if self._unlabeled_category is not None:
            return self._as_a_label(self._unlabeled_category, column)
        if (column == self.DEFAULT_UNLABELED).any():
            raise ValueError(
                f"{self.source_place} has cells labelled {self.DEFAULT_UNLABELED!r} and unlabeled_category is not "
                f"given: pass unlabeled_category={self.DEFAULT_UNLABELED!r} if these cells are not labelled, another "
                "name, such as 'none', if they are."
            )
        return self.DEFAULT_UNLABELED

    def _as_a_label(self, given: object, column: pd.Series) -> Any:
        """The label that is meant, also where ``given`` is text and labels are numbers, or the other way."""
        known = [value for part in column_parts(column) for value in part.dropna().unique().tolist()]
        meant = same_text(given, known)
        if meant is None or given in known:
            return given
        logger.info(
            "unlabeled_category=%r is of type %s; the labels in %s are of type %s: cells labelled %r count as not "
            "labelled.",
            *(given, type(given).__name__, self.source_place, type(meant).__name__, meant),
        )
        return meant

    def transfer_field(
        self,
        state_registry: dict[str, Any],
        adata_target: AnnData,
        *,
        allow_missing_labels: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Write the codes that the source's labels give.

        Labels are never extended (a classifier's outputs stand for them): give cells with a label that the source
        does not know the unlabelled category.

        Parameters
        ----------
        state_registry
            The source's state.
        adata_target
            Data to fit to it.
        allow_missing_labels
            When ``adata_target.obs`` has no such column, take every cell as unlabelled, with a warning.
        """
        mapping = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        given = self.DEFAULT_UNLABELED if self._unlabeled_category is None else self._unlabeled_category
        unlabeled = state_registry.get(self.UNLABELED_CATEGORY, given)
        if self.UNLABELED_CATEGORY not in state_registry:
            mapping = _unlabeled_last(mapping, unlabeled)
        is_missing = not self.is_default and self._original_attr_key not in adata_target.obs
        if allow_missing_labels and is_missing:
            return self._labelled(self._write_unlabeled(adata_target, mapping, unlabeled), unlabeled)
        self.validate_field(adata_target)
        self._require_same_origin(state_registry)
        column = _filled(self.source_column(adata_target), unlabeled)
        self._require_known(column, mapping, unlabeled)
        return self._labelled(self._write(adata_target, column, mapping), unlabeled)

    def _require_known(self, column: pd.Series, mapping: np.ndarray, unlabeled: object) -> None:
        unknown = unknown_categories(used_categories(column, self.source_place), mapping)
        if not unknown:
            return
        try:
            encode(column, mapping, self.source_place)
        except ValueError as error:
            raise ValueError(
                f"{error} Labels cannot be extended, because the classifier's outputs stand for them: give these cells "
                f"the label {unlabeled!r}."
            ) from None

    def _write_unlabeled(self, adata: AnnData, mapping: np.ndarray, unlabeled: object) -> dict[str, Any]:
        warnings.warn(
            f"{self.source_place} does not exist: every cell is taken as {unlabeled!r} (unlabelled).",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
        column = pd.Series([unlabeled] * adata.n_obs, index=adata.obs_names, dtype=object)
        return self._write(adata, column, mapping)

    def _labelled(self, state: dict[str, Any], unlabeled: object) -> dict[str, Any]:
        return {**state, self.UNLABELED_CATEGORY: unlabeled}

    def _refuse_a_slip(self, labels: np.ndarray) -> None:
        given = self._unlabeled_category
        meant = None if given is None else misspelt(given, labels)
        if meant is not None and rules().misspelt_unlabeled == "error":
            raise ValueError(
                f'No cell of {self.source_place} is {given!r}, which is to mean "not labelled". Did you mean {meant!r}?'
                " If every cell has a label, pass a name that is unlike them, such as unlabeled_category='none'."
            )

    def _say_all_labelled(self, labels: np.ndarray, unlabeled: object) -> None:
        logger.info(
            "No cell of %s is %r, so all cells count as labelled. The labels are: %s.",
            self.source_place,
            unlabeled,
            ", ".join(nearest_first(unlabeled, labels)),
        )


def _filled(column: pd.Series, unlabeled: Any) -> pd.Series:
    """The column with its missing values called ``unlabeled``; the other values keep their order and type."""
    if not any(part.isna().any() for part in column_parts(column)):
        return column
    categories = column.astype("category")
    if unlabeled not in categories.cat.categories:
        categories = categories.cat.add_categories([unlabeled])
    return categories.fillna(unlabeled)


def _unlabeled_last(labels: np.ndarray, unlabeled: object) -> np.ndarray:
    """The labels with ``unlabeled`` in the last place: swapped there, or appended when it is none of them."""
    position = np.flatnonzero(labels == unlabeled)
    if not len(position):
        return extend_mapping(labels, [unlabeled])
    mapping = labels.copy()
    mapping[position[0]], mapping[-1] = labels[-1], labels[position[0]]
    return mapping
