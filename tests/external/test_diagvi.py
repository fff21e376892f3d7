"""DIAGVI: losses by their formulas, the graph, names of scvi-tools, answers, archives, faults, and where it starts."""

import inspect
import logging
import types
import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
import torch
from scipy.spatial import cKDTree
from scipy.special import expit, log_softmax, softmax
from torch.distributions import Normal, kl_divergence

from celbo.core import ArgumentError
from celbo.data import synthetic_iid
from celbo.external import DIAGVI
from celbo.external.diagvi import DIAGVAE, DiagTrainingPlan, GuidanceGraph
from celbo.external.diagvi.graph import graph_of_names, graph_of_table
from celbo.external.diagvi.layers import decoder_for
from celbo.external.diagvi.start import start_of_features, start_of_vectors
from celbo.ops.random import private_rng
from celbo.train import Callback

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
FEATURES = {"rna": np.array([f"g{i}" for i in range(6)]), "prot": np.array([f"g{i}" for i in range(3, 8)])}


def data(seed: int = 0):
    rng = np.random.default_rng(seed)
    rna = synthetic_iid(batch_size=40, n_genes=12, seed=seed)
    prot = ad.AnnData(rng.normal(size=(60, 8)).astype(np.float32))
    prot.var_names = ["gene_2", "gene_5", "gene_7", "x1", "x2", "x3", "x4", "x5"]
    rna.var_names = [f"gene_{i}" for i in range(12)]
    prot.obs_names = [f"p{i}" for i in range(60)]
    prot.obs["batch"] = pd.Categorical(np.where(np.arange(60) % 3, "b1", "b0"))
    rna.obs["kind"] = np.where(np.arange(80) % 4 == 0, "unknown", rna.obs["labels"].astype(str))
    return {"rna": rna, "prot": prot}


def made(adatas=None, rna=None, prot=None, **init):
    adatas = data() if adatas is None else adatas
    DIAGVI.setup_anndata(adatas["rna"], batch_key="batch", labels_key="kind", **(rna or {}))
    protein = {"likelihood": "normal", "normalize_lib": False} | (prot or {})
    DIAGVI.setup_anndata(adatas["prot"], batch_key="batch", **protein)
    return DIAGVI(adatas, n_latent=4, n_hidden=16, **init)


@pytest.fixture(scope="module")
def model():
    model = made()
    model.train(max_epochs=3, batch_size=32, **QUICK)
    return model


def module(likelihood="nb", normalize=False, gmm=False, labels=False, n_batch=2):
    both = {
        "n_inputs": {"rna": 6, "prot": 5},
        "n_batches": {"rna": n_batch, "prot": 1},
        "n_labels": {"rna": 3, "prot": 1},
    }
    with private_rng(1):
        made = DIAGVAE(
            **both,
            modality_likelihoods={"rna": likelihood, "prot": "normal"},
            normalize_lib={"rna": normalize, "prot": False},
            guidance_graph=graph_of_names(FEATURES),
            use_gmm_prior={"rna": gmm, "prot": False},
            semi_supervised={"rna": labels, "prot": False},
            n_mixture_components={"rna": 4, "prot": 4},
            n_latent=3,
            n_hidden=7,
        ).double()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, 0, 0.5)
    return made.eval()


def cells(likelihood, n=8):
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, (n, 6)) + 1.0
    if likelihood not in ("nb", "zinb", "nbmixture"):
        x = (
            rng.normal(size=(n, 6))
            if likelihood == "normal"
            else np.exp(rng.normal(size=(n, 6))) * (rng.random((n, 6)) > 0.3)
        )
    codes = {"batch": torch.arange(n)[:, None] % 2, "labels": torch.arange(n)[:, None] % 4}
    return {"X": torch.tensor(x)} | codes


def nb(x, mu, theta):
    return st.nbinom.logpmf(x, theta, theta / (theta + mu))


def log_density(likelihood, normalize, x, total, decoder, eta, batch):
    """The likelihood of each value, in plain numpy and scipy."""
    theta = decoder.log_theta.detach().numpy()[batch]
    softplus = np.logaddexp(0, theta)
    if likelihood == "nbmixture":
        mus = [total * softmax(eta[name], 1) for name in ("bias1", "bias2")]
        weight = expit(eta["bias1"] - eta["bias2"])
        parts = [nb(x, mu, np.exp(theta)) for mu in mus]
        return np.logaddexp(np.log(weight) + parts[0], np.log1p(-weight) + parts[1])
    bias, pi = eta["bias"], expit(decoder.px_dropout_param.detach().numpy())
    if likelihood in ("nb", "zinb"):
        kept = nb(x, total * np.exp(log_softmax(bias, 1)), np.exp(theta))
        return (
            kept if likelihood == "nb" else np.where(x == 0, np.log(pi + (1 - pi) * np.exp(kept)), np.log1p(-pi) + kept)
        )
    if likelihood == "normal":
        loc, sd = (total * softmax(bias, 1), np.exp(theta)) if normalize else (bias, softplus)
        return st.norm.logpdf(x, loc, sd)
    if likelihood == "log1pnormal":
        return st.lognorm.logpdf(x + 1, softplus, scale=np.exp(bias))
    density = st.lognorm(softplus, scale=np.exp(bias))
    if likelihood == "zig":
        density = st.gamma(np.logaddexp(0, bias) * softplus, scale=1 / softplus)
    with np.errstate(divide="ignore"):
        return np.where(x == 0, np.log(pi), np.log1p(-pi) + density.logpdf(np.where(x == 0, 1.0, x)))


