"""Fields of cytometry: which markers each cell's panel has, and whether these are finite numbers.

Dims: n cells, g markers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError, unknown_name
from ...data.access import anndata_value
from ...data.fields import LayerField
from ...data.fields.values import dense_rows, find_faults
from ...store.matrices.blocks import shape_of

__all__ = [
    "BACKBONE",
    "CYTOVI_REGISTRY_KEYS",
    "MASK_LAYER",
    "PANEL_KEY",
    "MarkerField",
    "PanelField",
    "check_support",
    "encoded_markers",
    "measured_everywhere",
]


class _RegistryKeys(NamedTuple):
    X_KEY: str = REGISTRY_KEYS.X_KEY
    BATCH_KEY: str = REGISTRY_KEYS.BATCH_KEY
    LABELS_KEY: str = REGISTRY_KEYS.LABELS_KEY
    SAMPLE_KEY: str = "sample_id"
    CAT_COVS_KEY: str = REGISTRY_KEYS.CAT_COVS_KEY
    CONT_COVS_KEY: str = REGISTRY_KEYS.CONT_COVS_KEY
    INDICES_KEY: str = REGISTRY_KEYS.INDICES_KEY
    SIZE_FACTOR_KEY: str = REGISTRY_KEYS.SIZE_FACTOR_KEY
    MINIFY_TYPE_KEY: str = REGISTRY_KEYS.MINIFY_TYPE_KEY
    LATENT_QZM_KEY: str = REGISTRY_KEYS.LATENT_QZM_KEY
    LATENT_QZV_KEY: str = REGISTRY_KEYS.LATENT_QZV_KEY
    PROTEIN_NAN_MASK: str = "nan_layer"


CYTOVI_REGISTRY_KEYS = _RegistryKeys()
"""Keys of the registry under which this model knows its data."""

PANEL_KEY = CYTOVI_REGISTRY_KEYS.PROTEIN_NAN_MASK
"""Registry key of the mask: 1 where a cell's panel has a marker, 0 where not."""

MASK_LAYER = "_nan_mask"
"""Layer that :func:`~celbo.external.cytovi.register_nan_layer` writes the mask to, and that setup looks for."""

BACKBONE = "backbone"


class PanelField(LayerField):
    """Layer that says which markers each cell's panel has; the state names the backbone, which all panels have."""

    def __init__(self, layer: str) -> None:
        super().__init__(PANEL_KEY, layer, is_count_data=False)

    def validate_field(self, adata: AnnData) -> None:
        """Raise a ``KeyError`` for a missing layer, a ``ValueError`` for one with numbers other than 0 and 1."""
        if self.attr_key not in adata.layers:
            raise KeyError(
                f"{self.place} should say which markers each cell's panel has, and it is not there: "
                f"celbo.external.cytovi.register_nan_layer(adata) writes it where the data have NaN, and "
                f"adata.layers[{self.attr_key!r}] = np.ones(adata.shape) says that all were measured."
            )
        super().validate_field(adata)
        wrong = find_faults(self.get_field_data(adata), None, lambda values: (values != 0) & (values != 1))
        if wrong is not None:
            raise ValueError(
                f"{self.place} must be 1 where a marker was measured and 0 where it was not; other numbers: "
                f"{wrong.told(adata, adata.var_names, 'markers')}. celbo.external.cytovi.register_nan_layer(adata) "
                "writes it."
            )

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Sizes and names, and the backbone."""
        state = super().register_field(adata)
        everywhere_g = measured_everywhere(self.get_field_data(adata))
        return state | {BACKBONE: np.asarray(state[self.COLUMN_NAMES_KEY])[everywhere_g]}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Raise a ``ValueError`` where cells lack a marker of the model's backbone."""
        state = super().transfer_field(state_registry, adata_target, **kwargs)
        everywhere = adata_target.var_names[measured_everywhere(self.get_field_data(adata_target))]
        if BACKBONE not in state_registry:  # scvi-tools' archives do not name it
            return state | {BACKBONE: np.asarray([name for name in state[self.COLUMN_NAMES_KEY] if name in everywhere])}
        lacking = [str(name) for name in state_registry[BACKBONE] if name not in everywhere]
        if lacking:
            raise ValueError(
                f"The model's encoder reads {len(state_registry[BACKBONE])} markers, and {self.place} says that some "
                f"cells were measured without {', '.join(lacking)}: leave these cells out, or train a model on both "
                "data sets together (celbo.external.cytovi.merge_batches)."
            )
        return state | {BACKBONE: state_registry[BACKBONE]}


