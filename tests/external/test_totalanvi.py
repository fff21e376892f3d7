"""TOTALANVI: labels from genes and proteins; scvi-tools' archives and their figures."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch.distributions import Normal, kl_divergence

from celbo.external import TOTALANVI
from celbo.model import TOTALVI
from celbo.module import Classifier
from celbo.ops.random import own_rng

SETUP = {"protein_expression_obsm_key": "protein", "batch_key": "batch"}


def labelled(n_cells: int = 160, share_hidden: float = 0.75, seed: int = 0) -> AnnData:
    """Three types that differ in genes and proteins, most without a label."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n_cells)
    scale_tg = rng.dirichlet(np.full(30, 0.5), size=3)
    adata = AnnData(rng.poisson(200 * scale_tg[kind]).astype(np.float32))
    rate_tp = rng.choice([2.0, 25.0], size=(3, 12))
    names = [f"protein_{p}" for p in range(12)]
    proteins = rng.poisson(rate_tp[kind]).astype(np.float32)
    adata.obsm["protein"] = pd.DataFrame(proteins, index=adata.obs_names, columns=names)
    adata.obs["type"] = pd.Categorical([f"type_{k}" for k in kind])
    hidden = rng.random(n_cells) < share_hidden
    adata.obs["seen"] = np.where(hidden, "unknown", adata.obs["type"].astype(str))
    adata.obs["batch"] = pd.Categorical([f"batch_{i % 2}" for i in range(n_cells)])
    return adata


def made(adata: AnnData, **init) -> TOTALANVI:
    TOTALANVI.setup_anndata(adata, **SETUP, labels_key="seen", unlabeled_category="unknown")
    return TOTALANVI(adata, **({"n_latent": 4, "n_hidden": 32} | init))


@pytest.fixture(scope="module")
def model() -> TOTALANVI:
    model = made(labelled())
    model.train(max_epochs=50, batch_size=32, verbose=0, seed=0, accelerator="cpu")
    return model


def module_output(module, tensors):
    given = module._get_inference_input(tensors)
    return module.eval().classify(**{name: given[name] for name in module.classified_by if name in given})


class TestPrediction:
    def test_hidden_labels_are_found(self, model):
        hidden = (model.adata.obs["seen"] == "unknown").to_numpy()
        assert (model.predict() == model.adata.obs["type"])[hidden].mean() > 0.9
        probability = model.predict(soft=True)
        assert set(probability.columns) == {"type_0", "type_1", "type_2"}
        np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
        assert {"train_accuracy", "elbo_validation"} <= set(model.history)

    def test_attributions_add_up(self, model):
        """Genes' attributions sum to the change of the output; proteins are held."""
        cells = np.arange(5)
        soft, table = model.predict(indices=cells, soft=True, ig_interpretability=True, ig_args={"n_steps": 200})
        assert set(table["feature"]) == set(model.adata.var_names)
        tensors = next(iter(model._make_data_loader(model.adata, indices=cells)))
        none = tensors | {"X": torch.zeros_like(tensors["X"])}
        with torch.no_grad(), own_rng(0):  # the latents are drawn, and not looked at
            at_x, at_0 = (module_output(model.module, one) for one in (tensors, none))
        gain_n = (at_x - at_0).numpy()[cells, soft.to_numpy().argmax(1)]
        assert table["attribution_mean"].sum() == pytest.approx(gain_n.mean(), rel=1e-2)

    def test_loss_of_an_adversary(self):
        """Of one minibatch: the loss without it and its weight times what it is told; no weight changes nothing."""
        runs = {}
        for weight in (None, 0.0, 5.0):
            model = made(labelled())
            adversary = {"scale_adversarial_loss": weight or 0.0, "n_epochs_kl_warmup": 4}
            model.train(
                **{"max_epochs": 1, "batch_size": 512, "train_size": 1.0, "check_val_every_n_epoch": 0},
                **{"adversarial_classifier": weight is not None, "plan_kwargs": adversary, "recipe": "classic"},
                **{"verbose": 0, "seed": 0, "accelerator": "cpu"},
            )
            runs[weight] = model
        loss = {weight: float(model.history["train_loss"].iloc[0, 0]) for weight, model in runs.items()}
        fool = float(runs[5.0].history["fool_loss_train"].iloc[0, 0])
        assert fool == pytest.approx(np.log(2), abs=0.1)  # a classifier that knows nothing yet
        assert loss[5.0] == pytest.approx(loss[0.0] + 5 * fool, rel=1e-6)
        plain, without_weight = (runs[weight].module.state_dict() for weight in (None, 0.0))
        assert all(torch.equal(plain[name], without_weight[name]) for name in plain)

    def test_an_adversary_guesses_the_batch_of_all_cells(self, monkeypatch):
        """Both its losses are the cross-entropies of the latents that the loss had, labelled or not."""
        model = made(labelled())
        classifier = Classifier(4, 8, 2, dropout_rate=0.0, logits=True, use_batch_norm=False)
        encode, seen = model.module.inference, []

        def inference(*args, **kwargs):
            seen.append((kwargs["batch_index"], encode(*args, **kwargs)))
            return seen[-1][1]

        monkeypatch.setattr(model.module, "inference", inference)
        plan = {"scale_adversarial_loss": 2.0, "adversarial_classifier": classifier}
        before = deepcopy(classifier.state_dict())
        options = {"max_epochs": 1, "batch_size": 512, "train_size": 1.0, "check_val_every_n_epoch": 0}
        model.train(**options, recipe="classic", plan_kwargs=plan, verbose=0, seed=0, accelerator="cpu")
        batch_n1, outputs = next((b, out) for b, out in seen if len(b) == 160)
        assert any(not torch.equal(before[name], value) for name, value in classifier.state_dict().items())
        classifier.load_state_dict(before)
        log_q_n2 = classifier.log_probs(outputs["z"].detach())
        true_n, other_n = (log_q_n2.gather(1, code_n1.long()).detach() for code_n1 in (batch_n1, 1 - batch_n1))
        history = model.history
        assert history["adversarial_loss_train"].iloc[0, 0] == pytest.approx(-true_n.mean().item(), rel=1e-5)
        assert history["fool_loss_train"].iloc[0, 0] == pytest.approx(-other_n.mean().item(), rel=1e-5)

    def test_verbs_of_totalvi(self, model):
        rna, protein = model.get_normalized_expression(n_samples=2, seed=0)
        assert rna.shape == (160, 30)
        assert protein.shape == (160, 12)


