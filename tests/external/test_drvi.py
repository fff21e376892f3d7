"""DRVI: splits of the latents decoded apart, against plain forms; factors and their genes on known programs."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from celbo.external import DRVI
from celbo.external.drvi import DecoderDRVI, DRVIModule, decoder
from celbo.external.drvi.decoder import log_mean_exp_of_splits
from celbo.external.drvi.effects import _decoding, _per_split, effects_at_extremes
from celbo.nn.fc_layers import append_columns

QUIET = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
AGGREGATIONS = ["logsumexp", "sum"]


def programs(n_cells=400, n_genes=60, n_programs=3, seed=0):
    """Cells in which each of some programs is on or not, whatever the others do; each raises genes of its own."""
    rng = np.random.default_rng(seed)
    amount_np = (rng.random((n_cells, n_programs)) < 0.4) * rng.gamma(3, 0.4, (n_cells, n_programs))
    gene_pg = np.zeros((n_programs, n_genes), bool)
    for p in range(n_programs):
        gene_pg[p, 8 * p : 8 * p + 8] = True
    rate_ng = rng.gamma(2, 0.5, n_genes) + amount_np @ (gene_pg * 12.0)
    mean_ng = 600 * rate_ng / rate_ng.sum(1, keepdims=True)
    adata = anndata.AnnData(sp.csr_matrix(rng.poisson(mean_ng).astype(np.float32)))
    adata.obs["batch"] = pd.Categorical([f"batch_{i % 2}" for i in range(n_cells)])
    adata.obsm["amount"], adata.varm["gene"] = amount_np, gene_pg.T
    return adata


@pytest.fixture(scope="module")
def model():
    adata = programs()
    DRVI.setup_anndata(adata, batch_key="batch")
    model = DRVI(adata, n_latent=6, n_hidden=32)
    model.train(max_epochs=100, **QUIET)
    return model


class TestDecoder:
    def test_sum_of_exponentials_split_by_split(self):
        generator = torch.Generator().manual_seed(0)
        hidden, weight, bias = (
            torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 4, 3), (7, 3), (7,))
        )
        plain = torch.logsumexp(hidden @ weight.t() + bias, 0) - np.log(5)
        torch.testing.assert_close(log_mean_exp_of_splits(hidden, weight, bias), plain)
        given = [table.requires_grad_() for table in (hidden, weight, bias)]
        assert torch.autograd.gradcheck(log_mean_exp_of_splits, given)

    @pytest.mark.parametrize(("kept", "block"), [(10**9, 10**9), (0, 10**9), (10**9, 60), (0, 60)])
    def test_some_genes_at_a_time(self, monkeypatch, kept, block):
        """Shares kept or computed again, all genes at once or in blocks: the gradients are those of the plain form."""
        for name, number in (("_KEPT_NUMBERS", kept), ("_BLOCK_NUMBERS", block), ("_FEWEST_GENES", 2)):
            monkeypatch.setattr(decoder, name, number)
        generator = torch.Generator().manual_seed(0)
        hidden, weight, bias, upstream = (
            torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
            for shape in ((5, 4, 3), (7, 3), (7,), (4, 7))
        )
        given = (hidden, weight, bias)
        plain = torch.autograd.grad((hidden @ weight.t() + bias).logsumexp(0), given, upstream.detach())
        for found, known in zip(
            torch.autograd.grad(log_mean_exp_of_splits(*given), given, upstream.detach()), plain, strict=True
        ):
            torch.testing.assert_close(found, known)

    @pytest.mark.parametrize("method", ["split_map", "split_mask"])
    @pytest.mark.parametrize("aggregation", AGGREGATIONS)
    @pytest.mark.parametrize("draws", [(), (3,)])
    def test_against_one_split_after_the_other(self, method, aggregation, draws):
        """Latents of 3 splits of 2, one dense covariate behind them, a batch and a category in the first layer."""
        decoder = DecoderDRVI(
            6,
            11,
            3,
            method,
            split_aggregation=aggregation,
            n_cat_list=[2, 3],
            n_continuous_cov=1,
            n_layers=2,
            n_hidden=5,
            inject_covariates=False,
        )
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(*draws, 4, 6, generator=generator)
        dense = torch.randn(4, 1, generator=generator)
        codes = [torch.tensor([[0], [1], [1], [0]]), torch.tensor([[2], [0], [1], [2]])]
        said = []
        for s in range(3):
            part = torch.zeros_like(z)
            part[..., 2 * s : 2 * s + 2] = z[..., 2 * s : 2 * s + 2]
            if method == "split_map":
                part = z[..., 2 * s : 2 * s + 2] @ decoder.split_map.weight[s]
            said.append(decoder.px_scale_decoder[0](decoder.px_decoder(append_columns(part, dense), *codes)))
        together = torch.stack(said)
        plain = together.sum(0) if aggregation == "sum" else together.logsumexp(0) - np.log(3)
        inputs = append_columns(z, dense)
        logits, theta, dropout = decoder.logits("gene", inputs, *codes, use_dropout=False)
        torch.testing.assert_close(logits, plain)
        assert theta is None
        assert dropout is None

    def test_splits_must_divide_the_latents(self):
        with pytest.raises(ValueError, match=r"4 splits.*do not divide 6 latents"):
            DRVIModule(10, n_latent=6, n_split_latent=4)

    def test_what_is_not_there(self):
        with pytest.raises(NotImplementedError, match="everywhere"):
            DRVIModule(10, n_latent=6, decoder_reuse_weights="nowhere")
        with pytest.raises(ValueError, match="'elu'"):
            DRVIModule(10, n_latent=6, activation_fn="el")

    def test_defaults(self):
        module = DRVIModule(10)
        assert (module.n_latent, module.n_hidden, module.n_split) == (128, 256, 128)
        assert module.decoder.px_decoder.n_cov == 0
        assert DRVIModule(10, n_latent=4, n_batch=3).decoder.px_decoder.n_cov == 3
        assert DRVIModule(10, n_latent=6, n_split_latent=-1).n_split == 6


class TestEffects:
    @pytest.mark.parametrize("aggregation", AGGREGATIONS)
    def test_without_a_split_is_with_its_latents_at_0(self, aggregation):
        adata = programs(20, 30)
        DRVI.setup_anndata(adata, batch_key="batch")
        module = DRVI(adata, n_latent=6, n_split_latent=3, n_hidden=8, split_aggregation=aggregation).module.eval()
        tensors = {"X": torch.from_numpy(adata.X.toarray()), "batch": torch.arange(20)[:, None] % 2}
        with torch.no_grad():
            z_nk = module.inference(**module._get_inference_input(tensors))["qz"].loc
            for s, z_n, whole_ng, without_ng, _ in _per_split(module, [tensors]):
                torch.testing.assert_close(z_n, z_nk[:, 2 * s : 2 * s + 2].sum(1))
                for expected, z in ((whole_ng, z_nk), (without_ng, z_nk.clone())):
                    if expected is without_ng:
                        z[:, 2 * s : 2 * s + 2] = 0
                    decoder, inputs, codes = _decoding(module, tensors, z)
                    known = decoder.logits("gene", inputs, *codes, use_dropout=False)[0].softmax(-1)
                    torch.testing.assert_close(expected, known, rtol=1e-4, atol=1e-6)

    def test_a_latent_that_stays_at_0_does_nothing(self, model):
        tensors = {"batch": torch.zeros(4, 1, dtype=torch.int64)}
        low, high = np.full(6, -1.0), np.full(6, 2.0)
        low[3] = high[3] = 0
        up, down = effects_at_extremes(model.module, tensors, low, high)
        assert np.abs(up[3]).max() == np.abs(down[3]).max() == 0
        assert (np.abs(up).max(1)[[0, 1, 2, 4, 5]] > 0).all()


class TestFactors:
    @pytest.mark.parametrize("key", ["OOD", "IND"])
    def test_sides_with_a_large_effect_are_programs(self, model, key):
        """Their first genes are of one program, which the latents follow; two of the three are found so."""
        adata, embed = model.adata, model.get_embedding()
        model.calculate_interpretability_scores(embed, methods="ALL")
        scores, found = model.get_interpretability_scores(embed, key), set()
        z_of = dict(zip(embed.var["title"], np.asarray(embed.X).T, strict=True))
        for side in scores.columns[scores.max() > 1]:
            first = scores[side].nlargest(8).index.astype(int)
            share_p = adata.varm["gene"][first].mean(0)
            assert share_p.max() == 1
            z = np.maximum(z_of[side[:-1]] * (1 if side[-1] == "+" else -1), 0)
            assert np.corrcoef(z, adata.obsm["amount"][:, share_p.argmax()])[0, 1] > 0.8
            found.add(int(share_p.argmax()))
        assert len(found) >= 2

    def test_what_is_noted_of_latents(self, model):
        embed = model.get_embedding()
        z, var = np.asarray(embed.X), embed.var
        np.testing.assert_allclose(var["max_value"], np.abs(z).max(0))
        assert list(var["order"].to_numpy()[np.argsort(-var["reconstruction_effect"].to_numpy())]) == list(range(6))
        assert var["title"].iloc[int(np.argmin(var["order"]))] == "DR 1"
        model.set_latent_dimension_stats(embed, vanished_threshold=1e6)
        assert embed.var["vanished"].all()
        model.calculate_interpretability_scores(embed)
        assert model.get_top_genes(embed).empty
        assert model.get_interpretability_scores(embed).shape == (60, 12)

    def test_top_genes(self, model):
        embed = model.get_embedding()
        model.calculate_interpretability_scores(embed)
        top, scores = model.get_top_genes(embed, n_genes=4), model.get_interpretability_scores(embed)
        for factor, rows in top.groupby("factor"):
            assert len(rows) == 4
            assert list(rows["score"]) == sorted(scores[factor], reverse=True)[:4]

    def test_mistakes_are_named(self, model):
        embed = model.get_embedding()
        with pytest.raises(ValueError, match="methods='IND'"):
            model.get_interpretability_scores(embed, "IND")
        with pytest.raises(ValueError, match="the 6 latents of this model"):
            model.set_latent_dimension_stats(embed[:, :3].copy())


class TestModel:
    def test_minibatches_are_small(self):
        """A step's time is that of its cells, once for each split."""
        adata = programs(200, 30)
        DRVI.setup_anndata(adata)
        model = DRVI(adata, n_latent=4, n_hidden=8)
        model.train(max_epochs=2, **QUIET)
        assert model.trainer.global_step == 2 * 6  # 180 cells in minibatches of 32, the last with the rest
        model.train(max_epochs=2, batch_size=90, **QUIET)
        assert model.trainer.global_step == 2 * 2

    def test_the_batch_is_decoded(self, model):
        as_first, as_second = (
            model.get_normalized_expression(transform_batch=f"batch_{b}", n_samples=1, seed=0) for b in (0, 1)
        )
        assert np.abs(as_first - as_second).to_numpy().max() > 1e-4

    def test_covariates_likelihoods_and_size_factors(self):
        adata = programs(60, 30)
        adata.obs["donor"], adata.obs["age"] = np.arange(60) % 3, np.linspace(0, 1, 60)
        adata.obs["size"] = np.asarray(adata.X.sum(1)).ravel() / 600
        setups = (
            {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]},
            {"size_factor_key": "size"},
            {},
        )
        for setup, likelihood in zip(setups, ("zinb", "poisson", "pnb"), strict=True):
            DRVI.setup_anndata(adata, batch_key="batch", **setup)
            model = DRVI(adata, n_latent=4, n_hidden=8, gene_likelihood=likelihood)
            model.train(max_epochs=1, **QUIET)
            assert model.get_normalized_expression(n_samples=2).shape == (60, 30)
            assert len(model.get_embedding().var) == 4

    def test_batches_as_embeddings_and_queries(self, model, tmp_path):
        model.save(tmp_path / "m")
        query = programs(40, seed=5)
        query.obs["batch"] = "new"
        mapped = DRVI.load_query_data(query, tmp_path / "m")
        mapped.train(max_epochs=1, plan_kwargs={"weight_decay": 0.0}, **QUIET)
        assert mapped.get_latent_representation().shape == (40, 6)
        ours, theirs = (one.module.decoder for one in (model, mapped))
        assert torch.equal(ours.split_map.weight, theirs.split_map.weight)
        embedded = DRVI(model.adata, n_latent=6, n_hidden=8, batch_representation="embedding")
        embedded.train(max_epochs=1, **QUIET)
        assert embedded.get_embedding().shape == (400, 6)
