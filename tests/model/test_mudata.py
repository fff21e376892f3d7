"""MuData through the life of a model: setup, sizes, minibatches, archives."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import celbo
from celbo import REGISTRY_KEYS
from celbo.data.fields import LayerField, bundles
from celbo.distributions import Poisson
from celbo.model.base import BaseModelClass, UnsupervisedTrainingMixin, VAEMixin, setup_method
from celbo.module.base import BaseModuleClass, LossOutput, auto_move_data
from celbo.nn import Encoder, FCLayers

mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
pytestmark = pytest.mark.usefixtures("mudata_pulls_nothing")

KEYS = (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.ATAC_X_KEY)


class PairVAE(BaseModuleClass):
    """Poisson counts of genes and of regions."""

    def __init__(self, n_input: int, n_regions: int, n_batch: int = 1, n_latent: int = 4):
        super().__init__()
        self.z_encoder = Encoder(n_input + n_regions, n_latent, n_hidden=16, return_dist=True)
        self.decoders = torch.nn.ModuleDict(
            {
                key: FCLayers(n_latent, size, n_cat_list=[n_batch], n_layers=1)
                for key, size in zip(KEYS, (n_input, n_regions))
            }
        )

    @auto_move_data
    def inference(self, x: Tensor, atac: Tensor) -> dict:
        qz, z_nk = self.z_encoder(torch.log1p(torch.cat([x, atac], -1)))
        depths = {key: t.sum(-1, keepdim=True).log() for key, t in zip(KEYS, (x, atac))}
        return {"qz": qz, "z": z_nk, "depths": depths}

    @auto_move_data
    def generative(self, z: Tensor, depths: dict, batch_index: Tensor) -> dict:
        p = {key: Poisson.from_logits(self.decoders[key](z, batch_index), depths[key]) for key in KEYS}
        return {"px": p["X"], "pa": p["atac"]}

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight: float = 1.0) -> LossOutput:
        nll = {name: -generative_outputs[name].log_prob_sum(tensors[key]) for name, key in zip(("px", "pa"), KEYS)}
        kl_n = kl_divergence(inference_outputs["qz"], Normal(0.0, 1.0)).sum(-1)
        return LossOutput((sum(nll.values()) + kl_weight * kl_n).mean(), reconstruction_loss=nll, kl_local=kl_n)


class PairModel(VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    """Both modalities of every cell."""

    _module_cls = PairVAE
    _sizes = {"n_regions": "n_atac"}

    @classmethod
    @setup_method
    def setup_mudata(cls, mdata, rna_layer=None, atac_layer=None, batch_key: str | None = None, modalities=None):
        """Register genes and regions."""
        return [
            *bundles.in_modality(modalities.get("batch_key"), bundles.batch(batch_key)),
            *bundles.in_modality(modalities["rna_layer"], bundles.counts(rna_layer)),
            *bundles.in_modality(modalities["atac_layer"], [LayerField("atac", atac_layer)]),
        ]


class MosaicModel(PairModel):
    """The same, for cells that lack one of them."""

    _modalities_may_lack_cells = True


MODALITIES = {"rna_layer": "rna", "atac_layer": "peaks", "batch_key": "rna"}


def modality(names, g, seed, batches="ab", make=np.asarray):
    rng = np.random.default_rng(seed)
    x = rng.poisson(2.0, (len(names), g)).astype("float32")
    obs = pd.DataFrame({"batch": [batches[len(name) % 2] for name in names]}, index=names)
    adata = AnnData(make(x), obs=obs)
    adata.var_names = [f"{chr(97 + seed)}{i}" for i in range(g)]
    return adata


def names_of(numbers):
    return [f"cell{i}" + "x" * (i % 2) for i in numbers]


def paired(n=40, make=np.asarray):
    return mudata.MuData(
        {"rna": modality(names_of(range(n)), 8, 0, make=make), "peaks": modality(names_of(range(n)), 5, 1)}
    )


def mosaic(make=np.asarray):
    """Cells 0 to 29 have genes; cells 39 down to 10, in that order, have regions."""
    return mudata.MuData(
        {
            "rna": modality(names_of(range(30)), 8, 0, make=make),
            "peaks": modality(names_of(range(39, 9, -1)), 5, 1, make=make),
        }
    )


def trained(cls=PairModel, mdata=None, **kwargs):
    mdata = paired() if mdata is None else mdata
    cls.setup_mudata(mdata, batch_key="batch", modalities=MODALITIES)
    model = cls(mdata, **kwargs)
    model.train(max_epochs=2, verbose=0, seed=0)
    return model


def test_sizes_names_and_registry():
    model = trained()
    assert model.summary_stats == {"n_batch": 2, "n_vars": 8, "n_cells": 40, "n_atac": 5}
    assert {key: list(names) for key, names in model.get_var_names().items()} == {
        "rna": [f"a{i}" for i in range(8)],
        "peaks": [f"b{i}" for i in range(5)],
    }
    assert len(model.get_var_names(legacy_mudata_format=True)) == 13
    assert model.registry["setup_method_name"] == "setup_mudata"
    assert model.registry["setup_args"]["modalities"] == MODALITIES
    assert model.data is model.adata
    assert model.adata_manager.data_registry["atac"] == {"mod_key": "peaks", "attr_name": "X", "attr_key": None}


def test_keyword_and_positional_data():
    for call in (
        lambda m, **kw: PairModel.setup_mudata(mdata=m, **kw),
        lambda m, **kw: PairModel.setup_mudata(m, **kw),
    ):
        mdata = paired()
        call(mdata, modalities=MODALITIES)
        assert PairModel(mdata).module is not None


@pytest.mark.parametrize("where", ["saved", "given", "none"])
def test_archive(tmp_path, where):
    model = trained()
    latent = model.get_latent_representation()
    model.save(tmp_path / "m", save_anndata=where == "saved")
    assert (tmp_path / "m" / "mdata.h5mu").exists() == (where == "saved")
    data = {"saved": None, "given": paired(), "none": False}[where]
    loaded = PairModel.load(tmp_path / "m", adata=data)
    assert (loaded.data is None) == (where == "none")
    other = paired() if where == "none" else None
    np.testing.assert_array_equal(loaded.get_latent_representation(other), latent)
    loaded.delete_archive(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_conversion_takes_the_data_along(tmp_path):
    trained().save(tmp_path / "m", save_anndata=True)
    celbo.model.base.export_archive(tmp_path / "m", tmp_path / "old")
    celbo.model.base.convert_archive(tmp_path / "old", tmp_path / "new", class_name="PairModel")
    assert PairModel.load(tmp_path / "new").data.n_obs == 40


def test_data_saved_with_an_older_model_do_not_stay(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "adata.h5ad").touch()
    trained().save(tmp_path / "m", save_anndata=True, overwrite=True)
    assert not (tmp_path / "m" / "adata.h5ad").exists()


def test_a_copy_and_new_data_are_taken_over():
    model = trained()
    latent = model.get_latent_representation()
    np.testing.assert_array_equal(model.get_latent_representation(model.data.copy()), latent)
    part = model.data[names_of([3, 1])]
    np.testing.assert_allclose(model.get_latent_representation(part), latent[[3, 1]], rtol=1e-5)
    with pytest.raises(ValueError, match=r"Please set up your MuData with PairModel\.setup_mudata first"):
        PairModel(paired())


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_cells_without_a_modality_are_rows_of_zeros_and_said_to_lack_it(make):
    mdata = mosaic(make)
    model = trained(MosaicModel, mdata)
    rows = [35, 0, 20, 39, 5]
    batch = next(iter(model._make_data_loader(mdata, indices=rows)))
    for key, mod in (("X", "rna"), ("atac", "peaks")):
        part = mdata.mod[mod]
        x = part.X.toarray() if sp.issparse(part.X) else part.X
        for row, values in zip(rows, batch[key].numpy()):
            name = mdata.obs_names[row]
            there = np.flatnonzero(part.obs_names == name)
            np.testing.assert_array_equal(values, x[there[0]] if len(there) else np.zeros(x.shape[1]))
    expected = np.stack([mdata.obs_names.isin(mdata.mod[mod].obs_names)[rows] for mod in ("rna", "peaks")], 1)
    np.testing.assert_array_equal(batch["modality_presence"].numpy(), expected)
    codes = model.adata_manager.get_from_registry("batch").ravel()
    assert [("a", "b")[code] for code in codes] == ["ab"[len(name) % 2] for name in mdata.obs_names]


def test_mosaic_of_another_order_is_saved_and_loaded(tmp_path):
    mdata = mosaic()
    model = trained(MosaicModel, mdata)
    model.save(tmp_path / "m", save_anndata=True)
    again = MosaicModel.load(tmp_path / "m")
    assert list(again.data.obs_names) == list(mdata.obs_names)
    np.testing.assert_array_equal(again.get_elbo(seed=0), model.get_elbo(seed=0))


def test_stale_map_is_named():
    mdata = mosaic()
    mdata.mod["rna"] = mdata.mod["rna"][:20].copy()
    with pytest.raises(ValueError, match=r"modality 'rna' \(20\) changed since the MuData was made: run mdata.update"):
        MosaicModel.setup_mudata(mdata, modalities=MODALITIES)


def test_bad_input_is_named():
    good = {"rna_layer": "rna", "atac_layer": "peaks"}
    with pytest.raises(ValueError, match="unpaired observations in modality rna: it has 30 cells, the MuData 40"):
        PairModel.setup_mudata(mosaic(), modalities=good)
    with pytest.raises(ValueError, match="Modalities cannot be None: say of which modality, one of 'rna', 'peaks'"):
        PairModel.setup_mudata(paired())
    with pytest.raises(
        ValueError, match=r"'atac_layer': 'atac'}: there is no such modality. There are: 'rna', 'peaks'"
    ):
        PairModel.setup_mudata(paired(), modalities=good | {"atac_layer": "atac"})
    with pytest.raises(TypeError, match="Did you mean 'rna_layer'"):
        PairModel.setup_mudata(paired(), modalities=good | {"rna_layr": "rna"})
    with pytest.raises(TypeError, match="takes a MuData, got AnnData data"):
        PairModel.setup_mudata(paired().mod["rna"], modalities=good)
    with pytest.raises(TypeError, match=r"SCVI\.setup_anndata takes an AnnData, got a MuData"):
        celbo.model.SCVI.setup_anndata(paired())
    with pytest.raises(KeyError, match="btach"):
        PairModel.setup_mudata(paired(), batch_key="btach", modalities=good)


def test_a_column_in_two_places_with_different_values_is_named():
    mdata = paired()
    mdata.obs["batch"] = mdata.mod["rna"].obs["batch"].to_numpy()
    PairModel.setup_mudata(mdata, batch_key="batch", modalities=MODALITIES)
    mdata.obs.loc["cell2", "batch"] = "a"
    with pytest.raises(
        ValueError, match=r"'batch' is in two places with different values for 1 cell.*'b' of the cell 'cell2'"
    ):
        PairModel.setup_mudata(mdata, batch_key="batch", modalities=MODALITIES)


@pytest.mark.parametrize("where", ["global", "modality", "both modalities"])
def test_a_column_is_found_where_it_lies(where):
    mdata = paired()
    if where == "global":
        mdata.obs["batch"] = mdata.mod["rna"].obs["batch"].to_numpy()
    if where != "both modalities":
        del mdata.mod["peaks"].obs["batch"]
    if where == "global":
        del mdata.mod["rna"].obs["batch"]
    PairModel.setup_mudata(mdata, batch_key="batch", modalities={"rna_layer": "rna", "atac_layer": "peaks"})
    manager = PairModel._get_most_recent_anndata_manager(mdata, required=True)
    assert manager.summary_stats.n_batch == 2
    codes = manager.get_from_registry("batch").ravel()
    assert list(codes[:4]) == [1, 0, 1, 0]
    assert not any(str(name).startswith("batch") for name in mdata.obs.columns if where != "global")


@pytest.mark.parametrize("kind", ["h5mu", "zarr"])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_streamed(tmp_path, kind, make):
    mdata = mosaic(make)
    path = tmp_path / f"data.{kind}"
    mdata.write(path) if kind == "h5mu" else mdata.write_zarr(path)
    streamed = celbo.data.open_mudata(path, stream=True)
    assert all(isinstance(part.X, celbo.data.StoredMatrix) for part in streamed.mod.values())
    in_memory, from_disk = trained(MosaicModel, mdata), trained(MosaicModel, streamed)
    for indices in ([3, 38, 0], [39]):
        one, other = (next(iter(m._make_data_loader(m.data, indices=indices))) for m in (in_memory, from_disk))
        assert set(one) == set(other)
        for key in one:
            torch.testing.assert_close(one[key], other[key])
    loaded = celbo.data.read_mudata(path)
    assert list(loaded.mod) == ["rna", "peaks"]
    assert list(loaded.obs_names) == list(mdata.obs_names)
