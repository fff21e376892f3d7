"""celbo's models neither seed, nor restore, nor draw from a global generator: watched while they are used."""

import functools
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from celbo.data import synthetic_iid
from celbo.external import (
    CYTOVI,
    DIAGVI,
    GIMVI,
    MRVI,
    RESOLVI,
    SCAR,
    SCVIVA,
    SOLO,
    VELOVI,
    CellAssign,
    ContrastiveTOTALVI,
    ContrastiveVI,
    RNAStereoscope,
    SpatialStereoscope,
    SysVI,
)
from celbo.model import AUTOZI, SCANVI, SCVI, AmortizedLDA, CondSCVI, DestVI, LinearSCVI
from celbo.module import VAE
from celbo.ops.random import private_rng
from celbo.train import AdversarialTrainingPlan

SMALL = {"n_hidden": 8, "n_latent": 3}
TRAIN = {"max_epochs": 2, "seed": 3, "verbose": 0, "accelerator": "cpu"}
data = functools.partial(synthetic_iid, batch_size=30, n_genes=20, seed=0)


class Watch(TorchDispatchMode):
    """Notes torch's operators that draw and were given no generator: whatever Python code or C++ calls them."""

    def __init__(self):
        super().__init__()
        self.drew = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = any(isinstance(value, torch.Generator) for value in (*args, *(kwargs or {}).values()))
        given |= func is torch.ops.aten.dropout.default and not args[2]  # in evaluation, which draws nothing
        if torch.Tag.nondeterministic_seeded in func.tags and not given:
            self.drew.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("global_rng_untouched")
def test_an_adversary_is_drawn_privately():
    with private_rng(0):
        module = VAE(5, n_batch=2)
    with Watch() as watch:
        plan = AdversarialTrainingPlan(module, adversarial_classifier=True)
    assert plan.adversarial_classifier
    assert watch.drew == set()


def test_the_watch_sees_a_draw():
    with Watch() as watch, torch.random.fork_rng(devices=[]):
        nn.Dropout()(torch.ones(3))
    assert watch.drew == {"aten.bernoulli_.float"}


def scvi():
    adata = data()
    SCVI.setup_anndata(adata, batch_key="batch", labels_key="labels")
    model = SCVI(adata, use_observed_lib_size=False, gene_likelihood="zinb", **SMALL)
    model.train(**TRAIN)
    return model, [
        lambda: model.get_latent_representation(give_mean=False),
        lambda: model.posterior_predictive_sample(n_samples=2),
        lambda: model.get_normalized_expression(n_samples=2),
        lambda: model.get_likelihood_parameters(n_samples=2),
        lambda: model.get_feature_correlation_matrix(n_samples=2),
        lambda: model.get_marginal_ll(n_mc_samples=3),
        lambda: model.get_reconstruction_error(),
        lambda: model.differential_expression(groupby="labels", group1="label_0", n_samples_overall=20),
        lambda: model.differential_abundance(sample_key="batch"),
    ]


def logistic_normal():
    adata = data()
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, latent_distribution="ln", dispersion="gene-batch", **SMALL)
    model.train(**TRAIN, recipe="classic")
    return model, [lambda: model.get_latent_representation()]


def linear():
    adata = data()
    LinearSCVI.setup_anndata(adata, batch_key="batch")
    model = LinearSCVI(adata, **SMALL)
    model.train(**TRAIN)
    return model, [lambda: model.posterior_predictive_sample()]


def autozi():
    adata = data()
    AUTOZI.setup_anndata(adata, batch_key="batch")
    model = AUTOZI(adata, **SMALL)
    model.train(**TRAIN)
    return model, [lambda: model.get_marginal_ll(n_mc_samples=3)]


def scanvi():
    adata = data()
    setup = {"labels_key": "labels", "unlabeled_category": "label_0", "batch_key": "batch"}
    SCANVI.setup_anndata(adata, **setup)
    model = SCANVI(adata, **SMALL)
    model.train(**TRAIN)
    query = data()
    query.obs["batch"] = query.obs["batch"].astype(str) + "_new"
    surgered = SCANVI.load_query_data(query, model)
    surgered.train(**TRAIN)
    return model, [lambda: model.predict(soft=True), lambda: surgered.get_latent_representation(give_mean=False)]


