"""Bad input of the models of one modality: each is named in one message with the cure."""

import functools
import logging

import numpy as np
import pytest

from celbo.core import ArgumentError
from celbo.data import synthetic_iid
from celbo.external import (
    RESOLVI,
    SCVIVA,
    SOLO,
    VELOVI,
    CellAssign,
    ContrastiveVI,
    SysVI,
    Tangram,
)
from celbo.model import MULTIVI, SCVI, AmortizedLDA

QUICK = {"max_epochs": 1, "verbose": 0, "seed": 0, "accelerator": "cpu"}
data = functools.partial(synthetic_iid, batch_size=15, n_genes=24, seed=0)


def smoothed(value=None):
    adata = data()
    adata.X = adata.X.astype(np.float32) / 3
    adata.layers["Ms"], adata.layers["Mu"] = adata.X + 0.05, adata.X / 2 + 0.05
    adata.obs["kind"] = np.where(np.arange(adata.n_obs) < 10, "singlet", "doublet")
    if value is not None:
        adata.X[3, 5] = adata.layers["Mu"][3, 5] = value
    return adata


SETUPS = {
    "SysVI": (SysVI, {"batch_key": "batch"}),
    "SOLO": (SOLO, {"labels_key": "kind"}),
    "VELOVI": (VELOVI, {"spliced_layer": "Ms", "unspliced_layer": "Mu"}),
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", SETUPS)
def test_values_that_are_no_numbers_are_named_at_setup(name, value):
    cls, setup = SETUPS[name]
    adata = smoothed(value)
    with pytest.raises(ValueError, match=r"1 values of 1 cells \(first in cell '3': (nan|inf); features gene_5\)"):
        cls.setup_anndata(adata, **setup)


def test_values_that_are_no_numbers_are_named_in_a_query():
    """A latent of NaN would be an answer."""
    adata = smoothed()
    SysVI.setup_anndata(adata, batch_key="batch")
    model = SysVI(adata, n_hidden=4, n_latent=2)
    model.train(**QUICK)
    with pytest.raises(ValueError, match="first in cell '3': nan"):
        model.get_latent_representation(smoothed(np.nan))


@pytest.mark.usefixtures("mudata_pulls_nothing")
def test_spots_and_cells_of_tangram_are_finite():
    mudata = pytest.importorskip("mudata")
    cells, spots = data(), data()
    spots.X = spots.X.astype(np.float32)
    spots.X[2, 1] = np.inf
    spots.var_names = [f"spot_{name}" for name in spots.var_names]
    both = mudata.MuData({"sc": cells, "sp": spots})
    both.mod["sp"].obs["share"] = 1 / spots.n_obs
    with pytest.raises(ValueError, match="first in cell '2': inf"):
        Tangram.setup_mudata(both, density_prior_key="share", modalities={"sc_layer": "sc", "sp_layer": "sp"})


def test_amounts_of_rna_are_not_negative():
    with pytest.raises(ValueError, match="neither scaled nor centred"):
        VELOVI.setup_anndata(smoothed(-1.0), spliced_layer="Ms", unspliced_layer="Mu")


def test_a_list_is_no_layer():
    with pytest.raises(ArgumentError, match=r"\['Ms'\]"):
        VELOVI.setup_anndata(smoothed(), spliced_layer=["Ms"], unspliced_layer="Mu")


def test_counts_in_place_of_expression_are_said(caplog):
    with caplog.at_level(logging.WARNING, "celbo"):
        SysVI.setup_anndata(data(), batch_key="batch")
    assert "look like counts" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "celbo"):
        SysVI.setup_anndata(smoothed(), batch_key="batch")
    assert "look like counts" not in caplog.text


