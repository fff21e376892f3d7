"""TrainingPlan: its arguments, optimizers, schedules."""

import itertools
import math

import pytest
import torch
from torch import nn

from celbo.module.base import LossOutput
from celbo.train import (
    RECIPES,
    SemiSupervisedTrainingPlan,
    TrainerConfig,
    TrainingPlan,
    TrainingPlanConfig,
    merge_kwargs,
)
from celbo.train.optim import unpack_optimizers
from celbo.train.recipes import default_recipe, find_recipe, use_default_recipe


def test_unknown_keyword_names_the_nearest(module_cls):
    with pytest.raises(TypeError, match="n_epochs_kl_warmup"):
        TrainingPlan(module_cls(), n_epoch_kl_warmup=3)
    with pytest.raises(ValueError, match="one_cycle"):
        TrainingPlan(module_cls(), lr_schedule="one-cycle")
    with pytest.raises(ValueError, match=r"min_kl_weight=1 is above max_kl_weight=0\.5"):
        TrainingPlan(module_cls(), min_kl_weight=1, max_kl_weight=0.5)
    with pytest.raises(ValueError, match="classic"):
        TrainingPlan(module_cls(), lr_schedule="one_cycle", reduce_lr_on_plateau=True)


def test_loss_kwargs_reach_the_loss(module_cls, fit):
    class Asking(module_cls):
        def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0, n_obs=1, extra=None):
            seen.append((kl_weight, n_obs, extra))
            return super().loss(tensors, inference_outputs, generative_outputs, kl_weight)

    seen = []
    fit(TrainingPlan(Asking(), extra="mine", n_epochs_kl_warmup=2), max_epochs=2)
    # validation has the weight of the last training step, and n_obs of training, as in scvi-tools
    assert seen == [(0.0, 60, "mine")] * 6 + [(0.5, 60, "mine")] * 6


def test_loss_without_kl_weight_gets_none(fit, module_cls):
    class Plain(module_cls):
        def loss(self, tensors, inference_outputs, generative_outputs):
            x_n = tensors["X"][:, 0] + 0 * self.w
            return LossOutput(loss=x_n.mean(), reconstruction_loss=x_n)

    fit(TrainingPlan(Plain()))
    with pytest.raises(TypeError, match="unknown_thing"):
        TrainingPlan(Plain(), unknown_thing=1)


