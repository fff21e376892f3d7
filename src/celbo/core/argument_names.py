"""What an argument means everywhere, by its name: the table that every door reads.

A row is a range or a set of words; whether None may be given is said by the signature of each function. What only one
function means by a name goes into its signature instead: ``Annotated[int, Whole(0)]``.
"""

import os
import types
from collections.abc import Iterable, Mapping
from typing import Any

from .kinds import REFUSED, AnyOf, Flag, Instance, Kind, Number, OneOf, Several, Text, Whole, shape_of
from .lookup import listed

__all__ = ["MATRIX", "NAMES", "TORCH_DEVICE"]

_COUNT = Whole(1)
_FROM_0 = Whole(0)
_POSITIVE = Number(0, above=True)
_NOT_NEGATIVE = Number(0)
_SHARE = Number(0, 1)
_SHARE_NOT_0 = Number(0, 1, above=True)
_RATE = Number(0, 1, below=True)
_INSIDE = Number(0, 1, above=True, below=True)


def _is_anndata(value: object) -> bool:
    """AnnData and MuData have both; tables and arrays have neither."""
    return hasattr(value, "obs") and hasattr(value, "uns")


def _is_array(value: object) -> bool:
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
_METRIC = Instance("the name of a metric", lambda value: isinstance(value, str), types=frozenset({str}))
_INTERVAL = Instance(
    "text, such as '5 min', '1 epoch' or '200 steps'", lambda value: isinstance(value, str), types=frozenset({str})
)
_MANAGER = Instance(
    "an AnnDataManager",
    lambda value: hasattr(value, "get_from_registry"),
    "setup_anndata makes one: model.adata_manager, or Model._get_most_recent_anndata_manager(adata).",
)
_MODEL = Instance("a model", lambda value: hasattr(value, "module"))
_REFERENCE = Instance(
    "a model, or the folder of a saved one",
    lambda value: hasattr(value, "module") or isinstance(value, str | os.PathLike),
)
_CALLBACK = Instance(
    "an object with methods such as on_train_epoch_end(trainer, plan)",
    # which hooks it has is its own affair
    lambda value: hasattr(value, "__dict__") and not isinstance(value, type | types.FunctionType),
)
_GENES = Instance("names of genes", lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes))
MATRIX = Instance(
    "a matrix of cells by genes",
    lambda value: len(shape_of(value) or ()) == 2 and not _is_anndata(value),
    "Of an AnnData it is X, or a layer.",
)
_LAYER = Instance("the name of a layer", lambda value: isinstance(value, str), types=frozenset({str}))


_PRECISIONS = (
    *("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "bf16", "64"),
    *("transformer-engine", "transformer-engine-float16"),
)


def _is_index(value: object) -> bool:
    if isinstance(value, str):
        return value == "auto" or value.isdecimal()
    return _FROM_0.take(value) is not REFUSED


def _is_torch_device(value: object) -> bool:
    if isinstance(value, str):
        kind, _, index = value.partition(":")
        return kind in ("cpu", "cuda", "mps", "xpu", "hpu", "xla", "meta") and (index or "0").isdecimal()
    return _is_device(value)


def _is_device(value: object) -> bool:
    """A device of torch is told by its ``type``."""
    return _is_index(value) or hasattr(value, "type")


TORCH_DEVICE = Instance("a device of torch, such as 'cpu', 'cuda' or 'cuda:0'", _is_torch_device)


def _are_devices(value: object) -> bool:
    if isinstance(value, str):
        return value in ("auto", "-1") or all(part.strip().isdecimal() for part in value.rstrip(",").split(","))
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_index(one) for one in value)
    return Whole(-1).take(value) not in (REFUSED, 0)


class _Columns(Several):
    """Names of columns; a single one counts as a list of one."""

    def take(self, value: object) -> Any:
        """A list of names."""
        names = listed(value)
        return super().take(names) if names else names


class _Accelerator(OneOf):
    """A word for where to compute; objects of Lightning pass."""

    def take(self, value: object) -> Any:
        """The word, in small letters, or the object."""
        if isinstance(value, str):
            return super().take(value.lower())
        return value if hasattr(value, "setup_device") else super().take(value)


