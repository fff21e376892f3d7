"""Arguments are looked at on entry: what was accepted with nonsense, or failed far from the door, in plain use."""

import inspect
import re
import types
import typing

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import celbo
from celbo.core import ArgumentError, Settings, UnknownArgumentError
from celbo.core.arguments import Door
from celbo.dataloaders import AnnDataLoader, DataSplitter
from celbo.train import Trainer, TrainingPlan

MODELS = [
    getattr(room, name)
    for room in (celbo.model, celbo.external)
    for name in room.__all__
    if inspect.isclass(getattr(room, name))
]
QUIET = {"verbose": 0, "seed": 0, "accelerator": "cpu"}


def cells(n: int = 60, g: int = 30, seed: int = 0, **columns: object) -> anndata.AnnData:
    x = np.random.default_rng(seed).negative_binomial(2, 0.3, (n, g)).astype(np.float32)
    obs = {"batch": [f"b{i % 2}" for i in range(n)], "lab": [f"t{i % 3}" for i in range(n)]} | columns
    names = pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]), pd.DataFrame(index=[f"g{i}" for i in range(g)])
    return anndata.AnnData(x, *names)


def made(adata: anndata.AnnData | None = None, **options: object) -> celbo.model.SCVI:
    adata = cells() if adata is None else adata
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    return celbo.model.SCVI(adata, **({"n_hidden": 8, "n_latent": 3} | options))


@pytest.fixture(scope="module")
def model() -> celbo.model.SCVI:
    trained = made()
    trained.train(max_epochs=1, **QUIET)
    return trained


def public_methods(cls: type) -> list[tuple[str, object]]:
    found = [(name, inspect.getattr_static(cls, name)) for name in dir(cls) if not name.startswith("_")]
    plain = [(name, getattr(method, "__func__", method)) for name, method in found]
    return [(name, method) for name, method in plain if inspect.isfunction(method)]


ROOMS = (celbo.model, celbo.external, celbo.tl, celbo.pl, celbo.data, celbo.dataloaders, celbo.train)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_signatures_show_types_alone(room):
    """What is asked of a value is said by errors; ``help`` shows ``int`` rather than ``Annotated[int, ...]``."""
    public = {name: thing for name in room.__all__ if callable(thing := getattr(room, name))}
    of_classes = {
        f"{name}.{verb}": function
        for name, thing in public.items()
        if inspect.isclass(thing)
        for verb, function in inspect.getmembers(thing, inspect.isroutine)
        if verb == "__init__" or not verb.startswith("_")
    }
    asked = {name: thing for name, thing in (public | of_classes).items() if has_signature(thing)}
    assert [name for name, thing in asked.items() if "Annotated" in str(inspect.signature(thing))] == []


def has_signature(thing):
    try:
        inspect.signature(thing)
    except (TypeError, ValueError):  # errors without a constructor of their own, and properties of a class
        return False
    return True


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
class TestEveryModel:
    def test_help_shows_arguments_of_the_constructor(self, cls):
        shown = list(inspect.signature(cls).parameters)
        assert shown == list(inspect.signature(cls.__init__).parameters)[1:]
        assert shown != ["args", "kwargs"]

    def test_every_verb_has_a_door(self, cls):
        without = [n for n, m in public_methods(cls) if not hasattr(m, "__celbo_door__") and n != "setup_anndata"]
        assert not without

    def test_numbers_flags_and_words_are_looked_at_wherever_they_are_asked_for(self, cls):
        """Whatever the signature says fully: another kind of thing is refused, by the argument's name."""
        plain, bad = (int, float, bool), object()
        looked_at = 0
        for _name, method in [*public_methods(cls), ("__init__", cls.__init__)]:
            door = Door(method)
            for parameter in inspect.signature(method).parameters.values():
                union = typing.get_origin(parameter.annotation) in (typing.Union, types.UnionType)
                kinds = [one for one in typing.get_args(parameter.annotation) if union and one is not type(None)]
                is_plain = parameter.annotation in plain or (kinds and all(kind in plain for kind in kinds))
                if is_plain or typing.get_origin(parameter.annotation) is typing.Literal:
                    with pytest.raises(ArgumentError, match=rf"^{parameter.name} must be "):
                        door.value(parameter.name, bad)
                    looked_at += 1
        assert looked_at > 10

    def test_a_misspelt_argument_of_a_verb_is_named(self, cls):
        for name, method in public_methods(cls):
            door = Door(inspect.unwrap(method))
            if door.known and not door.takes_more and name != "setup_anndata":
                with pytest.raises(UnknownArgumentError, match=f"Did you mean '{door.known[-1]}'"):
                    door.take((), {door.known[-1] + "x": 1}, name)


