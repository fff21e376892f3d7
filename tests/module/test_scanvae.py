"""SCANVAE: its loss against the formula, its classifier, dispersion by label."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from celbo.module import SCANVAE, Classifier

N, G, B, C = 12, 7, 2, 3


@pytest.fixture
def batch(torch_rng):
    return {
        "X": torch.poisson(torch.full((N, G), 3.0), generator=torch_rng),
        "batch": torch.randint(0, B, (N, 1), generator=torch_rng),
        "labels": torch.arange(N)[:, None] % (C + 1),  # C: without label
    }


@pytest.fixture
def labelled(batch):
    return {key: value[batch["labels"].squeeze(1) < C] for key, value in batch.items()}


@pytest.fixture
def made():
    def made(**kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SCANVAE(G, B, C, **({"n_hidden": 8, "n_latent": 4, "dropout_rate": 0.0} | kwargs)).eval()

    return made


@pytest.fixture
def at_the_mean(monkeypatch):
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)


def test_loss_is_the_sum_over_classes(made, batch, labelled, at_the_mean):
    """Each class on its own, one pass of the networks a class, with torch's own divergences."""
    module = made(y_prior=torch.tensor([[0.2, 0.3, 0.5]]))
    inference, generative, out = module(
        batch, loss_kwargs={"kl_weight": 0.3, "labelled_tensors": labelled, "classification_ratio": 7}
    )
    z1 = inference["z"]
    q = Categorical(logits=module.classifier(z1))
    rec = -generative["px"].log_prob(batch["X"]).sum(-1) + inference["qz"].log_prob(z1).sum(-1)
    kl = kl_divergence(q, Categorical(module.y_prior.expand(N, C)))
    for c in range(C):
        codes = torch.full((N, 1), c)
        qz2, z2 = module.encoder_z2_z1(z1, codes)
        mean, var = module.decoder_z1_z2(z2, codes)
        rec = rec - q.probs[:, c] * Normal(mean, var.sqrt()).log_prob(z1).sum(-1)
        kl = kl + q.probs[:, c] * kl_divergence(qz2, Normal(torch.zeros(4), torch.ones(4))).sum(-1)
    logits = module.classifier(module.z_encoder(labelled["X"].log1p())[0].loc)
    cross_entropy = -logits.log_softmax(-1).gather(1, labelled["labels"]).mean()
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], rec)
    torch.testing.assert_close(out.kl_local["kl_local"], kl)
    torch.testing.assert_close(out.classification_loss, cross_entropy)
    torch.testing.assert_close(out.loss, (rec + 0.3 * kl).mean() + 7 * cross_entropy)
    torch.testing.assert_close(out.logits, logits)
    assert out.true_labels is labelled["labels"]
    assert out.n_obs_minibatch == N


def test_without_labelled_cells_there_is_no_classification(made, batch, at_the_mean):
    module = made()
    out = module(batch)[2]
    assert out.classification_loss is None
    torch.testing.assert_close(out.loss, (out.reconstruction_loss_sum + out.kl_local_sum) / N)


def test_latent_library_is_weighted_with_the_other_divergences(made, batch, at_the_mean):
    prior = {"library_log_means": np.full((1, B), 2.0), "library_log_vars": np.ones((1, B))}
    inference, generative, out = made(use_observed_lib_size=False, **prior)(batch, loss_kwargs={"kl_weight": 0.0})
    kl_l = kl_divergence(inference["ql"], generative["pl"]).sum(-1)
    assert kl_l.min() > 0
    torch.testing.assert_close(out.loss, out.reconstruction_loss_sum / N)
    assert (out.kl_local["kl_local"] >= kl_l).all()


def test_dispersion_by_label_also_for_cells_without_one(made, batch, labelled):
    module = made(dispersion="gene-label")
    assert module.px_r.shape == (G, C + 1)
    _, generative, out = module(batch, loss_kwargs={"labelled_tensors": labelled})
    theta = generative["px"].theta
    torch.testing.assert_close(theta, module.px_r.t()[batch["labels"].squeeze(1)].exp())
    out.loss.backward()
    assert (module.px_r.grad.abs().sum(0) > 0).all()


def test_gradients_reach_every_network(made, batch, labelled):
    module = made().train()
    module(batch, loss_kwargs={"labelled_tensors": labelled})[2].loss.backward()
    without = {name for name, p in module.named_parameters() if p.requires_grad and p.grad is None}
    assert without == {name for name, _ in module.named_parameters() if name.startswith(("l_encoder", "decoder.px_r"))}
    assert not module.y_prior.requires_grad