def lda():
    adata = data()
    AmortizedLDA.setup_anndata(adata)
    model = AmortizedLDA(adata, n_topics=3, n_hidden=8)
    model.train(**TRAIN)
    return model, [
        lambda: model.get_latent_representation(n_samples=5),
        lambda: model.get_feature_by_topic(n_samples=5),
    ]


def condscvi():
    adata = data()
    CondSCVI.setup_anndata(adata, labels_key="labels")
    model = CondSCVI(adata, prior="mog", num_classes_mog=2, **SMALL)
    model.train(**TRAIN)
    return model, [lambda: model.get_latent_representation(give_mean=False), lambda: model.get_vamp_prior(adata, p=2)]


def destvi():
    adata, spots = data(), data()
    CondSCVI.setup_anndata(adata, labels_key="labels")
    cells = CondSCVI(adata, **SMALL)
    cells.train(**TRAIN)
    DestVI.setup_anndata(spots)
    model = DestVI.from_rna_model(spots, cells, amortization="both")
    model.train(**TRAIN)
    return model, [lambda: model.get_gamma(return_numpy=True), lambda: model.get_proportions()]


def solo():
    adata = data()
    SCVI.setup_anndata(adata)
    base = SCVI(adata, **SMALL)
    base.train(**TRAIN)
    model = SOLO.from_scvi_model(base)
    model.train(**TRAIN)
    return model, [lambda: model.predict()]


def stereoscope():
    adata, spots = data(), data()
    RNAStereoscope.setup_anndata(adata, labels_key="labels")
    cells = RNAStereoscope(adata)
    cells.train(**TRAIN)
    SpatialStereoscope.setup_anndata(spots)
    model = SpatialStereoscope.from_rna_model(spots, cells)
    model.train(**TRAIN)
    return model, [lambda: model.get_proportions()]


def cellassign():
    adata = data()
    adata.obs["size"] = 1.0
    CellAssign.setup_anndata(adata, size_factor_key="size")
    markers = pd.DataFrame(np.eye(20, 3, dtype=int), index=adata.var_names, columns=["a", "b", "c"])
    markers.iloc[3:, 0] = 1
    model = CellAssign(adata, markers)
    model.train(**TRAIN)
    return model, [lambda: model.predict()]


def sysvi():
    adata = data()
    SysVI.setup_anndata(adata, batch_key="batch")
    model = SysVI(adata, **SMALL)
    model.train(**TRAIN)
    return model, [lambda: model.get_latent_representation(give_mean=False), model.get_elbo]


def markers():
    adata = data()
    CYTOVI.setup_anndata(adata, batch_key="batch", sample_key="labels")
    model = CYTOVI(adata, **SMALL, protein_likelihood="normal")
    model.train(**TRAIN)
    return model, [
        lambda: model.posterior_predictive_sample(n_samples=2),
        lambda: model.get_sample_logprobs(downsample_cells=3).to_numpy(),
    ]


def scar():
    adata = data()
    SCAR.setup_anndata(adata, batch_key="batch")
    model = SCAR(adata, ambient_profile=np.ones(adata.n_vars), **SMALL)
    model.train(**TRAIN)
    return model, [lambda: model.get_denoised_counts(n_samples=3), model.posterior_predictive_sample]


def contrastivevi():
    adata = data()
    ContrastiveVI.setup_anndata(adata, batch_key="batch")
    model = ContrastiveVI(adata, n_hidden=6, n_salient_latent=3)
    half = adata.n_obs // 2
    model.train(np.arange(half), np.arange(half, adata.n_obs), **TRAIN)
    return model, [
        lambda: model.get_normalized_expression(n_samples=2),
        lambda: model.get_latent_representation(give_mean=False),
    ]


def contrastivetotalvi():
    adata = data()
    ContrastiveTOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
    model = ContrastiveTOTALVI(adata, n_hidden=6, n_salient_latent=3)
    half = adata.n_obs // 2
    model.train(np.arange(half), np.arange(half, adata.n_obs), **TRAIN)
    return model, [
        lambda: model.get_normalized_expression(n_samples=2),
        lambda: model.get_latent_representation(give_mean=False),
    ]