@pytest.mark.parametrize(
    ("likelihood", "normalize"),
    [(name, False) for name in ("nb", "zinb", "nbmixture", "normal", "log1pnormal", "ziln", "zig")]
    + [("normal", True)],
)
def test_the_loss_of_a_modality_is_its_formula(likelihood, normalize):
    vae, tensors = module(likelihood, normalize), cells(likelihood)
    if normalize:
        tensors["X"] = tensors["X"].abs()
    mode = {"mode": "rna"}
    with private_rng(0), torch.no_grad():
        encoded, decoded, record = vae(
            tensors,
            inference_kwargs=mode,
            generative_kwargs=mode,
            loss_kwargs=mode | {"lam_kl": 0.7, "lam_data": 0.2},
        )
    x, z, v = tensors["X"].numpy(), encoded["z"].numpy(), encoded["v_all"].numpy()[:6]
    batch, decoder = tensors["batch"].ravel().numpy(), vae.decoder_0
    scaled = np.logaddexp(0, decoder.scale_lin.detach().numpy())[batch] * (z @ v.T)
    names = ("bias1", "bias2") if likelihood == "nbmixture" else ("bias",)
    eta = {name: scaled + getattr(decoder, name).detach().numpy()[batch] for name in names}
    total = x.sum(1, keepdims=True)
    expected = -log_density(likelihood, normalize, x, total, decoder, eta, batch).sum(1)
    np.testing.assert_allclose(record.reconstruction_loss["reconstruction_loss"], expected, rtol=1e-5)
    kl_n = kl_divergence(encoded["qz"], Normal(0.0, 1.0)).sum(1).numpy()
    np.testing.assert_allclose(record.kl_local["kl_local"], kl_n)
    assert float(record.loss) == pytest.approx(0.2 * expected.mean() + 0.7 * kl_n.mean() / 6, rel=1e-5)
    assert decoded["px"].get_normalized("mu").shape == (8, 6)


def test_the_mixture_prior_has_a_component_for_each_label():
    vae = module(gmm=True, labels=True)
    y = torch.tensor([[0], [2], [3]])  # 3: no label
    encoded = vae.inference(cells("nb", 3)["X"], mode="rna")
    pz = vae.generative(encoded["z"], encoded["library"], encoded["v_all"], torch.zeros(3, 1).long(), y, mode="rna")[
        "pz"
    ]
    means, sds = (one.detach().numpy() for one in (vae.gmm_means["rna"], vae.gmm_scales["rna"].exp() + 1e-4))
    z = encoded["z"].detach().numpy()
    parts = st.norm.logpdf(z[:, None], means, sds).sum(-1)
    weights = softmax(vae.gmm_logits["rna"].detach().numpy())
    expected = [parts[0, 0], parts[1, 2], np.log((weights * np.exp(parts[2])).sum())]
    np.testing.assert_allclose(pz.log_prob(encoded["z"]).detach(), expected, rtol=1e-6)
    assert means.shape == (3, 3)
    assert module(gmm=True).gmm_means["rna"].shape == (4, 3)


def test_vectors_of_features_are_one_convolution_over_the_graph():
    vae, graph = module(), GuidanceGraph(FEATURES, [[0, 7, 2, 8], [7, 0, 8, 2]], [1, 1, 0.5, 0.5], [1, 1, -1, -1])
    dense = np.eye(11)
    dense[[0, 7], [7, 0]], dense[[2, 8], [8, 2]] = 1, -0.5
    degree = np.abs(dense).sum(1)
    normalized = dense / np.sqrt(degree[:, None] * degree)
    rebuilt = np.zeros((11, 11))
    np.add.at(rebuilt, tuple(graph.edge_index[::-1]), graph.propagation())
    np.testing.assert_allclose(rebuilt, normalized, atol=1e-7)

    encoder = vae.graph_encoder
    linked = np.eye(11)
    linked[[3, 4, 5, 6, 7, 8], [6, 7, 8, 3, 4, 5]] = 1
    linked /= np.sqrt(linked.sum(1)[:, None] * linked.sum(1))
    weights = {name: value.detach().numpy() for name, value in encoder.named_parameters()}
    h = linked @ weights["vrepr"] @ weights["conv.lin.weight"].T + weights["conv.bias"]
    q_v = vae.encode_graph()
    np.testing.assert_allclose(q_v.loc.detach(), h @ weights["loc.weight"].T + weights["loc.bias"], atol=1e-6)
    sd = np.logaddexp(0, h @ weights["std_lin.weight"].T + weights["std_lin.bias"])
    np.testing.assert_allclose(q_v.scale.detach(), sd, atol=2e-6)


