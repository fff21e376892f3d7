"""Modules against scvi-tools 1.4.2: the archives it saved, and the ladder of ``make_golden.py``.

Ladder: copied weights -> outputs -> loss -> gradients -> ten Adam steps. The golden figures are always compared with;
where CELBO_PEER_PYTHON names a Python that has scvi-tools, the same figures are made anew and compared with too.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from celbo.module import LDVAE, VAE

FOLDER = Path(__file__).parent
CASES = sorted(path.stem for path in (FOLDER / "golden").glob("*.npz"))
CLASSES = {"VAE": VAE, "LDVAE": LDVAE}
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def latents_at_their_mean(monkeypatch) -> None:
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)


def assert_close(name: str, ours: torch.Tensor, theirs: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Equal to ``tolerance`` of each value, or of the largest of the array where a value is small beside it."""
    ours = ours.detach().numpy()
    assert ours.shape == theirs.shape, name
    scale = np.abs(theirs).max() if theirs.size else 0.0
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=name)


# --- the ladder -------------------------------------------------------------------------------------------------------


def part(figures: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in figures.items() if key.startswith(f"{prefix}/")}


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def built(figures: dict[str, np.ndarray]) -> VAE:
    case = json.loads(str(figures["case"]))
    module = CLASSES[case["class"]](**case["kwargs"])
    values = part(figures, "weights")
    assert list(module.state_dict()) == list(values), "names and order of the state_dict"
    module.load_state_dict({key: torch.as_tensor(value) for key, value in values.items()})
    return module


def check_eval_mode(module: VAE, tensors: dict[str, torch.Tensor], figures: dict[str, np.ndarray]) -> None:
    inference, generative, loss = module.eval()(tensors)
    for name, theirs in part(figures, "inference").items():
        key, _, attribute = name.partition("/")
        assert_close(name, getattr(inference[key], attribute) if attribute else inference[key], theirs)
    for name, theirs in part(figures, "px").items():
        ours = getattr(generative["px"], name)
        assert_close(f"px/{name}", ours.expand(theirs.shape), theirs)
    for name, theirs in part(figures, "eval/reconstruction_loss").items():
        assert_close(name, loss.reconstruction_loss[name], theirs)
    for name, theirs in part(figures, "eval/kl_local").items():
        assert_close(name, loss.kl_local[name], theirs)
    assert_close("loss", loss.loss, figures["eval/loss"])


def check_training(module: VAE, tensors: dict[str, torch.Tensor], figures: dict[str, np.ndarray]) -> None:
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        loss = module(tensors, loss_kwargs={"kl_weight": 0.5})[2].loss
        loss.backward()
        if step == 0:
            check_gradients(module, part(figures, "grad"))
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, figures["train/losses"], rtol=TOLERANCE)
    for name, theirs in part(figures, "after").items():
        # scvi-tools also runs the dropout head where the likelihood has no use for it: its running statistics move.
        if "px_dropout_decoder" in name and module.gene_likelihood != "zinb":
            continue
        assert_close(f"after ten steps: {name}", module.state_dict()[name], theirs)


def check_gradients(module: VAE, theirs: dict[str, np.ndarray]) -> None:
    ours = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(grad).max() for grad in theirs.values())
    for name, grad in theirs.items():
        # A bias before a batch normalization has gradient 0 but for rounding: compared on the scale of all gradients.
        atol = TOLERANCE * max(np.abs(grad).max(), 0.1 * largest)
        np.testing.assert_allclose(ours[name].numpy(), grad, rtol=TOLERANCE, atol=atol, err_msg=name)


def climb(path: Path) -> None:
    figures = load(path)
    module = built(figures)
    tensors = {key: torch.as_tensor(value) for key, value in part(figures, "batch").items()}
    check_eval_mode(module, tensors, figures)
    check_training(module, tensors, figures)
    if "loadings" in figures:
        np.testing.assert_allclose(module.get_loadings(), figures["loadings"], rtol=10 * TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_module_agrees_with_the_golden_figures(case):
    climb(FOLDER / "golden" / f"{case}.npz")


def test_there_are_golden_figures_of_each_dispersion_and_likelihood():
    kwargs = [json.loads(str(load(FOLDER / "golden" / f"{case}.npz")["case"]))["kwargs"] for case in CASES]
    dispersions = {options.get("dispersion", "gene") for options in kwargs}
    assert dispersions == {"gene", "gene-batch", "gene-label", "gene-cell"}
    assert {options.get("gene_likelihood", "zinb") for options in kwargs} == {"zinb", "nb", "poisson", "normal"}


@pytest.fixture(scope="module")
def live_figures(peer_python, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    subprocess.run([peer_python, "-W", "ignore", FOLDER / "make_golden.py", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_module_agrees_with_scvi_tools_live(case, live_figures):
    climb(live_figures / f"{case}.npz")


# --- the archives -----------------------------------------------------------------------------------------------------

ARCHIVES = [
    "scvi_default",
    "scvi_genecell_embed",
    "scvi_latent_library",
    "scvi_nb_deep",
    "scvi_poisson_ln",
    "linear_scvi",
]


class Archive:
    """One folder of the parity archives: weights, data and expected figures."""

    def __init__(self, folder: Path) -> None:
        anndata = pytest.importorskip("anndata")
        # Files of this project's own making, read in a test; the library itself never unpickles.
        saved = torch.load(folder / "model" / "model.pt", weights_only=False)
        self.state = {key: value for key, value in saved["model_state_dict"].items() if key != "pyro_param_store"}
        self.fields = saved["attr_dict"]["registry_"]["field_registries"]
        init = saved["attr_dict"]["init_params_"]
        self.init = {**init["non_kwargs"], **{k: v for group in init["kwargs"].values() for k, v in group.items()}}
        self.adata = anndata.read_h5ad(folder / "adata.h5ad")
        self.case = json.loads((folder / "case.json").read_text())
        with np.load(folder / "expected.npz") as expected:
            self.expected = dict(expected)

    def _column(self, key: str) -> np.ndarray:
        place = self.fields[key]["data_registry"]
        if place["attr_name"] == "X":
            return self.adata.X
        return getattr(self.adata, place["attr_name"])[place["attr_key"]]

    def tensors(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for key, dtype in (
            ("X", np.float32),
            ("batch", np.int64),
            ("labels", np.int64),
            ("extra_categorical_covs", np.int64),
            ("extra_continuous_covs", np.float32),
        ):
            if self.fields.get(key, {}).get("data_registry"):
                column = self._column(key)
                dense = column.toarray() if hasattr(column, "toarray") else np.asarray(column)
                tensors[key] = torch.as_tensor(dense.astype(dtype).reshape(self.adata.n_obs, -1))
        return tensors

    def module(self) -> VAE:
        summary = {name: n for field in self.fields.values() for name, n in field["summary_stats"].items()}
        sizes = {"n_input": summary["n_vars"], "n_batch": summary["n_batch"], "n_labels": summary["n_labels"]}
        init = dict(self.init)
        if not init["use_observed_lib_size"]:
            init |= {name: self.state[name].numpy() for name in ("library_log_means", "library_log_vars")}
        if self.case["class"] == "LinearSCVI":
            module = LDVAE(**sizes, n_layers_encoder=init.pop("n_layers"), **init)
        else:
            cats = self.fields["extra_categorical_covs"]["state_registry"].get("n_cats_per_key")
            n_continuous_cov = summary["n_extra_continuous_covs"]
            module = VAE(**sizes, n_cats_per_cov=cats, n_continuous_cov=n_continuous_cov, **init)
        assert list(module.state_dict()) == list(self.state)
        module.load_state_dict(self.state)
        return module.eval()


@pytest.fixture(params=ARCHIVES)
def archive(request, shared_dir) -> Iterator[Archive]:
    return Archive(shared_dir / "parity" / request.param)


def test_module_gives_the_archive_s_figures(archive):
    module, expected = archive.module(), archive.expected
    with torch.no_grad():
        tensors = archive.tensors()
        inference, _ = module(tensors, compute_loss=False)
        # The archives decode the mean of q(z) as it is, for a logistic normal too (no softmax).
        at_mean = {**inference, "z": inference["qz"].loc}
        generative = module.generative(**module._get_generative_input(tensors, at_mean))
        loss = module.loss(tensors, at_mean, generative, kl_weight=1.0)
    assert_close("z", inference["qz"].loc, expected["z"])
    assert_close("qz_scale", inference["qz"].scale, expected["qz_scale"])
    for name, theirs in part(expected, "px").items():
        assert_close(f"px/{name}", getattr(generative["px"], name).expand(240, -1)[:40], theirs)
    for group in ("reconstruction_loss", "kl_local"):
        for name, theirs in part(expected, group).items():
            assert_close(name, getattr(loss, group)[name], theirs)
    for name in ("loss", "reconstruction_loss_sum", "kl_local_sum", "kl_global_sum"):
        np.testing.assert_allclose(getattr(loss, name).numpy(), expected[name], rtol=TOLERANCE, err_msg=name)
    assert loss.n_obs_minibatch == expected["n_obs_minibatch"]
    if "loadings" in expected:
        np.testing.assert_allclose(module.get_loadings(), expected["loadings"], rtol=TOLERANCE)
