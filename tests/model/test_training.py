"""``model.train``: data, plan and loop together."""

import copy

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from celbo import ops
from celbo.data import simulate_counts
from celbo.model import SCANVI, SCVI, LinearSCVI
from celbo.model.base.training import trainer_settings
from celbo.train import Callback, NonFiniteLossError, SaveCheckpoint, TrainerConfig, TrainingPlanConfig

HISTORY = [
    *("validation_loss", "elbo_validation", "reconstruction_loss_validation", "kl_local_validation"),
    *("kl_global_validation", "train_loss", "elbo_train", "reconstruction_loss_train", "kl_local_train"),
    *("kl_global_train", "kl_weight"),
]


def same_weights(a, b):
    x, y = a.module.state_dict(), b.module.state_dict()
    return list(x) == list(y) and all(torch.equal(x[key], y[key]) for key in x)


def test_history_and_state(make, quick):
    model = quick(make())
    assert list(model.history) == HISTORY
    assert all(frame.index.tolist() == [0, 1] and frame.index.name == "epoch" for frame in model.history.values())
    assert model.is_trained
    assert not model.module.training
    assert len(model.train_indices) == 72
    assert len(model.validation_indices) == 8
    assert len(model.test_indices) == 0
    assert (model.seed_, model.recipe_) == (0, "one_cycle")
    assert model.trainer.current_epoch == 2


class TestCellsOfOneMinibatch:
    """A default that takes fewer epochs than ``classic`` saves nothing there, and classic's labels were better."""

    def train(self, n_train, **kwargs):
        adata = simulate_counts(n_train, 20, n_cell_types=2, seed=0)
        SCVI.setup_anndata(adata)
        model = SCVI(adata, n_hidden=4)
        model.train(train_size=1.0, seed=0, verbose=0, accelerator="cpu", **kwargs)
        return model

    def test_they_train_as_in_scvi_tools(self):
        default, classic = self.train(128), self.train(128, recipe="classic")
        assert default.recipe_ == "classic"
        assert same_weights(default, classic)

    def test_more_cells_or_what_the_user_says(self):
        assert self.train(129).recipe_ == "one_cycle"
        assert self.train(128, max_epochs=2).recipe_ == "one_cycle"
        assert self.train(128, recipe="one_cycle").recipe_ == "one_cycle"


class TestTrainerConfig:
    def epochs(self, model, **kwargs) -> int:
        model.train(**({"verbose": 0, "seed": 0, "recipe": "classic"} | kwargs))
        return len(model.history["elbo_train"])

    def test_it_says_what_the_arguments_leave_open(self, make):
        assert self.epochs(make(), trainer_config=TrainerConfig(max_epochs=2, accelerator="cpu")) == 2
        config = {"early_stopping": True, "early_stopping_patience": 1, "early_stopping_monitor": "kl_global_train"}
        assert self.epochs(make(), trainer_config=config, accelerator="cpu", max_epochs=9) == 2

    def test_arguments_win(self, make):
        config = TrainerConfig(max_epochs=5, accelerator="gpu")
        assert self.epochs(make(), trainer_config=config, max_epochs=1, accelerator="cpu") == 1

    def test_its_default_leaves_the_number_of_epochs_to_the_recipe(self):
        settled = trainer_settings(TrainerConfig(early_stopping=True), {}, max_epochs=None, early_stopping=False)
        assert (settled["max_epochs"], settled["early_stopping"]) == (None, True)
        assert trainer_settings({"max_epochs": 400}, {}, max_epochs=None)["max_epochs"] == 400

    def test_semi_supervised_models_take_one_too(self, adata):
        SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="label_0")
        model = SCANVI(adata, n_hidden=8)
        config = {"max_epochs": 1, "check_val_every_n_epoch": 0}
        assert self.epochs(model, trainer_config=config, accelerator="cpu") == 1
        assert "elbo_validation" not in model.history


def test_training_again_appends(make, quick):
    model = quick(quick(make()), max_epochs=3)
    assert all(frame.index.tolist() == [0, 1, 2, 3, 4] for frame in model.history.values())


def test_one_epoch_keeps_steps(make, quick):
    model = quick(make(), max_epochs=1, batch_size=8, log_every_n_steps=2)
    assert model.history["train_loss_step"].index.tolist() == [2, 4, 6, 8]
    assert model.history["train_loss_step"].index.name == "step"


@pytest.mark.usefixtures("global_rng_untouched")
def test_same_seed_same_run_to_the_bit(make, quick, adata):
    first = quick(make(), seed=3, batch_size=16)
    np.random.default_rng(1).random(5)
    second = quick(make(), seed=3, batch_size=16)
    other = quick(make(), seed=4, batch_size=16)
    assert same_weights(first, second)
    assert not same_weights(first, other)
    for name in HISTORY:
        pd.testing.assert_frame_equal(first.history[name], second.history[name], check_exact=True)
    np.testing.assert_array_equal(first.train_indices, second.train_indices)


def test_settings_seed_is_the_default(make, quick, monkeypatch):
    from celbo.core import settings

    monkeypatch.setattr(settings, "_seed", 7)
    assert same_weights(quick(make(), seed=None), quick(make(), seed=None))
    assert quick(make(), seed=None).seed_ == 7


def test_without_a_seed_runs_differ_and_say_their_seed(make, quick):
    first, second = quick(make(), seed=None), quick(make(), seed=None)
    assert first.seed_ != second.seed_
    assert same_weights(first, quick(make(), seed=first.seed_))


@pytest.mark.parametrize("left_over", range(6))
def test_any_number_of_training_cells(make, quick, adata, left_over):
    """No batch of one or two cells reaches batch normalisation, and no cell is lost."""
    data = adata[: 32 + left_over].copy()
    data.obs["batch"] = [f"b{i % 2}" for i in range(data.n_obs)]
    model = quick(make(data), batch_size=16, train_size=1.0)
    assert len(model.train_indices) == 32 + left_over
    assert "elbo_validation" not in model.history
    assert np.isfinite(model.history["elbo_train"].to_numpy()).all()


def test_external_indexing(make, quick):
    sets = [np.arange(10, 60), np.arange(10), np.arange(60, 80)]
    model = quick(make(), datasplitter_kwargs={"external_indexing": sets})
    for found, given in zip((model.train_indices, model.validation_indices, model.test_indices), sets, strict=True):
        np.testing.assert_array_equal(np.sort(found), given)


def test_stratify_by(make, quick, adata):
    model = quick(make(), datasplitter_kwargs={"stratify_by": "site"}, train_size=0.75)
    sites = adata.obs["site"].to_numpy()[model.train_indices]
    assert [np.sum(sites == f"site_{i}") for i in range(3)] == [20, 20, 20]


def test_split_by(make, quick, adata):
    adata.obs["set"] = ["train"] * 50 + ["validation"] * 20 + ["test"] * 10
    model = quick(make(), datasplitter_kwargs={"split_by": "set"})
    assert sorted(model.train_indices) == list(range(50))
    assert sorted(model.test_indices) == list(range(70, 80))


def test_sizes_of_the_split(make, quick):
    model = quick(make(), train_size=0.5, validation_size=0.25)
    assert [len(s) for s in (model.train_indices, model.validation_indices, model.test_indices)] == [40, 20, 20]
    model = quick(make(), train_size=0.5, shuffle_set_split=False)
    assert model.validation_indices.tolist() == list(range(40))


def test_sparse_minibatches_are_the_same(make, quick, adata):
    adata.X = sp.csr_matrix(adata.X)
    dense, sparse = quick(make()), quick(make(), load_sparse_tensor=True)
    assert same_weights(dense, sparse)


def test_recipes(make, quick):
    """Explicit arguments win over the recipe."""
    classic = quick(make(), recipe="classic", plan_kwargs={"n_epochs_kl_warmup": 4})
    assert classic.history["kl_weight"]["kl_weight"].tolist() == [0.0, 0.25]
    assert classic.recipe_ == "classic"
    assert quick(make()).history["kl_weight"]["kl_weight"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="classic"):
        quick(make(), recipe="clasic")


@pytest.mark.parametrize(
    ("kwargs", "nearest"),
    [
        ({"plan_kwargs": {"learning_rate": 1e-3}}, "lr"),
        ({"early_stoping": True}, "early_stopping"),
        ({"datasplitter_kwargs": {"external_index": []}}, "'external_index'"),
        ({"max_epoch": 3}, "max_epochs"),
    ],
)
def test_unknown_arguments(make, kwargs, nearest):
    with pytest.raises(TypeError, match=nearest):
        make().train(verbose=0, **kwargs)


def test_fewer_than_no_epochs_are_refused(make, quick):
    with pytest.raises(ValueError, match="max_epochs must be a whole number of at least 0, or None, got -1"):
        quick(make(), max_epochs=-1)


def test_config_objects(make, quick):
    model = quick(make(), recipe="classic", plan_config=TrainingPlanConfig(n_epochs_kl_warmup=4), trainer_config={})
    assert model.history["kl_weight"]["kl_weight"].tolist() == [0.0, 0.25]


