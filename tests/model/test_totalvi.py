"""TOTALVI: genes and proteins, panels, background; scvi-tools' archives and their figures."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats
from torch.distributions import Normal, kl_divergence

import celbo
from celbo.core.rules import SCVI_TOOLS, followed
from celbo.data.protein_background import background_of_cells, background_of_droplets, lower_components
from celbo.model import TOTALVI
from celbo.module import TOTALVAE
from celbo.module.likelihoods import measured_table, two_levels
from celbo.ops.random import own_rng
from celbo.posterior.protein import protein_of

CASES = ("totalvi", "totalvi_covariates", "totalvi_missing", "totalvi_mudata", "totalvi_panels", "totalvi_unseen_batch")


def cite(n_cells: int = 120, n_genes: int = 30, n_proteins: int = 12, seed: int = 0) -> AnnData:
    """Two types; each protein is foreground, eight times the background, in one of them."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n_cells)
    scale_tg = rng.dirichlet(np.ones(n_genes), size=2)
    adata = AnnData(rng.poisson(300 * scale_tg[kind]).astype(np.float32))
    is_fore_np = np.arange(n_proteins) % 2 == kind[:, None]
    rate_np = rng.gamma(5.0, 1.0, (n_cells, 1)) * np.where(is_fore_np, 8.0, 1.0)
    names = [f"protein_{p}" for p in range(n_proteins)]
    adata.obsm["protein"] = pd.DataFrame(rng.poisson(rate_np).astype(np.float32), index=adata.obs_names, columns=names)
    adata.obsm["foreground"] = is_fore_np
    adata.obs["type"] = pd.Categorical([f"type_{k}" for k in kind])
    adata.obs["batch"] = pd.Categorical([f"batch_{i % 2}" for i in range(n_cells)])
    return adata


def set_up(adata: AnnData, **setup) -> AnnData:
    TOTALVI.setup_anndata(adata, **({"protein_expression_obsm_key": "protein", "batch_key": "batch"} | setup))
    return adata


@pytest.fixture(scope="module")
def model() -> TOTALVI:
    model = TOTALVI(set_up(cite()), n_latent=4, n_hidden=32)
    model.train(max_epochs=40, batch_size=32, verbose=0, seed=0, accelerator="cpu")
    return model


def batch_of(model: TOTALVI) -> dict:
    (tensors,) = model._make_data_loader(model.adata, batch_size=model.adata.n_obs)
    return tensors


