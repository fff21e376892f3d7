"""Faults of training and models seen elsewhere (numbers of the list of traps), each gone here."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from celbo.data import synthetic_iid
from celbo.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from celbo.model import SCVI
from celbo.module.base import LossOutput
from celbo.train import NonFiniteLossError, TrainingPlan
from celbo.train.metrics import EpochMetrics

NAMES = ("elbo", "reconstruction_loss", "kl_local", "kl_global")


def trained(adata=None, setup=None, init=None, **kwargs):
    adata = synthetic_iid(batch_size=40, n_genes=30, seed=0) if adata is None else adata
    SCVI.setup_anndata(adata, **(setup or {"batch_key": "batch"}))
    model = SCVI(adata, **({"n_hidden": 8, "n_latent": 3} | (init or {})))
    model.train(**({"max_epochs": 2, "verbose": 0, "seed": 0, "accelerator": "cpu"} | kwargs))
    return model


def test_trap_3a_1_nb_keeps_its_digits_at_large_theta():
    """lgamma(x + theta) - lgamma(theta): 0.83 nats wrong at theta = 1e6 in float32 (#2965)."""
    x, mu = torch.tensor([0.0, 3.0, 10.0]), torch.tensor(10.0)
    single = NegativeBinomial(mu=mu, theta=torch.tensor(1e6)).log_prob(x)
    poisson = torch.distributions.Poisson(mu).log_prob(x)
    torch.testing.assert_close(single, poisson, rtol=1e-4, atol=1e-4)


def test_trap_3a_2_zinb_gradients_stay_finite_where_a_branch_is_not():
    """mask * inf is NaN."""
    mu = torch.tensor([0.0, 1e-30, 1e30], requires_grad=True)
    zi = torch.tensor([-200.0, 200.0, 0.0], requires_grad=True)
    px = ZeroInflatedNegativeBinomial(mu=mu, theta=torch.tensor(1.0), zi_logits=zi, validate_args=False)
    px.log_prob(torch.zeros(3)).sum().backward()
    assert torch.isfinite(mu.grad).all()
    assert torch.isfinite(zi.grad).all()


def test_trap_3a_5_latent_library_trains():
    model = trained(init={"use_observed_lib_size": False}, max_epochs=5)
    assert all(np.isfinite(frame.to_numpy(float)).all() for frame in model.history.values())


def test_trap_3a_6_a_nan_count_is_named_not_told_as_expected_parameter_loc():
    adata = synthetic_iid(batch_size=40, n_genes=30, seed=0)
    adata.X = adata.X.astype(np.float32)
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=8)
    adata.X[5, 5] = np.nan  # after the check of setup
    with pytest.raises(NonFiniteLossError, match=r"Cells: '5'\.") as caught:
        model.train(max_epochs=1, train_size=1.0, verbose=0, accelerator="cpu")
    assert "Expected parameter" not in str(caught.value)


@pytest.mark.parametrize("n", [17, 18, 33])
def test_trap_3a_7_a_last_minibatch_of_one_or_two_cells(n):
    adata = synthetic_iid(batch_size=40, n_genes=30, seed=0)[:n].copy()
    model = trained(adata, setup={"labels_key": "labels"}, batch_size=16, train_size=1.0)
    assert len(model.train_indices) == n
    assert len(model.get_latent_representation(batch_size=1)) == n


@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")
def test_trap_3a_7_one_cell_in_a_batch():
    """#681."""
    adata = synthetic_iid(batch_size=40, n_genes=30, seed=0)
    adata.obs["batch"] = ["alone"] + ["other"] * 79
    for observed in (True, False):
        model = trained(adata, init={"use_observed_lib_size": observed})
        assert np.isfinite(model.history["elbo_train"].to_numpy(float)).all()


def test_trap_3a_9_metrics_do_not_round_over_many_cells():
    """100,000 minibatches of 128 cells at 0.1 nats: a float32 sum is off by far more than a digit."""
    metrics = EpochMetrics("train")
    record = LossOutput(loss=torch.tensor(0.1), reconstruction_loss=torch.full((1,), 0.1), n_obs_minibatch=1)
    for _ in range(20_000):
        metrics.update(record)
    assert metrics.compute(1)["reconstruction_loss_train"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


def test_trap_3b_1_a_kl_weight_that_will_not_reach_1_is_said(capsys):
    trained(recipe="classic", verbose=1)
    said = capsys.readouterr().err
    assert "The KL weight will only reach 0.00" in said
    assert "n_epochs_kl_warmup" in said
    trained(verbose=1)
    assert "KL weight" not in capsys.readouterr().err


def test_trap_3b_1_kl_weight_is_in_every_epoch():
    history = trained(recipe="classic", max_epochs=3).history["kl_weight"]
    assert history["kl_weight"].tolist() == pytest.approx([0.0, 1 / 400, 2 / 400])


def test_trap_3b_2_elbo_is_reconstruction_plus_kl_unweighted():
    """Wrong in scvi-tools 0.17 to 0.20 (#1895); independent of the KL weight."""
    model = trained(recipe="classic", max_epochs=3)
    for mode in ("train", "validation"):
        elbo, rec, kl, kl_global = (model.history[f"{name}_{mode}"].to_numpy(float) for name in NAMES)
        np.testing.assert_allclose(elbo, rec + kl + kl_global, rtol=1e-12)
    assert model.history["train_loss"].iloc[0, 0] < model.history["elbo_train"].iloc[0, 0]  # weight 0 at first


def test_trap_3b_2_no_minibatch_is_left_out_of_the_means():
    """get_reconstruction_error dropped the first one (#1854)."""
    model = trained(train_size=0.5, batch_size=16)
    with_small, at_once = (
        float(next(iter(model.get_reconstruction_error(batch_size=size, seed=0).values()))) for size in (7, 80)
    )
    assert with_small == pytest.approx(at_once, rel=0.02)  # the noise of z differs


def test_trap_3b_5_unused_levels_make_no_phantom_batches():
    adata = synthetic_iid(batch_size=40, n_genes=30, seed=0)
    adata.obs["batch"] = adata.obs["batch"].cat.add_categories(["ghost_1", "ghost_2"])
    model = trained(adata)
    assert model.summary_stats.n_batch == 2
    assert model.module.decoder.px_decoder.n_cat_list == [2]


def test_trap_3c_1_gene_order_is_checked_on_inference():
    """Silent in scvi-tools, latents off by up to 0.9; here genes are found by name."""
    model = trained()
    permuted = model.adata[:, np.random.default_rng(0).permutation(30)].copy()
    expected = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(permuted), expected, atol=1e-5)
    foreign = model.adata.copy()
    foreign.var_names = [f"other_{i}" for i in range(30)]
    with pytest.raises(ValueError, match="gene_0"):
        model.get_latent_representation(foreign)


@pytest.mark.parametrize("sparse_format", [None, "csr_matrix"])
def test_trap_3c_2_backed_rows_come_in_the_order_asked(tmp_path, sparse_format):
    """scvi-tools sorts them within the minibatch: cells get each other's results."""
    from anndata import read_h5ad

    model = trained(synthetic_iid(batch_size=40, n_genes=30, sparse_format=sparse_format, seed=0))
    model.adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = read_h5ad(tmp_path / "cells.h5ad", backed="r")
    order = [7, 3, 50, 3, 79, 0]
    expected = model.get_latent_representation()[order]
    np.testing.assert_allclose(model.get_latent_representation(backed, indices=order), expected, atol=1e-5)
    backed.file.close()


def test_trap_3c_4_csr_array_trains():
    assert trained(synthetic_iid(batch_size=40, n_genes=30, sparse_format="csr_array", seed=0)).is_trained


@pytest.mark.usefixtures("global_rng_untouched")
def test_trap_3c_3_global_generators_are_untouched_from_setup_to_answers():
    model = trained(init={"use_observed_lib_size": False})
    model.get_latent_representation(give_mean=False)
    model.get_elbo()
    model.get_normalized_expression(n_samples=2)


def test_trap_3c_6_an_error_is_printed_once_and_by_its_own_name(capsys):
    """scvi-tools prints "Exception raised during training. <class 'NameError'>" for every error."""

    class Fails:
        def on_train_epoch_start(self, trainer, plan):
            raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        trained(callbacks=Fails())
    captured = capsys.readouterr()
    assert "Exception raised" not in captured.out + captured.err


def test_trap_3c_7_a_wrong_plan_keyword_does_not_wait_for_the_first_step():
    """In scvi-tools it ends in ``loss() got an unexpected keyword argument`` (#3666)."""
    adata = synthetic_iid(batch_size=20, n_genes=30, seed=0)
    SCVI.setup_anndata(adata)
    with pytest.raises(TypeError, match="n_epochs_kl_warmup"):
        TrainingPlan(SCVI(adata).module, n_epochs_kl_warmpu=3)


def test_trap_3c_8_batch_size_is_kept():
    sizes = []

    class Sizes:
        def on_train_batch_start(self, trainer, plan, batch, batch_idx):
            sizes.append(len(batch["X"]))

    trained(batch_size=10, max_epochs=1, callbacks=Sizes())
    assert sizes == [10] * 7 + [2] or sizes == [10] * 6 + [12]


def test_trap_3c_11_history_is_kept_in_every_path(tmp_path):
    """Also with loggers of the user's, after an interrupt, and for a single epoch (#3516, #3543)."""
    for options in ({"logger": "csv", "log_save_dir": tmp_path}, {"max_epochs": 1}, {"check_val_every_n_epoch": 5}):
        assert "elbo_train" in trained(**options).history


CODE = """
import celbo
adata = celbo.data.synthetic_iid(batch_size=20, n_genes=30, seed=0)
celbo.model.SCVI.setup_anndata(adata)
model = celbo.model.SCVI(adata, n_hidden=4, gene_likelihood="poisson")
model.train(max_epochs=2, verbose=0, precision="bf16-mixed")
model.train(max_epochs=2, verbose=0, recipe="classic")
print("loud", flush=True)
model.train(max_epochs=2)
"""


def test_trap_3c_11_no_word_of_lightning_and_none_at_all_at_verbose_0():
    """In a process of its own: what packages say on their first import is heard too."""
    command = [sys.executable, "-W", "default", "-c", CODE]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    silent, loud = done.stdout.split("loud\n")
    assert silent == ""
    compiled_once, best_epoch = r"(Compiling .*\n)?", r"(Weights of epoch .*\n)?"
    assert re.fullmatch(rf"{compiled_once}{best_epoch}Trained 2 epochs in .*\n", loud), loud


def test_trap_3c_12_answers_are_plain_arrays_on_the_host():
    latent = trained().get_latent_representation()
    assert isinstance(latent, np.ndarray)
    assert latent.dtype == np.float32


@pytest.mark.parametrize("unfit", [{"reconstruction_loss": torch.tensor(1.0)}, {}])
def test_trap_3d_a_loss_record_without_its_size_says_what_to_pass(unfit):
    """A bare IndexError in scvi-tools."""
    with pytest.raises(ValueError, match="n_obs_minibatch"):
        LossOutput(loss=torch.tensor(1.0), **unfit)
