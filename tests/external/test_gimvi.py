"""GIMVI: two data sets in one space, the loss by its formula, imputation, archives, faults."""

import pickle

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import Normal, kl_divergence

from celbo.core import ArgumentError
from celbo.data import synthetic_iid
from celbo.dataloaders.two_sets import TwoSetsSplitter
from celbo.distributions import NegativeBinomial
from celbo.external import GIMVI
from celbo.external.gimvi import JVAE
from celbo.external.gimvi.model import _epochs as epochs_of
from celbo.model.base import convert_archive, export_archive
from celbo.nn import MultiDecoder
from celbo.train import Callback

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}


def data(n_seq: int = 40, n_spatial: int = 30):
    seq = synthetic_iid(batch_size=n_seq, n_genes=24, seed=0)
    spatial = synthetic_iid(batch_size=n_spatial, n_genes=24, seed=1)[:, [3, 0, 7, 9, 20, 21]].copy()
    return seq, spatial


def made(setup=None, **init):
    seq, spatial = data()
    for adata in (seq, spatial):
        GIMVI.setup_anndata(adata, **({"batch_key": "batch", "labels_key": "labels"} if setup is None else setup))
    return GIMVI(seq, spatial, n_latent=4, **init)


@pytest.fixture(scope="module")
def model():
    model = made()
    model.train(max_epochs=2, **QUICK)
    return model


def module(**kwargs):
    sizes = {"dim_input_list": [6, 3], "total_genes": 6, "indices_mappings": [slice(None), np.array([4, 0, 2])]}
    likelihoods = {"gene_likelihoods": ["nb", "nb"], "model_library_bools": [True, False]}
    prior = {"library_log_means": [np.full((1, 3), 2.0), None], "library_log_vars": [np.full((1, 3), 0.5), None]}
    codes = {"batch_codes": [[0, 1], [2]], "label_codes": [[0, 1], [1]]}
    return JVAE(**(sizes | likelihoods | prior | codes | {"n_latent": 2, "n_batch": 3, "n_labels": 2} | kwargs)).eval()