def test_the_graph_loss_is_its_mean_over_edges_and_over_pairs_that_are_none():
    vae = module()
    with private_rng(0), torch.no_grad():
        q_v = vae.encode_graph()
        v = q_v.loc
        draws = [vae.graph_loss(q_v, v) for _ in range(400)]
    inner = (v @ v.T).numpy()
    is_edge = np.eye(11, dtype=bool)
    is_edge[[3, 4, 5, 6, 7, 8], [6, 7, 8, 3, 4, 5]] = True
    together, apart = np.logaddexp(0, -inner)[is_edge].mean(), np.logaddexp(0, inner)[~is_edge].mean()
    found = np.array([float(nll) for nll, _ in draws])
    assert abs(found.mean() - 0.5 * (together + apart)) < 5 * found.std() / 20
    kl = kl_divergence(q_v, Normal(0.0, 1.0)).sum() / 121
    assert float(draws[0][1]) == pytest.approx(float(kl))


def plan_of(vae, **kwargs):
    plan = DiagTrainingPlan(vae, **kwargs)
    plan.trainer = types.SimpleNamespace(current_epoch=0, global_step=0, max_epochs=9)
    return plan


def test_the_loss_of_a_minibatch_is_the_weighted_sum_of_its_terms():
    vae = module(labels=True)
    second = {"X": torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()}
    second |= {"batch": torch.zeros(6, 1).long(), "labels": torch.zeros(6, 1).long()}
    plan = plan_of(vae, lam_graph=2.0, lam_kl=0.5, lam_data=0.3, lam_sinkhorn=7.0, lam_class=3.0)
    with private_rng(0), torch.no_grad():
        _, _, record = plan.forward([cells("nb"), second], loss_kwargs=plan.arguments_of_loss())
    terms = {name: float(value) for name, value in record.extra_metrics.items()}
    own = sum(0.3 * terms[f"nll_{name}"] + 0.5 * terms[f"kl_{name}"] / n for name, n in (("rna", 6), ("prot", 5)))
    shared = 2 * (terms["nll_graph"] + terms["kl_graph"]) + 7 * terms["uot_loss"] + 3 * terms["class_loss"]
    assert float(record.loss) == pytest.approx(own + shared)
    assert record.n_obs_minibatch == 14
    rising = plan_of(vae, loss_annealing=True)
    shares = []
    for epoch in range(5):
        rising.trainer.current_epoch = epoch
        shares.append(rising.alignment_share)
    np.testing.assert_allclose(shares, [0, 1 / 3, 2 / 3, 1, 1])


def test_cells_without_a_label_do_not_teach_the_classifier():
    vae, z = module(labels=True), torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    y = torch.tensor([[0], [3], [2], [3]])
    known = torch.nn.functional.cross_entropy(vae.label_logits(z[[0, 2]], "rna"), torch.tensor([0, 2]))
    torch.testing.assert_close(vae.classification_loss(z, y, "rna"), known)
    assert float(vae.classification_loss(z, torch.full((4, 1), 3), "rna").detach()) == 0


def test_the_alignment_is_that_of_geomloss():
    i, j = torch.arange(12.0).double(), torch.arange(9.0).double()
    x, y = torch.stack([i.sin(), (2 * i).cos()], 1), torch.stack([j.cos() + 0.5, (3 * j).sin() * 0.7], 1)
    # geomloss 0.3.1, SamplesLoss("sinkhorn", p=2, blur, reach, scaling=.999) with half the mean cost for blur ** 2
    assert float(plan_of(module()).alignment(x, y)) == pytest.approx(0.22921051891, rel=2e-3)
    fixed = plan_of(module(), sinkhorn_blur=0.5145127538833905**0.5, sinkhorn_reach=3 * 0.5145127538833905**0.5)
    torch.testing.assert_close(fixed.alignment(x, y), plan_of(module()).alignment(x, y))


KEYS = {  # of scvi-tools 1.5.1, for 6 genes and 5 proteins in 2 batches each, 3 latents, 7 hidden
    **{
        f"encoder_{i}.{name}": shape
        for i, n in ((0, 6), (1, 5))
        for name, shape in {
            "encoder.fc_layers.Layer 0.0.weight": (7, n),
            "encoder.fc_layers.Layer 1.0.weight": (7, 7),
            **{
                f"encoder.fc_layers.Layer {layer}.{part}": (7,)
                for layer in (0, 1)
                for part in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
            },
            **{f"encoder.fc_layers.Layer {layer}.1.num_batches_tracked": () for layer in (0, 1)},
            **{f"{head}_encoder.weight": (3, 7) for head in ("mean", "var")},
            **{f"{head}_encoder.bias": (3,) for head in ("mean", "var")},
        }.items()
    },
    **{f"decoder_{i}.{name}": (2, n) for i, n in ((0, 6), (1, 5)) for name in ("scale_lin", "bias", "log_theta")},
    "decoder_0.px_dropout_param": (6,),
    "decoder_1.px_dropout_param": (5,),
    "graph_encoder.vrepr": (11, 3),
    "graph_encoder.conv.bias": (3,),
    **{f"graph_encoder.{name}.weight": (3, 3) for name in ("conv.lin", "loc", "std_lin")},
    **{f"graph_encoder.{name}.bias": (3,) for name in ("loc", "std_lin")},
}