@pytest.mark.parametrize("linear", [False, True])
def test_state_dict_has_scvi_tools_names(made, linear):
    names = list(made(linear_classifier=linear).state_dict())
    assert names[:2] == ["px_r", "y_prior"]
    classifier = [name for name in names if name.startswith("classifier.")]
    layer = "classifier.classifier.0.fc_layers.Layer 0"
    if linear:
        assert classifier == ["classifier.classifier.0.weight", "classifier.classifier.0.bias"]
    else:
        assert classifier[:2] == [f"{layer}.0.weight", f"{layer}.0.bias"]
        assert classifier[-2:] == ["classifier.classifier.1.weight", "classifier.classifier.1.bias"]
    assert made().encoder_z2_z1.encoder.fc_layers[0][0].weight.shape == (8, 4 + C)
    assert made().decoder_z1_z2.decoder.fc_layers[0][0].weight.shape == (8, 4 + C)


@pytest.mark.parametrize(
    ("version", "softmax"), [("1.0.4", True), ("0.20.3", True), ("1.1.0", False), ("2.0", False), (None, False)]
)
def test_old_classifiers_give_probabilities_and_the_loss_takes_them_for_such(made, batch, labelled, version, softmax):
    module, old = made(), made()
    model = SimpleNamespace(init_params_={"kwargs": {"model_kwargs": {"log_variational": True}}, "non_kwargs": {}})
    old.on_load(model, scvi_version=version)
    arguments = model.init_params_["kwargs"]["model_kwargs"]
    assert arguments == {"log_variational": True} | ({"classifier_parameters": {"logits": False}} if softmax else {})
    assert isinstance(old.classifier.classifier[-1], torch.nn.Softmax) is softmax
    given = old.classify(batch["X"])
    expected = module.classify(batch["X"])
    torch.testing.assert_close(given, expected.softmax(-1) if softmax else expected)
    torch.testing.assert_close(old.classification_loss(labelled)[1], module.classification_loss(labelled)[1])
    assert list(old.state_dict()) == list(module.state_dict())


def test_a_class_that_is_ruled_out_costs_no_nan(made, batch):
    module = made(linear_classifier=True)
    with torch.no_grad():
        module.classifier.classifier[0].bias.copy_(torch.tensor([500.0, 0.0, -500.0]))
    out = module(batch)[2]
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_what_cannot_be_is_said(made, batch):
    with pytest.raises(ValueError, match="n_labels of at least 1 class, got 0"):
        SCANVAE(G, B, 0)
    with pytest.raises(NotImplementedError, match="use_labels_groups"):
        made(use_labels_groups=True)
    with pytest.raises(ValueError, match="encoders see the batch"):
        made(encode_covariates=True).classify(batch["X"])


class TestClassifier:
    def test_probabilities_or_logits(self, torch_rng):
        x = torch.randn(6, 5, generator=torch_rng)
        classifier = Classifier(5, n_hidden=4, n_labels=3).eval()
        assert classifier.logits is False
        torch.testing.assert_close(classifier(x).sum(-1), torch.ones(6))
        torch.testing.assert_close(classifier.log_probs(x).exp(), classifier(x))
        logits = Classifier(5, n_hidden=4, n_labels=3, logits=True).eval()
        logits.load_state_dict(classifier.state_dict())
        torch.testing.assert_close(logits.log_probs(x), classifier.log_probs(x))
        torch.testing.assert_close(logits(x).softmax(-1), classifier(x))

    @pytest.mark.parametrize("none", [{"n_layers": 0}, {"n_hidden": 0}])
    def test_linear(self, none):
        assert list(Classifier(5, n_labels=3, **none).state_dict()) == ["classifier.0.weight", "classifier.0.bias"]

    def test_layers(self):
        classifier = Classifier(5, n_hidden=4, n_layers=2, use_batch_norm=False, use_layer_norm=True, dropout_rate=0.5)
        linear, batch_norm, layer_norm, _, dropout = classifier.classifier[0].fc_layers[1]
        assert (linear.in_features, linear.out_features) == (4, 4)
        assert batch_norm is None
        assert isinstance(layer_norm, torch.nn.LayerNorm)
        assert dropout.p == 0.5


def test_loss_of_several_samples(made, batch):
    """One value for each sample and cell, as scvi-tools 1.4.2 gives them; each class's terms as sample by sample."""
    module = made()
    _, _, out = module(batch, inference_kwargs={"n_samples": 2})
    assert out.reconstruction_loss["reconstruction_loss"].shape == (2, N)
    assert out.kl_local["kl_local"].shape == (2, N)
    z1_snk = torch.randn(2, N, 4)
    _, kl_snc = module._class_terms(z1_snk)
    torch.testing.assert_close(kl_snc, torch.stack([module._class_terms(z1_nk)[1] for z1_nk in z1_snk]))