class Twin(nn.Module):
    """A module with a decoder and a frozen part."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 3)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def loss(self, tensors, inference_outputs, generative_outputs):
        raise AssertionError


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_optimizer_settings(name):
    optimizer = TrainingPlan(Twin(), optimizer=name).configure_optimizers()["optimizer"]
    assert isinstance(optimizer, getattr(torch.optim, name))
    assert type(optimizer).__name__ == name  # the name of the learning rate in the history
    (group,) = optimizer.param_groups
    found = {key: group[key] for key in ("lr", "eps", "weight_decay", "betas")}
    assert found == {"lr": 1e-3, "eps": 0.01, "weight_decay": 1e-6, "betas": (0.9, 0.999)}
    assert len(group["params"]) == 4


class Dispersed(Twin):
    def __init__(self):
        super().__init__()
        self.px_r = nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_dispersion_has_a_rate_of_its_own(name):
    plan = TrainingPlan(Dispersed(), optimizer=name, lr=0.5, dispersion_lr_factor=4)
    plan.scale_learning_rate(0.5)
    rest, own = plan.configure_optimizers()["optimizer"].param_groups
    assert (rest["lr"], len(rest["params"])) == (0.25, 4)
    assert own["lr"] == 1.0
    assert own["params"] == [plan.module.px_r]


def test_a_dispersion_without_a_rate_of_its_own_or_that_does_not_move():
    (group,) = TrainingPlan(Dispersed()).configure_optimizers()["optimizer"].param_groups
    assert len(group["params"]) == 5
    frozen = Dispersed()
    frozen.px_r.requires_grad = False
    plan = TrainingPlan(frozen, dispersion_lr_factor=4)
    (group,) = plan.configure_optimizers()["optimizer"].param_groups
    assert len(group["params"]) == 4


def test_only_the_decoder():
    plan = TrainingPlan(Twin(), update_only_decoder=True)
    params = plan.configure_optimizers()["optimizer"].param_groups[0]["params"]
    assert {id(p) for p in params} == {id(p) for p in plan.module.decoder.parameters()}


def test_one_cycle_rates(fit, module_cls):
    """Each optimizer step has the rate of its place in the whole run."""

    class Rates(TrainingPlan):
        def training_step(self, batch, batch_idx):
            seen.append(self.optimizers().param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    seen = []
    trainer = fit(Rates(module_cls(), lr=0.5, lr_schedule="one_cycle"), max_epochs=10)
    assert trainer.estimated_stepping_batches == len(seen) == 40
    assert seen[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert max(seen) == 0.5
    assert all(later < earlier for earlier, later in itertools.pairwise(seen[3:]))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("kwargs", "n"), [({"max_steps": 7}, 7), ({"accumulate_grad_batches": 3}, 6)])
def test_one_cycle_ends_with_the_run(fit, module_cls, kwargs, n):
    trainer = fit(module=module_cls(), plan_kwargs={"lr_schedule": "one_cycle"}, **kwargs)
    assert trainer.global_step == trainer.estimated_stepping_batches == n
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_kl_weight_by_steps(fit, series):
    trainer = fit(plan_kwargs={"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 8})
    assert series(trainer, "kl_weight") == [0.0, 0.5, 1.0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own files, imported for compiling
def test_compiled_module_trains_the_same(fit, series, module_cls):
    compiled, plain = module_cls(pull=1.0), module_cls(pull=1.0)
    plan = TrainingPlan(compiled, compile=True, compile_kwargs={"backend": "eager"})
    trainer = fit(plan, keep_best=True)
    assert series(trainer, "elbo_train") == series(fit(TrainingPlan(plain)), "elbo_train")
    assert compiled.w.item() == plain.w.item() != 0


class TestUnpackingOptimizers:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    @pytest.mark.parametrize("shape", ["alone", "list", "dict", "pair", "dicts"])
    def test_shapes(self, shape):
        o, s = self.optimizer, self.schedule
        given = {
            "alone": o,
            "list": [o],
            "dict": {"optimizer": o, "lr_scheduler": {"scheduler": s, "interval": "step"}},
            "pair": ([o], [s]),
            "dicts": ({"optimizer": o, "lr_scheduler": s}, {"optimizer": o}),
        }[shape]
        optimizers, links = unpack_optimizers(given)
        assert optimizers == ([o, o] if shape == "dicts" else [o])
        expected = {"dict": ["step"], "pair": ["epoch"], "dicts": ["epoch"]}
        assert [link.interval for link in links] == expected.get(shape, [])

    def test_monitor_of_a_plateau(self):
        _, (link,) = unpack_optimizers({"optimizer": self.optimizer, "lr_scheduler": self.plateau})
        assert link.monitor == "validation_loss"

    def test_nonsense(self):
        with pytest.raises(TypeError, match="returned a int"):
            unpack_optimizers(3)


class TestConfigs:
    def test_defaults_are_those_of_the_plan_and_the_trainer(self, module_cls):
        TrainingPlan(module_cls(), **TrainingPlanConfig().to_kwargs())
        assert TrainerConfig(extra_kwargs={"precision": "64"}).to_kwargs()["precision"] == "64"
        assert TrainingPlanConfig(loss_kwargs={"extra": 1}).to_kwargs()["extra"] == 1

    def test_keywords_win(self):
        merged = merge_kwargs(TrainingPlanConfig(lr=0.5), {"lr": 0.25}, name="plan")
        assert merged["lr"] == 0.25
        assert merged["eps"] == 0.01
        assert merge_kwargs(None, None, name="plan") == {}
        with pytest.raises(TypeError, match="plan_config must be a mapping or have to_kwargs"):
            merge_kwargs(3, None, name="plan")

    def test_a_config_that_gives_no_mapping(self):
        class Listed:
            def to_kwargs(self):
                return ["lr"]

        with pytest.raises(TypeError, match=r"plan_config: to_kwargs\(\) of a Listed must give a mapping, not a list"):
            merge_kwargs(Listed(), None, name="plan")


class TestRecipes:
    def test_classic_is_scvi_tools(self):
        classic = find_recipe("classic")
        assert classic.max_epochs(40_000, 128, 8) == 200
        assert (dict(classic.plan_kwargs), classic.keep_best, classic.retries) == ({}, False, 0)

    @pytest.mark.parametrize("n_obs", [50, 3_000, 40_000, 10**6])
    @pytest.mark.parametrize(("n_batch", "fewest"), [(1, 700), (2, 1200)])
    def test_one_cycle_has_steps_enough(self, n_obs, n_batch, fewest):
        n_epochs = RECIPES["one_cycle"].max_epochs(n_obs, 128, n_batch)
        steps_an_epoch = math.ceil(0.9 * n_obs / 128)
        assert n_epochs * steps_an_epoch >= fewest
        assert (n_epochs - 1) * steps_an_epoch < max(fewest, 3000)

    @pytest.mark.parametrize(("n_obs", "n_epochs"), [(100, 1200), (3_500, 80), (20_000, 80), (100_000, 16)])
    def test_long_cycle_is_a_fifth_of_classic(self, n_obs, n_epochs):
        long, classic = (RECIPES[name].max_epochs(n_obs, 128, 2) for name in ("long_cycle", "classic"))
        assert long == n_epochs
        assert n_obs < 2_000 or 5 * long == classic

    @pytest.mark.parametrize(("n_obs", "n_epochs"), [(100, 250), (600, 50), (3_500, 40), (20_000, 10), (10**6, 1)])
    def test_brief_cycle_is_a_tenth_of_classic_where_that_is_250_steps(self, n_obs, n_epochs):
        brief = RECIPES["brief_cycle"]
        assert brief.max_epochs(n_obs, 128, 2) == brief.from_counts.max_epochs(n_obs, 128, 2) == n_epochs
        assert n_obs < 1_000 or n_epochs <= math.ceil(RECIPES["classic"].max_epochs(n_obs, 128, 2) / 10)
        assert brief.from_counts.batch_size(200, 2) == RECIPES["one_cycle"].from_counts.batch_size(200, 2) == 64

    @pytest.mark.parametrize("n_obs", [20, 50, 150, 200, 400, 1_000, 3_000, 40_000, 10**6])
    @pytest.mark.parametrize(("n_batch", "share"), [(1, 0.2), (2, 0.225)])
    def test_from_counts_is_short_where_cells_are_few(self, n_obs, n_batch, share):
        recipe = RECIPES["one_cycle"].from_counts
        size = recipe.batch_size(n_obs, n_batch)
        steps_an_epoch = math.ceil(0.9 * n_obs / size)
        n_epochs = recipe.max_epochs(n_obs, size, n_batch)
        assert 32 <= size <= 128
        assert n_epochs <= math.ceil(share * RECIPES["classic"].max_epochs(n_obs, 128, n_batch))
        assert n_epochs <= RECIPES["one_cycle"].max_epochs(n_obs, size, n_batch)
        assert n_epochs * steps_an_epoch >= min(160, RECIPES["classic"].max_epochs(n_obs, 128, n_batch) * share)

    @pytest.mark.parametrize("n_obs", [150, 400, 1_000, 3_000, 10_000, 40_000, 10**6])
    @pytest.mark.parametrize(("n_batch", "share", "fewest"), [(1, 0.12, 450), (2, 0.14, 800)])
    def test_from_profile_is_shorter(self, n_obs, n_batch, share, fewest):
        of_counts, recipe = (RECIPES["one_cycle"].started(with_profile) for with_profile in (False, True))
        size = recipe.batch_size(n_obs, n_batch)
        assert size == of_counts.batch_size(n_obs, n_batch)
        n_epochs = recipe.max_epochs(n_obs, size, n_batch)
        at_most = math.ceil(share * RECIPES["classic"].max_epochs(n_obs, 128, n_batch))
        n_steps = n_epochs * math.ceil(0.9 * n_obs / size)
        assert n_epochs == at_most or n_steps >= fewest
        assert n_epochs <= min(at_most, of_counts.max_epochs(n_obs, size, n_batch))
        assert n_epochs == 1 or (n_epochs - 1) * math.ceil(0.9 * n_obs / size) < 3000

    def test_what_has_no_profile_keeps_its_recipe(self):
        brief, long = RECIPES["brief_cycle"], RECIPES["long_cycle"]
        assert brief.started(True) is brief.started(False) is brief.from_counts
        assert long.started(True) is long

    @pytest.mark.parametrize(
        ("n_obs", "of_one_batch", "to_mix"), [(60, 32, 32), (200, 66, 64), (400, 128, 80), (700, 128, 128)]
    )
    def test_minibatches_are_smaller_where_batches_must_mix(self, n_obs, of_one_batch, to_mix):
        recipe = RECIPES["one_cycle"].from_counts
        assert (recipe.batch_size(n_obs, 1), recipe.batch_size(n_obs, 2)) == (of_one_batch, to_mix)

    @pytest.mark.parametrize(
        ("n_obs", "n_steps", "lr"),
        [
            (50, 100, 0.01),
            (1600, 700, 0.01),
            (3600, 700, 0.015),
            (10**6, 3000, 0.02),
            (50, 2, 0.004),
            (None, None, 0.02),
        ],
    )
    def test_the_rate_from_counts(self, n_obs, n_steps, lr):
        recipe = RECIPES["one_cycle"].from_counts
        assert recipe.kwargs_for(TrainingPlan, n_obs, n_steps)["lr"] == pytest.approx(lr)
        assert "lr" not in RECIPES["classic"].kwargs_for(TrainingPlan, n_obs, n_steps)

    def test_the_process_s_choice_wins_over_the_model_s(self):
        assert default_recipe(SemiSupervisedTrainingPlan) == "long_cycle"
        use_default_recipe("classic")
        try:
            assert default_recipe(SemiSupervisedTrainingPlan) == default_recipe() == "classic"
        finally:
            use_default_recipe("one_cycle")
        assert default_recipe(SemiSupervisedTrainingPlan) == "long_cycle"

    def test_unknown(self):
        with pytest.raises(ValueError, match="one_cycle"):
            find_recipe("onecycle")