def _each(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


_SIZES: dict[str, Kind] = {
    **_each(
        _COUNT,
        """n_hidden n_latent n_layers n_topics n_layers_encoder n_layers_decoder num_classes_mog n_latent_amortization
        n_states_per_label
        n_samples n_samples_overall mc_samples n_mc_samples n_mc_samples_per_pass max_cells num_cells_posterior
        n_samples_augmentation n_samples_per_label vamp_prior_p m_permutation batch_size minibatch_size n_top_genes
        n_top_genes_fallback n_cells n_genes n_cell_types n_batches n_spots types_per_spot num_nodes
        accumulate_grad_batches pool_bytes n_top chunk_rows
        num_samples summary_frequency
        n_classes n_background_latent n_salient_latent subsample_size n_neighbors prior_mixture_k downsample_cells""",
    ),
    **_each(
        _FROM_0,
        """max_epochs min_epochs retries n_epochs_kl_warmup n_steps_kl_warmup lr_patience check_val_every_n_epoch
        log_every_n_steps early_stopping_patience early_stopping_warmup_epochs patience warmup_epochs add_celltypes
        n_proteins n_regions dl_num_workers n_input progress_bar_refresh_rate rank restrict_to_latent_dim""",
    ),
    "seed": _FROM_0,
    **_each(Whole(-1), "max_steps num_sanity_val_steps n_jobs"),
}

_NUMBERS: dict[str, Kind] = {
    **_each(_RATE, "dropout_rate dropout_decoder dropout_amortization minimal_dropout"),
    **_each(_INSIDE, "alpha_prior beta_prior"),
    **_each(_SHARE_NOT_0, "train_size capture_rate"),
    **_each(_SHARE, "validation_size sparsity dropout_ratio p_val_thresh marker_fraction lr_warmup_fraction"),
    **_each(
        _POSITIVE,
        """dof rna_size_factor doublet_ratio perplexity lr_factor median_library cell_scale_factor cells_per_spot
        concentration min_library_size""",
    ),
    **_each(
        _NOT_NEGATIVE,
        """lr weight_decay eps eps_v lr_threshold lr_min max_kl_weight min_kl_weight gradient_clip_val
        early_stopping_min_delta min_delta classification_ratio limit_train_batches limit_val_batches delta
        wasserstein_penalty pseudocounts threshold_counts marker_strength batch_strength rtol
        joint_embedding_weight lambda_off_diag reconstruction_weight variance_weight""",
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
    **_each(
        _ANNDATA,
        """adata adata_seq adata_spatial st_adata sc_adata raw_adata rna_anndata atac_anndata multi_anndata adata_target
        adata_reference adata_rna adata_sc adata_sp embed query_adata target_adata into""",
    ),
    **_each(_COLUMN, "batch_key labels_key size_factor_key fine_labels_key groupby de_groupby sample_key split_by"),
    **_each(_COLUMN, "modality_key panel_key cat_key"),
    **_each(
        _LAYER,
        """layer smoothed_layer count_layer_key read_layer fragment_layer rna_layer atac_layer protein_layer idx_layer
        layer_key mc_layer cov_layer""",
    ),
    "context": Text(),
    "checkpoint_every": _INTERVAL,
    **_each(_KEY, "key_adversarial registry_key setup_arg"),
    **_each(_METRIC, "monitor checkpointing_monitor early_stopping_monitor"),
    **_each(
        Text(),
        """title prefix class_name data_key modality recipe rna_key protein_expression_key accessibility_key filename
        use_latent_qzm_key use_latent_qzv_key backup_url output use_rep reference_batch neighbor_key
        cell_coordinates_key expression_embedding_key expression_embedding_niche_key niche_composition_key
        niche_indexes_key niche_distances_key key_added""",
    ),
    "layers": _Columns(_LAYER),
    **_each(_Columns(_COLUMN), "categorical_covariate_keys continuous_covariate_keys"),
    **_each(_PATH, "dir_path output_dir_path path log_save_dir default_root_dir path_to_save"),
    **_each(_ARRAY, "library_log_means library_log_vars ct_weight y_prior"),
    **_each(_GENES, "var_names reference_names"),
    "dataloader": _BATCHES,
    "adata_manager": _MANAGER,
    **_each(_MODEL, "sc_model scvi_model"),
    "reference_model": _REFERENCE,
    "callbacks": Several(_CALLBACK, or_none_of_it=True),
}

NAMES: Mapping[str, Kind] = {**_SIZES, **_NUMBERS, **_WORDS, **_THINGS}
"""Name of an argument -> its kind."""