def mrvi():
    adata = data()
    MRVI.setup_anndata(adata, sample_key="batch")
    model = MRVI(adata, encoder_n_hidden=6, n_latent=3, n_latent_u=3)
    model.train(**TRAIN)
    return model, [lambda: model.get_latent_representation(use_mean=False), model.get_elbo]


def scviva():
    adata = data()
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
    adata.obsm["X_scVI"] = np.log1p(adata.X)[:, :4]
    SCVIVA.preprocessing_anndata(adata, k_nn=5, labels_key="labels")
    SCVIVA.setup_anndata(adata, labels_key="labels")
    model = SCVIVA(adata, prior_mixture=True, **SMALL)
    model.train(**TRAIN)
    return model, [model.get_niche_error, model.predict_neighborhood]


def resolvi():
    adata = data()
    adata.obsm["X_spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
    RESOLVI.setup_anndata(adata, batch_key="batch", prepare_data_kwargs={"n_neighbors": 5})
    model = RESOLVI(adata, background_ratio=0.1, **SMALL)
    model.train(**TRAIN)
    return model, [lambda: model.get_normalized_expression_importance(n_samples=2), model.get_elbo]


def gimvi():
    sets = [data(), data()]
    for adata in sets:
        GIMVI.setup_anndata(adata, batch_key="batch")
    model = GIMVI(*sets, n_latent=3)
    model.train(**TRAIN)
    return model, [lambda: model.get_latent_representation(deterministic=False)[0]]


def diagvi():
    sets = {"rna": data(), "other": data()}
    for adata in sets.values():
        DIAGVI.setup_anndata(adata, batch_key="batch", gmm_prior=True)
    model = DIAGVI(sets, n_latent=3)
    model.train(**TRAIN)
    return model, [
        lambda: model.get_imputed_values("rna", deterministic=False),
        lambda: model.posterior_predictive_sample()["other"],
    ]


def velovi():
    adata = data()
    adata.layers["Ms"], adata.layers["Mu"] = adata.X / 10 + 0.05, np.sqrt(adata.X) / 5 + 0.05
    VELOVI.setup_anndata(adata, spliced_layer="Ms", unspliced_layer="Mu")
    model = VELOVI(adata, **SMALL)
    model.train(**TRAIN)
    return model, [
        lambda: model.get_latent_time(n_samples=2),
        lambda: model.get_velocity(n_samples=2),
        lambda: model.get_state_assignment(n_samples=2),
        lambda: model.get_expression_fit(n_samples=2),
        lambda: model.get_directional_uncertainty(n_samples=3),
        lambda: model.get_permutation_scores("labels"),
        lambda: model.get_latent_representation(give_mean=False),
    ]


KINDS = [
    scvi,
    logistic_normal,
    linear,
    autozi,
    scanvi,
    lda,
    condscvi,
    destvi,
    solo,
    stereoscope,
    cellassign,
    sysvi,
    markers,
    scar,
    contrastivevi,
    contrastivetotalvi,
    mrvi,
    scviva,
    resolvi,
    gimvi,
    diagvi,
    velovi,
]


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_is_drawn_globally(kind, tmp_path):
    """Another thread draws all the while, and gets what it would alone."""
    seen, over = [], threading.Event()

    def draw():
        while not over.is_set():
            seen.append(torch.rand(1).item())
            over.wait(0.001)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        other = threading.Thread(target=draw)
        other.start()
        try:
            with Watch() as watch, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model, verbs = kind()
                for verb in verbs:
                    verb()
                model.save(tmp_path / "saved")
                sets = getattr(model, "adatas", [model.adata])
                type(model).load(tmp_path / "saved", *([sets] if isinstance(sets, dict) else sets))
        finally:
            over.set()
            other.join()
        torch.manual_seed(5)
        assert seen == [torch.rand(1).item() for _ in seen]
    assert watch.drew == set()


@pytest.mark.usefixtures("global_rng_untouched")
def test_without_a_seed_numbers_differ():
    _, verbs = scvi()
    assert not np.array_equal(verbs[0](), verbs[0]())
    assert (verbs[1]() != verbs[1]()).any()
