"""LossOutput on PyTorch tensors and numpy arrays: every row of its table, against closed forms."""

import copy
import dataclasses
import inspect
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from celbo.module.base import LossOutput

FIELDS = [
    "loss",
    "reconstruction_loss",
    "kl_local",
    "kl_global",
    "classification_loss",
    "logits",
    "true_labels",
    "extra_metrics",
    "n_obs_minibatch",
    "reconstruction_loss_sum",
    "kl_local_sum",
    "kl_global_sum",
]


@dataclasses.dataclass(frozen=True, eq=False)
class NicheLossOutput(LossOutput):
    """A record with one more field, as outside models write it (at module level, so that it can be pickled)."""

    niche_loss: torch.Tensor | None = None


@pytest.fixture
def nll_n() -> torch.Tensor:
    return torch.tensor([3.0, 5.0, 7.0])


@pytest.fixture
def record(nll_n) -> LossOutput:
    return LossOutput(loss=nll_n.mean(), reconstruction_loss=nll_n)


class TestSignature:
    def test_positional_order_and_defaults(self):
        parameters = inspect.signature(LossOutput).parameters
        assert list(parameters) == FIELDS
        assert parameters["loss"].default is inspect.Parameter.empty
        assert all(parameters[name].default is None for name in FIELDS[1:] if name != "extra_metrics")

    def test_positional_call(self, nll_n):
        logits_nc, y_n = torch.zeros(3, 2), torch.tensor([0, 1, 1])
        ce = torch.tensor(0.5)
        out = LossOutput(nll_n.sum(), nll_n, nll_n + 1, torch.tensor(2.0), ce, logits_nc, y_n, {"a": 1.0}, 9)
        assert float(out.kl_local_sum) == 18.0
        assert float(out.kl_global_sum) == 2.0
        assert out.classification_loss is ce
        assert out.logits is logits_nc
        assert out.true_labels is y_n
        assert out.extra_metrics == {"a": 1.0}
        assert out.n_obs_minibatch == 9

    def test_unknown_keyword(self, nll_n):
        with pytest.raises(TypeError, match="reconstruction_los"):
            LossOutput(loss=nll_n.sum(), reconstruction_los=nll_n)

    def test_default_extra_metrics_are_not_shared(self, nll_n):
        first, second = (LossOutput(nll_n.sum(), nll_n) for _ in range(2))
        assert first.extra_metrics == {}
        assert first.extra_metrics is not second.extra_metrics


class TestLoss:
    def test_array_is_kept(self, nll_n):
        loss = nll_n.mean()
        assert LossOutput(loss, nll_n).loss is loss

    def test_dict_is_summed(self, nll_n):
        out = LossOutput({"rna": torch.tensor(1.5), "protein": torch.tensor([2.0])}, nll_n)
        assert float(out.loss) == 3.5

    def test_shape_one_is_one_element_and_zeros_stay_scalar(self, nll_n):
        out = LossOutput(nll_n.sum()[None], nll_n)
        assert out.loss.shape == (1,)
        assert out.kl_local_sum.shape == out.kl_global_sum.shape == ()

    @pytest.mark.parametrize("loss", [1.5, 2, None, [1.0], {"a": 1.5}], ids=repr)
    def test_not_an_array(self, loss, nll_n):
        with pytest.raises(TypeError, match=r"LossOutput\.loss.*must be a tensor or array"):
            LossOutput(loss, nll_n)

    def test_float_error_names_type_value_and_cure(self, nll_n):
        with pytest.raises(TypeError, match=r"got a float: 1\.5.*\.item\(\)"):
            LossOutput(1.5, nll_n)

    @pytest.mark.parametrize("shape", [(3,), (2, 3), (0,)], ids=repr)
    def test_other_than_one_element(self, shape, nll_n):
        with pytest.raises(ValueError, match=rf"one element.*got shape \({', '.join(map(str, shape))}"):
            LossOutput(torch.ones(shape), nll_n)

    def test_dict_term_of_more_than_one_element_is_named(self, nll_n):
        with pytest.raises(ValueError, match=r"loss\['rna'\].*\(3,\)"):
            LossOutput({"rna": nll_n}, nll_n)

    def test_empty_dict(self, nll_n):
        with pytest.raises(ValueError, match="empty dict"):
            LossOutput({}, nll_n)


class TestTerms:
    def test_bare_arrays_become_dicts_under_their_own_names(self, nll_n):
        out = LossOutput(nll_n.sum(), nll_n, 2 * nll_n, torch.tensor(4.0))
        assert list(out.reconstruction_loss) == ["reconstruction_loss"]
        assert list(out.kl_local) == ["kl_local"]
        assert list(out.kl_global) == ["kl_global"]
        assert out.reconstruction_loss["reconstruction_loss"] is nll_n

    def test_sums_over_dict_values_and_observations(self, nll_n):
        out = LossOutput(
            nll_n.sum(),
            {"rna": nll_n, "protein": 10 * nll_n},
            {"z": nll_n, "l": torch.ones(3)},
            {"theta": torch.tensor(1.0), "w": torch.tensor([2.5])},
        )
        assert float(out.reconstruction_loss_sum) == 165.0
        assert float(out.kl_local_sum) == 18.0
        assert float(out.kl_global_sum) == 3.5
        assert out.kl_global_sum.shape == ()

    def test_users_dicts_are_copied(self, nll_n):
        terms, metrics = {"rna": nll_n}, {"a": 1.0}
        out = LossOutput(nll_n.sum(), terms, extra_metrics=metrics)
        terms["late"], metrics["late"] = nll_n, 2.0
        assert list(out.reconstruction_loss) == ["rna"]
        assert list(out.extra_metrics_keys) == ["a"]

    def test_absent_terms_are_plain_zeros(self, nll_n):
        loss = nll_n.clone().requires_grad_().sum()
        out = LossOutput(loss, n_obs_minibatch=3)
        for terms in (out.reconstruction_loss, out.kl_local, out.kl_global):
            (zero,) = terms.values()
            assert zero.shape == ()
            assert zero.item() == 0.0
            assert not zero.requires_grad
        assert out.reconstruction_loss_sum.item() == out.kl_local_sum.item() == out.kl_global_sum.item() == 0.0

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_non_finite_loss_invents_no_other_term(self, bad, nll_n):
        out = LossOutput(torch.tensor(bad), nll_n)
        assert out.kl_local_sum.item() == 0.0
        assert out.kl_global_sum.item() == 0.0
        assert out.reconstruction_loss_sum.item() == 15.0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
    def test_dtype_of_the_loss_is_kept(self, dtype, nll_n):
        out = LossOutput(nll_n.mean().to(dtype), nll_n.to(dtype), kl_global=2.5)
        assert out.loss.dtype == out.reconstruction_loss_sum.dtype == dtype
        assert out.kl_local["kl_local"].dtype == out.kl_local_sum.dtype == dtype
        assert out.kl_global["kl_global"].dtype == out.kl_global_sum.dtype == dtype
        assert out.kl_global_sum.item() == 2.5

    def test_zeros_follow_the_device(self):
        loss = torch.empty((), device="meta")
        assert LossOutput(loss, n_obs_minibatch=1).kl_local_sum.device.type == "meta"

    def test_sums_are_attached_to_the_graph(self):
        w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        out = LossOutput((w**2).mean(), w**2, 3 * w, (w**3).sum())
        for term, gradient in [
            (out.reconstruction_loss_sum, [2.0, 4.0]),
            (out.kl_local_sum, [3.0, 3.0]),
            (out.kl_global_sum, [3.0, 12.0]),
            (out.loss, [1.0, 2.0]),
        ]:
            (got,) = torch.autograd.grad(term, w, retain_graph=True)
            assert got.tolist() == gradient

    @pytest.mark.parametrize("field", ["reconstruction_loss", "kl_local"])
    @pytest.mark.parametrize("value", [2.0, [1.0, 2.0], {"z": 1.0}], ids=repr)
    def test_per_observation_terms_must_be_arrays(self, field, value, nll_n):
        with pytest.raises(TypeError, match=rf"{field}.*shape \(n,\), got a (float|list)"):
            LossOutput(nll_n.sum(), n_obs_minibatch=3, **{field: value})

    def test_kl_global_of_more_than_one_element(self, nll_n):
        with pytest.raises(ValueError, match=r"kl_global must have one element.*\(3,\)"):
            LossOutput(nll_n.sum(), nll_n, kl_global=nll_n)

    def test_kl_global_that_is_not_a_number(self, nll_n):
        with pytest.raises(TypeError, match=r"kl_global\['w'\].*got a str"):
            LossOutput(nll_n.sum(), nll_n, kl_global={"w": "a"})

    def test_empty_dicts_sum_to_zero(self, nll_n):
        out = LossOutput(nll_n.sum(), {}, {}, {}, n_obs_minibatch=3)
        assert out.reconstruction_loss == out.kl_local == out.kl_global == {}
        assert out.reconstruction_loss_sum.item() == out.kl_local_sum.item() == out.kl_global_sum.item() == 0.0

    def test_sums_passed_in_are_replaced(self, nll_n):
        stale = torch.tensor(-1.0)
        out = LossOutput(nll_n.sum(), nll_n, reconstruction_loss_sum=stale, kl_local_sum=stale, kl_global_sum=stale)
        assert out.reconstruction_loss_sum.item() == 15.0
        assert out.kl_local_sum.item() == out.kl_global_sum.item() == 0.0


class TestObservations:
    def test_inferred_from_the_first_term(self):
        out = LossOutput(torch.tensor(1.0), {"rna": torch.ones(4), "paired": torch.ones(2)})
        assert out.n_obs_minibatch == 4
        assert type(out.n_obs_minibatch) is int

    @pytest.mark.parametrize("given", [5, np.int64(5), torch.tensor(5), torch.tensor(5.0)], ids=repr)
    def test_given_wins_and_becomes_an_int(self, given, nll_n):
        out = LossOutput(nll_n.sum(), nll_n, n_obs_minibatch=given)
        assert out.n_obs_minibatch == 5
        assert type(out.n_obs_minibatch) is int

    @pytest.mark.parametrize("given", [2.5, -1], ids=repr)
    def test_not_a_whole_number(self, given, nll_n):
        with pytest.raises(ValueError, match=f"whole number.*{given}"):
            LossOutput(nll_n.sum(), nll_n, n_obs_minibatch=given)

    def test_neither_reconstruction_nor_n_obs(self):
        with pytest.raises(ValueError, match="neither reconstruction_loss nor n_obs_minibatch"):
            LossOutput(torch.tensor(1.0), kl_local=torch.ones(3))

    @pytest.mark.parametrize("term", [torch.tensor(15.0), {"reconstruction_loss": torch.tensor(15.0)}], ids=repr)
    def test_reduced_reconstruction_says_what_to_pass(self, term):
        with pytest.raises(ValueError, match=r"shape \(\).*return it unreduced, or pass n_obs_minibatch=n"):
            LossOutput(torch.tensor(1.0), term)

    def test_reduced_reconstruction_with_n_obs(self):
        out = LossOutput(torch.tensor(1.0), torch.tensor(15.0), n_obs_minibatch=3)
        assert (out.reconstruction_loss_sum.item(), out.n_obs_minibatch) == (15.0, 3)

    def test_empty_reconstruction_dict_without_n_obs(self):
        with pytest.raises(ValueError, match="empty dict and n_obs_minibatch is not given"):
            LossOutput(torch.tensor(1.0), {})


class TestClassificationAndMetrics:
    @pytest.mark.parametrize(
        ("given", "missing"),
        [
            ({}, "logits and true_labels"),
            ({"logits": torch.ones(3, 2)}, "without true_labels"),
            ({"true_labels": torch.ones(3)}, "without logits"),
        ],
        ids=["neither", "logits only", "labels only"],
    )
    def test_classification_needs_logits_and_labels(self, given, missing, nll_n):
        with pytest.raises(ValueError, match=missing):
            LossOutput(nll_n.sum(), nll_n, classification_loss=torch.tensor(1.0), **given)

    def test_logits_alone_are_fine(self, nll_n):
        logits_nc = torch.ones(3, 2)
        assert LossOutput(nll_n.sum(), nll_n, logits=logits_nc).logits is logits_nc

    def test_none_means_no_metrics(self, nll_n):
        out = LossOutput(nll_n.sum(), nll_n, extra_metrics=None)
        assert out.extra_metrics == {}
        assert list(out.extra_metrics_keys) == []

    def test_metrics_are_kept_as_given(self, nll_n):
        metrics = {"perplexity": torch.tensor(2.0), "rate": 0.5, "per_label": {"T": 1.0}}
        out = LossOutput(nll_n.sum(), nll_n, extra_metrics=metrics)
        assert out.extra_metrics == metrics
        assert list(out.extra_metrics_keys) == ["perplexity", "rate", "per_label"]

    def test_metric_without_a_name(self, nll_n):
        with pytest.raises(TypeError, match=r"extra_metrics must be a dict.*Give the value a name"):
            LossOutput(nll_n.sum(), nll_n, extra_metrics=torch.tensor(1.0))

    def test_dict_sum(self):
        assert LossOutput.dict_sum({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}).item() == 3.0
        assert LossOutput.dict_sum({}) == 0
        same = torch.tensor(4.0)
        assert LossOutput.dict_sum(same) is same


class TestFrozenAndReplace:
    @pytest.mark.parametrize("name", FIELDS)
    def test_frozen(self, record, name):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)

    def test_replace_recomputes_sums_and_leaves_the_old_alone(self, record, nll_n):
        new = record.replace(kl_local=nll_n, loss=nll_n.sum())
        assert (new.kl_local_sum.item(), new.loss.item()) == (15.0, 15.0)
        assert (record.kl_local_sum.item(), record.loss.item()) == (0.0, 5.0)
        assert new.reconstruction_loss_sum.item() == 15.0

    def test_replace_infers_again_what_was_inferred(self, record):
        assert record.replace(reconstruction_loss=torch.ones(7)).n_obs_minibatch == 7

    def test_replace_keeps_what_was_given(self, nll_n):
        given = LossOutput(nll_n.sum(), nll_n, n_obs_minibatch=9)
        assert given.replace(reconstruction_loss=torch.ones(7)).n_obs_minibatch == 9

    def test_n_obs_given_to_replace_stays_given(self, record):
        new = record.replace(n_obs_minibatch=9).replace(reconstruction_loss=torch.ones(7))
        assert new.n_obs_minibatch == 9

    def test_replace_ignores_derived_values(self, record):
        assert record.replace(kl_local_sum=torch.tensor(99.0)).kl_local_sum.item() == 0.0

    def test_replace_unknown_name(self, record):
        with pytest.raises(TypeError, match="kl_loc"):
            record.replace(kl_loc=torch.ones(3))

    def test_replace_validates(self, record):
        with pytest.raises(TypeError, match="float"):
            record.replace(loss=1.0)

    def test_the_standard_librarys_replace_protocol(self, record):
        """``copy.replace`` (Python 3.13) calls ``__replace__``."""
        assert record.__replace__(reconstruction_loss=torch.ones(7)).n_obs_minibatch == 7

    def test_replace_keeps_the_graph(self):
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        out = LossOutput((w**2).mean(), w**2).replace(kl_local=3 * w)
        (gradient,) = torch.autograd.grad(out.reconstruction_loss_sum + out.kl_local_sum, w)
        assert gradient.tolist() == [5.0, 7.0]


class TestSubclass:
    def test_added_field(self, nll_n):
        out = NicheLossOutput(nll_n.mean(), nll_n, niche_loss=nll_n)
        assert isinstance(out, LossOutput)
        assert out.niche_loss is nll_n
        assert out.reconstruction_loss_sum.item() == 15.0

    def test_replace_keeps_class_and_field(self, nll_n):
        new = NicheLossOutput(nll_n.mean(), nll_n, niche_loss=nll_n).replace(reconstruction_loss=torch.ones(2))
        assert type(new) is NicheLossOutput
        assert new.niche_loss is nll_n
        assert new.n_obs_minibatch == 2

    def test_is_a_tree(self, nll_n):
        out = NicheLossOutput(nll_n.mean(), nll_n, niche_loss=nll_n)
        doubled = pytree.tree_map(lambda t: 2 * t, out)
        assert type(doubled) is NicheLossOutput
        assert doubled.niche_loss.tolist() == [6.0, 10.0, 14.0]

    def test_defining_the_same_class_twice(self, nll_n):
        """As a notebook does when a cell is run again."""

        def define() -> type[LossOutput]:
            @dataclasses.dataclass(frozen=True, eq=False)
            class Again(LossOutput):
                more: torch.Tensor | None = None

            return Again

        for cls in (define(), define()):
            doubled = pytree.tree_map(lambda t: 2 * t, cls(nll_n.mean(), nll_n, more=nll_n))
            assert type(doubled) is cls
            assert doubled.more.tolist() == [6.0, 10.0, 14.0]


class TestCopyAndPickle:
    @pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda r: pickle.loads(pickle.dumps(r))])
    @pytest.mark.parametrize("cls", [LossOutput, NicheLossOutput])
    def test_round_trip(self, again, cls, nll_n):
        record = cls(nll_n.mean(), {"rna": nll_n}, extra_metrics={"a": 1.0})
        twin = again(record)
        assert type(twin) is cls
        assert twin.loss.item() == 5.0
        assert twin.reconstruction_loss["rna"].tolist() == [3.0, 5.0, 7.0]
        assert twin.extra_metrics == {"a": 1.0}
        assert twin.replace(reconstruction_loss=torch.ones(7)).n_obs_minibatch == 7
        with pytest.raises(dataclasses.FrozenInstanceError):
            twin.loss = None

    def test_unpickled_in_a_fresh_process_is_a_tree(self, record, tmp_path):
        """No record was ever constructed there, so unpickling itself must register the class."""
        path = tmp_path / "record.pkl"
        path.write_bytes(pickle.dumps(record))
        code = f"""
import pickle
from torch.utils import _pytree
with open({str(path)!r}, "rb") as file:
    record = pickle.load(file)
print(_pytree.tree_map(lambda t: 2 * t, record).loss.item())
"""
        assert _python(code).strip() == "10.0"


class TestTorchTree:
    def test_map_and_round_trip(self, nll_n):
        record = LossOutput(nll_n.mean(), {"rna": nll_n}, extra_metrics={"a": torch.tensor(1.0)})
        doubled = pytree.tree_map(lambda t: 2 * t, record)
        assert doubled.loss.item() == 10.0
        assert doubled.reconstruction_loss["rna"].tolist() == [6.0, 10.0, 14.0]
        assert doubled.reconstruction_loss_sum.item() == 30.0
        assert doubled.extra_metrics["a"].item() == 2.0
        assert doubled.n_obs_minibatch == 3
        assert doubled.classification_loss is None

    def test_unflatten_skips_validation(self, record):
        texts = pytree.tree_map(str, record)
        assert texts.loss == "tensor(5.)"

    def test_leaf_paths_name_the_fields(self, nll_n):
        record = LossOutput(nll_n.mean(), {"rna": nll_n}, true_labels=nll_n)
        leaves, _ = pytree.tree_flatten_with_path(record)
        assert [pytree.keystr(path) for path, _ in leaves] == [
            ".loss",
            ".reconstruction_loss['rna']",
            ".kl_local['kl_local']",
            ".kl_global['kl_global']",
            ".true_labels",
            ".reconstruction_loss_sum",
            ".kl_local_sum",
            ".kl_global_sum",
        ]

    def test_func_grad_has_aux(self, nll_n):
        def loss_of(w):
            r_n = (w * nll_n) ** 2
            return r_n.mean(), LossOutput(r_n.mean(), r_n)

        gradient, out = torch.func.grad(loss_of, has_aux=True)(torch.tensor(2.0))
        assert gradient.item() == pytest.approx(2 * 2.0 * (9 + 25 + 49) / 3)
        assert out.reconstruction_loss_sum.item() == 4.0 * 83
        assert out.n_obs_minibatch == 3

    def test_func_vmap(self, nll_n):
        def record_of(w):
            return LossOutput((w * nll_n).mean(), w * nll_n)

        out = torch.func.vmap(record_of)(torch.tensor([1.0, 2.0]))
        assert out.loss.tolist() == [5.0, 10.0]
        assert out.reconstruction_loss["reconstruction_loss"].shape == (2, 3)
        assert out.reconstruction_loss_sum.tolist() == [15.0, 30.0]
        assert out.n_obs_minibatch == 3

    def test_vmap_of_a_record_as_argument(self, nll_n):
        stacked = torch.func.vmap(lambda w: LossOutput((w * nll_n).mean(), w * nll_n))(torch.tensor([1.0, 2.0]))
        assert torch.func.vmap(lambda r: r.loss + r.kl_local_sum)(stacked).tolist() == [5.0, 10.0]


class TestNumpy:
    def test_arrays(self):
        nll_n = np.array([3.0, 5.0, 7.0], dtype=np.float32)
        out = LossOutput(nll_n.mean(), {"rna": nll_n, "atac": nll_n}, kl_global=2.0)
        assert out.reconstruction_loss_sum == 30.0
        assert out.kl_global_sum == 2.0
        assert out.kl_local_sum == 0.0
        assert out.reconstruction_loss_sum.dtype == out.kl_local_sum.dtype == np.float32
        assert out.n_obs_minibatch == 3
        assert out.replace(reconstruction_loss=np.ones(2)).n_obs_minibatch == 2

    def test_nan_loss(self):
        out = LossOutput(np.float64("nan"), np.ones(3))
        assert out.kl_global_sum == 0.0


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blocked_jax_does_not_matter():
    """``sys.modules["jax"] = None`` is how an import is forbidden."""
    code = """
import sys
sys.modules["jax"] = None
import torch
from celbo.module.base import LossOutput
print(LossOutput(torch.tensor(1.0), torch.ones(3)).n_obs_minibatch)
"""
    assert _python(code).strip() == "3"


def test_constructing_draws_no_random_numbers(global_rng_untouched, nll_n):
    LossOutput(nll_n.mean(), nll_n).replace(kl_local=nll_n)