@pytest.mark.parametrize("cls", [Trainer, TrainingPlan, DataSplitter, AnnDataLoader], ids=lambda cls: cls.__name__)
def test_what_trains_has_doors(cls):
    assert hasattr(cls.__init__, "__celbo_door__")


class TestConstructors:
    def test_whole_floats_are_the_numbers_they_are(self):
        model = made(n_latent=4.0, n_hidden=np.float64(8), n_layers=np.int64(1))
        assert model.module.n_latent == 4
        assert model.init_params_["non_kwargs"]["n_hidden"] == 8
        assert all(type(model.init_params_["non_kwargs"][name]) is int for name in ("n_latent", "n_hidden", "n_layers"))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"n_latent": 2.5}, "n_latent must be a whole number"),
            ({"n_latent": 0}, "n_latent must be"),
            ({"n_layers": True}, "n_layers must be"),
            ({"n_hidden": -1}, "n_hidden must be"),
            ({"dropout_rate": 1.0}, "dropout_rate must be"),
            ({"gene_likelihood": "zimb"}, "gene_likelihood must be .* Did you mean 'zinb'"),
            ({"dispersion": "gen"}, "dispersion must be .* Did you mean 'gene'"),
            ({"use_batch_norm": "bth"}, "use_batch_norm must be .* Did you mean 'both'"),
            ({"log_variational": "no"}, "log_variational must be True or False"),
            ({"library_log_means": "x"}, "library_log_means must be an array"),
            ({"n_hiden": 8}, "argument of SCVI is called 'n_hiden'. Did you mean 'n_hidden'"),
            ({"log_variationl": True}, "argument of SCVI .* Did you mean 'log_variational'"),
        ],
    )
    def test_refusals(self, options, said):
        with pytest.raises(ArgumentError, match=said):
            made(**options)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"lr": 1e-3}, r"lr is an argument of the plan, not of SCVI.train: plan_kwargs=\{'lr': 0.001\}\."),
            ({"n_latent": 3}, r"n_latent is an argument of SCVI, not of SCVI.train: SCVI\(adata, n_latent=3\)\."),
            (
                {"batch_key": "b"},
                r"not of SCVI.train: SCVI.setup_anndata\(data, batch_key='b'\)",
            ),
            (
                {"plan_kwargs": {"seed": 3}},
                r"of SCVI.train, not of plan_kwargs: model.train\(seed=3\)",
            ),
            ({"max_epoch": 3}, "argument of SCVI.train is called 'max_epoch'. Did you mean 'max_epochs'"),
        ],
    )
    def test_what_train_does_not_take(self, given, said):
        with pytest.raises(ArgumentError, match=said):
            made().train(**given)

    @pytest.mark.parametrize(
        ("call", "given_to"),
        [
            (lambda model: celbo.model.SCVI.setup_anndata(cells(), max_epochs=3), "SCVI.setup_anndata"),
            (lambda model: made(max_epochs=3), "SCVI"),
            (lambda model: model.get_latent_representation(max_epochs=3), "SCVI.get_latent_representation"),
            (lambda model: model.differential_expression(groupby="lab", max_epochs=3), "SCVI.differential_expression"),
            (lambda model: celbo.model.SCVI.load_query_data(cells(), model, max_epochs=3), "SCVI.load_query_data"),
            (lambda model: celbo.pl.history(model, max_epochs=3), "history"),
        ],
    )
    def test_where_an_argument_of_the_training_goes(self, model, call, given_to):
        said = f"max_epochs is an argument of SCVI.train, not of {given_to}: model.train(max_epochs=3)."
        with pytest.raises(UnknownArgumentError, match=f"^{re.escape(said)}$"):
            call(model)

    @pytest.mark.parametrize("name", ["n_latent", "gene_likelihood", "log_variational"])
    def test_setup_sends_arguments_of_the_model_to_it(self, name):
        said = f"{name} is an argument of SCVI, not of SCVI.setup_anndata: SCVI(adata, {name}=3)."
        with pytest.raises(UnknownArgumentError, match=f"^{re.escape(said)}$"):
            celbo.model.SCVI.setup_anndata(cells(), **{name: 3})

    def test_a_linear_classifier_has_no_layers(self):
        adata = cells()
        celbo.model.SCANVI.setup_anndata(adata, labels_key="lab", unlabeled_category="unknown")
        assert celbo.model.SCANVI(adata, linear_classifier=True).module.classifier is not None