def test_names_and_starts_of_weights_are_those_of_scvi_tools():
    rng = np.random.default_rng(0)
    adatas = {}
    for name, names in FEATURES.items():
        adatas[name] = ad.AnnData(rng.poisson(2.0, (10, len(names))).astype(np.float32), var=pd.DataFrame(index=names))
        adatas[name].obs["batch"] = pd.Categorical(["a", "b"] * 5)
        DIAGVI.setup_anndata(adatas[name], batch_key="batch")
    vae = DIAGVI(adatas, n_latent=3, n_hidden=7).module
    state = vae.state_dict()
    assert {name: tuple(weight.shape) for name, weight in state.items()} == KEYS
    for name in ("scale_lin", "bias", "log_theta"):
        assert (state[f"decoder_0.{name}"] == 0).all()
    assert (state["graph_encoder.vrepr"] == 0).all()
    assert 0 < state["decoder_0.px_dropout_param"].abs().max() < 0.1
    dual = dict(decoder_for(5, 2, "nbmixture", True).named_parameters())
    assert set(dual) == {"scale_lin", "bias1", "bias2", "log_theta"}
    extra = set(dict(module(gmm=True, labels=True).named_parameters())) - set(KEYS)
    mixture = {f"gmm_{name}.rna" for name in ("logits", "means", "scales")}
    assert extra == mixture | {"classifier_0.classifier.0.weight", "classifier_0.classifier.0.bias"}


DEFAULTS = [  # of scvi-tools 1.5.1
    (DIAGVI.__init__, {"guidance_graph": None, "mapping_df": None, "n_latent": 50, "n_hidden": 256, "n_layers": 2}),
    (DIAGVI.__init__, {"dropout_rate": 0.1}),
    (DIAGVI.setup_anndata, {"layer": None, "batch_key": None, "labels_key": None, "likelihood": "nb"}),
    (DIAGVI.setup_anndata, {"normalize_lib": True, "gmm_prior": False, "n_mixture_components": 10}),
    (DIAGVI.setup_anndata, {"unlabeled_category": "unknown"}),
    (DIAGVI.setup_mudata, {"batch_key": None, "labels_key": None, "layer": None, "likelihood": "nb"}),
    (DIAGVI.setup_mudata, {"normalize_lib": True, "gmm_prior": False, "n_mixture_components": 10}),
    (DIAGVI.train, {"max_epochs": None, "lr": 1e-3, "batch_size": 256, "train_size": 0.9, "accelerator": "auto"}),
    (DIAGVI.train, {"devices": "auto", "shuffle_set_split": True, "datasplitter_kwargs": None, "plan_kwargs": None}),
    (DIAGVI.construct_custom_guidance_graph, {"weight": 1.0, "sign": 1.0}),
    (DIAGVI.get_latent_representation, {"adatas": None, "indices": None, "batch_size": 1024}),
    (DIAGVI.get_imputed_values, {"query_adata": None, "indices": None, "deterministic": True, "batch_size": 2048}),
    (DIAGVI.get_imputed_values, {"reference_batch": None, "reference_libsize": None}),
    (DIAGVI.predict_celltype, {"target_modality": None, "target_adata": None, "batch_size": 2048}),
    (DIAGVI.posterior_predictive_sample, {"adatas": None, "indices": None, "n_samples": 1, "batch_size": None}),
    (DiagTrainingPlan, {"lam_graph": 15.0, "lam_kl": 1.0, "lam_data": 0.1, "lam_sinkhorn": 85.0, "lam_class": 5.0}),
    (DiagTrainingPlan, {"sinkhorn_p": 2, "sinkhorn_blur": None, "epsilon_from_cost": "mean", "epsilon_scale": 0.5}),
    (DiagTrainingPlan, {"sinkhorn_reach": None, "reach_scale": 3.0, "loss_annealing": False}),
]


@pytest.mark.parametrize(("function", "defaults"), DEFAULTS)
def test_arguments_have_scvi_tools_names_and_defaults(function, defaults):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


def test_classic_training_stops_as_scvi_tools_does():
    model = made()
    model.train(max_epochs=1, recipe="classic", **QUICK)
    (stopping,) = (one for one in model.trainer.callbacks if type(one).__name__ == "LoudEarlyStopping")
    assert (stopping.monitor, stopping.best.min_delta, stopping.patience) == ("validation_loss", 1.0, 10)
    torch.testing.assert_close(model.module.decoder_1.scale_lin, torch.zeros(2, 8), atol=0.1, rtol=0)  # no warm start


