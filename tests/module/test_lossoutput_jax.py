"""LossOutput under JAX: a tree that every transformation carries."""

import copy
import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest

from celbo.module.base import LossOutput

jax = pytest.importorskip("jax")
jnp = jax.numpy

X_N = np.array([3.0, 5.0], dtype=np.float32)


def record_of(w, x_n) -> LossOutput:
    r_n = (w * x_n) ** 2
    return LossOutput(r_n.mean(), r_n, kl_local={"z": w * x_n}, kl_global=w**3, extra_metrics={"w": w, "one": 1.0})


def loss_and_record(w, x_n):
    record = record_of(w, x_n)
    return record.loss, record


@dataclasses.dataclass(frozen=True, eq=False)
class NicheLossOutput(LossOutput):
    """A record with one more field."""

    niche_loss: object = None


def check_at_two(record: LossOutput) -> None:
    """Closed form of ``record_of(2, [3, 5])``."""
    assert float(record.loss) == 68.0
    assert record.reconstruction_loss["reconstruction_loss"].tolist() == [36.0, 100.0]
    assert float(record.reconstruction_loss_sum) == 136.0
    assert float(record.kl_local_sum) == 16.0
    assert float(record.kl_global_sum) == 8.0
    assert float(record.extra_metrics["w"]) == 2.0
    assert record.n_obs_minibatch == 2
    assert type(record.n_obs_minibatch) is int


def test_eager():
    check_at_two(record_of(2.0, jnp.asarray(X_N)))


def test_jit_output():
    check_at_two(jax.jit(record_of)(2.0, X_N))


def test_jit_argument_is_not_traced_again_for_equal_shapes():
    traces = []

    @jax.jit
    def loss_per_observation(record):
        traces.append(record.n_obs_minibatch)
        return record.loss / record.n_obs_minibatch

    assert float(loss_per_observation(record_of(2.0, jnp.asarray(X_N)))) == 34.0
    assert float(loss_per_observation(record_of(4.0, jnp.asarray(X_N)))) == 136.0
    assert traces == [2]
    assert float(loss_per_observation(record_of(2.0, jnp.ones(4)))) == 1.0
    assert traces == [2, 4]


def test_grad_has_aux():
    gradient, record = jax.grad(loss_and_record, has_aux=True)(2.0, jnp.asarray(X_N))
    assert float(gradient) == pytest.approx(2 * 2.0 * 34 / 2)
    check_at_two(record)


def test_jitted_value_and_grad():
    (loss, record), gradient = jax.jit(jax.value_and_grad(loss_and_record, has_aux=True))(2.0, X_N)
    assert (float(loss), float(gradient)) == (68.0, 68.0)
    check_at_two(record)


def test_sums_are_differentiable():
    def total(w):
        record = record_of(w, jnp.asarray(X_N))
        return record.reconstruction_loss_sum + record.kl_local_sum + record.kl_global_sum

    assert float(jax.grad(total)(2.0)) == 2 * 2 * 34 + 8 + 12


def test_absent_terms_are_zeros_without_gradient():
    gradient = jax.grad(lambda w: LossOutput(w * 1.0, n_obs_minibatch=1).kl_local_sum)(2.0)
    assert float(gradient) == 0.0
    assert float(LossOutput(jnp.asarray(jnp.nan), jnp.ones(2)).kl_local_sum) == 0.0


def test_vmap():
    out = jax.vmap(record_of, in_axes=(0, None))(jnp.array([1.0, 2.0]), X_N)
    assert out.loss.tolist() == [17.0, 68.0]
    assert out.reconstruction_loss["reconstruction_loss"].shape == (2, 2)
    assert out.kl_global_sum.tolist() == [1.0, 8.0]
    assert out.extra_metrics["one"].tolist() == [1.0, 1.0]
    assert out.n_obs_minibatch == 2
    check_at_two(jax.tree.map(lambda leaf: leaf[1], out))