class TestSetup:
    def test_tables_are_no_anndata(self, model):
        for call in (
            lambda: celbo.model.SCVI.setup_anndata(cells().to_df()),
            lambda: model.get_latent_representation(model.adata.X),
        ):
            with pytest.raises(ArgumentError, match=r"adata must be an AnnData, .*(DataFrame|array) of shape"):
                call()

    def test_one_covariate_is_a_list_of_one(self):
        adata = cells(donor=["d"] * 30 + ["e"] * 30)
        celbo.model.SCVI.setup_anndata(adata, categorical_covariate_keys="donor")
        assert celbo.model.SCVI(adata).get_setup_arg("categorical_covariate_keys") == ["donor"]

    def test_keys_are_names(self):
        with pytest.raises(ArgumentError, match="batch_key must be the name of one column"):
            celbo.model.SCVI.setup_anndata(cells(), batch_key=["batch"])
        with pytest.raises(UnknownArgumentError, match="Did you mean 'batch_key'"):
            celbo.model.SCVI.setup_anndata(cells(), batch_ky="batch")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"lib_size": 1e4}, "argument of .* is called 'lib_size'. Did you mean 'library_size'"),
            ({"lib_size": 1e4, "weights": "importance"}, "Did you mean 'library_size'"),
            ({"max_cell": 10, "weights": "importance"}, "Did you mean 'max_cells'"),
            ({"max_cells": 10}, "max_cells: no such argument, unless weights='importance'"),
        ],
    )
    def test_further_arguments_of_expression(self, model, given, said):
        with pytest.raises(TypeError, match=said):
            model.get_normalized_expression(**given)