def cells(n_genes: int, n: int = 8):
    x = torch.poisson(torch.full((n, n_genes), 3.0), generator=torch.Generator().manual_seed(n_genes)) + 1
    return {"X": x, "batch": torch.zeros(n, 1).long(), "labels": torch.zeros(n, 1).long()}


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_the_loss_of_each_data_set_is_its_formula(dispersion):
    jvae = module(dispersion=dispersion)
    for mode, genes in ((0, [0, 1, 2, 3, 4, 5]), (1, [4, 0, 2])):
        tensors = cells(len(genes))
        which = {"mode": mode}
        encoded, _, record = jvae(
            tensors, inference_kwargs=which, generative_kwargs=which, loss_kwargs=which | {"kl_weight": 0.3}
        )
        z, decoder = encoded["z"], jvae.decoder
        scale = torch.softmax(decoder.px_scale_decoder[0](z), -1)[:, genes]
        rate = scale / scale.sum(1, keepdim=True) * encoded["library"].exp()
        # the spatial data set has batch 2 of 3, and label 1 of 2
        log_theta = {
            "gene": lambda: jvae.px_r,
            "gene-batch": lambda mode=mode: jvae.px_r[:, 2 * mode],
            "gene-label": lambda mode=mode: jvae.px_r[:, mode],
            "gene-cell": lambda z=z: jvae.decoder.px_r_decoder(z),
        }[dispersion]()[..., genes]
        nll_n = -NegativeBinomial(mu=rate, theta=log_theta.exp().expand_as(rate)).log_prob(tensors["X"]).sum(1)
        kl_n = kl_divergence(encoded["qz"], Normal(0.0, 1.0)).sum(1)
        if mode == 0:
            kl_n = kl_n + kl_divergence(encoded["ql"], Normal(2.0, 0.5**0.5)).sum(1)
        torch.testing.assert_close(record.reconstruction_loss["reconstruction_loss"], nll_n, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(record.kl_local["kl_local"], kl_n)
        torch.testing.assert_close(record.loss, (nll_n + 0.3 * kl_n).mean(), rtol=1e-4, atol=1e-3)


def test_libraries_that_run_off_make_no_better_likelihood():
    """At the log of 200 counts would be infinite, and their likelihood above 1."""
    one, tensors = module().eval(), cells(6)
    encoded = one.inference(tensors["X"], 0)
    found = []
    for size in (60.0, 200.0):
        library = torch.full_like(encoded["library"], size)
        generated = one.generative(encoded["z"], library, tensors["batch"], tensors["labels"], mode=0)
        found.append(-generated["px"].log_prob_sum(tensors["X"]))
    torch.testing.assert_close(*found)
    assert (found[1] > 100).all()


def test_expression_sums_to_one_over_the_genes_of_the_data_set_decoded_as(model):
    own = [seq_or_spatial.var_names for seq_or_spatial in model.adatas]
    columns = [own[0].get_indexer(names) for names in own]
    for decode_mode in (None, 0, 1):
        for mode, values in enumerate(model.get_imputed_values(decode_mode=decode_mode)):
            over = columns[mode if decode_mode is None else decode_mode]
            np.testing.assert_allclose(values[:, over].sum(1), 1, rtol=1e-5)
            assert values.shape == (model.adatas[mode].n_obs, 24)
    counts = model.get_imputed_values(normalized=False)[1]
    np.testing.assert_allclose(counts[:, columns[1]].sum(1), model.adatas[1].X.sum(1), rtol=1e-4)


def test_expression_of_one_data_set_is_of_its_own_genes(model):
    seq, spatial = model.adatas
    for mode, adata in enumerate((seq, spatial)):
        imputed = model.get_imputed_values(deterministic=False, seed=2)[mode]
        columns = seq.var_names.get_indexer(adata.var_names)
        found = model.get_normalized_expression(adata, seed=2)
        assert list(found.columns) == list(adata.var_names)
        np.testing.assert_allclose(found, imputed[:, columns], rtol=1e-4)
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
        others = model.get_normalized_expression(adata, transform_batch="batch_1", seed=2)
        own = (adata.obs["batch"] == "batch_1").to_numpy()
        np.testing.assert_allclose(others[own], found[own], rtol=1e-5)
        few = model.get_normalized_expression(adata, [1, 0], gene_list=[adata.var_names[2]], return_numpy=True, seed=2)
        assert few.shape == (2, 1)
    one = model.get_normalized_expression(seed=2)
    assert one.shape == seq.shape


def test_data_are_left_as_they_are():
    seq, spatial = data()
    for adata in (seq, spatial):
        GIMVI.setup_anndata(adata, batch_key="batch")
    before = [adata.copy() for adata in (seq, spatial)]
    for _ in range(2):  # a second model of the same data too
        GIMVI(seq, spatial).train(max_epochs=1, **QUICK)
    for adata, copy in zip((seq, spatial), before, strict=True):
        assert list(adata.obs) == list(copy.obs)
        assert adata.obs.equals(copy.obs)
        np.testing.assert_array_equal(adata.X, copy.X)


def test_labels_are_those_of_both_by_name():
    seq, spatial = data()
    seq.obs["kind"] = np.where(np.arange(seq.n_obs) % 2, "b", "a")
    spatial.obs["kind"] = np.where(np.arange(spatial.n_obs) % 2, "c", "b")
    for adata in (seq, spatial):
        GIMVI.setup_anndata(adata, labels_key="kind")
    model = GIMVI(seq, spatial, dispersion="gene-label")
    assert model.module.px_r.shape == (24, 3)
    assert [model.module.get_buffer(f"label_codes_{mode}").tolist() for mode in (0, 1)] == [[0, 1], [1, 2]]
    before = model.module.px_r.detach().clone()
    model.train(max_epochs=1, **QUICK)
    assert ((model.module.px_r - before).abs().sum(0) > 0).all()


def test_training_validates_on_both_and_is_fixed_by_its_seed(model):
    assert np.isfinite(model.history["elbo_validation"].to_numpy(dtype=float)).all()
    assert [len(rows) for rows in model.validation_indices] == [8, 6]
    assert {"fool_loss_train", "adversarial_loss_train"} <= set(model.history)
    again = made()
    again.train(max_epochs=2, **QUICK)
    for name, weights in model.module.state_dict().items():
        torch.testing.assert_close(again.module.state_dict()[name], weights, rtol=0, atol=0, msg=name)
    without = made()
    without.train(max_epochs=1, kappa=0, **QUICK)
    assert "fool_loss_train" not in without.history


def test_validation_looks_at_each_cell_once(model):
    managers = [model.adata_managers[name] for name in ("seq", "spatial")]
    splitter = TwoSetsSplitter(*managers, seed=0, train_size=0.5, batch_size=16)
    parts = list(splitter.val_dataloader())
    assert len(parts) == len(splitter.val_dataloader())
    for place, n in enumerate((40, 30)):
        assert sum(len(part[place]["X"]) for part in parts if part[place] is not None) == n
    rows = [[np.arange(60), np.arange(60, 70), np.arange(70, 80)], [np.arange(60), [], []]]
    given = TwoSetsSplitter(*managers, external_indexing=rows)
    assert [len(part) for part in given.train_idx + given.val_idx + given.test_idx] == [60, 60, 10, 0, 10, 0]
    assert len(next(iter(given.train_dataloader()))) == 2
    with pytest.raises(ValueError, match="external_indexing has 3 parts"):
        TwoSetsSplitter(*managers, external_indexing=[[0], [1], [2]])
    with pytest.raises(ValueError, match="1 spatial cells are left to train on"):
        TwoSetsSplitter(*managers, ("dissociated", "spatial"), external_indexing=[rows[0], [[0], np.arange(1, 60), []]])


class _Stop(Callback):
    """Ends a training after so many minibatches."""

    def __init__(self, after: int):
        self.left = after

    def on_train_batch_end(self, *args):
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    whole = made()
    whole.train(max_epochs=4, **QUICK)
    stopped = made()
    with pytest.raises(ZeroDivisionError):
        stopped.train(max_epochs=4, checkpoint_every="1 step", checkpoint_dir=tmp_path, callbacks=[_Stop(3)], **QUICK)
    resumed = made()
    resumed.train(max_epochs=4, callbacks=[_Stop(0)], resume=tmp_path, **QUICK)
    for name, weights in whole.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], weights, rtol=0, atol=0, msg=name)