def test_plateau_keeps_the_rate(make, quick):
    model = quick(make(), recipe="classic", plan_kwargs={"reduce_lr_on_plateau": True, "lr": 0.01})
    assert model.history["lr-Adam"]["lr-Adam"].tolist() == [0.01, 0.01]


def test_early_stopping_ends_a_run(make, quick):
    options = {"early_stopping": True, "early_stopping_patience": 2, "plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}
    model = quick(make(), max_epochs=50, early_stopping_monitor="kl_global_validation", **options)
    assert len(model.history["elbo_train"]) == 3
    with pytest.raises(ValueError, match="no validation set"):
        quick(make(), early_stopping=True, train_size=1.0)


def test_checkpoints_load_and_the_best_is_put_back(make, quick, tmp_path, adata):
    callback = SaveCheckpoint(tmp_path, monitor="elbo_validation", load_best_on_end=True, save_top_k=2)
    model = quick(make(), recipe="classic", max_epochs=6, plan_kwargs={"lr": 0.5}, callbacks=[callback])
    elbo = model.history["elbo_validation"]["elbo_validation"]
    assert callback.best_model_score == elbo.min()
    assert len(list(tmp_path.iterdir())) == 2
    best = SCVI.load(callback.best_model_path, adata)
    assert same_weights(best, model)
    assert best.kept_epoch_ == model.kept_epoch_ == elbo.argmin()
    assert best.is_trained
    assert len(best.history["elbo_train"]) == elbo.argmin() + 1
    assert len(best.train_indices) == 72
    assert len(model.history["elbo_train"]) == 6


def test_enable_checkpointing(make, quick, tmp_path):
    quick(make(), enable_checkpointing=True, log_save_dir=tmp_path)
    assert [path.name.split("-")[-1].split("=")[0] for path in tmp_path.iterdir()] == ["validation_loss"]


def test_best_weights_are_kept_by_default(make, quick):
    """The validation ELBO of the weights that training leaves is the best of the run."""

    class Weights(Callback):
        def on_validation_end(self, trainer, plan):
            seen.append(copy.deepcopy(plan.module.state_dict()))

    seen = []
    model = quick(make(), max_epochs=5, plan_kwargs={"lr": 0.5}, callbacks=Weights(), batch_size=16)
    best = int(model.history["elbo_validation"]["elbo_validation"].argmin())
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, seen[best][name]), name


def test_the_epoch_kept_is_counted_from_the_first_training(make, quick):
    model = quick(make(), recipe="classic", max_epochs=2)
    assert model.kept_epoch_ == 1
    assert quick(model, recipe="classic", max_epochs=3).kept_epoch_ == 4


def test_interrupt_leaves_a_usable_model(make, quick):
    class Interrupts(Callback):
        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    model = quick(make(), max_epochs=9, callbacks=Interrupts())
    assert model.is_trained
    assert not model.module.training
    assert len(model.history["elbo_train"]) == 2
    assert np.isfinite(model.get_latent_representation()).all()


def test_an_error_in_a_callback_is_raised_as_it_is(make, quick):
    class Fails(Callback):
        def on_train_epoch_end(self, trainer, plan):
            raise LookupError("mine")

    model = make()
    with pytest.raises(LookupError, match=r"^mine$"):
        quick(model, callbacks=Fails())
    assert not model.is_trained
    assert not model.module.training


def test_nan_names_cell_term_and_leaves_finite_weights(make, quick, adata):
    adata.X = adata.X.astype(np.float32)
    model = make()
    adata.X[17, 3] = np.nan
    with pytest.raises(NonFiniteLossError) as caught:
        quick(model, train_size=1.0, batch_size=16)
    for said in ("reconstruction_loss", "input 'X' of 1 cell", "Cells: '17'."):
        assert said in str(caught.value)
    assert all(torch.isfinite(value).all() for value in model.module.state_dict().values())
    assert not model.module.training


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions(make, quick, precision):
    plain, other = quick(make(), seed=1), quick(make(), seed=1, precision=precision)
    expected = plain.history["elbo_validation"].to_numpy()
    np.testing.assert_allclose(other.history["elbo_validation"].to_numpy(), expected, rtol=0.05)
    assert next(other.module.parameters()).dtype == torch.float32
    assert other.get_latent_representation().shape == (80, 3)


