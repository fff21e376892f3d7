"""Every model is one row: its data, setup and arguments."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch

from celbo import external, model
from celbo.data import synthetic_iid
from celbo.external import (
    CYTOVI,
    DRVI,
    MRVI,
    POISSONVI,
    RESOLVI,
    SCAR,
    SCBASSET,
    SCVIVA,
    SOLO,
    TOTALANVI,
    VELOVI,
    CellAssign,
    ContrastiveTOTALVI,
    ContrastiveVI,
    Decipher,
    JointEmbeddingSCVI,
    RNAStereoscope,
    SysVI,
    TorchMRVI,
)
from celbo.model import AUTOZI, PEAKVI, SCANVI, SCVI, TOTALVI, AmortizedLDA, CondSCVI, LinearSCVI
from celbo.model.base import BaseModelClass
from celbo.testing import check_model

data = functools.partial(synthetic_iid, batch_size=20, n_genes=30, seed=0)
SMALL = {"n_hidden": 6, "n_latent": 3}
PROTEINS = {"protein_expression_obsm_key": "protein_expression", "batch_key": "batch"}
ROWS = {
    "SCVI": (SCVI, {"batch_key": "batch", "labels_key": "labels"}, {}),
    "SCVI_without_batches": (SCVI, {}, {"gene_likelihood": "nb"}),
    "SCVI_latent_library": (SCVI, {"batch_key": "batch"}, {"use_observed_lib_size": False}),
    "SCVI_embedding": (SCVI, {"batch_key": "batch"}, {"batch_representation": "embedding"}),
    "LinearSCVI": (LinearSCVI, {"batch_key": "batch"}, {}),
    "AUTOZI": (AUTOZI, {"batch_key": "batch"}, {}),
    "PEAKVI": (PEAKVI, {"batch_key": "batch"}, {}),
    "PEAKVI_plain": (PEAKVI, {}, {"model_depth": False, "region_factors": False}),
    "TOTALVI": (TOTALVI, PROTEINS, {}),
    "TOTALVI_zinb": (TOTALVI, PROTEINS, {"protein_dispersion": "protein-batch", "gene_likelihood": "zinb"}),
    "TOTALANVI": (TOTALANVI, PROTEINS | {"labels_key": "labels", "unlabeled_category": "label_0"}, {}),
    "SCAR": (SCAR, {"batch_key": "batch"}, {"ambient_profile": np.ones(30)}),
    "SCANVI": (SCANVI, {"labels_key": "labels", "unlabeled_category": "label_0", "batch_key": "batch"}, {}),
    "SysVI": (SysVI, {"batch_key": "batch"}, {}),
    "JointEmbeddingSCVI": (JointEmbeddingSCVI, {"batch_key": "batch"}, {}),
    "DRVI": (DRVI, {"batch_key": "batch"}, {}),
    "CYTOVI": (CYTOVI, {"batch_key": "batch", "labels_key": "labels"}, {}),
}


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("sparse_format", [None, "csr_matrix"])
def test_contract(row, sparse_format):
    cls, setup, init = ROWS[row]
    check_model(cls, functools.partial(data, sparse_format=sparse_format), setup=setup, init=SMALL | init)


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize(
    ("cls", "setup", "init"),
    [
        (MRVI, {"sample_key": "batch", "labels_key": "labels"}, {}),
        (TorchMRVI, {"sample_key": "labels", "batch_key": "batch"}, {"qz_kwargs": {"use_map": False}}),
    ],
    ids=["MRVI", "TorchMRVI"],
)
def test_contract_of_a_model_of_samples(cls, setup, init):
    """What other models call n_hidden is the encoder's alone."""
    check_model(cls, data, setup=setup, init={"encoder_n_hidden": 6, "n_latent": 3, "n_latent_u": 3} | init)


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_two_stacked_latent_spaces():
    check_model(Decipher, data, init={"layers_v_to_z": [6], "dim_z": 3})


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_sequences():
    """Its rows are regions, and its answers about cells, which are columns."""

    def regions():
        adata = data()
        adata.obsm["dna_code"] = np.random.default_rng(0).integers(0, 4, (40, 48))
        return adata

    init = {"n_bottleneck_layer": 3, "n_filters_init": 4, "n_repeat_blocks_tower": 2, "n_filters_pre_bottleneck": 3}
    history = ("elbo_train", "elbo_validation", "auroc_train", "auroc_validation")
    check_model(SCBASSET, regions, setup={"dna_code_key": "dna_code"}, init=init, history=history, answers=())


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_velocities():
    """It takes two smoothed layers."""

    def smoothed():
        adata = data()
        adata.layers["Ms"], adata.layers["Mu"] = adata.X / 10 + 0.05, np.sqrt(adata.X) / 5 + 0.05
        return adata

    check_model(VELOVI, smoothed, setup={"spliced_layer": "Ms", "unspliced_layer": "Mu"}, init=SMALL)


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_corrected_counts():
    """It takes cells with places, and has weights for those it was trained on."""

    def in_tissue():
        adata = data(n_genes=50)
        adata.obsm["X_spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
        return adata

    setup = {"labels_key": "labels", "unlabeled_category": "label_0", "batch_key": "batch"}
    check_model(RESOLVI, in_tissue, setup=setup, init=SMALL | {"semisupervised": True})


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_niches():
    """It takes cells with places, and an embedding."""

    def in_tissue():
        adata = data()
        adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
        adata.obsm["X_scVI"] = np.log1p(adata.X[:, :4])
        SCVIVA.preprocessing_anndata(adata, k_nn=5, labels_key="labels")
        return adata

    check_model(SCVIVA, in_tissue, setup={"labels_key": "labels", "batch_key": "batch"}, init=SMALL)


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_a_classifier():
    """It has no ELBO, and answers about its own cells only."""

    def cells_and_doublets():
        adata = data()
        adata.obs["kind"] = np.where(np.arange(40) < 15, "singlet", "doublet")
        return adata

    history = ("train_loss_epoch", "validation_loss", "train_accuracy", "validation_calibration_error")
    check_model(
        SOLO, cells_and_doublets, setup={"labels_key": "kind"}, init={"n_hidden": 6}, history=history, answers=()
    )


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_a_topic_model():
    """Its latent representation is a mean of draws, and so not the same to 1e-4 each time."""
    check_model(AmortizedLDA, data, init={"n_topics": 3, "n_hidden": 6}, answers=())


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_fragments():
    def fragments():
        adata = data()
        adata.X = np.random.default_rng(0).poisson(0.5, adata.shape).astype(np.float32)
        return adata

    check_model(POISSONVI, fragments, setup={"batch_key": "batch"}, init=SMALL)


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_known_types():
    """It holds no cells out."""
    check_model(CondSCVI, data, setup={"labels_key": "labels"}, init=SMALL, history=("elbo_train",))


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_signatures():
    """It has no latent space, and holds no cells out."""
    check_model(RNAStereoscope, data, setup={"labels_key": "labels"}, history=("elbo_train",), answers=())


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_markers():
    def sized():
        adata = data(n_genes=8)
        adata.obs["size"] = 1.0
        return adata

    markers = pd.DataFrame(np.eye(2)[np.arange(8) % 2], index=data(n_genes=8).var_names, columns=["a", "b"])
    init = {"cell_type_markers": markers}
    check_model(CellAssign, sized, setup={"size_factor_key": "size"}, init=init, answers=("predict",))


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract_of_background_and_target():
    sets = {"background_indices": list(range(20)), "target_indices": list(range(20, 40))}
    init = {"n_hidden": 6, "n_background_latent": 3, "n_salient_latent": 2}
    check_model(ContrastiveVI, data, setup={"batch_key": "batch"}, init=init, train=sets)
    setup = {"protein_expression_obsm_key": "protein_expression", "batch_key": "batch"}
    check_model(ContrastiveTOTALVI, functools.partial(data, n_proteins=8), setup=setup, init=init, train=sets)


NOT_OF_ONE_ADATA = {
    "DIAGVI": "takes two data sets",
    "DestVI": "is made from a CondSCVI",
    "GIMVI": "takes two data sets",
    "METHYLANVI": "takes a MuData",
    "METHYLVI": "takes a MuData",
    "MULTIVI": "takes a MuData",
    "SpatialStereoscope": "is made from an RNAStereoscope",
    "Tangram": "takes a MuData",
}
"""Model that ``check_model`` cannot make -> why; its own file tests the same promises."""


def test_no_model_is_missing():
    public = {name: getattr(room, name) for room in (model, external) for name in room.__all__}
    models = {name for name, cls in public.items() if isinstance(cls, type) and issubclass(cls, BaseModelClass)}
    here = {name for name, cls in globals().items() if isinstance(cls, type) and issubclass(cls, BaseModelClass)}
    assert models - here == NOT_OF_ONE_ADATA.keys()


class Scribbles(SCVI):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.adata.X = self.adata.X + 1


class SeedsTheProcess(SCVI):
    def train(self, *args, **kwargs):
        np.random.seed(0)  # what is found out
        super().train(*args, **kwargs)


class Sorts(SCVI):
    def get_latent_representation(self, adata=None, indices=None, **kwargs):
        return super().get_latent_representation(adata, None if indices is None else sorted(indices), **kwargs)


class StaysInTraining(SCVI):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.module.train()


class LosesAWeight(SCVI):
    def save(self, *args, **kwargs):
        with torch.no_grad():
            self.module.px_r += 1
        super().save(*args, **kwargs)
        with torch.no_grad():
            self.module.px_r -= 1.5


class Unseeded(SCVI):
    def train(self, *args, **kwargs):
        super().train(*args, **(kwargs | {"seed": None}))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Scribbles, r"training leaves adata\.X as it was"),
        (SeedsTheProcess, r"that of numpy\.random was changed"),
        (Sorts, "in this order"),
        (StaysInTraining, "evaluation mode after training"),
        (LosesAWeight, "loaded with its data are the same, not px_r"),
        (Unseeded, "two trainings with the same seed"),
    ],
)
def test_contract_finds_a_breach(broken, complaint):
    state = np.random.get_state()
    try:
        with pytest.raises(AssertionError, match=complaint):
            check_model(broken, data, init=SMALL)
    finally:
        np.random.set_state(state)


def test_history_that_lacks_a_name():
    with pytest.raises(AssertionError, match="the history has accuracy; it has validation_loss, elbo_validation"):
        check_model(SCVI, data, init=SMALL, history=["accuracy"])
