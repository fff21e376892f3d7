"""ContrastiveTOTALVI: the loss by its formula, absent latents, simulated perturbations, verbs, training, faults."""

import anndata
import numpy as np
import pytest
import torch
from benchmarks.common import neighbours_of_their_own
from benchmarks.default_trainings import perturbed_cite_seq
from torch.distributions import Normal, kl_divergence

from celbo.core import IS_TARGET
from celbo.data import synthetic_iid
from celbo.dataloaders.contrasts import StackedDataSplitter
from celbo.external import ContrastiveTOTALVI
from celbo.external.contrastivetotalvi import ContrastiveTOTALVAE
from celbo.ops.random import own_rng
from celbo.train.callbacks import Callback
from celbo.verbs.contrasts import LATENTS

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
SMALL = {"n_hidden": 8, "n_background_latent": 4, "n_salient_latent": 3}
SETUP = {"protein_expression_obsm_key": "protein_expression", "batch_key": "batch"}
BACKGROUND, TARGET = np.arange(20), np.arange(20, 60)
N, K = 4, 2


@pytest.fixture
def adata():
    return synthetic_iid(batch_size=30, n_genes=20, n_proteins=12, seed=0)


@pytest.fixture
def model(adata):
    ContrastiveTOTALVI.setup_anndata(adata, **SETUP)
    model = ContrastiveTOTALVI(adata, **SMALL)
    model.train(BACKGROUND, TARGET, max_epochs=2, **QUICK)
    return model


def module_of(**options):
    """Six genes, five proteins; two latents of all cells, three salient ones; nothing is dropped out."""
    with own_rng(0):
        return ContrastiveTOTALVAE(6, 5, 2, 1, 5, K, 3, dropout_rate_encoder=0.0, **options)


def minibatch(targets=N):
    """Pairs as they are stacked: first background cells, then targets."""
    generator = torch.Generator().manual_seed(0)
    draw = [torch.poisson(torch.full((2 * N, n), 3.0), generator=generator) + 1 for n in (6, 5)]
    codes = {"batch": torch.tensor([[0], [1]] * N), "labels": torch.zeros(2 * N, 1).long()}
    return {
        "X": draw[0],
        "proteins": draw[1],
        **codes,
        IS_TARGET: (torch.arange(2 * N) >= 2 * N - targets).float()[:, None],
    }


def passed(module, tensors, seed=0, **weights):
    with own_rng(seed):
        return module(tensors, loss_kwargs=weights)