class TestExpression:
    @pytest.mark.parametrize("size", ["median", -1, 0, float("nan"), float("inf"), np.array([1.0, 2.0]), None, True])
    def test_library_sizes_that_are_none(self, model, size):
        for verb in (model.get_normalized_expression, lambda **k: model.write_normalized_expression("x.h5ad", **k)):
            with pytest.raises(ArgumentError, match="library_size must be 'latent' or a number greater than 0"):
                verb(library_size=size)

    @pytest.mark.parametrize("size", [1, 2.5, np.float32(100), "latent"])
    def test_library_sizes(self, model, size):
        totals = model.get_normalized_expression(library_size=size, seed=0).sum(axis=1)
        assert_allclose(totals, model.adata.X.sum(1) if size == "latent" else size, rtol=1e-4)

    @pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
    def test_samples_are_counted_from_one(self, model, n):
        verbs = {
            "n_samples": ("get_normalized_expression", "posterior_predictive_sample", "get_likelihood_parameters"),
            "mc_samples": ("get_latent_representation",),
            "n_mc_samples": ("get_marginal_ll",),
            "n_samples_overall": ("get_normalized_expression",),
        }
        for argument, names in verbs.items():
            for name in names:
                with pytest.raises(ArgumentError, match=f"{argument} must be a whole number of at least 1"):
                    getattr(model, name)(**{argument: n})
        with pytest.raises(ArgumentError, match="n_samples_overall must be"):
            model.differential_expression(groupby="lab", n_samples_overall=n)

    def test_draws_of_all_cells_are_a_frame(self, model):
        drawn = model.get_normalized_expression(n_samples_overall=7.0, gene_list=["g4", "g2"], seed=1)
        assert isinstance(drawn, pd.DataFrame)
        assert list(drawn.columns) == ["g2", "g4"]
        array = model.get_normalized_expression(n_samples_overall=7, gene_list=["g4", "g2"], seed=1, return_numpy=True)
        assert_array_equal(drawn, array)

    def test_genes_as_a_mask(self, model):
        mask = np.isin(np.arange(30), [1, 4])
        by_mask = model.get_normalized_expression(gene_list=mask, seed=0)
        pd.testing.assert_frame_equal(by_mask, model.get_normalized_expression(gene_list=["g1", "g4"], seed=0))
        pd.testing.assert_frame_equal(by_mask, model.get_normalized_expression(gene_list=pd.Series(mask), seed=0))

    @pytest.mark.parametrize(
        ("genes", "said"),
        [
            ([], "gene_list is empty"),
            (np.ones(29, bool), r"mask of shape \(29,\); it needs 30 entries"),
            (np.zeros(30, bool), "mask that is empty"),
            ([0, 1], "by name, not by number"),
            (["G1x"], "No gene is called"),
        ],
    )
    def test_genes_that_are_none(self, model, genes, said):
        with pytest.raises(ValueError, match=said):
            model.get_normalized_expression(gene_list=genes)

    @pytest.mark.parametrize(("stored", "asked"), [(["0", "1"], 1), (["0", "1"], 1.0), ([0, 1], "1")])
    def test_batches_by_value_and_by_text(self, stored, asked):
        model = made(cells(batch=[stored[i % 2] for i in range(60)]))
        model.train(max_epochs=1, **QUIET)
        given = model.get_normalized_expression(transform_batch=asked, seed=0)
        assert_array_equal(given, model.get_normalized_expression(transform_batch=stored[1], seed=0))
        with pytest.raises(ValueError, match=r"transform_batch.*They are of type (str|int), this is of type bool"):
            model.get_normalized_expression(transform_batch=True)

    def test_new_cells_of_a_new_batch(self, model):
        other = cells(seed=3, batch=["new"] * 60)
        with pytest.raises(ValueError, match=r"'new'.*SCVI\.load_query_data\(adata, model\)"):
            model.get_latent_representation(other)

    def test_a_misspelt_argument_that_might_go_to_the_loader(self, model):
        with pytest.raises(UnknownArgumentError, match=r"called 'give_meen'\. Did you mean 'give_mean'"):
            model.get_latent_representation(give_meen=True)
        with pytest.raises(UnknownArgumentError, match="Did you mean 'drop_last'"):
            model.get_latent_representation(drop_lst=True)

    def test_a_loader_gives_minibatches(self, model):
        for wrong, said in ((5, "dataloader must be an iterable"), ([1, 2], "dataloader must give minibatches")):
            with pytest.raises(TypeError, match=said):
                model.get_latent_representation(dataloader=wrong)


class TestCells:
    def test_negative_numbers_slices_and_whole_floats_are_as_in_numpy(self, model):
        every = model.get_latent_representation()
        for indices in ([-1], [-60, 0, -2], slice(-3, None), slice(0, 60, 7), [2.0, 5.0], np.array([-1], np.int8)):
            rows = np.asarray(indices, int) if isinstance(indices, list) else indices
            assert_allclose(model.get_latent_representation(indices=indices), every[rows], atol=1e-5)
        assert_allclose(model.get_elbo(indices=[-1], seed=0), model.get_elbo(indices=[59], seed=0))

    @pytest.mark.parametrize("indices", [[60], [-61], [1.5], ["c1"], 5, [[1, 2]], "batch", np.ones(59, bool), True])
    def test_rows_that_are_none(self, model, indices):
        with pytest.raises((IndexError, TypeError), match="indices"):
            model.get_latent_representation(indices=indices)

    def test_sets_of_a_split(self):
        manager = made().adata_manager
        split = DataSplitter(manager, external_indexing=[np.arange(50), np.arange(-10, 0)])
        assert_array_equal(split.val_idx, np.arange(50, 60))