def test_answers_have_their_shapes_and_meanings(model):
    shown = "DIAGVI model of rna (nb), prot (normal) with 4 latents and the GuidanceGraph(rna: 12, prot: 8 features; 6"
    assert repr(model).startswith(shown)
    latents = model.get_latent_representation()
    assert {name: z.shape for name, z in latents.items()} == {"rna": (80, 4), "prot": (60, 4)}
    some = model.get_latent_representation(indices={"rna": [5, 2]}, batch_size=1)
    np.testing.assert_allclose(some["rna"], latents["rna"][[5, 2]], atol=1e-6)
    (only,) = model.get_latent_representation({"prot": model.adatas["prot"]}).values()
    np.testing.assert_allclose(only, latents["prot"], atol=1e-6)
    assert model.get_imputed_values("rna").shape == (80, 8)
    by_batch = [model.get_imputed_values("prot", reference_batch=b, reference_libsize=70.0) for b in ("batch_0", 1)]
    np.testing.assert_allclose(by_batch[0].sum(1), 70, rtol=1e-4)
    mean = model.get_imputed_values("prot", reference_libsize=70)
    np.testing.assert_allclose(mean, (by_batch[0] + by_batch[1]) / 2, rtol=1e-4)
    each = model.get_imputed_values("prot", reference_batch=np.arange(60) % 2, reference_libsize=np.full(60, 70.0))
    np.testing.assert_allclose(each[1::2], by_batch[1][1::2], rtol=1e-4)
    geometric = np.exp(np.log(model.adatas["rna"].X.sum(1)).mean())
    np.testing.assert_allclose(model.get_imputed_values("prot").sum(1), geometric, rtol=1e-4)
    drawn = [model.get_imputed_values("rna", deterministic=False, seed=1) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    assert np.abs(drawn[0] - model.get_imputed_values("rna")).max() > 1e-3
    sampled = model.posterior_predictive_sample(n_samples=3, seed=0)
    assert {name: x.shape for name, x in sampled.items()} == {"rna": (80, 12, 3), "prot": (60, 8, 3)}
    assert (sampled["rna"] == np.round(sampled["rna"])).all()


def test_counts_keep_their_own_total_where_both_are_counts():
    adatas = data()
    adatas["prot"].X = np.random.default_rng(0).poisson(3.0, (60, 8)).astype(np.float32) + 1
    model = made(adatas, prot={"likelihood": "nbmixture"})
    model.train(max_epochs=1, **QUICK)
    np.testing.assert_allclose(model.get_imputed_values("prot").sum(1), adatas["prot"].X.sum(1), rtol=1e-4)


def test_labels_of_one_modality_are_carried_over(model):
    found = model.predict_celltype("rna")
    assert found["probabilities"].shape == (60, 3)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    assert set(found["predictions"]) <= {"label_0", "label_1", "label_2"}
    np.testing.assert_allclose(found["confidence"], found["probabilities"].max(1))
    assert len(model.predict_celltype("rna", "rna", indices=[3, 4])["predictions"]) == 2
    with pytest.raises(ArgumentError, match="'prot' was set up without labels"):
        model.predict_celltype("prot")
    with pytest.raises(ArgumentError, match=r"'prt'.*Did you mean 'prot'"):
        model.predict_celltype("rna", "prt")


@pytest.mark.usefixtures("global_rng_untouched")
def test_training_is_fixed_by_its_seed_and_leaves_data_alone(model):
    adatas = data()
    before = {name: adata.copy() for name, adata in adatas.items()}
    again = made(adatas)
    again.train(max_epochs=3, batch_size=32, **QUICK)
    for name, weights in model.module.state_dict().items():
        torch.testing.assert_close(again.module.state_dict()[name], weights, rtol=0, atol=0, msg=name)
    for name, adata in adatas.items():
        np.testing.assert_array_equal(adata.X, before[name].X)
        assert {"training_loss", "uot_loss_validation", "nll_prot_train", "class_loss_train"} <= set(model.history)


class _Stop(Callback):
    def __init__(self, after: int):
        self.left = after

    def on_train_batch_end(self, *args):
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    options = {"max_epochs": 4, "batch_size": 32, **QUICK}
    whole = made()
    whole.train(**options)
    stopped = made()
    with pytest.raises(ZeroDivisionError):
        stopped.train(checkpoint_every="1 step", checkpoint_dir=tmp_path, callbacks=[_Stop(5)], **options)
    resumed = made()
    resumed.train(callbacks=[_Stop(0)], resume=tmp_path, **options)
    for name, weights in whole.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], weights, rtol=0, atol=0, msg=name)