class TestModule:
    def test_terms_are_the_closed_forms(self, model):
        """In float64: two negative binomials in proportion for the proteins, one for the genes, normal divergences."""
        tensors = batch_of(model)
        _, decoded, record = model.module(tensors, loss_kwargs={"kl_weight": 0.3})
        py, x_np = decoded["py"], tensors["proteins"].numpy()
        mu1, mu2, theta, logits = (t.detach().double().numpy() for t in (py.mu1, py.mu2, py.theta1, py.mixture_logits))
        weight = 1 / (1 + np.exp(-logits))
        density = sum(
            w * stats.nbinom.pmf(x_np, theta, theta / (theta + mu)) for w, mu in ((weight, mu1), (1 - weight, mu2))
        )
        nll_n = record.reconstruction_loss["reconst_loss_protein"].detach().numpy()
        np.testing.assert_allclose(nll_n, -np.log(density).sum(1), rtol=1e-4)
        q = decoded["q_background"]
        prior = model.module._background_prior(tensors)
        efficiency = model.module.log_per_batch_efficiency.detach().double().numpy()
        penalty_b = -stats.lognorm.logpdf(np.exp(efficiency), 1.0).sum(0)
        penalty_n = penalty_b[tensors["batch"].numpy().ravel()] - 1e-3 * np.log(weight).sum(1)
        kl_n = kl_divergence(q, prior).sum(-1).detach().numpy() + penalty_n
        np.testing.assert_allclose(record.kl_local["kl_div_back_pro"].detach().numpy(), kl_n, rtol=1e-4)
        terms = record.reconstruction_loss | record.kl_local
        weights = {"reconst_loss_gene": 1.0, "kl_div_l_gene": 1.0}
        loss = sum(weights.get(name, 0.3) * term.mean() for name, term in terms.items())
        torch.testing.assert_close(record.loss, loss, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("log_variational", [True, False])
    def test_the_encoder_sees_counts_by_the_mean_of_the_cell(self, log_variational):
        """With and without the logarithm: genes and proteins each by one more than the mean of their own."""
        module, seen = TOTALVAE(4, 2, n_hidden=8, n_latent=2, log_variational=log_variational), []
        module.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        x, y = np.array([[0.0, 1, 2, 9], [4, 4, 4, 4]]), np.array([[3.0, 5], [0, 1]])
        module.inference(*(torch.tensor(counts, dtype=torch.float32) for counts in (x, y)), torch.zeros(2, 1).long())
        by_mean = np.hstack([counts / (1 + counts.mean(1, keepdims=True)) for counts in (x, y)])
        np.testing.assert_allclose(seen[0].numpy(), np.log1p(by_mean) if log_variational else by_mean, rtol=1e-6)

    @pytest.mark.usefixtures("global_rng_untouched")
    def test_capture_efficiency_is_in_what_is_read_out(self, model, monkeypatch):
        """As in the likelihood; scvi-tools leaves it out, and so does the option."""
        tensors = batch_of(model)
        with torch.no_grad(), own_rng(0):
            encoded = model.module.inference(**model.module._get_inference_input(tensors))
            given = model.module._get_generative_input(tensors, encoded)
            with own_rng(0):
                right = model.module.generative(**given)
            monkeypatch.setattr(model.module, "scvi_tools_figures", True)
            with own_rng(0):
                old = model.module.generative(**given)
        efficiency_np = model.module.log_per_batch_efficiency.detach().exp().t()[tensors["batch"].ravel()]
        assert (efficiency_np - 1).abs().max() > 0.01
        torch.testing.assert_close(old["py_readout"].mu2 * efficiency_np, right["py_readout"].mu2)
        assert right["py_readout"] is right["py"]

    def test_minified_latents_are_variances(self, model, monkeypatch):
        stored = {"qzm": torch.zeros(1, 4), "qzv": torch.full((1, 4), 0.25), "observed_lib_size": torch.ones(1, 1)}
        assert torch.equal(model.module._cached_inference(**stored)["qz"].scale, torch.full((1, 4), 0.5))
        monkeypatch.setattr(model.module, "scvi_tools_figures", True)
        assert torch.equal(model.module._cached_inference(**stored)["qz"].scale, torch.full((1, 4), 0.25))


class TestAnswers:
    def test_foreground_is_found(self, model):
        probability = model.get_protein_foreground_probability(n_samples=5, return_numpy=True, seed=0)
        truth = model.adata.obsm["foreground"]
        statistic = stats.mannwhitneyu(probability[truth], probability[~truth]).statistic
        assert statistic / truth.sum() / (~truth).sum() > 0.9

    def test_expression(self, model):
        rna, protein = model.get_normalized_expression(library_size=50, n_samples=3, seed=0)
        np.testing.assert_allclose(rna.sum(1), 50, rtol=1e-4)
        assert list(protein.columns) == list(model.adata.obsm["protein"].columns)
        whole = model.get_normalized_expression(include_protein_background=True, n_samples=50, seed=0)[1]
        observed = model.adata.obsm["protein"]
        assert np.corrcoef(np.log1p(whole).to_numpy().ravel(), np.log1p(observed).to_numpy().ravel())[0, 1] > 0.8
        scaled = model.get_normalized_expression(scale_protein=True, seed=0)[1]
        np.testing.assert_allclose(scaled.sum(1), 1, rtol=1e-5)

    def test_library_size_is_that_of_the_cell_in_every_batch(self, model):
        """scvi-tools multiplies once for each batch."""
        rna, _ = model.get_normalized_expression(library_size=100, transform_batch=["batch_0", "batch_1"], seed=0)
        np.testing.assert_allclose(rna.sum(1), 100, rtol=1e-4)

    def test_lists(self, model):
        rna, protein = model.get_normalized_expression(gene_list=["3", "1"], protein_list=["protein_5"], seed=0)
        whole = model.get_normalized_expression(seed=0)
        pd.testing.assert_frame_equal(rna, whole[0][["1", "3"]])
        pd.testing.assert_frame_equal(protein, whole[1][["protein_5"]])
        with pytest.raises(ValueError, match=r"'protein_1'.*None of protein_list"):
            model.get_protein_foreground_probability(protein_list=["protein_l"])

    def test_sampled_mixing_has_the_mean_of_the_weighted(self, model):
        options = {"indices": [0], "n_samples": 2000, "return_numpy": True, "seed": 0}
        weighted = model.get_normalized_expression(**options)[1]
        sampled = model.get_normalized_expression(sample_protein_mixing=True, **options)[1]
        np.testing.assert_allclose(sampled, weighted, rtol=0.2, atol=0.5)

    def test_differential_expression(self, model):
        table = model.differential_expression(groupby="type", group1="type_0", group2="type_1", seed=0)
        proteins = table[table.index.str.endswith("_protein")]
        assert len(table) == 42
        assert len(proteins) == 12
        up = [f"protein_{p}_protein" for p in range(0, 12, 2)]
        down = [f"protein_{p}_protein" for p in range(1, 12, 2)]
        assert proteins.loc[up, "lfc_mean"].min() > 1 > -1 > proteins.loc[down, "lfc_mean"].max()
        raw = model.adata.obsm["protein"][(model.adata.obs["type"] == "type_0").to_numpy()]
        np.testing.assert_allclose(proteins.loc[up, "raw_mean1"], raw.mean().iloc[::2], rtol=1e-5)
        only = model.differential_expression(groupby="type", group1="type_0", use_field=["protein"], seed=0)
        assert set(only.index) == {*up, *down}
        with pytest.raises(ValueError, match="use_field"):
            model.differential_expression(groupby="type", group1="type_0", use_field=["atac"])

    def test_predictive(self, model):
        drawn = model.posterior_predictive_sample(n_samples=20, protein_list=["protein_0"], seed=0)
        assert drawn["rna"].shape == (120, 30, 20)
        assert drawn["protein"].shape == (120, 1, 20)
        assert (drawn["protein"] == drawn["protein"].round()).all()
        expected = model.get_normalized_expression(
            protein_list=["protein_0"], include_protein_background=True, n_samples=50, seed=0
        )[1]
        np.testing.assert_allclose(drawn["protein"].mean(), expected.to_numpy().mean(), rtol=0.1)

    @pytest.mark.parametrize("log_transform", [False, True])
    def test_correlations(self, model, log_transform):
        table = model.get_feature_correlation_matrix(
            n_samples=3, correlation_type="pearson", log_transform=log_transform, seed=0
        )
        assert table.shape == (42, 42)
        of_proteins = table.loc["protein_0", ["protein_2", "protein_1"]]
        assert of_proteins.iloc[0] > 0.2 > of_proteins.iloc[1]

    def test_background_and_library(self, model):
        background = model.get_protein_background_mean(seed=0)
        assert background.shape == (120, 12)
        assert (background > 0).all()
        np.testing.assert_allclose(
            model.get_latent_library_size(give_mean=False).ravel(), model.adata.X.sum(1), rtol=1e-4
        )

    def test_no_likelihood_parameters(self, model):
        with pytest.raises(NotImplementedError, match="get_protein_background_mean"):
            model.get_likelihood_parameters()

    def test_importance_weights_see_both(self, model):
        z = torch.from_numpy(model.get_latent_representation(indices=[0, 1, 2]))
        weights = model.get_importance_weights(None, [0, 1, 2], None, None, z, n_mc_samples=5, seed=0)
        assert weights.shape == (3,)
        np.testing.assert_allclose(weights.sum(), 1)

    def test_value_of_a_mixture(self):
        py = celbo.distributions.NegativeBinomialMixture(
            torch.tensor([2.0]), torch.tensor([10.0]), torch.tensor([1.0]), torch.logit(torch.tensor([0.25]))
        )
        assert protein_of(py).item() == pytest.approx(7.5)
        assert protein_of(py, background=True).item() == pytest.approx(py.mean.item())
        assert protein_of(py, prior_count=0.1).item() == pytest.approx(7.6)


class TestMissingProteins:
    def some_missing(self, value: float) -> AnnData:
        adata = cite()
        cells = (adata.obs["batch"] == "batch_1").to_numpy()
        adata.obsm["protein"].loc[cells, ["protein_1", "protein_7"]] = value
        return adata

    def test_they_do_not_enter_the_loss(self):
        """Zeros there, or other zeros: the same terms; the parameters of the background there get no gradient."""
        model = TOTALVI(set_up(self.some_missing(0.0)), n_latent=4, n_hidden=8)
        tensors = batch_of(model)
        with own_rng(0):
            _, decoded, record = model.module.eval()(tensors)
        record.loss.backward()
        missing = model.module.background_pro_alpha.grad[[1, 7], 1]
        assert torch.equal(missing, torch.zeros(2))
        per_protein = -decoded["py"].log_prob(tensors["proteins"]).detach()
        measured = torch.ones(120, 12)
        measured[np.ix_((model.adata.obs["batch"] == "batch_1").to_numpy().nonzero()[0], [1, 7])] = 0
        found = record.reconstruction_loss["reconst_loss_protein"].detach()
        torch.testing.assert_close(found, (per_protein * measured).sum(-1))

    def test_nan_says_so_too(self):
        """NaN in a whole batch: the same terms as zeros there, and finite training."""
        terms = []
        for value in (0.0, np.nan):
            model = TOTALVI(set_up(self.some_missing(value)), n_latent=4, n_hidden=8)
            with own_rng(0):
                record = model.module.eval()(batch_of(model))[2]
            terms.append(record.reconstruction_loss["reconst_loss_protein"].detach())
        torch.testing.assert_close(terms[0], terms[1])
        model.train(max_epochs=1, batch_size=32, verbose=0)
        assert np.isfinite(model.get_protein_foreground_probability().to_numpy()).all()

    def test_what_is_missing_is_named(self, caplog):
        with caplog.at_level("INFO", logger="celbo"):
            set_up(self.some_missing(0.0))
        assert "no count of protein_1, protein_7" in caplog.text

    def test_nan_in_some_cells_is_refused(self):
        adata = cite()
        adata.obsm["protein"].iloc[5, 3] = np.nan
        with pytest.raises(ValueError, match=r"NaN for 'protein_3' in the cell '5'"):
            set_up(adata)

    def test_nan_in_some_cells_is_a_warning_by_the_rules_of_scvi_tools(self):
        adata = cite()
        adata.obsm["protein"].iloc[5, 3] = np.nan
        with followed(SCVI_TOOLS), pytest.warns(UserWarning, match=r"NaN for 'protein_3' in the cell '5'"):
            set_up(adata)

    def test_negative_beside_nan_is_refused(self):
        adata = self.some_missing(np.nan)
        adata.obsm["protein"].iloc[0, 0] = -1.0
        with pytest.raises(ValueError, match="negative"):
            set_up(adata)

    def test_the_caller_may_say_what_was_measured(self):
        adata = self.some_missing(0.0)
        every = list(adata.obsm["protein"].columns)
        set_up(adata, measured_proteins={"batch_1": every, "batch_0": every[1:]})
        model = TOTALVI(adata, n_latent=4, n_hidden=8)
        expected = np.ones((2, 12))
        expected[0, 0] = 0
        np.testing.assert_array_equal(model.module.measured, expected)
        with pytest.raises(ValueError, match="'protein_1'"):
            set_up(adata, measured_proteins={"batch_1": ["protein_l"]})
        with pytest.raises(ValueError, match="'batch_1'"):
            set_up(adata, measured_proteins={"batch_l": every})

    def test_override(self):
        model = TOTALVI(set_up(self.some_missing(0.0)), n_latent=4, n_hidden=8, override_missing_proteins=True)
        assert model.module.measured is None

    @pytest.mark.parametrize(("recipe", "weight", "rate"), [("one_cycle", 10.0, 5e-3), ("classic", "auto", 1e-3)])
    def test_weight_of_the_adversary(self, recipe, weight, rate):
        model, plans = TOTALVI(set_up(self.some_missing(0.0)), n_latent=4, n_hidden=8), []

        class Keep:
            def on_train_start(self, trainer, plan):
                plans.append(plan)

        model.train(max_epochs=1, batch_size=32, recipe=recipe, callbacks=[Keep()], verbose=0)
        assert plans[0].scale_adversarial_loss == weight
        assert model.trainer.optimizers[1].param_groups[0]["lr"] == rate
        given = {"plan_kwargs": {"scale_adversarial_loss": 2.0}}
        model.train(max_epochs=1, batch_size=32, recipe=recipe, callbacks=[Keep()], verbose=0, **given)
        assert plans[1].scale_adversarial_loss == 2.0

    def test_the_adversary_is_on_where_panels_differ(self):
        adata = self.some_missing(0.0)
        model = TOTALVI(set_up(adata), n_latent=4, n_hidden=8)
        model.train(max_epochs=1, batch_size=32, verbose=0)
        assert "adversarial_loss_train" in model.history
        model = TOTALVI(set_up(adata), n_latent=4, n_hidden=8)
        model.train(max_epochs=1, batch_size=32, verbose=0, adversarial_classifier=False)
        assert "adversarial_loss_train" not in model.history


class TestBackground:
    def test_lower_component(self):
        rng = np.random.default_rng(0)
        low = rng.normal(1.0, 0.2, (50, 60))
        x_np = np.concatenate([low, rng.normal(4.0, 0.3, (50, 30))], axis=1)
        mean_n, spread_n = lower_components(x_np)
        np.testing.assert_allclose(mean_n, low.mean(1), atol=1e-3)
        np.testing.assert_allclose(spread_n, low.std(1), atol=1e-3)

    def test_equal_counts_have_the_stated_fallback(self):
        counts = np.ones((20, 8))
        mean, spread = background_of_cells(lambda rows: counts[rows], np.zeros(20, int), (8, 3))
        np.testing.assert_allclose(mean[:, 0], 0)
        np.testing.assert_allclose(spread[:, 0], 0.05 / 10, rtol=1e-5)
        np.testing.assert_array_equal(mean[:, 1:], 0)
        np.testing.assert_array_equal(spread[:, 1:], 1)

    def test_few_proteins_have_the_stated_fallback(self):
        counts = np.random.default_rng(0).poisson(5.0, (20, 8)).astype(float)
        masks = {"0": np.arange(8) < 4}
        mean, spread = background_of_cells(lambda rows: counts[rows], np.zeros(20, int), (8, 1), masks)
        assert (mean == 0).all()
        assert (spread == 1).all()

    @pytest.mark.parametrize("activation", ["softplus", "exp"])
    def test_training_begins_with_the_background_of_its_prior(self, activation):
        """What it costs is the divergence from the mean of the panels' priors, of thousands of nats before."""
        model = TOTALVI(
            set_up(cite()), n_latent=4, n_hidden=8, extra_decoder_kwargs={"activation_function_bg": activation}
        )
        module, tensors = model.module.eval(), batch_of(model)

        def cost() -> torch.Tensor:
            with own_rng(0):
                decoded = module(tensors)[1]
            return kl_divergence(decoded["q_background"], module._background_prior(tensors)).sum(-1).detach()

        before = cost()
        assert module.start_from_counts(torch.cat([tensors[key] for key in module.counts_to_start_from], dim=1))
        mean_pb, spread_pb = module.background_pro_alpha.detach(), module.background_pro_log_beta.detach().exp()
        begun = Normal(mean_pb.mean(1, keepdim=True), spread_pb.mean(1, keepdim=True))
        expected_b = kl_divergence(begun, Normal(mean_pb, spread_pb)).sum(0)
        torch.testing.assert_close(cost(), expected_b[tensors["batch"].squeeze(1).long()], rtol=1e-3, atol=1e-4)
        assert cost().mean() < before.mean() / 50

    def test_training_begins_with_the_levels_of_proteins_where_panels_differ(self):
        adata = cite()
        adata.obsm["protein"]["protein_0"] = np.arange(120) // 2 % 2  # its upper level is 1, below any background
        adata.obsm["protein"].iloc[1::2, 11] = 0  # the second batch lacks it
        model = TOTALVI(set_up(adata), n_latent=4, n_hidden=8)
        module, tensors, before = (
            model.module.eval(),
            batch_of(model),
            model.module.background_pro_alpha.detach().clone(),
        )
        assert module.start_from_counts(torch.cat([tensors[key] for key in module.counts_to_start_from], dim=1))
        _, high, share = two_levels(module._where_measured(tensors["proteins"], tensors, torch.nan))
        torch.testing.assert_close(module.background_pro_alpha[0].exp(), torch.full((2,), 1.05))
        torch.testing.assert_close(module.background_pro_alpha[1:], before[1:])
        decoded = module(tensors)[1]["py"]
        times = (high + 0.05) / module.background_pro_alpha.mean(1).exp()
        assert times[0] < 2 < times[1:].min()
        begun = (decoded.mu2 / decoded.mu1).median(0).values
        torch.testing.assert_close(begun, times.clamp(min=2), rtol=0.2, atol=0.5)
        assert ((decoded.mixture_logits.sigmoid().median(0).values - 1 + share).abs() < 0.2).all()

    def test_prior_from_cells_is_the_same_each_time(self):
        models = [TOTALVI(set_up(cite()), n_latent=4, n_hidden=8) for _ in range(2)]
        first, second = (model.module.background_pro_alpha for model in models)
        assert torch.equal(first, second)
        counts = cite().obsm["protein"].to_numpy()
        background = counts[~cite().obsm["foreground"]]
        np.testing.assert_allclose(first.detach().mean(), np.log1p(background).mean(), atol=0.3)

    def test_prior_from_empty_droplets(self):
        adata = cite()
        rng = np.random.default_rng(1)
        droplets = pd.DataFrame(rng.poisson(np.arange(1, 13), (200, 12)), columns=adata.obsm["protein"].columns)
        mean, spread = background_of_droplets(droplets.to_numpy(), 2)
        shuffled = droplets[droplets.columns[::-1]]
        model = TOTALVI(set_up(adata), n_latent=4, n_hidden=8, empty_droplets=shuffled)
        np.testing.assert_allclose(model.module.background_pro_alpha.detach(), mean, rtol=1e-6)
        np.testing.assert_allclose(model.module.background_pro_log_beta.detach().exp(), spread, rtol=1e-5)
        assert model.init_params_["non_kwargs"]["empty_droplets"] is None
        with pytest.raises(ValueError, match="lacks 1 proteins"):
            TOTALVI(adata, empty_droplets=droplets.drop(columns="protein_3"))
        with pytest.raises(ValueError, match="12 proteins"):
            TOTALVI(adata, empty_droplets=np.ones((5, 3)))


class TestLife:
    def test_saved_and_loaded(self, model, tmp_path):
        model.save(tmp_path / "m")
        loaded = TOTALVI.load(tmp_path / "m", model.adata, accelerator="cpu")
        assert not loaded.module.scvi_tools_figures
        for one, other in zip(model.get_normalized_expression(seed=0), loaded.get_normalized_expression(seed=0)):
            pd.testing.assert_frame_equal(one, other)

    def test_exported_without_what_scvi_tools_does_not_have(self, model, tmp_path):
        model.save(tmp_path / "m")
        celbo.model.base.export_archive(tmp_path / "m", tmp_path / "old")
        archive = celbo.io.read_scvi_archive(tmp_path / "old")
        given = archive.attributes["init_params_"]["non_kwargs"]
        assert not {"empty_droplets", "scvi_tools_figures"} & given.keys()
        back = TOTALVI.load(tmp_path / "old", model.adata, accelerator="cpu")
        assert back.module.scvi_tools_figures
        np.testing.assert_array_equal(back.get_latent_representation(), model.get_latent_representation())

    def test_minified(self, model):
        adata = set_up(cite())
        mini = TOTALVI(adata, n_latent=4, n_hidden=32)
        mini.module.load_state_dict(model.module.state_dict())
        mini.is_trained_ = True
        adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = mini.get_latent_representation(return_dist=True)
        before = mini.get_normalized_expression(n_samples=300, seed=0)
        mini.minify_adata("latent_posterior_parameters_with_counts")
        after = mini.get_normalized_expression(n_samples=300, seed=0)
        np.testing.assert_allclose(after[0], before[0], rtol=0.2, atol=2e-3)

    def test_query(self, model):
        query = cite(seed=1)
        query.obs["batch"] = "batch_9"
        mapped = TOTALVI.load_query_data(query, model)
        mapped.train(max_epochs=1, batch_size=32, verbose=0, seed=0)
        assert mapped.module.log_per_batch_efficiency.shape == (12, 3)
        assert mapped.get_protein_foreground_probability(query).shape == (120, 12)
        ours, own = model.module.state_dict(), mapped.module.state_dict()
        same = "decoder.px_decoder.fc_layers.Layer 0.0.bias"
        assert torch.equal(ours[same], own[same])


@pytest.mark.parametrize("case", CASES)
def test_figures_of_scvi_tools(check_case, case):
    pytest.importorskip("mudata")
    asked, compared, faults = check_case(case)
    assert faults == []
    assert asked > 20
    assert compared > 30


def test_the_mean_of_an_observed_library_is_that_library(model):
    totals_n1 = np.asarray(model.adata.X.sum(1))[:, None]
    np.testing.assert_allclose(model.get_latent_library_size(), totals_n1, rtol=1e-5)


def test_mudata_keeps_its_tables_and_names_its_draws():
    mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
    adata = cite()
    proteins = AnnData(adata.obsm["protein"].copy())
    with mudata.set_options(pull_on_update=False):
        mdata = mudata.MuData({"gex": AnnData(adata.X, obs=adata.obs[[]]), "adt": proteins})
    mdata.obs["batch"] = adata.obs["batch"].to_numpy()
    TOTALVI.setup_mudata(mdata, batch_key="batch", modalities={"rna_layer": "gex", "protein_layer": "adt"})
    assert list(mdata.mod["adt"].obs) == []
    drawn = TOTALVI(mdata, n_latent=4, n_hidden=8).posterior_predictive_sample(seed=0)
    assert {key: x.shape for key, x in drawn.items()} == {"gex": (120, 30), "adt": (120, 12)}


def test_masks_of_sparse_proteins_are_rows():
    table = measured_table({"0": np.array([[True, False]]), "2": np.array([False, True])}, 3)
    np.testing.assert_array_equal(table, [[1, 0], [1, 1], [0, 1]])
