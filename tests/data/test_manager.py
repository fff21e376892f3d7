import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.core import SCVI_TOOLS_VERSION, UnknownArgumentError
from celbo.core.rules import CELBO, SCVI_TOOLS, followed
from celbo.data import AnnDataManager, AnnDataManagerValidationCheck, synthetic_iid
from celbo.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
    ObsmField,
)


def small(seed=0, n=10, **kwargs):
    return synthetic_iid(batch_size=n, n_genes=5, n_proteins=3, n_regions=2, n_labels=2, seed=seed, **kwargs)


def registered(adata, *fields, source=None, **kwargs):
    manager = AnnDataManager(fields=list(fields))
    manager.register_fields(adata, source, **kwargs)
    return manager


def basic(layer=None):
    return [LayerField("X", layer), CategoricalObsField("batch", "batch")]


def test_adata_gets_only_the_registrys_own_keys():
    adata = small(sparse_format="csr_matrix")
    adata.obs["c"], adata.obs["s"] = ["u", "v"] * 10, 1.5
    before, x, data = adata.copy(), adata.X, adata.X.data
    registered(
        adata,
        *basic(),
        CategoricalObsField("labels", None),
        CategoricalJointObsField("extra_categorical_covs", ["c"]),
        NumericalJointObsField("extra_continuous_covs", ["s"]),
    )
    assert set(adata.obs) - set(before.obs) == {"_scvi_batch", "_scvi_labels"}
    assert set(adata.obsm) - set(before.obsm) == {"_scvi_extra_categorical_covs", "_scvi_extra_continuous_covs"}
    assert set(adata.uns) - set(before.uns) == {"_scvi_uuid", "_scvi_manager_uuid"}
    assert set(adata.var) == set(before.var)
    assert adata.X is x
    assert adata.X.data is data
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(adata.obs[before.obs.columns], before.obs)


def test_reading_what_was_registered():
    adata = small()
    adata.obs["size"] = np.arange(1.0, 21.0)
    manager = registered(
        adata, *basic(), NumericalObsField("size_factor", "size"), NumericalJointObsField("none", None)
    )
    assert manager.registry["scvi_version"] == SCVI_TOOLS_VERSION
    assert manager.get_from_registry("X") is adata.X
    assert manager.get_from_registry("batch").shape == (20, 1)
    np.testing.assert_array_equal(manager.get_from_registry("size_factor")[:, 0], np.arange(1.0, 21.0))
    assert manager.summary_stats == {"n_vars": 5, "n_cells": 20, "n_batch": 2, "n_none": 0}
    assert manager.summary_stats.n_batch == 2
    assert manager.data_registry.batch.attr_key == "_scvi_batch"
    assert "none" not in manager.data_registry
    assert list(manager.get_state_registry("batch").categorical_mapping) == ["batch_0", "batch_1"]
    assert manager.adata_uuid == adata.uns["_scvi_uuid"]
    with pytest.raises(KeyError, match=r"No registered field \(registry_key\) is called 'bach'. Did you mean 'batch'"):
        manager.get_from_registry("bach")
    with pytest.raises(KeyError, match="the field is empty"):
        manager.get_from_registry("none")


def test_unregistered_and_twice_registered_managers_say_so():
    manager = AnnDataManager(fields=basic())
    with pytest.raises(AssertionError, match="not registered"):
        _ = manager.summary_stats
    adata = small()
    manager.register_fields(adata)
    with pytest.raises(AssertionError, match="Existing AnnData object registered"):
        manager.register_fields(adata)


def test_views_are_refused_unless_the_check_is_off():
    adata = small()
    with pytest.raises(ValueError, match=r"Please run `adata = adata.copy\(\)`"):
        registered(adata[:5], *basic())
    manager = AnnDataManager(basic(), validation_checks=AnnDataManagerValidationCheck(check_if_view=False))
    with pytest.warns(anndata.ImplicitModificationWarning):
        manager.register_fields(adata[:15])
    assert manager.summary_stats.n_cells == 15
    with pytest.raises(TypeError, match="adata must be an AnnData, got an array"):
        registered(np.zeros((2, 2)), *basic())