class MarkerField(LayerField):
    """The markers: finite numbers, except where the mask says that they were not measured.

    Parameters
    ----------
    layer
        Layer with the transformed and scaled markers; None: ``X``.
    mask_layer
        Layer with the mask; None: all were measured.
    """

    def __init__(self, layer: str | None, mask_layer: str | None) -> None:
        super().__init__(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)
        self.mask_layer = mask_layer

    def _check(self, adata: AnnData) -> None:
        mask = None if self.mask_layer is None else adata.layers.get(self.mask_layer)  # its field asks for it
        wrong = find_faults(self.get_field_data(adata), mask, lambda values: ~np.isfinite(values))
        if wrong is not None:
            cure = (
                "if these markers were not measured, celbo.external.cytovi.register_nan_layer(adata) says so to the "
                "model"
                if mask is None
                else f"adata.layers[{self.mask_layer!r}] says that they were measured: set it to 0 there"
            )
            told = wrong.told(adata, adata.var_names, "markers")
            raise ValueError(f"{self.place} has no finite numbers in {told}; {cure}, or leave these cells out.")


def measured_everywhere(mask: Any) -> np.ndarray:
    """Markers that every cell was measured for, ``(g,)`` booleans."""
    everywhere_g = np.ones(shape_of(mask)[1], bool)
    for _, values_ng in dense_rows(mask):
        everywhere_g &= (values_ng > 0).all(0)
    return everywhere_g


_SUPPORTS: Mapping[str, str] = MappingProxyType({"beta": "between 0 and 1, neither included"})


def check_support(adata: AnnData, place: Mapping[str, Any], mask_layer: str | None, likelihood: str) -> None:
    """Raise for a measured marker outside of the likelihood's range.

    Parameters
    ----------
    adata
        The data.
    place
        Where the markers lie, as the registry tells.
    mask_layer
        Layer with the mask, or None.
    likelihood
        ``"normal"`` allows every number, ``"beta"`` those between 0 and 1.

    Raises
    ------
    ValueError
        Names how many, where, and what to do.
    """
    if likelihood not in _SUPPORTS:
        return
    mask = None if mask_layer is None else adata.layers[mask_layer]
    x = anndata_value(adata, place["attr_name"], place["attr_key"])
    wrong = find_faults(x, mask, lambda values: (values <= 0) | (values >= 1))
    if wrong is not None:
        raise ValueError(
            f"protein_likelihood={likelihood!r} takes values {_SUPPORTS[likelihood]}, and there are others: "
            f"{wrong.told(adata, adata.var_names, 'markers')}. celbo.external.cytovi.scale(adata) puts markers "
            "there, or take protein_likelihood='normal'."
        )


def encoded_markers(names: list[str], backbone: list[str], chosen: list[str] | None) -> list[str]:
    """Markers that an encoder reads.

    Parameters
    ----------
    names
        All markers.
    backbone
        Those that every panel has.
    chosen
        Those that the user names; None: the backbone.

    Raises
    ------
    ArgumentError
        A backbone of fewer than two markers; names that are not in it.
    """
    if len(backbone) < 2:
        raise ArgumentError(
            f"The panels share {len(backbone)} of {len(names)} markers ({', '.join(backbone) or 'none'}), and the "
            "encoder needs two or more that every cell has: leave out cells of panels that share too few, or, if "
            f"a marker was measured after all, set it to 1 in the layer that marks panels ({MASK_LAYER!r})."
        )
    for name in chosen or ():
        if name not in names:
            raise ArgumentError(unknown_name("marker (encoder_marker_list)", name, names))
    outside = [name for name in chosen or () if name not in backbone]
    if outside:
        raise ArgumentError(
            f"encoder_marker_list names {', '.join(outside)}, which some panels lack: the encoder can only read "
            f"what all cells have, {', '.join(map(str, backbone))}."
        )
    return backbone if chosen is None else chosen