class TestMaths:
    def test_the_loss_is_the_formula(self):
        module, tensors = module_of(wasserstein_penalty=2.0).eval(), minibatch()
        encoded, decoded, output = passed(module, tensors, kl_weight=0.5)
        prior, q = Normal(0.0, 1.0), encoded["q_encoded"]
        kl_nk = kl_divergence(q, prior)
        kl_s_n = kl_nk[:, K:].sum(-1) * tensors[IS_TARGET][:, 0]
        distance_n = (q.mean.square() + q.variance)[:, K:].sum(-1) * (1 - tensors[IS_TARGET][:, 0])
        gene_n = -decoded["px"].log_prob(tensors["X"]).sum(-1)
        protein_n = -decoded["py"].log_prob(tensors["proteins"]).sum(-1)
        wanted_n = gene_n + 0.5 * (kl_nk[:, :K].sum(-1) + kl_s_n + protein_n + 2.0 * distance_n)
        wanted_n = wanted_n + 0.5 * module._background_divergence(tensors, decoded)
        torch.testing.assert_close(output.loss, wanted_n.mean())
        torch.testing.assert_close(output.kl_local["kl_div_s"], kl_s_n)
        torch.testing.assert_close(output.kl_local["kl_div_z"], kl_nk[:, :K].sum(-1))
        torch.testing.assert_close(output.extra_metrics["wasserstein_loss_sum"], distance_n.sum())
        assert output.n_obs_minibatch == 2 * N

    def test_background_cells_have_no_salient_latents(self):
        module, tensors = module_of().eval(), minibatch()
        encoded = module.inference(**module._get_inference_input(tensors))
        assert not encoded["z"][:N, K:].any()
        assert encoded["z"][N:, K:].all()
        torch.testing.assert_close(encoded["qz"].scale[:N, K:], torch.ones(N, 3))
        given = module._get_generative_input(tensors, encoded)
        with own_rng(1):
            other = module.generative(**given | {"z": encoded["z"] + torch.tensor([0.0] * K + [5.0] * 3)})
        with own_rng(1):
            same = module.generative(**given)
        for one in ("px", "py"):
            assert torch.equal(other[one].mean[:N], same[one].mean[:N])
            assert not torch.allclose(other[one].mean[N:], same[one].mean[N:])

    def test_marginal_likelihood_of_background_cells_knows_no_salient_latents(self):
        """Draws of theirs are from the prior, so that they cost nothing: the figure is that of a model without them."""
        module, tensors = module_of().eval(), minibatch(targets=0)
        found_n = module.marginal_ll(
            tensors, 400, n_mc_samples_per_pass=400, generator=torch.Generator().manual_seed(0)
        )
        bound_n = -(passed(module, tensors)[2].loss)
        assert found_n.mean() > bound_n

    def test_recombined_cells_weigh_what_the_encoder_misses_of_their_latents(self):
        module, tensors = module_of(), minibatch()
        plain, weighed = (passed(module, tensors, recombination_weight=weight)[2].loss for weight in (0.0, 2.0))
        encoded = passed(module, tensors)[0]
        torch.manual_seed(0)
        with own_rng(0):
            module(tensors)  # as many draws as before those of recombined cells
            missed_n = module._missed(tensors, encoded)
        torch.testing.assert_close(weighed, plain + 2 * missed_n.mean(), rtol=1e-4, atol=1e-3)
        assert missed_n.shape == (N,)
        module.eval()  # validation is the evidence lower bound alone
        first, second = (passed(module, tensors, recombination_weight=weight)[2].loss for weight in (0.0, 2.0))
        assert first == second

    def test_what_is_missed_is_of_both_latents(self):
        """Against the two divergences one by one, of cells drawn from the same noise."""
        module, tensors = module_of().eval(), minibatch()
        encoded = passed(module, tensors)[0]
        with own_rng(3):
            missed_n = module._missed(tensors, encoded)
        with own_rng(3):
            z = torch.cat([encoded["z"][:N, :K], encoded["z"][N:, K:]], -1)
            decoded = module.generative(z, encoded["library"][:N], tensors["batch"][:N])
            proteins, genes = decoded["py"].sample(), decoded["px"].sample()
            found = module.inference(x=genes, proteins=proteins, batch_index=tensors["batch"][:N])["qz"]
        known, wanted = encoded["q_encoded"], 0
        for kind, rows in (("background", slice(None, N)), ("salient", slice(N, None))):
            of_pair = module.part_of(Normal(known.loc[rows], known.scale[rows]), kind)
            wanted = wanted + kl_divergence(of_pair, module.part_of(found, kind)).sum(-1)
        torch.testing.assert_close(missed_n, wanted)

    def test_recombined_cells_teach_the_encoders_of_latents_alone(self):
        module, tensors = module_of(), minibatch()
        module._missed(tensors, passed(module, tensors)[0]).sum().backward()
        reached = {name for name, weight in module.named_parameters() if weight.grad is not None}
        assert {name.split(".")[0] for name in reached} == {"encoder"}
        assert any(name.startswith("encoder.salient.") for name in reached)


def test_pairs_are_stacked(adata):
    ContrastiveTOTALVI.setup_anndata(adata, **SETUP)
    adata.X = adata.X * 0 + np.arange(len(adata))[:, None]  # each cell tells its row
    manager = ContrastiveTOTALVI._get_most_recent_anndata_manager(adata)
    splitter = StackedDataSplitter(manager, BACKGROUND, TARGET, train_size=1.0, batch_size=8, seed=0)
    for pair in splitter.train_dataloader():
        stacked = splitter.on_after_batch_transfer(pair, 0)
        rows, is_target = stacked["X"][:, 0].numpy(), stacked[IS_TARGET][:, 0].numpy()
        assert np.array_equal(rows >= 20, is_target == 1)
        assert is_target.mean() == 0.5


def test_each_kind_of_latents_finds_what_it_is_for_and_not_the_other():
    """A perturbation of genes, one of proteins, and none, in targets only; four types. By chance .5 and .25."""
    adata = perturbed_cite_seq(300, seed=20)
    of = {name: adata.obs[name].astype(str).to_numpy() for name in ("perturbation", "type")}
    is_target = (adata.obs["is_target"] == "is_target_1").to_numpy()
    ContrastiveTOTALVI.setup_anndata(adata, "protein", batch_key="batch")
    model = ContrastiveTOTALVI(adata, n_hidden=64)
    model.train(~is_target, is_target, max_epochs=30, **QUICK)
    assert model.recipe_ == "brief_cycle"

    def near(kind, what, without):
        cells = np.flatnonzero(is_target & (of["perturbation"] != without))
        z = model.get_latent_representation(indices=cells, representation_kind=kind)
        return neighbours_of_their_own(z, of[what][cells])

    assert near("salient", "perturbation", "perturbation_3") >= 0.97
    assert near("salient", "perturbation", "perturbation_1") >= 0.92  # that of proteins from none
    assert near("salient", "type", "perturbation_3") <= 0.6
    assert near("background", "type", "perturbation_3") >= 0.97
    assert near("background", "perturbation", "perturbation_3") <= 0.68
    groups = {"idx1": of["perturbation"] == "perturbation_2", "idx2": ~is_target, "target_idx": is_target}
    table = model.differential_expression(**groups, include_protein_background=True, n_samples_overall=1000, seed=0)
    touched = {f"protein_{p}_protein" for p in range(16, 24)}
    assert set(table.index[:8]) == touched
    assert table["proba_de"].iloc[7] > 0.85 > 0.75 > table["proba_de"].iloc[8]
    assert set(table.index[table["is_de_fdr_0.05"].to_numpy(bool)]) <= touched  # so short a training need not call all


class TestAnswers:
    def test_kinds(self, model):
        genes, proteins = model.get_normalized_expression(representation_kind="background", return_numpy=True, seed=0)
        as_targets = model.get_normalized_expression(return_numpy=True, seed=0)
        assert not np.allclose(genes, as_targets[0], rtol=1e-3)
        assert not np.allclose(proteins, as_targets[1], rtol=1e-3)
        np.testing.assert_allclose(genes.sum(1), 1, rtol=1e-5)

    def test_foreground_of_both_kinds(self, model):
        found = [
            model.get_protein_foreground_probability(representation_kind=one, seed=0)
            for one in ("background", "salient")
        ]
        assert found[0].shape == found[1].shape == (60, 12)
        assert ((found[0] > 0) & (found[0] < 1)).all(axis=None)
        assert not np.allclose(*found, rtol=1e-3)

    def test_both_kinds_of_latents_beside_each_other(self, model):
        both, *each = (model.get_latent_representation(representation_kind=one) for one in ("both", *LATENTS))
        np.testing.assert_array_equal(both, np.hstack(each))
        assert [one.shape[1] for one in each] == [4, 3]

    def test_differential_expression_of_both_modalities(self, model):
        table = model.differential_expression(idx1=TARGET, idx2=BACKGROUND, target_idx=TARGET, seed=0)
        assert len(table) == 20 + 12
        other = model.differential_expression(idx1=TARGET, idx2=BACKGROUND, target_idx=[], seed=0)
        assert not np.allclose(table.loc[other.index, "lfc_mean"], other["lfc_mean"], atol=1e-3)

    def test_fit_of_cells_without_salient_latents(self, model):
        """Each cell's bound as a background cell or as a target cell, whatever it is asked together with."""
        as_all = model.get_elbo(return_mean=False, seed=0, batch_size=60)
        as_none, as_they_are = (
            model.get_elbo(target_idx=cells, return_mean=False, seed=0, batch_size=60) for cells in ([], TARGET)
        )
        torch.testing.assert_close(as_they_are[20:], as_all[20:])
        torch.testing.assert_close(as_they_are[:20], as_none[:20])
        assert not torch.allclose(as_none, as_all)

    def test_a_mask_and_row_numbers_say_the_same(self, model):
        mask = np.isin(np.arange(60), TARGET)
        given = (model.get_reconstruction_error(target_idx=one, indices=[3, 50], seed=0) for one in (mask, TARGET))
        first, second = given
        assert first == second

    def test_row_numbers_are_not_of_a_dataloader(self, model):
        with pytest.raises(ValueError, match="target_idx is about rows"):
            model.get_elbo(dataloader=[], target_idx=[1])

    def test_archive_and_notes(self, model, adata, tmp_path):
        model.save(str(tmp_path / "m"))
        loaded = ContrastiveTOTALVI.load(str(tmp_path / "m"), adata)
        loaded.get_protein_foreground_probability(seed=0, representation_kind="background", key_added="fore")
        wanted = model.get_protein_foreground_probability(seed=0, representation_kind="background")
        np.testing.assert_allclose(adata.obsm["fore"], wanted, rtol=1e-5)
        note = adata.uns["celbo"]["fore"]
        assert (note["model"], note["by"]) == ("ContrastiveTOTALVI", "get_protein_foreground_probability")

    def test_minified(self, model, adata):
        wanted = model.get_latent_representation()
        stored = model.get_latent_representation(return_dist=True, representation_kind="both")
        adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = stored
        model.minify_adata()
        np.testing.assert_allclose(model.get_latent_representation(), wanted, rtol=1e-5)
        kinds = [
            model.get_normalized_expression(representation_kind=one, seed=0)[1] for one in ("background", "salient")
        ]
        assert not np.allclose(*kinds, rtol=1e-3)


class Stop(Callback):
    """Ends a training after so many minibatches."""

    def __init__(self, after):
        self.left = after

    def on_train_batch_end(self, *args):
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError


class TestTraining:
    def test_a_query_of_a_new_batch_keeps_the_cells_of_the_reference(self, model, adata):
        query = adata.copy()
        query.obs["batch"] = "new"
        mapped = ContrastiveTOTALVI.load_query_data(query, model)
        mapped.train(BACKGROUND, TARGET, max_epochs=1, **QUICK)
        np.testing.assert_array_equal(mapped.get_latent_representation(adata), model.get_latent_representation(adata))

    def test_goes_on_where_it_was_killed(self, model, adata, tmp_path):
        again, resumed = (ContrastiveTOTALVI(adata, **SMALL) for _ in range(2))
        run = {"checkpoint_every": "1 step", "checkpoint_dir": tmp_path}
        with pytest.raises(ZeroDivisionError):
            again.train(BACKGROUND, TARGET, max_epochs=2, callbacks=[Stop(2)], **run, **QUICK)
        resumed.train(BACKGROUND, TARGET, max_epochs=2, callbacks=[Stop(0)], resume=tmp_path, **QUICK)
        np.testing.assert_array_equal(resumed.get_latent_representation(), model.get_latent_representation())

    def test_from_a_file(self, adata, tmp_path):
        """Cells come in another order, and what was learnt answers as it does about cells in memory."""
        adata.write_h5ad(tmp_path / "cells.h5ad")
        streamed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        ContrastiveTOTALVI.setup_anndata(streamed, **SETUP)
        there = ContrastiveTOTALVI(streamed, **SMALL)
        there.train(BACKGROUND, TARGET, max_epochs=2, **QUICK)
        wanted = there.get_latent_representation(adata)
        np.testing.assert_allclose(there.get_latent_representation(), wanted, rtol=1e-4, atol=1e-5)

    def test_proteins_that_a_batch_lacks(self, adata):
        """An adversary keeps the batch out, and recombined cells lack what their batch lacks."""
        adata.obsm["protein_expression"][30:, :3] = 0
        ContrastiveTOTALVI.setup_anndata(adata, **SETUP)
        model = ContrastiveTOTALVI(adata, **SMALL)
        halves = np.r_[:15, 30:45], np.r_[15:30, 45:60]
        model.train(*halves, max_epochs=2, **QUICK)
        assert "adversarial_loss_train" in model.history
        assert model.module.measured is not None

    def test_mudata(self):
        pytest.importorskip("mudata")
        mdata = synthetic_iid(batch_size=30, n_genes=20, n_proteins=12, return_mudata=True, seed=0)
        where = {"rna_layer": "rna", "protein_layer": "protein_expression"}
        ContrastiveTOTALVI.setup_mudata(mdata, batch_key="batch", modalities=where)
        model = ContrastiveTOTALVI(mdata, **SMALL)
        model.train(BACKGROUND, TARGET, max_epochs=1, **QUICK)
        genes, proteins = model.get_normalized_expression(representation_kind="background")
        assert (genes.shape, proteins.shape) == ((60, 20), (60, 12))

    def test_the_classic_recipe_recombines_nothing(self, adata):
        ContrastiveTOTALVI.setup_anndata(adata, **SETUP)

        def loss(**options):
            model = ContrastiveTOTALVI(adata, **SMALL)
            model.train(BACKGROUND, TARGET, max_epochs=1, **QUICK, **options)
            return float(model.history["train_loss"].iloc[0, 0])

        classic = loss(recipe="classic")
        assert loss(recipe="classic", recombination_weight=0) == classic
        assert loss(recipe="classic", recombination_weight=5) != classic


@pytest.mark.parametrize(
    ("background", "target", "said"),
    [
        ([], [1, 2, 3], "background_indices is empty: give the row numbers"),
        ([1, 2, 3], [], "target_indices is empty: give the row numbers"),
        ([1, 2, 3], [3, 4], r"have 1 cell in common \(row 3 is one\).* leave it out of one"),
    ],
)
def test_sets_that_cannot_be(adata, background, target, said):
    ContrastiveTOTALVI.setup_anndata(adata, **SETUP)
    with pytest.raises(ValueError, match=said):
        ContrastiveTOTALVI(adata, **SMALL).train(background, target, max_epochs=1, **QUICK)


@pytest.mark.parametrize("options", [{"n_latent": 5}, {"latent_distribution": "ln"}])
def test_latents_are_of_two_kinds_and_normal(adata, options):
    ContrastiveTOTALVI.setup_anndata(adata, **SETUP)
    with pytest.raises(ValueError, match="n_background_latent and n_salient_latent instead of n_latent"):
        ContrastiveTOTALVI(adata, **options)


def test_proteins_that_are_not_there(adata):
    with pytest.raises(KeyError, match=r"'protein'.*protein_expression"):
        ContrastiveTOTALVI.setup_anndata(adata, "protein")


def test_the_report_shows_proteins(model, tmp_path, monkeypatch):
    from celbo.report import model_report

    monkeypatch.setattr("celbo.report.figures.as_data_uri", lambda figure: "data:,")
    model_report(model, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "ContrastiveTOTALVI" in text
    assert "oreground" in text
    assert "could not be made" not in text