class TestLoss:
    def test_terms(self, model):
        """The label's terms over those of TOTALVI, in the formula of the file."""
        (tensors,) = model._make_data_loader(model.adata, batch_size=160)
        module = model.module.eval()
        inferred, decoded, record = module(tensors, loss_kwargs={"kl_weight": 0.4})
        log_q = module.classifier.log_probs(inferred["z"]).detach()
        expected = (log_q.exp() * (log_q - np.log(1 / 3))).sum(1)
        torch.testing.assert_close(record.kl_local["kl_divergence_class"].detach(), expected)
        background = module._background_divergence(tensors, decoded)
        torch.testing.assert_close(record.kl_local["kl_div_back_pro"], background)
        assert set(record.reconstruction_loss) == {"reconst_loss_gene", "reconst_loss_protein"}

    def test_loss_is_the_sum_over_classes(self, model, monkeypatch):
        """Each class on its own, one pass of the networks a class, at the mean of every posterior."""
        monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
        (tensors,) = model._make_data_loader(model.adata, batch_size=160)
        module = model.module.eval()
        with own_rng(0):
            inferred, _, record = module(tensors, loss_kwargs={"kl_weight": 0.4})
        z1 = inferred["z"]
        q_nc = module.classifier(z1).softmax(-1)
        of_z1_n, kl_z2_n = inferred["qz"].log_prob(z1).sum(-1), 0
        for c in range(3):
            codes = torch.full((160, 1), c)
            qz2, z2 = module.encoder_z2_z1(z1, codes)
            mean, var = module.decoder_z1_z2(z2, codes)
            of_z1_n = of_z1_n - q_nc[:, c] * Normal(mean, var.sqrt()).log_prob(z1).sum(-1)
            kl_z2_n = kl_z2_n + q_nc[:, c] * kl_divergence(qz2, Normal(torch.zeros(4), torch.ones(4))).sum(-1)
        torch.testing.assert_close(record.kl_local["kl_divergence"], kl_z2_n)
        parts = record.reconstruction_loss | record.kl_local
        weights = {"reconst_loss_gene": 1.0}
        terms = sum(weights.get(name, 0.4) * part.mean() for name, part in parts.items())
        torch.testing.assert_close(record.loss, of_z1_n.mean() + terms)

    def test_classes_are_wanted(self):
        with pytest.raises(ValueError, match="No cell has a label"):
            made(labelled(share_hidden=1.1))
        with pytest.raises(ValueError, match="labels_key"):
            TOTALANVI.setup_anndata(labelled(), **SETUP)


class TestFromTotalvi:
    def test_weights_and_background_are_taken_over(self, tmp_path):
        adata = labelled()
        TOTALVI.setup_anndata(adata, **SETUP)
        source = TOTALVI(adata, n_latent=4, n_hidden=16)
        source.train(max_epochs=1, batch_size=32, verbose=0, seed=0)
        model = TOTALANVI.from_totalvi_model(source, "unknown", labels_key="seen", linear_classifier=True)
        assert model.was_pretrained
        own, ours = model.module.state_dict(), source.module.state_dict()
        assert all(torch.equal(own[name], weight) for name, weight in ours.items())
        model.train(max_epochs=1, batch_size=32, verbose=0, seed=0)
        assert torch.equal(model.module.background_pro_alpha, source.module.background_pro_alpha)
        model.save(tmp_path / "m")
        loaded = TOTALANVI.load(tmp_path / "m", adata, accelerator="cpu")
        assert not loaded.module.background_pro_alpha.requires_grad
        np.testing.assert_array_equal(loaded.predict(), model.predict())


class TestMuData:
    def test_labels_are_registered(self):
        """scvi-tools 1.4.2 forgets them, and its constructor fails."""
        mudata = pytest.importorskip("mudata")
        adata = labelled()
        proteins = AnnData(adata.obsm["protein"].to_numpy(), var=pd.DataFrame(index=adata.obsm["protein"].columns))
        proteins.obs_names = adata.obs_names
        rna = AnnData(adata.X, obs=adata.obs)
        with mudata.set_options(pull_on_update=False):
            mdata = mudata.MuData({"rna": rna, "protein": proteins})
        where = {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna", "labels_key": "rna"}
        labels = {"labels_key": "seen", "unlabeled_category": "unknown"}
        TOTALANVI.setup_mudata(mdata, batch_key="batch", modalities=where, **labels)
        model = TOTALANVI(mdata, n_latent=4, n_hidden=16)
        model.train(max_epochs=1, batch_size=32, verbose=0, seed=0)
        assert set(model.predict()) <= {"type_0", "type_1", "type_2"}


@pytest.mark.parametrize("case", ["totalanvi", "totalanvi_linear"])
def test_figures_of_scvi_tools(check_case, case):
    _, compared, faults = check_case(case)
    assert faults == []
    assert compared > 30
