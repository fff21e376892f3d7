"""Fields of a MuData: the same as those of its modalities."""

import numpy as np
import pytest

from celbo.data import AnnDataManager, synthetic_iid
from celbo.data import fields as f
from celbo.dataloaders import AnnDataLoader

mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
pytestmark = pytest.mark.usefixtures("mudata_pulls_nothing")


@pytest.fixture
def mdata():
    return synthetic_iid(batch_size=30, n_genes=10, n_proteins=4, n_regions=6, return_mudata=True, seed=0)


@pytest.fixture
def manager(mdata):
    batch = f.MuDataCategoricalObsField("batch", "batch")
    mdata.mod["protein_expression"].X[:30, 0] = 0
    fields = [
        f.MuDataLayerField("X", None, mod_key="rna", is_count_data=True),
        batch,
        f.MuDataProteinLayerField(
            "proteins", None, mod_key="protein_expression", use_batch_mask=True, batch_field=batch
        ),
        f.MuDataLabelsWithUnlabeledObsField("labels", "labels", "label_0"),
        f.MuDataNumericalObsField("size_factor", None, required=False),
    ]
    manager = AnnDataManager(fields)
    manager.register_fields(mdata)
    return manager


def test_registry(manager, mdata):
    assert manager.summary_stats == {"n_vars": 10, "n_cells": 60, "n_batch": 2, "n_proteins": 4, "n_labels": 3}
    assert manager.data_registry["X"] == {"mod_key": "rna", "attr_name": "X", "attr_key": None}
    assert manager.data_registry["batch"] == {"attr_name": "obs", "attr_key": "_scvi_batch"}
    assert manager.get_state_registry("labels").unlabeled_category == "label_0"
    mask = manager.get_state_registry("proteins").protein_batch_mask
    assert [list(measured) for measured in mask.values()] == [[False, True, True, True], [True] * 4]
    assert manager.get_from_registry("X") is mdata.mod["rna"].X


def test_minibatches(manager, mdata):
    batch = next(iter(AnnDataLoader(manager, indices=[5, 2], batch_size=2)))
    np.testing.assert_array_equal(batch["X"].numpy(), mdata.mod["rna"].X[[5, 2]])
    np.testing.assert_array_equal(batch["proteins"].numpy(), mdata.mod["protein_expression"].X[[5, 2]])
    assert manager.create_torch_dataset()[3]["proteins"].shape == (1, 4)


def test_transfer_and_validate(manager, mdata):
    other = synthetic_iid(batch_size=5, n_genes=10, n_proteins=4, n_regions=6, return_mudata=True, seed=1)
    moved = manager.transfer_fields(other)
    assert moved.summary_stats.n_cells == 10
    manager.validate()
    manager.view_registry()
    lacking = mudata.MuData({"dna": other.mod["rna"]})
    with pytest.raises(ValueError, match=r"Modality rna not found in mdata.mod. There are: 'dna'"):
        manager.transfer_fields(lacking)
    with pytest.raises(AssertionError, match="only be called on MuData"):
        manager.transfer_fields(mdata.mod["rna"].copy())


@pytest.mark.parametrize("cells", [slice(20), slice(None, None, -1)])
def test_modalities_have_the_same_cells_in_the_same_order(mdata, cells):
    parts = {"rna": mdata.mod["rna"][cells].copy(), "adt": mdata.mod["protein_expression"].copy()}
    uneven = mudata.MuData(parts)
    broken = "unpaired observations in modality rna" if cells.stop else "in another order"
    with pytest.raises(ValueError, match=broken):
        AnnDataManager(
            [f.MuDataLayerField("X", None, mod_key="rna"), f.MuDataLayerField("P", None, mod_key="adt")]
        ).register_fields(uneven)


def test_refuses(mdata):
    with pytest.raises(ValueError, match="Modality required for MuDataLayerField"):
        f.MuDataLayerField("X", None, mod_required=True)
    with pytest.raises(ValueError, match="only modalities have one"):
        f.MuDataLayerField("X", None).validate_field(mdata)


def test_wrapper(mdata):
    wrapped = f.MuDataWrapper(f.ObsmField, lambda field, data: data.obsm.update({"made": np.ones((data.n_obs, 2))}))
    field = wrapped("key", "made")
    assert (wrapped.__name__, field.attr_name) == ("MuDataObsmField", "obsm")
    assert field.register_field(mdata)["column_names"].tolist() == [0, 1]
    assert isinstance(field, f.BaseMuDataWrapperClass)


def test_modalities_that_are_views_are_refused():
    mdata = mudata.MuData({"rna": synthetic_iid(batch_size=10, n_genes=5, seed=0)[:7]})
    with pytest.raises(ValueError, match="Modality rna is a view"):
        AnnDataManager([f.MuDataLayerField("X", None, mod_key="rna")]).register_fields(mdata)