def test_archives(model, tmp_path):
    latents, folder = model.get_latent_representation(), str(tmp_path / "m")
    model.save(folder, save_anndata=True)
    swapped = dict(reversed(list(data().items())))
    for loaded in (DIAGVI.load(folder, accelerator="cpu"), DIAGVI.load(folder, swapped, accelerator="cpu")):
        assert loaded.set_names == ["rna", "prot"]
        for name, z in loaded.get_latent_representation().items():
            np.testing.assert_allclose(z, latents[name], atol=1e-6)
    loaded.train(max_epochs=1, **QUICK)
    bare = DIAGVI.load(folder, False, accelerator="cpu")
    np.testing.assert_array_equal(bare.guidance_graph.edge_index, model.guidance_graph.edge_index)
    np.testing.assert_allclose(
        bare.get_latent_representation({"prot": data()["prot"]})["prot"], latents["prot"], atol=1e-6
    )
    with pytest.raises(ArgumentError, match="loaded without data: pass the cells of 'rna'"):
        bare.get_latent_representation()
    with pytest.raises(ArgumentError, match="pass reference_libsize="):
        bare.get_imputed_values("prot", data()["prot"])
    with pytest.raises(ValueError, match="load it with adatas= to train"):
        bare.train(max_epochs=1, **QUICK)
    with pytest.raises(ArgumentError, match=r"No modality of this model in adatas"):
        DIAGVI.load(folder, {"rna": data()["rna"], "protein": data()["prot"]})


def one_mudata(adatas):
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings(action="ignore"):  # of names in both
        return mudata.MuData(adatas)


def test_a_mudata_is_two_data_sets():
    adatas = data()
    mdata = one_mudata(adatas)
    of_each = {"likelihood": {"rna": "nb", "prot": "normal"}, "normalize_lib": {"rna": True, "prot": False}}
    DIAGVI.setup_mudata(mdata, ["rna", "prot"], batch_key="batch", labels_key={"rna": "kind"}, **of_each)
    model = DIAGVI(mdata, n_latent=4, n_hidden=16)
    assert model.set_names == ["rna", "prot"]
    assert model.module.has_labels == {"rna": True, "prot": False}
    model.train(max_epochs=1, **QUICK)
    assert model.get_latent_representation()["prot"].shape == (60, 4)
    with pytest.raises(ArgumentError, match=r"'prt'.*prot"):
        DIAGVI.setup_mudata(mdata, ["rna", "prt"])
    fresh = one_mudata(data())
    with pytest.raises(ArgumentError, match=r"0 modalities of this MuData were set up.*DIAGVI\.setup_mudata"):
        DIAGVI(fresh)


def test_graphs_come_from_names_tables_and_objects_of_others(caplog):
    graph = graph_of_names(FEATURES)
    edges = set(map(tuple, graph.edge_index.T))
    between = {(3, 6), (6, 3), (4, 7), (7, 4), (5, 8), (8, 5)}
    assert edges == between | {(i, i) for i in range(11)}
    np.testing.assert_array_equal(graph.prot_indices, np.arange(6, 11))
    table = pd.DataFrame({"rna": ["g0", "g1", "nowhere"], "prot": ["g7", "g7", "g3"]})
    with caplog.at_level(logging.INFO, "celbo"):
        by_table = graph_of_table(FEATURES, table, 0.5, -1)
    assert "1 of 3 rows of mapping_df name features that the data lack" in caplog.text
    assert repr(by_table) == "GuidanceGraph(rna: 6, prot: 5 features; 4 edges between them)"
    strange = types.SimpleNamespace(  # as torch_geometric has it, the second modality first
        edge_index=torch.tensor([[0, 5], [5, 0]]),
        edge_weight=torch.tensor([0.5, 0.5]),
        edge_sign=torch.tensor([-1.0, -1.0]),
        prot_indices=torch.arange(8),
        rna_indices=torch.arange(8, 20),
    )
    with pytest.raises(ArgumentError, match="rna_indices"):
        made(guidance_graph=types.SimpleNamespace(**{k: v for k, v in vars(strange).items() if k != "rna_indices"}))
    model = made(guidance_graph=strange)
    weights = dict(zip(map(tuple, model.guidance_graph.edge_index.T), model.guidance_graph.edge_weight, strict=True))
    assert {edge for edge in weights if edge[0] != edge[1]} == {(12, 17), (17, 12)}
    assert weights[12, 17] == 0.5