def test_two_fields_with_one_statistic_clash():
    manager = registered(small(), LayerField("X", None), ObsmField("vars", "accessibility"))
    with pytest.raises(RuntimeError, match="'n_vars'"):
        _ = manager.summary_stats


def test_new_fields_join_and_replace():
    adata = small()
    adata.obs["c"] = ["u", "v"] * 10
    manager = registered(adata, *basic())
    manager.register_new_fields([CategoricalObsField("labels", "c"), CategoricalObsField("batch", "c")])
    assert [field.registry_key for field in manager.fields] == ["X", "labels", "batch"]
    assert list(manager.get_state_registry("batch").categorical_mapping) == ["u", "v"]
    assert manager.summary_stats.n_labels == 2


def test_transfer_keeps_codes_and_leaves_the_source_alone():
    manager = registered(small(), *basic())
    target = small(seed=1, n=6)
    target.obs["batch"] = "batch_1"
    other = manager.transfer_fields(target)
    assert (target.obs["_scvi_batch"] == 1).all()
    assert other.summary_stats.n_batch == 2
    assert other.summary_stats.n_cells == 12
    assert manager.summary_stats.n_cells == 20
    assert other.registry["_scvi_uuid"] != manager.registry["_scvi_uuid"]


def test_unknown_category_is_named_nearest_first_and_can_extend():
    manager = registered(small(), *basic())
    target = small(seed=1)
    target.obs["batch"] = ["batch_0", "batch_7"] * 10
    with pytest.raises(ValueError, match=r"Category 'batch_7' of adata.obs\['batch'\] not found.*extend_categories"):
        manager.transfer_fields(target.copy())
    with pytest.raises(UnknownArgumentError, match="Did you mean 'extend_categories'"):
        manager.transfer_fields(target.copy(), extend_category=True)
    other = manager.transfer_fields(target, extend_categories=True)
    assert list(other.get_state_registry("batch").categorical_mapping) == ["batch_0", "batch_1", "batch_7"]
    assert target.obs["_scvi_batch"].tolist() == [0, 2] * 10
    assert list(manager.get_state_registry("batch").categorical_mapping) == ["batch_0", "batch_1"]


def test_genes_in_another_order_are_matched_by_name(log):
    manager = registered(small(), *basic())
    source = small(seed=1)
    order = np.array([3, 0, 4, 1, 2])
    shuffled = source[:, order].copy()
    other = manager.transfer_fields(shuffled)
    indexer = other.get_column_indexer("X")
    np.testing.assert_array_equal(np.asarray(other.get_from_registry("X"))[:, indexer], source.X)
    assert sum("matched by name in another order" in message for message in log) == 1
    assert list(other.get_state_registry("X").column_names) == list(source.var_names)
    assert manager.get_column_indexer("X") is None
    assert manager.transfer_fields(small(seed=2)).get_column_indexer("X") is None


def test_genes_among_others_are_picked_and_missing_ones_named(log):
    manager = registered(small(), *basic())
    source = small(seed=1)
    extra = source.copy()
    extra.var_names = [f"other_{i}" for i in range(5)]
    more = anndata.concat([extra, source], axis=1, merge="same")
    other = manager.transfer_fields(more)
    np.testing.assert_array_equal(np.asarray(other.get_from_registry("X"))[:, other.get_column_indexer("X")], source.X)
    assert other.summary_stats.n_vars == 5
    assert any("5 others are not used" in message for message in log)
    with pytest.raises(ValueError, match="lacks 2 of the 5 reference names: 'gene_0', 'gene_3'"):
        manager.transfer_fields(source[:, [1, 2, 4]].copy())