@pytest.mark.usefixtures("global_rng_untouched")
def test_archives(model, tmp_path):
    latents = model.get_latent_representation()
    model.save(str(tmp_path / "m"), save_anndata=True)
    seq, spatial = data()
    for loaded in (
        GIMVI.load(str(tmp_path / "m"), accelerator="cpu"),
        GIMVI.load(str(tmp_path / "m"), seq, spatial, accelerator="cpu"),
    ):
        for a, b in zip(loaded.get_latent_representation(), latents, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    bare = GIMVI.load(str(tmp_path / "m"), False, accelerator="cpu")
    for a, b in zip(bare.get_latent_representation(list(data())), latents, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(ValueError, match=r"pass adatas=\[adata_seq, adata_spatial\]"):
        bare.get_imputed_values()
    with pytest.raises(ValueError, match="save_anndata=True, but"):
        bare.save(str(tmp_path / "bare"), save_anndata=True)
    with pytest.raises(ValueError, match="both data sets, or none"):
        GIMVI.load(str(tmp_path / "m"), seq)
    export_archive(tmp_path / "m", tmp_path / "peer")
    convert_archive(tmp_path / "peer", tmp_path / "back")
    for folder in ("peer", "back"):
        again = GIMVI.load(str(tmp_path / folder), *data(), accelerator="cpu")
        np.testing.assert_allclose(again.get_latent_representation()[1], latents[1], atol=1e-6)
        again.train(max_epochs=1, **QUICK)


def test_files_of_before_0_15(model, tmp_path):
    """Each data set has a file of names; what such files hold of a later model is converted first."""
    torch.save(model.module.state_dict(), tmp_path / "model_params.pt")
    for name, genes in model.get_var_names().items():
        (tmp_path / f"var_names_{name}.csv").write_text("\n".join(genes))
    attributes = {name: value for name, value in vars(model).items() if name.endswith("_")}
    (tmp_path / "attr.pkl").write_bytes(pickle.dumps(attributes))
    with pytest.raises(ValueError, match="convert_legacy_save"):
        GIMVI.load(str(tmp_path), *data())
    GIMVI.convert_legacy_save(str(tmp_path), str(tmp_path / "new"))
    loaded = GIMVI.load(str(tmp_path / "new"), *data(), accelerator="cpu")
    for a, b in zip(loaded.get_latent_representation(), model.get_latent_representation(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_one_of_its_data_sets_is_known_wherever_it_stands(model):
    both = model.get_latent_representation()
    np.testing.assert_array_equal(model.get_latent_representation([model.adatas[1]])[0], both[1])
    drawn = model.get_latent_representation(deterministic=False, seed=1)
    np.testing.assert_array_equal(drawn[0], model.get_latent_representation(deterministic=False, seed=1)[0])
    assert np.abs(drawn[0] - both[0]).max() > 0.01


def simulated(n: int = 300, n_genes: int = 60, seed: int = 0):
    """Four types; two thirds of the genes are measured in space, less deeply and at efficiencies of their own."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(1, 1, n_genes) * np.exp(rng.normal(0, 1, (4, n_genes)))

    def measured(depth, efficiency_g):
        mean = profiles[rng.integers(0, 4, n)] * efficiency_g
        x = rng.poisson(rng.gamma(5, mean / mean.sum(1, keepdims=True) * depth / 5))
        return ad.AnnData(x.astype(np.float32))

    seq, spatial = measured(1500, np.ones(n_genes)), measured(500, np.exp(rng.normal(0, 0.3, n_genes)))
    return seq, spatial, np.sort(rng.permutation(n_genes)[: 2 * n_genes // 3])


def test_hidden_genes_are_imputed():
    seq, whole, seen = simulated()
    spatial = whole[:, seen].copy()
    for adata in (seq, spatial):
        GIMVI.setup_anndata(adata)
    model = GIMVI(seq, spatial)
    model.train(max_epochs=80, **QUICK)
    imputed = model.get_imputed_values(normalized=False)[1]
    hidden = np.setdiff1d(np.arange(whole.n_vars), seen)
    found = np.median([spearmanr(imputed[:, g], whole.X[:, g])[0] for g in hidden])
    by_depth = np.median([spearmanr(spatial.X.sum(1), whole.X[:, g])[0] for g in hidden])
    assert found > max(0.45, by_depth + 0.2)


def test_data_that_cannot_be():
    seq, spatial = data()
    GIMVI.setup_anndata(seq)
    spatial.var_names = ["a", "b", *spatial.var_names[2:]]
    GIMVI.setup_anndata(spatial)
    with pytest.raises(ArgumentError, match=r"adata_seq lacks 2 of the 6 genes of adata_spatial: a, b\. Leave"):
        GIMVI(seq, spatial)
    with pytest.raises(ValueError, match="needs the spatial cells too"):
        GIMVI(seq)
    with pytest.raises(ValueError, match=r"set up your AnnData with GIMVI\.setup_anndata"):
        GIMVI(seq, data()[1])
    for wrong in ({"generative_distributions": ["zinb", "nbb"]}, {"generative_distributions": ["nb"]}):
        with pytest.raises(ArgumentError, match="generative_distributions must be 2 of"):
            GIMVI(*made().adatas, **wrong)
    with pytest.raises(ArgumentError, match="model_library_size must be 2"):
        GIMVI(*made().adatas, model_library_size=[True])


@pytest.mark.parametrize("case", ["gimvi", "gimvi_batches_nb"])
def test_answers_are_those_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 5


def test_training_begins_at_the_levels_of_genes():
    seq = data()[0]
    x = seq.X.astype(np.float32)
    x[:, 5] = 0
    module = made().module
    module.start_from(x)
    logits, _, zi_logits = module.decoder.logits(torch.zeros(1, 4), "gene-batch", torch.zeros(1, 1))
    share, wanted = logits[0].softmax(-1).detach().numpy(), x.mean(0) / x.mean(0).sum()
    np.testing.assert_allclose(share[6:], wanted[6:], rtol=0.02)
    assert 0 < share[5] < 0.02 / 24
    assert (zi_logits.sigmoid() < 0.1).all()
    library = module.l_encoders[0](torch.as_tensor(x).log1p())[0]
    own = module.library_log_means_0[0, :2].mean()
    assert (library.loc - own).abs().max() < 0.5
    module.start_from(np.zeros((3, 24), np.float32))  # nothing to say: levels stay
    assert module.decoder.px_scale_decoder[0].bias.isfinite().all()


def test_real_technologies(shared_dir):
    """Genes hidden in Drop-seq: from random weights, latents stood for depth and the correlation was below 0."""
    path = shared_dir / "data" / "systems_celllines_2tech.h5ad"
    if not path.is_file():
        pytest.skip("no systems_celllines_2tech.h5ad in 'shared/data'")
    adata = ad.read_h5ad(path)
    is_second = (adata.obs["technology"] == "Drop-seq").to_numpy()
    most = np.argsort(-np.asarray((adata.X[is_second] > 0).sum(0)).ravel())[:240]
    seq, whole = adata[~is_second, most].copy(), adata[is_second, most].copy()
    spatial = whole[:, ::2].copy()
    for one in (seq, spatial):
        GIMVI.setup_anndata(one)
    model = GIMVI(seq, spatial)
    model.train(**QUICK)
    found = model.get_imputed_values(normalized=False)[1][:, 1::2]
    truth, total = whole.X.toarray()[:, 1::2], np.asarray(spatial.X.sum(1)).ravel()
    by_depth = np.median([spearmanr(total, x)[0] for x in truth.T])
    assert np.median([spearmanr(*pair)[0] for pair in zip(found.T, truth.T, strict=True)]) > by_depth + 0.03


@pytest.mark.parametrize("dispersion", ["gene-batch", "gene-cell"])
def test_some_genes_are_decoded_as_all_are(dispersion):
    """Spatial genes alone, in an order of their own, and as columns of what all genes have."""
    decoder = MultiDecoder(3, 7, n_hidden_shared=5, n_layers_conditioned=0, n_cat_list=[1]).eval()
    z, genes = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 0, 3])
    every, some = decoder.logits(z, dispersion), decoder.logits(z, dispersion, genes=genes)
    for of_all, of_some in zip(every, some, strict=True):
        assert (of_all is None) == (of_some is None)
        if of_all is not None:
            torch.testing.assert_close(of_some, of_all[:, genes])
    assert decoder.logits(z, dispersion, zero_inflated=False)[2] is None


@pytest.mark.parametrize(
    ("n_cells", "found"), [((600, 600), (30, 128)), ((240, 210), (32, 64)), ((50_000, 90_000), (5, 128))]
)
def test_default_epochs(n_cells, found):
    """125 steps of up to 64 training cells of each set, or 3 in 40 of the epochs of classic in steps of 128."""
    assert epochs_of(n_cells) == found
