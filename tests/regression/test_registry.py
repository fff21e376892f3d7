"""Faults of setup seen in scvi-tools 1.4.2: silent gene order, phantom classes, stale layers, shared columns."""

import numpy as np
import pandas as pd
import pytest

from celbo.data import AnnDataManager, synthetic_iid
from celbo.data.fields import CategoricalObsField, LabelsWithUnlabeledObsField, LayerField


def setup(adata, *fields):
    manager = AnnDataManager(list(fields))
    manager.register_fields(adata)
    return manager


def test_permuted_genes_are_never_taken_by_position():
    manager = setup(synthetic_iid(seed=0), LayerField("X", None))
    permuted = synthetic_iid(seed=0)[:, ::-1].copy()
    other = manager.transfer_fields(permuted)
    assert other.get_column_indexer("X").tolist() == list(range(100))[::-1]
    permuted.var_names = [f"ENSG{i}" for i in range(100)]
    with pytest.raises(ValueError, match="lacks 100 of the 100 reference names"):
        manager.transfer_fields(permuted)


def test_unused_levels_make_no_classes():
    adata = synthetic_iid(seed=0)
    labels = adata.obs["labels"].cat.add_categories(["label_8", "label_9"])
    adata.obs["labels"] = labels
    manager = setup(
        adata, LabelsWithUnlabeledObsField("labels", "labels", "label_0"), CategoricalObsField("batch", "batch")
    )
    assert manager.summary_stats.n_labels == 3
    assert manager.get_state_registry("labels").categorical_mapping[-1] == "label_0"
    subset = adata[adata.obs["batch"] == "batch_1"].copy()
    subset.obs["batch"] = pd.Categorical(subset.obs["batch"], categories=["batch_0", "batch_1"])
    assert setup(subset, CategoricalObsField("batch", "batch")).summary_stats.n_batch == 1


def test_another_layer_leaves_nothing_stale():
    adata = synthetic_iid(seed=0)
    adata.layers["tenfold"] = adata.X * 10
    first = setup(adata, LayerField("X", None))
    keys = set(adata.obs), set(adata.obsm), set(adata.uns)
    second = setup(adata, LayerField("X", "tenfold"))
    assert (set(adata.obs), set(adata.obsm), set(adata.uns)) == keys
    np.testing.assert_array_equal(second.get_from_registry("X"), 10 * first.get_from_registry("X"))
    first.validate()
    assert first.get_from_registry("X") is adata.X


def test_source_without_a_column_is_not_fitted_by_zeros():
    adata = synthetic_iid(seed=0)
    source = setup(adata, CategoricalObsField("batch", "batch")).registry
    manager = AnnDataManager([CategoricalObsField("batch", None)])
    with pytest.raises(ValueError, match="names no column for it"):
        manager.register_fields(synthetic_iid(seed=1), source)