class Loaders:
    """A data module of the user's own, as little as may be."""

    def __init__(self, x, batch):
        self.n_train, self.n_val = 60, 20
        self.x, self.batch = torch.as_tensor(x), torch.as_tensor(batch)[:, None]

    def _rows(self, start, stop):
        for i in range(start, stop, 20):
            rows = slice(i, i + 20)
            yield {"X": self.x[rows], "batch": self.batch[rows], "labels": torch.zeros(20, 1, dtype=torch.long)}

    def train_dataloader(self):
        return Iterable(lambda: self._rows(0, 60))

    def val_dataloader(self):
        return Iterable(lambda: self._rows(60, 80))


class Iterable:
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()


def test_data_module_of_the_users_own(make, quick, adata):
    model = make()
    codes = (adata.obs["batch"] == "batch_1").to_numpy().astype(np.int64)
    quick(model, datamodule=Loaders(adata.X.astype(np.float32), codes), recipe="classic")
    assert list(model.history) == HISTORY
    assert model.train_indices is None


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson", "normal"])
@pytest.mark.parametrize("use_observed_lib_size", [True, False])
def test_every_option_trains(make, quick, dispersion, gene_likelihood, use_observed_lib_size):
    options = {"dispersion": dispersion, "gene_likelihood": gene_likelihood}
    setup = {"batch_key": "batch", "labels_key": "labels"}
    model = quick(make(setup=setup, use_observed_lib_size=use_observed_lib_size, **options), max_epochs=1)
    assert all(np.isfinite(frame.to_numpy(float)).all() for frame in model.history.values())


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])
@pytest.mark.parametrize("latent_distribution", ["normal", "ln"])
def test_linear_scvi_trains(make, quick, dispersion, latent_distribution):
    options = {"dispersion": dispersion, "latent_distribution": latent_distribution}
    model = quick(make(cls=LinearSCVI, **options), max_epochs=1)
    assert model.get_loadings().shape == (100, 3)
    assert model.get_loadings().index[0] == "gene_0"


@pytest.mark.parametrize(
    ("setup", "kwargs"),
    [
        ({"size_factor_key": "depth"}, {}),
        ({"layer": "counts", "batch_key": "batch"}, {}),
        ({"batch_key": "batch"}, {"batch_representation": "embedding"}),
        ({"batch_key": "batch"}, {"encode_covariates": True, "n_layers": 2, "deeply_inject_covariates": False}),
        (
            {
                "batch_key": "batch",
                "categorical_covariate_keys": ["site", "labels"],
                "continuous_covariate_keys": ["depth"],
            },
            {"encode_covariates": True},
        ),
        ({}, {"use_layer_norm": "both", "use_batch_norm": "none"}),
    ],
)
def test_setups(make, quick, setup, kwargs):
    model = quick(make(setup=setup, **kwargs), max_epochs=1)
    assert np.isfinite(model.history["elbo_validation"].to_numpy()).all()
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array])
def test_storage_does_not_matter(make, quick, adata, form):
    dense = quick(make())
    stored = adata.copy()
    stored.X = form(stored.X)
    assert same_weights(dense, quick(make(stored)))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_backed_data_train_and_answer(make, quick, adata, tmp_path, form):
    """The order of the cells is that of shuffled blocks; what is read of each cell is the same."""
    stored = adata.copy()
    stored.X = form(stored.X)
    stored.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model, again = quick(make(backed)), quick(make(backed))
    assert same_weights(model, again)
    assert model.history["elbo_train"].to_numpy()[-1] < model.history["elbo_train"].to_numpy()[0]
    z = model.get_latent_representation()
    backed.file.close()
    np.testing.assert_allclose(z, model.get_latent_representation(adata), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson"])
def test_fused_and_plain_likelihoods_draw_the_same_curve(gene_likelihood):
    """Training amplifies roundings: a tenth of this tolerance is seen here, more where a learning rate is larger."""
    curves = {}
    for backend in ("fused_cpu", "reference"):
        adata = simulate_counts(1000, 300, 4, 2, seed=3)
        SCVI.setup_anndata(adata, batch_key="batch")
        model = SCVI(adata, gene_likelihood=gene_likelihood)
        with ops.use_backend(backend):
            model.train(20, recipe="classic", seed=0, verbose=0, check_val_every_n_epoch=1, accelerator="cpu")
        curves[backend] = np.stack([model.history[f"elbo_{part}"].to_numpy() for part in ("train", "validation")])
    assert curves["fused_cpu"].shape == (2, 20, 1)
    np.testing.assert_allclose(curves["fused_cpu"], curves["reference"], rtol=1e-5)