class TestDifferential:
    @pytest.mark.parametrize(("stored", "asked"), [(["0", "1"], 0), ([0, 1], "0"), ([0, 1], np.int64(0))])
    def test_groups_by_value_and_by_text(self, stored, asked):
        model = made(cells(leiden=[stored[i % 2] for i in range(60)]))
        model.train(max_epochs=1, **QUIET)
        frame = model.differential_expression(groupby="leiden", group1=asked, n_samples_overall=20)
        assert set(frame.comparison) == {"0 vs Rest"}

    def test_several_targets_give_a_column_each(self, model):
        options = {"groupby": "lab", "group1": "t0", "n_samples_overall": 50, "seed": 0}
        both = model.differential_expression(fdr_target=[0.05, 0.1], **options)
        for target in (0.05, 0.1):
            one = model.differential_expression(fdr_target=target, **options)
            assert_array_equal(both[f"is_de_fdr_{target}"], one[f"is_de_fdr_{target}"])

    def test_several_groups_stand_together(self, model):
        options = {"n_samples_overall": 50, "seed": 0}
        together = model.differential_expression(groupby="lab", group1="t0", group2=["t1", "t2"], **options)
        rest = model.differential_expression(groupby="lab", group1="t0", **options)
        assert set(together.group2) == {"t1, t2"}
        columns = ["raw_mean2", "proba_m1", "is_de_fdr_0.05"]
        assert_allclose(together[columns].astype(float), rest[columns].astype(float))

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"fdr_target": 1.5}, "fdr_target must be"),
            ({"fdr_target": []}, "fdr_target must be"),
            ({"delta": -1}, "delta must be"),
            ({"mode": "chang"}, "mode must be .* Did you mean 'change'"),
            ({"cred_interval_lvls": [1.5]}, "cred_interval_lvls must be"),
            ({"pseudocounts": float("nan")}, "pseudocounts must be"),
            ({"pseudocount": 1}, "Did you mean 'pseudocounts'"),
            ({"group1": "x0"}, r"group in adata\.obs\['lab'\] \(group1\)"),
            ({"group1": []}, "group1 is empty"),
            ({"group2": ["t1", "t0"], "group1": "t0"}, "group2 names 't0', which is group1 too"),
            ({"batchid1": ["b9"]}, "batchid1"),
            ({"idx2": [1]}, "idx2"),
            ({"idx1": "no such"}, "idx1 must be"),
            ({"subset_idx": [99]}, "subset_idx"),
            ({"groupby": "same"}, r"adata\.obs\['same'\] has one group only"),
        ],
    )
    def test_refusals(self, model, asked, said):
        model.adata.obs["same"] = "x"
        with pytest.raises((ValueError, IndexError), match=said):
            model.differential_expression(**({"groupby": "lab"} | asked))


class TestTraining:
    def test_no_epochs_make_a_trained_model_of_the_initial_weights(self):
        model, other = made(), made()
        before = {name: value.clone() for name, value in model.module.state_dict().items()}
        model.train(max_epochs=0, **QUIET)
        assert model.is_trained
        assert all((before[name] == value).all() for name, value in model.module.state_dict().items())
        assert model.get_latent_representation().shape == (60, 3)
        other.train(max_epochs=1, **QUIET)
        assert len(other.history["elbo_train"]) == 1

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"max_epochs": -1}, "max_epochs must be"),
            ({"max_epochs": 2.5}, "max_epochs must be"),
            ({"batch_size": 0}, "batch_size must be"),
            ({"train_size": 1.5}, "train_size"),
            ({"train_size": "most"}, "train_size must be"),
            ({"validation_size": -0.1}, "validation_size"),
            ({"check_val_every_n_epoch": 0.5}, "check_val_every_n_epoch must be"),
            ({"gradient_clip_val": -1}, "gradient_clip_val must be"),
            ({"gradient_clip_algorithm": "nrm"}, "Did you mean 'norm'"),
            ({"accelerator": "cppu"}, "accelerator must be .* Did you mean 'cpu'"),
            ({"devices": 0}, "devices must be"),
            ({"precision": "17"}, "precision must be"),
            ({"early_stopping": "yes"}, "early_stopping must be"),
            ({"early_stoping": True}, "Did you mean 'early_stopping'"),
            ({"max_epoch": 3}, "Did you mean 'max_epochs'"),
            ({"seed": 2**32}, "seed must be"),
            ({"plan_kwargs": {"lr": -1}}, "lr must be"),
            ({"plan_kwargs": {"lr": float("nan")}}, "lr must be"),
            ({"plan_kwargs": {"weight_deacy": 0}}, "Did you mean 'weight_decay'"),
            ({"plan_kwargs": {"optimizer": "Adm"}}, "optimizer must be .* Did you mean 'Adam'"),
            ({"plan_kwargs": {"n_epochs_kl_warmup": 1.5}}, "n_epochs_kl_warmup must be"),
            ({"datasplitter_kwargs": {"drop_lst": True}}, "Did you mean 'drop_last'"),
            ({"datasplitter_kwargs": [1]}, "datasplitter_kwargs must be a mapping"),
        ],
    )
    def test_refusals(self, options, said):
        with pytest.raises(ValueError, match=said):
            made().train(**(QUIET | {"max_epochs": 1} | options))

    def test_whole_floats_are_taken(self):
        model = made()
        model.train(max_epochs=2.0, batch_size=32.0, plan_kwargs={"n_epochs_kl_warmup": 2.0}, **QUIET)
        assert len(model.history["elbo_train"]) == 2


class TestLoading:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"accelerator": "cppu"}, "accelerator must be .*'cpu'"),
            ({"device": "one"}, "device must be"),
            ({"adatas": 1}, "'adata'"),
        ],
    )
    def test_refusals(self, model, tmp_path, options, said):
        model.save(tmp_path / "m")
        with pytest.raises(ArgumentError, match=said):
            celbo.model.SCVI.load(tmp_path / "m", **({"adata": model.adata} | options))

    def test_an_accelerator_that_is_not_there(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("torch.mps.is_available", lambda: False)
        model.save(tmp_path / "m")
        for accelerator in ("gpu", "cuda", "mps"):
            with pytest.raises(ValueError, match=f"accelerator='{accelerator}', but .* take 'cpu'"):
                celbo.model.SCVI.load(tmp_path / "m", adata=model.adata, accelerator=accelerator)


class TestOtherModels:
    def test_counts_of_a_condscvi_are_drawn(self, monkeypatch):
        pytest.importorskip("sparse")
        adata = cells()
        celbo.model.CondSCVI.setup_anndata(adata, labels_key="lab", batch_key="batch")
        model = celbo.model.CondSCVI(adata, n_hidden=8, n_latent=2)
        model.train(max_epochs=1, **QUIET)
        assert model.posterior_predictive_sample(n_samples=2, seed=0).shape == (60, 30, 2)
        asked_for, generative = [], model.module.generative
        monkeypatch.setattr(
            model.module, "generative", lambda **k: asked_for.append(k.get("transform_batch")) or generative(**k)
        )
        model.posterior_predictive_sample(seed=0, transform_batch="b1")
        assert asked_for == [1]

    def test_a_solo_without_arguments_says_what_it_is(self):
        model = made()
        model.train(max_epochs=1, **QUIET)
        assert repr(celbo.external.SOLO.from_scvi_model(model, restrict_to_batch="b0")).startswith("SOLO model.")


class TestNames:
    def test_nothing_that_is_imported_for_use_inside_is_shown(self):
        own = {"planned_names", "public_names", "ContextVar", "Iterator", "Literal", "ModuleType", "Tensor", "Any"}
        packages = {name: getattr(celbo, name) for name in celbo.__all__}
        packages = {name: package for name, package in packages.items() if isinstance(package, types.ModuleType)}
        assert {"model", "data", "tl"} <= set(packages)
        for name, package in packages.items():
            assert not own & set(dir(package)), name
            assert set(package.__all__) <= set(dir(package)), name

    def test_near_names(self):
        with pytest.raises(AttributeError, match="Did you mean 'SCVI'"):
            celbo.model.SCVi  # noqa: B018
        with pytest.raises(AttributeError, match="Did you mean 'seed'"):
            celbo.settings.sead = 1
        with pytest.raises(AttributeError, match="No setting is called 'foo'"):
            celbo.settings.foo  # noqa: B018
        assert "sead" not in vars(celbo.settings)

    def test_settings_are_looked_at(self):
        fresh = Settings()
        for name, value in {"batch_size": "x", "seed": 1.5, "num_threads": 0, "progress_bar_style": "rihc"}.items():
            with pytest.raises(ValueError, match=f"settings.{name} must be"):
                setattr(fresh, name, value)
        fresh.batch_size = 64.0
        assert fresh.batch_size == 64
