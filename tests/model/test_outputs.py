"""A model that explains two things: every verb takes either, by the name that the model declares."""

import numpy as np
import pytest
import torch

import celbo
from celbo import REGISTRY_KEYS
from celbo.data.fields import CategoricalObsField, LayerField
from celbo.distributions import NegativeBinomial, Poisson
from celbo.model.base import BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, VAEMixin, setup_method
from celbo.module.base import BaseModuleClass, LossOutput, auto_move_data
from celbo.nn import Encoder
from celbo.ops.draws import sample
from celbo.ops.random import own_rng
from celbo.posterior import EXPRESSION, Output


class Pair(BaseModuleClass):
    """Spliced counts under ``X``, unspliced ones beside them, from the same latents."""

    def __init__(self, n_input, n_other):
        super().__init__()
        self.z_encoder = Encoder(n_input, 3, n_hidden=8, return_dist=True)
        self.to_x, self.to_other = torch.nn.Linear(3, n_input), torch.nn.Linear(3, n_other)
        self.theta = torch.nn.Parameter(torch.zeros(n_other))

    @auto_move_data
    def inference(self, x, n_samples=1):
        qz, z = self.z_encoder(x.log1p())
        z = z if n_samples == 1 else qz.sample((n_samples,))
        return {"qz": qz, "z": z, "library": x.sum(-1, keepdim=True).log()}

    @auto_move_data
    def generative(self, z, library):
        return {
            "px": Poisson.from_logits(self.to_x(z), library),
            "pu": NegativeBinomial.from_logits(self.to_other(z), library, self.theta),
        }

    def sample(self, tensors, n_samples=1, generative_kwargs=None, distribution="px"):
        decoded = self.forward(tensors, compute_loss=False)[1][distribution]
        return decoded.sample()

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
        nll_n = -generative_outputs["px"].log_prob_sum(tensors["X"])
        return LossOutput((nll_n - generative_outputs["pu"].log_prob_sum(tensors["other"])).mean(), nll_n)


class PairModel(RNASeqMixin, VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    _module_cls = Pair
    _sizes = {"n_other": "n_other"}
    _outputs = (EXPRESSION, Output("unspliced", "pu", "other"))

    @classmethod
    @setup_method
    def setup_anndata(cls, adata):
        counts = LayerField(REGISTRY_KEYS.X_KEY, None), CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, None)
        return [*counts, LayerField("other", "unspliced")]


@pytest.fixture(scope="module")
def adata():
    adata = celbo.data.synthetic_iid(batch_size=30, n_genes=12, seed=0)
    adata.X = np.random.default_rng(1).poisson(5.0, adata.shape).astype(np.float32)
    adata.layers["unspliced"] = np.random.default_rng(0).poisson(3.0, adata.shape).astype(np.float32)
    return adata


@pytest.fixture(scope="module")
def model(adata):
    PairModel.setup_anndata(adata)
    model = PairModel(adata, n_other=12)
    model.train(2, verbose=0, seed=0)
    return model


def decoded(model, adata, key):
    """The answer straight from the module, over latents drawn here; library 100."""
    model.module.eval()
    with torch.no_grad(), own_rng(1):
        encoded = model.module.inference(torch.as_tensor(np.asarray(adata.X, dtype=np.float32)))
        given = model.module.generative(sample(encoded["qz"], (400,)), encoded["library"])[key]
    return given.get_normalized("scale").mean(0).numpy() * 100


class TestOutputs:
    @pytest.mark.parametrize(("name", "key"), [("expression", "px"), ("unspliced", "pu"), (None, "px")])
    def test_normalized(self, model, adata, name, key):
        table = model.get_normalized_expression(library_size=100, n_samples=400, output=name, seed=0)
        assert list(table.columns) == list(adata.var_names)
        np.testing.assert_allclose(table.to_numpy().mean(0), decoded(model, adata, key).mean(0), rtol=0.02)

    def test_the_two_differ(self, model):
        one, other = (model.get_normalized_expression(output=name, seed=0) for name in (None, "unspliced"))
        assert np.abs(one - other).to_numpy().max() > 1e-3

    def test_written(self, model, tmp_path):
        path = model.write_normalized_expression(tmp_path / "u.h5ad", output="unspliced", seed=3)
        found = celbo.data.read(path).X
        np.testing.assert_array_equal(found, model.get_normalized_expression(output="unspliced", seed=3))

    def test_likelihood_parameters(self, model):
        assert set(model.get_likelihood_parameters(seed=0)) == {"mean"}
        assert set(model.get_likelihood_parameters(seed=0, output="unspliced")) == {"mean", "dispersions"}

    def test_predictive(self, model):
        pytest.importorskip("sparse")
        drawn = model.posterior_predictive_sample(seed=0, output="unspliced").todense()
        mean = model.get_normalized_expression(library_size="latent", output="unspliced", n_samples=100, seed=0)
        np.testing.assert_allclose(drawn.mean(), mean.to_numpy().mean(), rtol=0.1)

    def test_correlation(self, model):
        matrix = model.get_feature_correlation_matrix(output="unspliced", correlation_type="pearson", seed=0)
        assert matrix.shape == (12, 12)
        # gamma noise of the negative binomial at theta near 1 hides what a Poisson's rate shows
        rate = model.get_feature_correlation_matrix(correlation_type="pearson", seed=0)
        off = ~np.eye(12, dtype=bool)
        assert np.abs(matrix.to_numpy()[off]).mean() < np.abs(rate.to_numpy()[off]).mean()

    def test_differential(self, model, adata):
        options = {"idx1": np.arange(20), "idx2": np.arange(20, 60), "mode": "change", "pseudocounts": 0.0, "seed": 0}
        table = model.differential_expression(output="unspliced", **options).loc[adata.var_names]
        raw = adata.layers["unspliced"]
        np.testing.assert_allclose(table["raw_mean1"], raw[:20].mean(0), rtol=1e-5)
        np.testing.assert_allclose(table["raw_mean2"], raw[20:].mean(0), rtol=1e-5)

    def test_unknown(self, model):
        with pytest.raises(ValueError, match="'unspliced'"):
            model.get_normalized_expression(output="unsplized")


@pytest.mark.parametrize(
    ("model", "method"),
    [
        ("SCVI", "get_normalized_expression"),
        ("TOTALVI", "get_normalized_expression"),
        ("PEAKVI", "get_normalized_accessibility"),
        ("POISSONVI", "get_normalized_accessibility"),
        ("MULTIVI", "get_normalized_accessibility"),
        ("METHYLVI", "get_normalized_methylation"),
        ("METHYLANVI", "get_normalized_methylation"),
    ],
)
def test_the_method_that_normalizes_is_named_as_in_scvi_tools(model, method):
    """A constructor of the base class once wrote the name for expression over that of METHYLVI."""
    cls = getattr(celbo.model, model, None) or getattr(celbo.external, model)
    assert cls.get_normalized_function_name_ == method


def test_a_model_keeps_the_name_of_its_class():
    adata = celbo.data.synthetic_iid(seed=0)
    celbo.model.PEAKVI.setup_anndata(adata)
    assert vars(celbo.model.PEAKVI(adata))["get_normalized_function_name_"] == "get_normalized_accessibility"