def test_obsm_columns_in_another_order_are_matched_by_name():
    adata, target = small(), small(seed=1)
    for data in (adata, target):
        data.obsm["p"] = pd.DataFrame(data.obsm["protein_expression"], index=data.obs_names, columns=["a", "b", "c"])
    manager = registered(adata, *basic(), ObsmField("proteins", "p"))
    target.obsm["p"] = target.obsm["p"][["c", "a", "b"]]
    other = manager.transfer_fields(target)
    assert other.get_column_indexer("proteins").tolist() == [1, 2, 0]
    target = small(seed=2)
    target.obsm["p"] = target.obsm["protein_expression"][:, :2]
    with pytest.raises(ValueError, match="lacks 3 of the 3 reference names"):
        manager.transfer_fields(target)


def test_transfer_wants_setups_of_the_same_shape():
    adata = small()
    adata.obs["c"] = ["u", "v"] * 10
    manager = registered(adata, CategoricalObsField("batch", "c"), CategoricalJointObsField("cats", ["c"]))
    with pytest.raises(ValueError, match=r"from adata.obs\['c'\], this setup names no column"):
        registered(adata, CategoricalObsField("batch", None), source=manager.registry)
    with pytest.raises(ValueError, match="has data for 'cats', this setup names none"):
        registered(adata, CategoricalJointObsField("cats", None), source=manager.registry)
    adata.obs["d"] = adata.obs["c"]
    with pytest.raises(ValueError, match=r"from the columns \['c'\], this setup names \['d'\]"):
        registered(adata, CategoricalJointObsField("cats", ["d"]), source=manager.registry)
    with pytest.raises(KeyError, match=r"No registered field \(registry_key\) is called 'labels'"):
        registered(adata, CategoricalObsField("labels", "c"), source=manager.registry)


def test_copies_are_noticed_and_get_an_identity_of_their_own():
    adata = small()
    manager = registered(adata, *basic())
    copy = adata.copy()
    assert manager.is_copy(copy)
    assert not manager.is_copy(adata)
    assert not manager.is_copy(small(seed=1))
    manager.require_same_object(adata)
    with pytest.raises(ValueError, match="Did you make a copy"):
        manager.require_same_object(copy)
    other = manager.transfer_fields(copy)
    assert copy.uns["_scvi_uuid"] != adata.uns["_scvi_uuid"]
    assert other.adata is copy


def test_validate_writes_codes_again_after_another_setup():
    adata = small()
    adata.obs["c"] = ["v", "u"] * 10
    first = registered(adata, LayerField("X", None), CategoricalObsField("batch", "c"))
    codes = adata.obs["_scvi_batch"].tolist()
    second = registered(adata, LayerField("X", None), CategoricalObsField("batch", None))
    assert (adata.obs["_scvi_batch"] == 0).all()
    first.validate()
    assert adata.obs["_scvi_batch"].tolist() == codes
    assert adata.uns["_scvi_manager_uuid"] == first.id
    second.validate()
    assert (adata.obs["_scvi_batch"] == 0).all()
    assert first.adata_uuid == second.adata_uuid


def test_validate_keeps_the_mapping_when_the_users_column_changed():
    adata = small()
    first = registered(adata, *basic())
    adata.obs["batch"] = "batch_1"
    registered(adata, LayerField("X", None), CategoricalObsField("batch", None))
    first.validate()
    assert (adata.obs["_scvi_batch"] == 1).all()
    assert first.summary_stats.n_batch == 2


def test_a_setup_that_fails_half_way_does_not_fool_older_managers():
    adata = small()
    adata.obs["c"], adata.obs["holes"] = ["v", "u"] * 10, ["a", None] * 10
    first = registered(adata, CategoricalObsField("batch", "c"))
    codes = adata.obs["_scvi_batch"].tolist()
    with pytest.raises(ValueError, match="has no value for 10 of 20 cells"):
        registered(adata, CategoricalObsField("batch", None), CategoricalObsField("labels", "holes"))
    first.validate()
    assert adata.obs["_scvi_batch"].tolist() == codes


