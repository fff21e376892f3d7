"""AdversarialTrainingPlan: two optimizers in turn, what each is told, what it does to batches."""

import inspect

import numpy as np
import pytest
import torch

from celbo.data import simulate_counts, synthetic_iid
from celbo.model import MULTIVI, SCANVI, SCVI, TOTALVI
from celbo.module import Classifier
from celbo.report.metrics import batch_mixing
from celbo.train import (
    AdversarialTrainingPlan,
    AdversarialTrainingPlanConfig,
    Callback,
    NonFiniteLossError,
    SemiSupervisedAdversarialTrainingPlan,
    SemiSupervisedAdversarialTrainingPlanConfig,
    TrainingPlan,
)
from celbo.train.plans.adversarial import adversary_settings

ON = {"adversarial_classifier": True}


class Mixing(SCVI):
    _training_plan_cls = AdversarialTrainingPlan


@pytest.fixture
def mixing():
    def mixing(adata=None, batch_key="batch", **kwargs):
        adata = synthetic_iid(batch_size=40, n_batches=3, seed=0) if adata is None else adata
        Mixing.setup_anndata(adata, batch_key=batch_key)
        return Mixing(adata, **({"n_hidden": 8, "n_latent": 3} | kwargs))

    return mixing


def train(model, plan_kwargs=None, **kwargs):
    options = {"max_epochs": 2, "verbose": 0, "seed": 0, "accelerator": "cpu", "batch_size": 32} | kwargs
    model.train(plan_kwargs=ON | (plan_kwargs or {}), **options)
    return model


@pytest.fixture
def plan(mixing):
    return AdversarialTrainingPlan(mixing().module, **ON)


class TestLoss:
    @pytest.mark.parametrize("logits", [True, False])
    def test_targets_are_the_true_batch_or_all_others_alike(self, mixing, logits, torch_rng):
        given = Classifier(3, n_labels=3, logits=logits).eval()
        plan = AdversarialTrainingPlan(mixing().module, adversarial_classifier=given)
        z, batch = torch.randn(5, 3, generator=torch_rng), torch.tensor([[0], [2], [1], [1], [0]])
        log_q = given.log_probs(z)
        true = torch.stack([log_q[i, b] for i, b in enumerate(batch.squeeze(1))])
        others = (log_q.sum(1) - true) / 2
        torch.testing.assert_close(plan.loss_adversarial_classifier(z, batch), -true.mean())
        torch.testing.assert_close(plan.loss_adversarial_classifier(z, batch, False), -others.mean())

    def test_weight(self, mixing, plan):
        assert plan.adversarial_weight == 1
        assert AdversarialTrainingPlan(mixing().module, scale_adversarial_loss=3, **ON).adversarial_weight == 3
        assert AdversarialTrainingPlan(mixing().module, min_kl_weight=0.25, **ON).adversarial_weight == 0.75


