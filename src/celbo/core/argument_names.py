"""What an argument means everywhere, by its name: the table that every door reads.

A row is a range or a set of words; whether None may be given is said by the signature of each function. What only one
function means by a name goes into its signature instead: ``Annotated[int, Whole(0)]``.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from .kinds import REFUSED, AnyOf, Flag, Instance, Kind, Number, OneOf, Several, Whole
from .lookup import listed

__all__ = ["NAMES"]

_COUNT = Whole(1)
_FROM_0 = Whole(0)
_POSITIVE = Number(0, above=True)
_NOT_NEGATIVE = Number(0)
_SHARE = Number(0, 1)
_SHARE_NOT_0 = Number(0, 1, above=True)
_RATE = Number(0, 1, below=True)
_INSIDE = Number(0, 1, above=True, below=True)


def _is_anndata(value: Any) -> bool:
    """AnnData and MuData have both; tables and arrays have neither."""
    return hasattr(value, "obs") and hasattr(value, "uns")


def _is_array(value: Any) -> bool:
    import numpy as np  # the table is read before anything heavy is imported

    try:
        numbers = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=float)
    except (TypeError, ValueError):
        return False
    return numbers.ndim > 0 and bool(np.isfinite(numbers).all())


_ANNDATA = Instance(
    "an AnnData", _is_anndata, "Make one: anndata.AnnData(counts), or celbo.data.read(path) for what lies in a file."
)
_BATCHES = Instance(
    "an iterable of minibatches", lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes)
)
_ARRAY = Instance("an array of finite numbers", _is_array)
_PATH = Instance("a path", lambda value: isinstance(value, str | os.PathLike), types=frozenset({str}))
_COLUMN = Instance("the name of one column", lambda value: isinstance(value, str), types=frozenset({str}))
_KEY = Instance("the name of a registered field or argument", lambda value: isinstance(value, str))
_LAYER = Instance("the name of a layer", lambda value: isinstance(value, str), types=frozenset({str}))


_PRECISIONS = (
    *("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "bf16", "64"),
    *("transformer-engine", "transformer-engine-float16"),
)


def _is_index(value: Any) -> bool:
    if isinstance(value, str):
        return value == "auto" or value.isdecimal()
    return _FROM_0.take(value) is not REFUSED


def _is_device(value: Any) -> bool:
    """A device of torch is told by its ``type``."""
    return _is_index(value) or hasattr(value, "type")


def _are_devices(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("auto", "-1") or all(part.strip().isdecimal() for part in value.rstrip(",").split(","))
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_index(one) for one in value)
    return Whole(-1).take(value) not in (REFUSED, 0)


class _Columns(Several):
    """Names of columns; a single one counts as a list of one."""

    def take(self, value: Any) -> Any:
        """A list of names."""
        names = listed(value)
        return super().take(names) if names else names


class _Accelerator(OneOf):
    """A word for where to compute; objects of Lightning pass."""

    def take(self, value: Any) -> Any:
        """The word, in small letters, or the object."""
        if isinstance(value, str):
            return super().take(value.lower())
        return value if hasattr(value, "setup_device") else super().take(value)


def _each(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


_SIZES: dict[str, Kind] = {
    **_each(
        _COUNT,
        """n_hidden n_latent n_layers n_topics n_layers_encoder n_latent_amortization num_classes_mog n_states_per_label
        n_samples n_samples_overall mc_samples n_mc_samples n_mc_samples_per_pass max_cells num_cells_posterior
        n_samples_augmentation n_samples_per_label vamp_prior_p m_permutation batch_size minibatch_size n_top_genes
        n_top_genes_fallback n_cells n_genes n_cell_types n_batches n_spots types_per_spot num_nodes
        accumulate_grad_batches pool_bytes""",
    ),
    **_each(
        _FROM_0,
        """max_epochs min_epochs retries n_epochs_kl_warmup n_steps_kl_warmup lr_patience check_val_every_n_epoch
        log_every_n_steps early_stopping_patience early_stopping_warmup_epochs patience warmup_epochs add_celltypes
        n_proteins n_regions dl_num_workers n_input""",
    ),
    "seed": _FROM_0,
    "max_steps": Whole(-1),
}

_NUMBERS: dict[str, Kind] = {
    **_each(_RATE, "dropout_rate dropout_decoder dropout_amortization minimal_dropout"),
    **_each(_INSIDE, "alpha_prior beta_prior"),
    **_each(_SHARE_NOT_0, "train_size capture_rate"),
    **_each(_SHARE, "validation_size dropout_ratio p_val_thresh marker_fraction lr_warmup_fraction"),
    **_each(
        _POSITIVE,
        """dof rna_size_factor doublet_ratio perplexity lr_factor median_library cell_scale_factor cells_per_spot
        concentration""",
    ),
    **_each(
        _NOT_NEGATIVE,
        """lr weight_decay eps eps_v lr_threshold lr_min max_kl_weight min_kl_weight gradient_clip_val
        early_stopping_min_delta min_delta classification_ratio limit_train_batches limit_val_batches delta
        pseudocounts threshold_counts marker_strength batch_strength""",
    ),
    "fdr_target": Several(_SHARE),
    "cred_interval_lvls": Several(_INSIDE),
    "library_size": AnyOf((OneOf(("latent",)), _POSITIVE)),
    **_each(Several(_POSITIVE), "cell_topic_prior topic_feature_prior"),
    "verbose": AnyOf((_FROM_0, Flag())),
    "scale_adversarial_loss": AnyOf((OneOf(("auto",)), _NOT_NEGATIVE)),
}

_WORDS: dict[str, Kind] = {
    "accelerator": _Accelerator(("auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu")),
    "device": Instance("'auto' or the index of a device", _is_device, types=frozenset({int, str})),
    "devices": Instance("'auto', -1 for all, a number of at least 1, or a list of indices", _are_devices),
    "precision": OneOf((*_PRECISIONS, 16, 32, 64)),
}

_THINGS: dict[str, Kind] = {
    **_each(_ANNDATA, "adata st_adata sc_adata rna_anndata atac_anndata multi_anndata adata_target"),
    **_each(_COLUMN, "batch_key labels_key size_factor_key fine_labels_key groupby sample_key split_by"),
    **_each(_LAYER, "layer smoothed_layer"),
    **_each(_KEY, "registry_key setup_arg"),
    **_each(_Columns(_COLUMN), "categorical_covariate_keys continuous_covariate_keys"),
    **_each(_PATH, "dir_path output_dir_path path"),
    **_each(_ARRAY, "library_log_means library_log_vars ct_weight y_prior"),
    "dataloader": _BATCHES,
}

NAMES: Mapping[str, Kind] = {**_SIZES, **_NUMBERS, **_WORDS, **_THINGS}
"""Name of an argument -> its kind."""