def test_validate_notices_renamed_genes_and_lost_cells():
    adata = small()
    manager = registered(adata, *basic())
    adata.var_names = [f"renamed_{i}" for i in range(5)]
    with pytest.raises(ValueError, match=r"columns of adata.X changed since setup"):
        manager.validate()
    adata = small()
    manager = registered(adata, *basic())
    adata._inplace_subset_obs(np.arange(7))
    with pytest.raises(ValueError, match="had 20 cells at setup and has 7 now"):
        manager.validate()


def test_setup_arguments_are_kept_updated_and_transferred():
    args = {"model_name": "SCVI", "setup_method_name": "setup_anndata", "setup_args": {"layer": None}}
    manager = AnnDataManager(basic(), setup_method_args=args)
    manager.register_fields(small())
    manager.update_setup_method_args({"use_minified": True})
    assert manager.registry["setup_args"] == {"layer": None, "use_minified": True}
    assert args["setup_args"] == {"layer": None}
    assert manager.transfer_fields(small(seed=1)).registry["setup_args"] == manager.registry["setup_args"]


def test_views_of_the_registry_show_places_sizes_and_codes(capsys):
    args = {"model_name": "SCVI", "setup_method_name": "setup_anndata", "setup_args": {"batch_key": "batch"}}
    manager = AnnDataManager(basic(), setup_method_args=args)
    manager.register_fields(small())
    manager.view_registry()
    shown = capsys.readouterr().out
    for text in ("SCVI.setup_anndata", "n_batch", "adata.obs['_scvi_batch']", "batch State Registry", "batch_1"):
        assert text in shown
    manager.view_registry(hide_state_registries=True)
    assert "batch State Registry" not in capsys.readouterr().out


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array, np.asarray])
def test_any_storage_registers_and_comes_back_as_it_lies(form):
    adata = small()
    adata.X = form(adata.X)
    manager = registered(adata, *basic())
    assert manager.get_from_registry("X") is adata.X


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_backed_data_register(tmp_path, form):
    adata = small()
    adata.X = form(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    manager = registered(backed, *basic())
    assert manager.summary_stats.n_cells == 20
    other = registered(small(), *basic()).transfer_fields(backed)
    assert other.summary_stats.n_vars == 5
    backed.file.close()


def test_the_global_random_state_is_untouched(global_rng_untouched):
    manager = registered(small(), *basic())
    manager.transfer_fields(small(seed=1))


def test_a_manager_made_by_hand_can_be_shown(capsys):
    adata = synthetic_iid(batch_size=10, n_genes=5, seed=0)
    manager = AnnDataManager([LayerField("X", None)], {"model_name": "Mine", "setup_args": {"layer": None}})
    manager.register_fields(adata)
    manager.view_registry()
    assert "Setup via `Mine.setup_anndata`" in capsys.readouterr().out


def test_memory_layout_is_changed_only_under_the_rules_of_scvi_tools():
    fields = [LayerField("X", None), LayerField("other", "other"), ObsmField("table", "table")]
    for chosen, is_row_major in ((CELBO, False), (SCVI_TOOLS, True)):
        adata = synthetic_iid(batch_size=10, n_genes=5, seed=0)
        before = adata.X.copy()
        adata.X = np.asfortranarray(adata.X)
        adata.layers["other"], adata.obsm["table"] = np.asfortranarray(before), np.asfortranarray(before)
        with followed(chosen):
            AnnDataManager(fields).register_fields(adata)
        for array in (adata.X, adata.layers["other"], adata.obsm["table"]):
            assert array.flags["C_CONTIGUOUS"] is is_row_major
            np.testing.assert_array_equal(array, before)


def test_more_genes_are_refused_only_under_the_rules_of_scvi_tools():
    small, large = (synthetic_iid(batch_size=10, n_genes=n, seed=0) for n in (5, 8))
    manager = AnnDataManager([LayerField("X", None)])
    manager.register_fields(small)
    with followed(SCVI_TOOLS), pytest.raises(ValueError, match=r"not the same as source\. Expected: 5 Received: 8"):
        manager.transfer_fields(large)
    assert manager.transfer_fields(large).summary_stats.n_vars == 5