class TestTraining:
    def test_both_learn(self, mixing):
        model = mixing()
        plans = []

        class Keep:
            def on_train_start(self, trainer, plan):
                before = {name: value.clone() for name, value in plan.adversarial_classifier.state_dict().items()}
                plans.append((plan, before))

        train(model, max_epochs=6, callbacks=[Keep()])
        ((plan, before),) = plans
        after = plan.adversarial_classifier.state_dict()
        assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
        assert len(model.trainer.optimizers) == 2
        assert model.trainer.global_step == 6 * 4
        for name in ("fool_loss_train", "adversarial_loss_train"):
            assert np.isfinite(model.history[name].to_numpy(float)).all()

    def test_train_loss_has_the_weighted_fool_loss_in_it(self, mixing):
        history = train(mixing(), {"scale_adversarial_loss": 5.0, "min_kl_weight": 1.0}, max_epochs=1).history
        first = {name: float(frame.iloc[0, 0]) for name, frame in history.items() if frame.index.name == "epoch"}
        assert first["train_loss"] == pytest.approx(first["elbo_train"] + 5 * first["fool_loss_train"], rel=1e-5)

    def test_the_classifiers_step_leaves_the_module_alone(self, mixing):
        """With no weight for the adversary the module's way is that of the plain plan, to the bit."""
        plain = mixing()
        plain.train(max_epochs=2, verbose=0, seed=0, accelerator="cpu", batch_size=32, recipe="classic")
        told = train(mixing(), {"scale_adversarial_loss": 0.0, "n_epochs_kl_warmup": 400})
        a, b = plain.module.state_dict(), told.module.state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_off_it_is_the_plain_plan(self, mixing):
        model = mixing()
        model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu")
        assert len(model.trainer.optimizers) == 1
        assert "fool_loss_train" not in model.history

    def test_same_seed_same_weights(self, mixing, global_rng_untouched):
        a, b = (train(mixing()).module.state_dict() for _ in range(2))
        assert all(torch.equal(a[name], b[name]) for name in a)

    @pytest.mark.parametrize(("accumulate", "n_steps"), [(1, 4), (2, 2), (4, 1), (3, 2)])
    def test_gradients_are_gathered_over_minibatches(self, mixing, accumulate, n_steps):
        """Each optimizer moves once for so many minibatches; what is left over at the end of an epoch moves it too."""
        moved = []

        class Count(Callback):
            def on_before_optimizer_step(self, trainer, plan, optimizer):
                moved.append(optimizer)

        model = mixing(synthetic_iid(batch_size=64, n_batches=2, seed=0))
        options = {"train_size": 1.0, "check_val_every_n_epoch": 0, "max_epochs": 1, "callbacks": [Count()]}
        train(model, accumulate_grad_batches=accumulate, **options)
        assert [moved.count(optimizer) for optimizer in model.trainer.optimizers] == [n_steps, n_steps]
        assert model.trainer.global_step == n_steps

    def test_a_loss_moves_the_parameters_of_its_optimizer_alone(self, mixing):
        """What misleads the classifier leaves no gradient in it."""
        seen = []

        class Look(Callback):
            def on_after_backward(self, trainer, plan):
                parts = plan.module, plan.adversarial_classifier
                seen.append(tuple(any(p.grad is not None for p in part.parameters()) for part in parts))

        train(mixing(), max_epochs=1, callbacks=[Look()])
        assert set(seen) == {(True, False), (False, True)}

    def test_a_killed_run_goes_on_exactly(self, mixing, tmp_path):
        class Kill(Callback):
            def __init__(self, step):
                self.step = step

            def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
                if trainer.global_step == self.step:
                    raise KeyError("killed")

        whole, killed, resumed = train(mixing(), max_epochs=4, callbacks=[Kill(0)]), mixing(), mixing()
        with pytest.raises(KeyError):
            train(killed, max_epochs=4, callbacks=[Kill(7)], checkpoint_every="3 steps", checkpoint_dir=tmp_path)
        train(resumed, max_epochs=4, callbacks=[Kill(0)], resume=tmp_path)
        a, b = whole.module.state_dict(), resumed.module.state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert whole.history["adversarial_loss_train"].equals(resumed.history["adversarial_loss_train"])

    @pytest.mark.parametrize("plan_kwargs", [{"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e9}])
    def test_schedules_of_epochs_move_the_modules_rate_alone(self, mixing, plan_kwargs):
        model = train(mixing(), plan_kwargs, max_epochs=4)
        rates = [optimizer.param_groups[0]["lr"] for optimizer in model.trainer.optimizers]
        assert rates[0] < 1e-3
        assert rates[1] == 1e-3

    def test_one_cycle_moves_the_rate_step_by_step(self, mixing):
        model = train(mixing(), {"scale_adversarial_loss": 1.0}, recipe="one_cycle", keep_best=False)
        assert model.trainer.optimizers[0].param_groups[0]["lr"] < 1e-4
        assert model.trainer.optimizers[1].param_groups[0]["lr"] == 1e-3

    def test_the_classifier_has_a_rate_of_its_own(self, mixing):
        model = train(mixing(), {"classifier_lr": 4e-3}, max_epochs=2)
        assert [optimizer.param_groups[0]["lr"] for optimizer in model.trainer.optimizers] == [1e-3, 4e-3]

    @pytest.mark.parametrize(("n_cells", "rate"), [(1, 5e-3), (400, 5e-3), (800, 2.5e-3), (2000, 1e-3), (10**6, 1e-3)])
    def test_rate_by_the_number_of_cells(self, n_cells, rate):
        assert adversary_settings(True, "one_cycle", n_cells)["classifier_lr"] == pytest.approx(rate)
        assert adversary_settings(True, "classic", n_cells) == {"adversarial_classifier": True}

    @pytest.mark.parametrize(("recipe", "rate"), [(None, 5e-3), ("classic", 1e-3)])
    def test_multivi_and_totalvi_share_the_rule(self, recipe, rate):
        adata = synthetic_iid(batch_size=40, n_batches=2, seed=0)
        MULTIVI.setup_anndata(adata, batch_key="batch")
        TOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
        of_both = {"max_epochs": 1, "verbose": 0, "seed": 0, "accelerator": "cpu", "recipe": recipe}
        (multivi := MULTIVI(adata, n_genes=50, n_regions=50, n_hidden=8)).train(**of_both)
        (totalvi := TOTALVI(adata, n_hidden=8)).train(adversarial_classifier=True, **of_both)
        for model in (multivi, totalvi):
            assert model.trainer.optimizers[1].param_groups[0]["lr"] == rate

    def test_a_loss_that_is_not_finite_stops(self, mixing):
        with pytest.raises(NonFiniteLossError, match="epoch 0, step"):
            train(mixing(), {"lr": 1e18}, max_epochs=5)

    def test_batches_mix_better(self):
        adata = simulate_counts(400, 60, n_batches=2, n_cell_types=2, batch_strength=1.0, seed=0)

        def mixed(scale):
            Mixing.setup_anndata(adata, batch_key="batch")
            model = Mixing(adata, n_hidden=32, n_latent=5)
            plan = {"adversarial_classifier": scale > 0, "scale_adversarial_loss": scale, "lr": 2e-3}
            train(model, plan, max_epochs=40, batch_size=64, check_val_every_n_epoch=0)
            return batch_mixing(model.get_latent_representation(), adata.obs["batch"].to_numpy()).foreign_share

        without, with_it = mixed(0.0), mixed(1.0)
        assert without < 0.6
        assert with_it > 0.85


class TestWithLabels:
    def test_without_the_adversary_it_is_the_plan_of_labels(self):
        adata = synthetic_iid(batch_size=40, seed=0)
        SCANVI.setup_anndata(adata, "labels", "label_0", batch_key="batch")

        class Mixing(SCANVI):
            _training_plan_cls = SemiSupervisedAdversarialTrainingPlan

        Mixing.setup_anndata(adata, "labels", "label_0", batch_key="batch")
        weights = []
        for cls, more in ((SCANVI, {}), (Mixing, {}), (Mixing, {"plan_kwargs": {"scale_adversarial_loss": 0.0} | ON})):
            model = cls(adata, n_hidden=8, n_latent=3)
            model.train(max_epochs=2, verbose=0, seed=0, accelerator="cpu", batch_size=32, recipe="classic", **more)
            weights.append(model.module.state_dict())
        assert "adversarial_loss_train" not in model.history
        for others in weights[1:]:
            assert all(torch.equal(weights[0][name], others[name]) for name in others)

    def test_it_guesses_of_all_cells_what_the_key_says(self, mixing):
        full, labelled = ({"batch": torch.tensor([[i]]), "site": torch.tensor([[i + 5]])} for i in (1, 2))
        adata = synthetic_iid(batch_size=40, seed=0)
        SCANVI.setup_anndata(adata, "labels", "label_0", batch_key="batch")
        module = SCANVI(adata, n_hidden=8, n_latent=3).module
        given = Classifier(3, n_labels=7)
        for key, wanted in (("batch", 1), ("site", 6)):
            plan = SemiSupervisedAdversarialTrainingPlan(
                module, 2, key_adversarial=key, adversarial_classifier=given, n_epochs_kl_warmup=4
            )
            assert plan._batches_of((full, labelled)).item() == plan._batches_of(full).item() == wanted
        with pytest.raises(ValueError, match="Classifier with an output for each category"):
            SemiSupervisedAdversarialTrainingPlan(module, 2, key_adversarial="site", **ON)

    def test_config_has_the_plans_arguments(self):
        kwargs = SemiSupervisedAdversarialTrainingPlanConfig(key_adversarial="site", lr=2e-3).to_kwargs()
        assert kwargs["key_adversarial"] == "site"
        assert kwargs["classification_ratio"] == 50
        known = inspect.signature(SemiSupervisedAdversarialTrainingPlan).parameters
        plain = inspect.signature(TrainingPlan).parameters
        assert set(kwargs) <= {*known, *plain}


class TestWhatIsRefused:
    def test_one_batch(self, mixing):
        module = mixing(batch_key=None).module
        with pytest.warns(UserWarning, match="one batch only"):
            plan = AdversarialTrainingPlan(module, **ON)
        assert plan.adversarial_classifier is False

    def test_a_weight_that_is_never_on(self, mixing):
        with pytest.raises(ValueError, match="scale_adversarial_loss a number"):
            AdversarialTrainingPlan(mixing().module, n_epochs_kl_warmup=None, **ON)

    def test_config_has_the_plans_arguments(self, mixing):
        kwargs = AdversarialTrainingPlanConfig(scale_adversarial_loss=2.0).to_kwargs()
        assert AdversarialTrainingPlan(mixing().module, **kwargs).scale_adversarial_loss == 2.0