@pytest.mark.parametrize("verb", ["get_normalized_expression", "get_elbo", "posterior_predictive_sample"])
def test_answers_of_an_untrained_model_are_said_to_mean_nothing(verb, caplog):
    adata = data()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=4, n_latent=2)
    with caplog.at_level(logging.WARNING, "celbo"):
        getattr(model, verb)()
    assert caplog.text.count("untrained model") == 1
    caplog.clear()
    model.train(**QUICK)
    with caplog.at_level(logging.WARNING, "celbo"):
        getattr(model, verb)()
    assert "untrained" not in caplog.text


def test_cell_types_of_an_untrained_model_are_said_to_mean_nothing(caplog):
    pd = pytest.importorskip("pandas")
    adata = data()
    adata.obs["size"] = 1.0
    CellAssign.setup_anndata(adata, size_factor_key="size")
    markers = pd.DataFrame(np.eye(2)[np.arange(24) % 2], index=adata.var_names, columns=["a", "b"])
    with caplog.at_level(logging.WARNING, "celbo"):
        CellAssign(adata, markers).predict()
    assert "untrained model" in caplog.text


@pytest.mark.parametrize("verb", ["get_likelihood_parameters", "get_reconstruction_error", "get_elbo"])
def test_no_cells_get_no_answer(verb):
    adata = data()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=4, n_latent=2)
    model.train(**QUICK)
    with pytest.raises(ValueError, match="no cells to answer about"):
        getattr(model, verb)(indices=[])


def test_a_minibatch_of_one_cell_of_an_adversary_is_named():
    """The module has no batch normalisation, the adversary has."""
    adata = data()
    MULTIVI.setup_anndata(adata, batch_key="batch")
    model = MULTIVI(adata, n_genes=14, n_regions=10, n_hidden=4, n_latent=2)
    with pytest.raises(ValueError, match="adversarial_classifier=False"):
        model.train(batch_size=1, **QUICK)


def test_one_cell_of_a_set_is_named():
    adata = data()
    ContrastiveVI.setup_anndata(adata)
    model = ContrastiveVI(adata, n_hidden=4, n_background_latent=2, n_salient_latent=2)
    with pytest.raises(ValueError, match="more cells of each kind"):
        model.train(background_indices=[0], target_indices=[1], **QUICK)


def test_solo_wants_both_kinds():
    adata = smoothed()
    adata.obs["kind"] = "singlet"
    SOLO.setup_anndata(adata, labels_key="kind")
    with pytest.raises(ArgumentError, match="from_scvi_model"):
        SOLO(adata)


def test_one_feature_has_no_topics():
    adata = data()[:, :1].copy()
    AmortizedLDA.setup_anndata(adata)
    with pytest.raises(ArgumentError, match="two or more"):
        AmortizedLDA(adata)


def in_tissue():
    adata = data(n_genes=50)
    adata.obsm["spatial"] = adata.obsm["X_spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
    adata.obsm["X_scVI"] = np.log1p(adata.X[:, :4])
    return adata


def test_a_background_needs_counts():
    adata = in_tissue()
    adata.X = np.zeros_like(adata.X)
    with pytest.warns(UserWarning, match="all 30 cells are empty"):
        RESOLVI.setup_anndata(adata)
    with pytest.raises(ArgumentError, match="All cells are empty"):
        RESOLVI(adata)


def _without_a_type(adata):
    return adata[adata.obs["labels"] != "label_2"].copy()


def _renamed(adata):
    adata.obs["labels"] = adata.obs["labels"].astype(str).str.upper()
    return adata


@pytest.mark.parametrize("change", [_without_a_type, _renamed, lambda adata: adata[:20].copy()])
def test_niches_of_other_cells_are_named(change):
    """Cells left out, or types renamed, after their niches were found."""
    adata = in_tissue()
    SCVIVA.preprocessing_anndata(adata, k_nn=5, labels_key="labels")
    changed = change(adata)
    SCVIVA.setup_anndata(changed, labels_key="labels")
    with pytest.raises(ArgumentError, match=r"Call SCVIVA\.preprocessing_anndata again"):
        SCVIVA(changed)