def test_scan_stacks_records():
    def step(w, x_n):
        (_, record), gradient = jax.value_and_grad(loss_and_record, has_aux=True)(w, x_n)
        return w - 0.01 * gradient, record

    w, history = jax.jit(lambda w: jax.lax.scan(step, w, jnp.stack([X_N, X_N])))(2.0)
    # d loss / d w = 34 w, so w shrinks by 0.66 a step and the loss, 17 w^2, by 0.66^2
    assert float(w) == pytest.approx(2 * 0.66**2, rel=1e-6)
    np.testing.assert_allclose(history.loss, [68.0, 68.0 * 0.66**2], rtol=1e-6)
    assert history.n_obs_minibatch == 2


def test_scan_carries_a_record():
    def step(carried, w):
        return record_of(w, jnp.asarray(X_N)), carried.loss

    last, losses = jax.lax.scan(step, record_of(jnp.float32(1.0), jnp.asarray(X_N)), jnp.array([3.0, 2.0]))
    assert losses.tolist() == [17.0, 153.0]
    check_at_two(last)


def test_cond():
    out = jax.lax.cond(True, lambda w: record_of(w, X_N), lambda w: record_of(-w, X_N), 2.0)
    check_at_two(out)


def test_tree_map_round_trip_and_structure():
    record = record_of(2.0, jnp.asarray(X_N))
    leaves, structure = jax.tree.flatten(record)
    check_at_two(jax.tree.unflatten(structure, leaves))
    assert float(jax.tree.map(lambda leaf: 2 * leaf, record).loss) == 136.0
    assert jax.tree.map(lambda leaf: None, record).loss is None


def test_leaf_paths_name_the_fields():
    paths, _ = jax.tree_util.tree_flatten_with_path(record_of(2.0, jnp.asarray(X_N)))
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [
        ".loss",
        ".reconstruction_loss['reconstruction_loss']",
        ".kl_local['z']",
        ".kl_global['kl_global']",
        ".extra_metrics['one']",
        ".extra_metrics['w']",
        ".reconstruction_loss_sum",
        ".kl_local_sum",
        ".kl_global_sum",
    ]


def test_eval_shape():
    shapes = jax.eval_shape(record_of, 2.0, X_N)
    assert shapes.reconstruction_loss["reconstruction_loss"].shape == (2,)
    assert shapes.kl_global_sum.shape == ()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_of_the_loss_is_kept(dtype):
    x_n = jnp.asarray(X_N, dtype=dtype)
    out = LossOutput(x_n.mean(), x_n, kl_global=2.0)
    assert out.reconstruction_loss_sum.dtype == out.kl_local_sum.dtype == out.kl_global_sum.dtype == dtype
    assert out.kl_global_sum == 2.0


def test_float64():
    with jax.enable_x64(True):
        x_n = jnp.asarray(X_N, dtype=jnp.float64)
        assert LossOutput(x_n.mean(), x_n).kl_local_sum.dtype == jnp.float64


def test_numbers_of_python_are_refused_also_under_jit():
    with pytest.raises(TypeError, match="float"):
        LossOutput(1.0, jnp.asarray(X_N))
    with pytest.raises(ValueError, match=r"one element.*\(2,\)"):
        jax.jit(lambda x_n: LossOutput(x_n, x_n))(X_N)


def test_subclass_through_jit():
    out = jax.jit(lambda x_n: NicheLossOutput(x_n.sum(), x_n, niche_loss=2 * x_n))(X_N)
    assert type(out) is NicheLossOutput
    assert out.niche_loss.tolist() == [6.0, 10.0]


def test_replace_after_a_transformation_infers_again():
    out = jax.jit(record_of)(2.0, X_N)
    assert out.replace(reconstruction_loss=jnp.ones(5)).n_obs_minibatch == 5


@pytest.mark.parametrize("again", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))], ids=["deepcopy", "pickle"])
def test_copies(again):
    check_at_two(again(record_of(2.0, jnp.asarray(X_N))))


def test_zeros_lie_on_the_device_of_the_loss():
    """Needs two devices, so a process of its own in which the processor counts as two."""
    code = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
from celbo.module.base import LossOutput
second = jax.devices()[1]
x_n = jax.device_put(jax.numpy.ones(3), second)
record = LossOutput(x_n.sum(), x_n)
print(record.loss.device == second, record.kl_local_sum.device == second, record.kl_global_sum.device == second)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr
