"""MULTIVI: cells that lack a modality, the joint posterior and its penalty, scvi-tools' archives and their figures."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from torch.distributions import Normal, kl_divergence

import celbo
import celbo.report
from celbo.core import ArgumentError
from celbo.model import MULTIVI
from celbo.module import MULTIVAE
from celbo.module.modalities import mixed, modality_weights, pair_penalty
from celbo.ops.draws import sample
from celbo.ops.random import own_rng
from celbo.testing import check_module

mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
pytestmark = pytest.mark.usefixtures("mudata_pulls_nothing")

PARTS = {"rna_layer": "rna", "atac_layer": "peaks", "protein_layer": "adt", "batch_key": "rna"}
SIZES = {"rna": 24, "peaks": 30, "adt": 6}


def simulated(n: int = 120, seed: int = 0, paired: bool = False) -> "mudata.MuData":
    """Two types. Unless paired, every cell has genes or regions or both, a third has proteins; orders differ."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n)
    names = np.array([f"cell_{i}" for i in range(n)])
    rates = {key: rng.gamma(1.0, 2.0, size=(2, size)) for key, size in SIZES.items()}
    has = {"rna": np.arange(n) % 4 != 1, "peaks": np.arange(n) % 4 != 2, "adt": np.arange(n) % 3 == 0}
    parts = {}
    for key, size in SIZES.items():
        cells = np.arange(n) if paired else rng.permutation(np.flatnonzero(has[key]))
        x = rng.poisson(rates[key][kind[cells]]).astype(np.float32)
        obs = pd.DataFrame({"batch": cells % 2, "type": kind[cells]}, index=names[cells])
        parts[key] = AnnData(sp.csr_matrix(x), obs=obs.astype(str))
        parts[key].var_names = [f"{key}_{i}" for i in range(size)]
    return mudata.MuData(parts)


def made(mdata=None, parts=PARTS, **kwargs) -> MULTIVI:
    mdata = simulated() if mdata is None else mdata
    MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=parts)
    return MULTIVI(mdata, **({"n_hidden": 16, "n_latent": 3} | kwargs))


@pytest.fixture(scope="module")
def model() -> MULTIVI:
    model = made()
    model.train(max_epochs=4, verbose=0, seed=0, lr=1e-2, accelerator="cpu")
    return model