def test_what_cannot_be_is_said_with_a_cure():
    adatas = data()
    apart = {name: adata.copy() for name, adata in adatas.items()}
    apart["prot"].var_names = [f"marker_{i}" for i in range(8)]
    with pytest.raises(ArgumentError, match=r"No feature of 'rna' \(gene_0, .*mapping_df=pandas\.DataFrame"):
        made(apart)
    with pytest.raises(ArgumentError, match=r"mapping_df has no column 'prot'.*'protein'"):
        made(mapping_df=pd.DataFrame({"rna": ["gene_1"], "protein": ["x1"]}))
    with pytest.raises(ArgumentError, match="None of the 1 rows of mapping_df"):
        made(mapping_df=pd.DataFrame({"rna": ["gene_1"], "prot": ["x9"]}))
    other = DIAGVI.construct_custom_guidance_graph(apart, pd.DataFrame({"rna": ["gene_1"], "prot": ["marker_2"]}))
    with pytest.raises(ArgumentError, match=r"guidance graph is of other features of 'prot'.*it lacks gene_2"):
        made(guidance_graph=other)
    for change, said in (
        ({"edge_index": [[0, 99], [1, 2]]}, "numbers below 11"),
        ({"edge_weight": [0.0, 1.0]}, "above 0 and at most 1"),
        ({"edge_sign": [0.5, 1.0]}, "1 .together. or -1"),
        ({"edge_sign": [1.0]}, "each of its 2 edges"),
    ):
        edges = {"edge_index": [[0, 6], [6, 0]], "edge_weight": [1, 1], "edge_sign": [1, 1]} | change
        with pytest.raises(ArgumentError, match=said):
            GuidanceGraph(FEATURES, **edges)
    with pytest.raises(ArgumentError, match="two AnnDatas by the names"):
        DIAGVI({"rna": adatas["rna"]})
    with pytest.raises(ArgumentError, match="letters, digits"):
        DIAGVI({"r.na": adatas["rna"], "prot": adatas["prot"]})
    with pytest.raises(ValueError, match=r"set up your AnnData with DIAGVI\.setup_anndata"):
        DIAGVI(data())
    broken = adatas["prot"].copy()
    broken.X[3, 1] = np.nan
    with pytest.raises(
        ValueError, match=r"no finite numbers in 1 values of 1 cells \(first in cell 'p3': nan; features gene_5"
    ):
        DIAGVI.setup_anndata(broken, likelihood="normal", normalize_lib=False)
    with pytest.raises(ValueError, match=r"values below 0: .*pass normalize_lib=False"):
        DIAGVI.setup_anndata(adatas["prot"], likelihood="normal")
    with pytest.raises(ValueError, match=r"values below 0: .*pass likelihood='normal'"):
        DIAGVI.setup_anndata(adatas["prot"], likelihood="zig")
    unlabelled = data()
    unlabelled["rna"].obs["kind"] = "unknown"
    with pytest.raises(ArgumentError, match="No cell of 'rna' has a label"):
        made(unlabelled)


def test_wrong_questions_are_refused(model):
    for wrong, said in (
        ({"query_name": "rnaa"}, "Did you mean 'rna'"),
        ({"query_name": "prot", "reference_batch": "batch_7"}, "No batch of 'rna' is called 'batch_7'"),
        ({"query_name": "prot", "reference_batch": 7}, "No batch of 'rna' is called '7'"),
        ({"query_name": "prot", "reference_batch": np.zeros(3, int)}, "3 batches for 60 cells"),
        ({"query_name": "prot", "reference_libsize": -1.0}, "reference_libsize must be"),
        ({"query_name": "prot", "reference_libsize": np.ones(3)}, "3 numbers for 60 cells"),
    ):
        with pytest.raises(ArgumentError, match=said):
            model.get_imputed_values(**wrong)
    with pytest.raises(ArgumentError, match="modality for indices"):
        model.get_latent_representation(indices={"rnaa": [1]})
    with pytest.raises(RuntimeError, match="train"):
        made().get_latent_representation()


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "nbmixture", "normal", "log1pnormal", "ziln", "zig"])
def test_a_start_gives_the_means_and_the_zeros_of_the_data(likelihood):
    rng = np.random.default_rng(0)
    if likelihood in ("nb", "zinb", "nbmixture"):
        x = rng.poisson(rng.gamma(1, 5, 6), (400, 6)).astype(np.float32) + 1
    else:
        x = np.exp(rng.normal(rng.normal(0, 0.5, 6), 0.4, (400, 6))).astype(np.float32)
        x *= rng.random((400, 6)) > (0.3 if likelihood in ("ziln", "zig") else 0)
    decoder = decoder_for(6, 2, likelihood, False)
    start = start_of_features(x, likelihood, decoder.has_library)
    decoder.start_from(start)
    library = torch.tensor(np.log(x.sum(1, keepdims=True)))
    with torch.no_grad():
        px = decoder(torch.zeros(400, 3), torch.zeros(6, 3), library, torch.zeros(400, 1).long())
        likely = [float(one.log_prob(torch.tensor(x)).sum()) for one in (px, _untrained(likelihood, library))]
        found = px.get_normalized("mu").mean(0).numpy()
        zeros = px.zi_probs.mean(0).numpy() if likelihood in ("ziln", "zig") else None
    there = np.where(x > 0, x, np.nan)
    if likelihood == "nbmixture":  # of two means, of which neither is that of the data
        found, there = found.mean(), there.mean(0)
        np.testing.assert_allclose(found, there.mean(), rtol=0.12)
    else:
        np.testing.assert_allclose(found, np.nanmean(there, 0), rtol=0.12)
    if zeros is not None:
        np.testing.assert_allclose(zeros, (x == 0).mean(0), atol=1e-3)
    assert start.values.shape == x.shape
    assert likely[0] > likely[1]


def _untrained(likelihood, library):
    with torch.no_grad(), private_rng(0):
        decoder = decoder_for(6, 2, likelihood, False)
        return decoder(torch.zeros(400, 3), torch.zeros(6, 3), library, torch.zeros(400, 1).long())


def test_vectors_start_in_the_directions_that_both_modalities_have():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(2, 500, 1)), rng.normal(size=(500, 1))
    first = np.concatenate([shared[0], shared[0], own, own, rng.normal(size=(500, 2))], 1) + rng.normal(
        0, 0.3, (500, 6)
    )
    second = np.concatenate([shared[1], -shared[1], rng.normal(size=(500, 3))], 1) + rng.normal(0, 0.3, (500, 5))
    edges = [[0, 1, 2, 3], [6, 7, 8, 9]]  # features 0 and 1 rise together, 6 and 7 against each other
    graph = GuidanceGraph(FEATURES, edges, np.ones(4), [1, -1, 1, 1])
    v = start_of_vectors(graph, {"rna": first, "prot": second}, 2).numpy()
    assert np.abs(v[[0, 1, 6, 7], 0]).min() > 0.5
    np.testing.assert_allclose(v[0], v[6], atol=1e-6)
    np.testing.assert_allclose(v[1], -v[7], atol=1e-6)
    assert np.sign(v[0, 0]) == np.sign(v[1, 0])
    assert np.abs(v[[2, 3, 4, 5, 8, 9, 10]]).max() < 0.25  # what only one of them has, and what is not linked


def test_of_many_links_those_that_vary_most_tell_the_directions():
    rng = np.random.default_rng(0)
    n, p = 60, 1200
    names = np.array([f"f{i}" for i in range(p)])
    signal = rng.normal(size=(2, n, 1)) * np.where(np.arange(p) % 2, 2.0, 0.0)
    values = {name: one + rng.normal(0, 0.1, (n, p)) for name, one in zip(("rna", "prot"), signal, strict=True)}
    v = start_of_vectors(graph_of_names(dict.fromkeys(values, names)), values, 3).numpy()
    assert (np.abs(v).sum(1) > 0).sum() == 2 * 1000
    assert np.abs(v[1:p:2, 0]).min() > 0.9
    assert np.abs(v[0:p:2, 0]).max() < 0.5


def unpaired(n: int = 250, seed: int = 0):
    """Four types of other shares, with genes and markers along the same directions; 12 of 16 markers follow a gene."""
    rng = np.random.default_rng(seed)
    centers, genes = rng.normal(0, 1.5, (4, 5)), rng.normal(0, 0.45, (60, 5))
    markers = np.concatenate([genes[:12], rng.normal(0, 0.45, (4, 5))])
    adatas = {}
    for name, loadings, shares in (("rna", genes, [0.35, 0.25, 0.2, 0.2]), ("prot", markers, [0.2, 0.2, 0.25, 0.35])):
        kinds = rng.choice(4, n, p=shares)
        signal = (centers[kinds] + rng.normal(0, 0.4, (n, 5))) @ loadings.T
        if name == "rna":
            rate = np.exp(signal + rng.normal(0, 1, 60))
            x = rng.poisson(800 * rate / rate.sum(1, keepdims=True))
        else:
            x = signal + rng.normal(0, 0.5, signal.shape)
        adatas[name] = ad.AnnData(
            x.astype(np.float32), var=pd.DataFrame(index=[f"{name}_{i}" for i in range(x.shape[1])])
        )
        adatas[name].obs["kind"] = kinds.astype(str)
        adatas[name].obs_names = [f"{name}_cell_{i}" for i in range(n)]
    pairs = pd.DataFrame({name: [f"{name}_{i}" for i in range(12)] for name in adatas})
    return adatas, pairs


def test_cells_alike_lie_together_whatever_was_measured():
    adatas, pairs = unpaired()
    DIAGVI.setup_anndata(adatas["rna"])
    DIAGVI.setup_anndata(adatas["prot"], likelihood="normal", normalize_lib=False)
    model = DIAGVI(adatas, mapping_df=pairs, n_latent=8, n_hidden=64)
    model.train(max_epochs=80, batch_size=64, **QUICK)
    z, kinds = model.get_latent_representation(), {name: adata.obs["kind"].to_numpy() for name, adata in adatas.items()}
    _, near = cKDTree(z["rna"]).query(z["prot"], 15)
    voted = pd.DataFrame(kinds["rna"][near]).mode(axis=1)[0].to_numpy()
    largest = (kinds["prot"] == pd.Series(kinds["rna"]).mode()[0]).mean()
    assert (voted == kinds["prot"]).mean() > max(0.8, largest + 0.4)