class TestModule:
    def test_joint_posterior_is_that_of_the_weighted_mean_of_independent_draws(self):
        q = [
            Normal(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 2.0]])),
            Normal(torch.zeros(1, 2), torch.ones(1, 2)),
        ]
        weights = modality_weights(torch.tensor([1.0, 3.0]).log(), torch.tensor([[True, True]]))
        joint = mixed(q, weights)
        torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75]]))
        with own_rng(0):
            draws = 0.25 * sample(q[0], (200_000,)) + 0.75 * sample(q[1], (200_000,))
        torch.testing.assert_close(joint.loc, draws.mean(0), atol=0.02, rtol=0)
        torch.testing.assert_close(joint.scale, draws.std(0), atol=0.02, rtol=0)

    def test_scvi_tools_weighs_variances_by_roots(self):
        q = [Normal(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))] * 2
        joint = mixed(q, torch.full((1, 2), 0.5), scvi_tools_figures=True)
        torch.testing.assert_close(joint.variance, 0.5**0.5 * 2 * torch.tensor([[1.0, 4.0]]))

    def test_a_modality_that_is_missing_has_no_weight_and_a_cell_without_any_the_prior(self):
        weights = modality_weights(torch.zeros(3), torch.tensor([[True, False, True], [False, False, False]]))
        torch.testing.assert_close(weights, torch.tensor([[0.5, 0, 0.5], [0, 0, 0]]))
        joint = mixed([Normal(torch.full((2, 1), 5.0), torch.ones(2, 1))] * 3, weights)
        torch.testing.assert_close(
            (joint.loc, joint.scale), (torch.tensor([[5.0], [0.0]]), torch.tensor([[0.5**0.5], [1.0]]))
        )

    @pytest.mark.parametrize("penalty", ["Jeffreys", "MMD", "None"])
    def test_penalty_is_of_pairs_that_a_cell_has(self, penalty):
        generator = torch.Generator().manual_seed(1)
        q = {
            m: Normal(torch.randn(3, 2, generator=generator), torch.rand(3, 2, generator=generator) + 0.1)
            for m in range(3)
        }
        has = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
        expected = []
        for n in range(3):
            pairs = [(a, b) for a in range(3) for b in range(a) if has[n, a] and has[n, b]]
            one = {m: Normal(q[m].loc[n].double(), q[m].scale[n].double()) for m in q}
            apart = {
                "Jeffreys": lambda a, b: (kl_divergence(a, b) + kl_divergence(b, a)).sum(),
                "MMD": lambda a, b: (a.loc - b.loc).norm(),
                "None": lambda a, b: torch.zeros(()).double(),
            }[penalty]
            expected.append(sum((apart(one[a], one[b]) for a, b in pairs), torch.zeros(()).double()))
        torch.testing.assert_close(pair_penalty(q, has, penalty).double(), torch.stack(expected), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("options", [{}, {"modality_weights": "universal"}, {"modality_penalty": "MMD"}])
    @pytest.mark.usefixtures("global_rng_untouched")
    def test_contract(self, options):
        generator = torch.Generator().manual_seed(0)
        n, sizes = 9, {"X": 12, "atac": 15, "proteins": 5}
        batch = {key: torch.poisson(torch.full((n, size), 2.0), generator=generator) for key, size in sizes.items()}
        batch |= {"batch": torch.arange(n)[:, None] % 2, "labels": torch.arange(n)[:, None] % 3}
        batch["modality_presence"] = torch.tensor([[1.0, 1, 1], [1, 0, 1], [0, 1, 0]] * 3)
        unused = ["background_pro", "z_decoder_expression.px_r_decoder"]
        make = {"n_input_genes": 12, "n_input_regions": 15, "n_input_proteins": 5, "n_batch": 2, "n_hidden": 6}
        check_module(lambda: MULTIVAE(**make, **options), batch, unused=unused)

    @pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
    @pytest.mark.parametrize("of_protein", ["protein", "protein-batch", "protein-label"])
    def test_every_dispersion_trains(self, dispersion, of_protein):
        model = made(dispersion=dispersion, protein_dispersion=of_protein)
        model.train(max_epochs=1, verbose=0, seed=0)
        assert torch.isfinite(model.get_elbo())

    def test_a_network_that_no_cell_needs_is_not_run(self, monkeypatch):
        model = made()
        monkeypatch.setattr(model.module.z_encoder_protein, "forward", lambda *_: pytest.fail("it was run"))
        lacking = np.flatnonzero(~model.adata.obs_names.isin(model.adata.mod["adt"].obs_names))
        model.is_trained_ = True
        assert model.get_latent_representation(indices=lacking).shape == (len(lacking), 3)

    def test_counts_of_thousands_make_no_nan(self):
        """100 thousand raw peaks with counts of thousands: nothing overflows, forwards or backwards."""
        n, g = 8, 100_000
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(n, g, generator=generator).lt(0.02) * torch.randint(1, 5000, (n, g), generator=generator)
        batch = {
            "X": 1e4 * torch.rand(n, 50, generator=generator).round(),
            "atac": x.float(),
            "batch": torch.zeros(n, 1).long(),
        }
        for norms in ({}, {"use_layer_norm": "none"}):
            module = MULTIVAE(g, 50, n_batch=1, **norms)
            record = module(batch)[2]
            record.loss.backward()
            assert torch.isfinite(record.loss)
            assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


class TestPresence:
    def test_a_real_cell_of_zeros_is_a_cell(self):
        """Its zeros are data: it has a likelihood. In a MuData that lacks the cell there is nothing to explain."""
        mdata = simulated(paired=True)
        mdata.mod["rna"].X.data[: mdata.mod["rna"].X.indptr[1]] = 0
        mdata.mod["rna"].X.eliminate_zeros()
        model = made(mdata)
        batch = next(iter(model._make_data_loader(mdata, indices=[0, 1])))
        record = model.module(batch)[2]
        assert (record.reconstruction_loss["reconstruction_loss_expression"] > 0).all()
        old = made(mdata, scvi_tools_figures=True)
        record = old.module(next(iter(old._make_data_loader(mdata, indices=[0, 1]))))[2]
        assert record.reconstruction_loss["reconstruction_loss_expression"][0] == 0

    def test_a_missing_modality_changes_nothing(self, model):
        """Answers about a cell are those of a MuData that never had the others."""
        mdata = model.adata
        only = [name for name in mdata.obs_names if sum(name in mdata.mod[key].obs_names for key in SIZES) == 1]
        rows = mdata.obs_names.get_indexer(only)
        np.testing.assert_allclose(
            model.get_latent_representation(indices=rows),
            model.get_latent_representation(mdata[only].copy()),
            rtol=1e-5,
            atol=1e-6,
        )

    def test_latents_by_modality(self, model):
        joint = model.get_latent_representation(return_dist=True)
        parts = {
            name: model.get_latent_representation(modality=name, return_dist=True)
            for name in ("expression", "accessibility", "protein")
        }
        for (mean, variance), key in zip(parts.values(), SIZES):
            has = model.adata.obs_names.isin(model.adata.mod[key].obs_names)
            assert np.isnan(mean[~has]).all()
            assert np.isfinite(mean[has]).all()
            assert (variance[has] > 0).all()
        means = np.stack([mean for mean, _ in parts.values()])
        variances = np.stack([variance for _, variance in parts.values()])
        n = np.isfinite(means).sum(0)
        np.testing.assert_allclose(joint[0], np.nansum(means, 0) / n, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(joint[1], np.nansum(variances, 0) / n**2, rtol=1e-4)

    def test_what_a_cell_lacks_is_imputed(self, model):
        expression = model.get_normalized_expression()
        assert list(expression.columns) == list(model.get_var_names()["rna"])
        assert expression.shape == (120, 24)
        np.testing.assert_allclose(expression.sum(1), 1, rtol=1e-5)
        open_regions = model.get_normalized_accessibility()
        assert open_regions.shape == (120, 30)
        assert ((open_regions > 0) & (open_regions < 1)).to_numpy().all()
        foreground = model.get_protein_foreground_probability(protein_list=["adt_3", "adt_1"])
        assert list(foreground.columns) == ["adt_1", "adt_3"]

    def test_differences_count_the_cells_that_have_the_modality(self, model):
        mdata = model.adata
        table = model.differential_expression(groupby="type", group1="0", n_samples_overall=500)
        rna = mdata.mod["rna"]
        x = rna.X[(rna.obs["type"] == "0").to_numpy()].toarray()
        np.testing.assert_allclose(table.loc[rna.var_names, "raw_mean1"], x.mean(0), rtol=1e-5)
        regions = model.differential_accessibility(groupby="type", n_samples_overall=500)
        assert len(regions) == 2 * 30  # one against the rest, for each group
        proteins = model.differential_expression(groupby="type", group1="0", output="protein", n_samples_overall=500)
        assert list(proteins.index.sort_values()) == sorted(mdata.mod["adt"].var_names)


class TestReport:
    def test_cells_by_what_they_have_and_batch(self, model, caplog):
        mdata = model.adata
        has = {key: mdata.obs_names.isin(part.obs_names) for key, part in mdata.mod.items()}
        report = model.get_presence_report()
        assert report["cells"].sum() == mdata.n_obs
        assert report.loc["rna + peaks", "cells"] == (has["rna"] & has["peaks"] & ~has["adt"]).sum()
        assert (report[["0", "1"]].sum(axis=1) == report["cells"]).all()
        with caplog.at_level("INFO", logger="celbo"):
            made()
        assert "rna + peaks + adt" in caplog.text

    def test_zeros_that_may_mean_not_measured_are_asked_about(self, caplog):
        mdata = simulated(paired=True)
        x = mdata.mod["rna"].X
        x.data[: x.indptr[30]] = 0
        x.eliminate_zeros()
        made(mdata)
        assert "30 of the 120 cells of modality 'rna' have no counts there, and count as measured" in caplog.text

    def test_no_shared_cells(self):
        parts = simulated().mod
        parts["peaks"].obs_names = parts["peaks"].obs_names + "-1"
        del parts["peaks"].obs["batch"]
        mdata = mudata.MuData({key: parts[key] for key in ("rna", "peaks")})
        wanted = {"rna_layer": "rna", "atac_layer": "peaks"}
        with pytest.raises(ValueError, match=r"No cell is in more than one modality.*'peaks' has 'cell_\d+-1'"):
            MULTIVI.setup_mudata(mdata, modalities=wanted)

    @pytest.mark.parametrize("parts", [["rna_layer", "atac_layer"], ["atac_layer", "protein_layer"]])
    def test_page(self, parts, tmp_path):
        """The report of a model counts cells of the modality, and needs no genes."""
        model = made(parts={key: PARTS[key] for key in parts})
        model.train(max_epochs=2, verbose=0, seed=0)
        celbo.report.model_report(model, tmp_path / "report.html")
        assert "MULTIVI" in (tmp_path / "report.html").read_text()


class TestOneBatch:
    def test_there_is_no_adversary_and_no_word_of_it(self):
        mdata = simulated()
        MULTIVI.setup_mudata(mdata, modalities={name: key for name, key in PARTS.items() if name != "batch_key"})
        model = MULTIVI(mdata, n_hidden=8, n_latent=2)
        model.train(max_epochs=1, verbose=0)  # warnings are errors
        assert "fool_loss_train" not in model.history


class TestLife:
    def test_archive(self, model, tmp_path):
        model.save(tmp_path / "m", save_anndata=True)
        for loaded, adata in (
            (MULTIVI.load(tmp_path / "m"), None),
            (MULTIVI.load(tmp_path / "m", adata=False), simulated()),
        ):
            np.testing.assert_array_equal(loaded.get_latent_representation(adata), model.get_latent_representation())

    @pytest.mark.parametrize(
        "parts", [["rna_layer", "atac_layer"], ["atac_layer", "protein_layer"], ["rna_layer"], ["atac_layer"]]
    )
    def test_any_modalities(self, parts):
        model = made(parts={key: PARTS[key] for key in parts})
        model.train(max_epochs=1, verbose=0, seed=0)
        assert np.isfinite(model.get_latent_representation()).all()
        assert set(model.get_var_names()) == {PARTS[key] for key in parts}

    @pytest.mark.parametrize("weights", ["universal", "cell"])
    def test_learned_weights(self, weights, tmp_path):
        model = made(modality_weights=weights, gene_likelihood="nb", latent_distribution="ln")
        model.train(max_epochs=2, verbose=0, seed=0, lr=1e-2)
        assert model.module.mod_weights.shape == ((120, 3) if weights == "cell" else (3,))
        assert (model.module.mod_weights != 1).any()
        model.save(tmp_path / "m")
        again = MULTIVI.load(tmp_path / "m", adata=simulated())
        np.testing.assert_array_equal(again.get_latent_representation(seed=0), model.get_latent_representation(seed=0))

    def test_anndata_of_old_notebooks(self):
        """Genes before regions, and zeros where a cell lacks one of them."""
        mdata = simulated(paired=True)
        parts = [mdata.mod[key] for key in ("rna", "peaks")]
        adata = AnnData(sp.hstack([part.X for part in parts]).tocsr(), obs=parts[0].obs.copy())
        adata.var_names = [name for part in parts for name in part.var_names]
        MULTIVI.setup_anndata(adata, batch_key="batch")
        with pytest.raises(ArgumentError, match="does not say which of its 54 columns are genes"):
            MULTIVI(adata)
        model = MULTIVI(adata, n_genes=24, n_hidden=16, n_latent=3)
        model.train(max_epochs=2, verbose=0, seed=0)
        assert model.init_params_["non_kwargs"]["n_regions"] == 30
        assert list(model.get_normalized_expression().columns) == list(adata.var_names[:24])
        assert list(model.get_normalized_accessibility().columns) == list(adata.var_names[24:])
        table = model.differential_accessibility(groupby="type", group1="0", n_samples_overall=300)
        share = (adata.X[(adata.obs["type"] == "0").to_numpy(), 24:] > 0).mean(0)
        np.testing.assert_allclose(table.loc[adata.var_names[24:], "emp_prob1"], np.asarray(share).ravel(), rtol=1e-6)

    @pytest.mark.parametrize("kind", ["h5mu", "zarr"])
    def test_streamed_from_disk(self, kind, model, tmp_path):
        """It trains on a MuData that stays in its file, and answers about it as about the one in memory."""
        path, mdata = tmp_path / f"data.{kind}", simulated()
        mdata.write(path) if kind == "h5mu" else mdata.write_zarr(path)
        streamed = celbo.data.open_mudata(path, stream=True)
        np.testing.assert_allclose(
            model.get_latent_representation(streamed), model.get_latent_representation(), rtol=1e-5, atol=1e-6
        )
        other = made(celbo.data.open_mudata(path, stream=True))
        other.train(max_epochs=2, verbose=0, seed=0)
        assert np.isfinite(other.get_latent_representation()).all()
        assert isinstance(other.data.mod["rna"].X, celbo.data.StoredMatrix)

    def test_wrong_questions_are_named(self, model):
        other = made(parts={key: PARTS[key] for key in ("rna_layer", "atac_layer")})
        other.is_trained_ = True
        with pytest.raises(ValueError, match="no modality 'protein'"):
            other.get_latent_representation(modality="protein")
        paired = made(simulated(paired=True), fully_paired=True)
        paired.is_trained_ = True
        with pytest.raises(RuntimeError, match="joint latents only"):
            paired.get_latent_representation(modality="expression")
        with pytest.raises(ValueError, match="expression"):
            model.get_latent_representation(modality="expresion")


@pytest.mark.parametrize(
    "case", ["multivi", "multivi_cell_weights", "multivi_mmd_covariates", "multivi_protein", "multivi_unpaired"]
)
def test_archives_of_scvi_tools_give_its_figures(case, check_case):
    asked, compared, faults = check_case(case)
    assert asked > 20
    assert compared > 35
    assert not faults


def test_figures_of_scvi_tools_stay_with_its_archives(parity2, tmp_path):
    """The option goes with a model that is converted, saved again and exported."""
    mdata = mudata.read_h5mu(parity2 / "multivi_unpaired" / "a.h5mu")
    old = MULTIVI.load(parity2 / "multivi_unpaired" / "model", adata=mdata)
    celbo.model.base.convert_archive(parity2 / "multivi_unpaired" / "model", tmp_path / "converted")
    MULTIVI.load(tmp_path / "converted", adata=mdata.copy()).save(tmp_path / "again")
    again = MULTIVI.load(tmp_path / "again", adata=mdata.copy())
    assert again.module.scvi_tools_figures
    np.testing.assert_array_equal(again.get_latent_representation(), old.get_latent_representation())
    celbo.model.base.export_archive(tmp_path / "again", tmp_path / "exported")
    assert "scvi_tools_figures" not in str(celbo.io.read_scvi_archive(tmp_path / "exported").attributes["init_params_"])
    assert not made().module.scvi_tools_figures


class TestMinified:
    @pytest.mark.parametrize("kind", ["latent_posterior_parameters", "latent_posterior_parameters_with_counts"])
    def test_stored_latents_answer(self, kind, tmp_path):
        model = made()
        model.train(max_epochs=2, verbose=0, seed=0)
        full = model.adata
        latent, expression = model.get_latent_representation(), model.get_normalized_expression(return_numpy=True)
        full.obsm["X_latent_qzm"], full.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
        model.minify_mudata(kind)
        assert model.minified_data_type == kind
        kept = kind.endswith("counts")
        assert (model.data.mod["rna"].X.nnz > 0) == kept
        assert full.mod["rna"].X.nnz
        np.testing.assert_allclose(model.get_latent_representation(), latent, rtol=1e-6)
        np.testing.assert_allclose(model.get_normalized_expression(return_numpy=True), expression, rtol=1e-4)
        assert np.isfinite(model.get_normalized_accessibility(return_numpy=True)).all()
        has = model.data.obs_names.isin(full.mod["rna"].obs_names)
        totals = np.asarray(full.mod["rna"].X.sum(1)).ravel()
        rows = full.mod["rna"].obs_names.get_indexer(model.data.obs_names[has])
        np.testing.assert_array_equal(model.data.obs["observed_lib_size"][has], totals[rows])
        if not kept:
            with pytest.raises(ValueError, match="does not support minified data"):
                model.get_elbo()
        with pytest.raises(ValueError, match="keep the joint latents only"):
            model.get_latent_representation(modality="expression")
        model.save(tmp_path / "m", save_anndata=True)
        again = MULTIVI.load(tmp_path / "m")
        assert again.minified_data_type == kind
        np.testing.assert_allclose(again.get_latent_representation(), latent, rtol=1e-6)


class TestQuery:
    def test_cells_of_a_new_batch_that_lack_a_modality(self):
        """A query of genes only, in another order and with fewer of them, onto a reference of three modalities."""
        reference = made(encode_covariates=True)
        reference.train(max_epochs=3, verbose=0, seed=0)
        other = simulated(40, seed=1)
        rna = other.mod["rna"][:, ::-1][:, 2:].copy()
        rna.obs["batch"] = "new"
        query = mudata.MuData({"rna": rna})
        with pytest.raises(ValueError, match=r"'rna' of the query lacks 2 of the reference's 24.*prepare_query_mudata"):
            MULTIVI.load_query_data(query, reference)
        with pytest.raises(ValueError, match=r"no modality 'peaks' .*prepare_query_mudata adds it"):
            MULTIVI.load_query_data(mudata.MuData({"rna": other.mod["rna"]}), reference)
        prepared = MULTIVI.prepare_query_mudata(query, reference, inplace=False)
        assert {key: part.shape for key, part in prepared.mod.items()} == {
            "rna": (len(rna), 24),
            "peaks": (0, 30),
            "adt": (0, 6),
        }
        names = MULTIVI.prepare_query_mudata(query, reference, return_reference_var_names=True)
        assert list(names["rna"]) == list(prepared.mod["rna"].var_names)
        model = MULTIVI.load_query_data(prepared, reference)
        model.train(max_epochs=2, verbose=0, seed=0)
        assert model.summary_stats.n_batch == 3
        assert model.get_normalized_accessibility().shape == (len(rna), 30)
        MULTIVI.prepare_query_mudata(query, reference)
        assert set(query.mod) == {"rna", "peaks", "adt"}
        old = reference.get_latent_representation()
        np.testing.assert_array_equal(model.get_latent_representation(simulated()), old)


class TestAsNotebooksAsk:
    def test_without_regions_there_is_no_accessibility(self, caplog):
        model = made(parts={key: PARTS[key] for key in ("rna_layer", "protein_layer", "batch_key")})
        assert model.get_normalized_accessibility().shape == (120, 0)
        assert "names no atac_layer" in caplog.text
        assert model.get_region_factors().shape == (0,)

    def test_the_first_columns_are_those_of_fewer_features(self):
        mdata = simulated(paired=True)
        model = made(mdata, n_genes=10, n_regions=7)
        rna, peaks = model.get_normalized_expression(), model.get_normalized_accessibility()
        assert list(rna.columns) == list(mdata.mod["rna"].var_names[:10])
        assert list(peaks.columns) == list(mdata.mod["peaks"].var_names[:7])
        with pytest.raises(ArgumentError, match="do not make the 24 columns of X"):
            made(mdata, n_genes=25)

    def test_tables_of_whole_numbers_stay_in_minified_data(self):
        mdata = simulated()
        mdata.varm["ranks"] = np.arange(mdata.n_vars)[:, None]
        mdata.obsm["place"] = np.arange(mdata.n_obs)[:, None]
        model = made(mdata)
        model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu")
        latents = zip(("X_latent_qzm", "X_latent_qzv"), model.get_latent_representation(return_dist=True), strict=True)
        mdata.obsm.update(dict(latents))
        model.minify_mudata()
        for name, key in (("varm", "ranks"), ("obsm", "place")):
            kept = getattr(model.adata, name)[key]
            np.testing.assert_array_equal(kept, getattr(mdata, name)[key])
            assert kept.dtype == int

    def test_a_query_whose_features_were_renamed_and_left_out(self):
        reference = made(simulated(paired=True))
        query = simulated(seed=1, paired=True)
        query.mod["rna"] = query.mod["rna"][:, 3:].copy()
        query.mod["rna"].var_names = ["other", *query.mod["rna"].var_names[1:]]
        assert MULTIVI.prepare_query_mudata(query, reference) is None
        assert list(query.mod["rna"].var_names) == list(reference.adata.mod["rna"].var_names)
        assert query.mod["rna"].X[:, :4].sum() == 0


@pytest.mark.parametrize(
    ("n_hidden", "given", "recipe", "max_epochs", "lr"),
    [
        (64, {}, "one_cycle", None, 3e-3),
        (64, {"max_epochs": 7}, "one_cycle", 7, 3e-3),
        (64, {"lr": 1e-4}, "classic", 500, 1e-4),
        (64, {"recipe": "classic"}, "classic", 500, 1e-4),
        (16, {}, "one_cycle", None, 1e-2),
        (16, {"max_epochs": 7}, "one_cycle", 7, 1e-2),
        (16, {"recipe": "one_cycle"}, "one_cycle", None, 1e-2),
        (16, {"recipe": "classic"}, "classic", 500, 1e-4),
    ],
)
def test_the_recipe_of_its_own(monkeypatch, n_hidden, given, recipe, max_epochs, lr):
    seen = {}
    monkeypatch.setattr("celbo.model.base.training.train_model", lambda model, **given: seen.update(given))
    made(simulated(160), n_hidden=n_hidden).train(**given)
    assert (seen["recipe"], seen["max_epochs"], seen["plan_kwargs"]["lr"]) == (recipe, max_epochs, lr)


@pytest.mark.parametrize(
    ("n_hidden", "given", "expected"),
    [
        (16, {}, {"n_epochs_kl_warmup": 420, "min_kl_weight": 1e-3, "warms_penalty": True}),  # 1,200 steps of 600
        (16, {"max_epochs": 10, "batch_size": 32}, {"n_epochs_kl_warmup": 7}),
        (16, {"n_epochs_kl_warmup": 3}, {"n_epochs_kl_warmup": 3, "warms_penalty": None}),
        (16, {"recipe": "classic"}, {"n_epochs_kl_warmup": 50, "warms_penalty": None}),
        (64, {}, {"n_steps_kl_warmup": 800, "warms_penalty": None}),
    ],
)
def test_latents_of_few_units_are_free_first(monkeypatch, n_hidden, given, expected):
    seen = {}
    monkeypatch.setattr("celbo.model.base.training.train_model", lambda model, **given: seen.update(given))
    made(simulated(160), n_hidden=n_hidden).train(**given)
    assert {name: seen["plan_kwargs"].get(name) for name in expected} == expected


@torch.no_grad()
def test_the_penalty_warms_with_the_divergence():
    model = made()
    batch = next(iter(model._make_data_loader(model.adata)))
    outputs = model.module.eval()(batch, compute_loss=False)
    kl, penalty = (part.mean() for part in model.module.loss(batch, *outputs).kl_local.values())
    assert penalty > 0.01

    def loss(kl_weight: float, **options: bool) -> float:
        return float(model.module.loss(batch, *outputs, kl_weight=kl_weight, **options).loss)

    none = loss(0, warms_penalty=True)
    assert loss(1, warms_penalty=True) - none == pytest.approx(float(kl + penalty), rel=1e-3)
    assert loss(0.5, warms_penalty=True) - none == pytest.approx(float(kl + penalty) / 2, rel=1e-3)
    assert loss(0) - none == pytest.approx(float(penalty), rel=1e-3)


def test_weights_have_the_shapes_that_scvi_tools_gives_them():
    """Covariates enter each layer of the encoders of regions and proteins; there are factors of no regions."""
    module = MULTIVAE(0, 20, 5, n_batch=3, n_hidden=8, encode_covariates=True)
    weights, last = module.state_dict(), "encoder.fc_layers.Layer 1.0.weight"
    widths = [weights[f"z_encoder_{name}.{last}"].shape[1] for name in ("expression", "accessibility", "protein")]
    assert widths == [8, 11, 11]
    assert weights["region_factors"].shape == (0,)
