"""Blocks of private randomness: whose generator is drawn from, in which thread, and what stays as it was."""

import os
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import distributions, nn

from celbo.nn.fc_layers import Dropout
from celbo.ops.draws import randn, redirecting, rsample, sample, uniform
from celbo.ops.random import (
    fresh_seed,
    generator_for,
    generator_states,
    global_rng,
    own_rng,
    private_rng,
    renew_generator,
    set_generator_states,
)

CPU = torch.device("cpu")
ONES = torch.ones(4)
TORCHS = {
    "linear": lambda: nn.Linear(3, 2).weight,
    "lstm": lambda: nn.LSTM(2, 2).weight_hh_l0,
    "embedding": lambda: nn.Embedding(3, 2).weight,
    "attention": lambda: nn.MultiheadAttention(2, 1).in_proj_weight,
    "randn": lambda: torch.randn(3),
    "rand": lambda: torch.rand(3),
    "randint": lambda: torch.randint(5, (3,)),
    "randperm": lambda: torch.randperm(5),
    "normal": lambda: torch.normal(ONES, ONES),
    "bernoulli": lambda: torch.bernoulli(ONES / 2),
    "poisson": lambda: torch.poisson(5 * ONES),
    "multinomial": lambda: torch.multinomial(ONES, 2),
    "binomial": lambda: torch.binomial(5 * ONES, ONES / 2),
    "randn_like": lambda: torch.randn_like(ONES),
    **{
        f"{name}_": lambda name=name, args=args: getattr(torch.empty(3), f"{name}_")(*args)
        for name, *args in (
            ("normal",),
            ("uniform", -1, 2),
            ("random",),
            ("bernoulli", 0.3),
            ("exponential",),
            ("cauchy",),
            ("log_normal",),
            ("geometric", 0.3),
        )
    },
    **{
        f"init.{name}": lambda name=name: getattr(nn.init, name)(torch.empty(4, 4))
        for name in ("uniform_", "normal_", "trunc_normal_", "xavier_normal_", "kaiming_uniform_", "orthogonal_")
    },
    **{
        type(q).__name__: lambda q=q: q.sample((3,))
        for q in (
            distributions.Normal(ONES, ONES),
            distributions.Gamma(ONES, ONES),
            distributions.Beta(ONES, ONES),
            distributions.Dirichlet(ONES),
            distributions.Categorical(ONES),
            distributions.StudentT(ONES),
            distributions.MixtureSameFamily(distributions.Categorical(ONES), distributions.Normal(ONES, ONES)),
        )
    },
    "DataLoader": lambda: torch.cat(
        [*redirecting(torch.utils.data.DataLoader(torch.arange(9), shuffle=True, batch_size=2))]
    ),
}


def as_torch_draws(seed, draw):
    """What torch draws from its global generator after that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return draw()


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("name", TORCHS)
def test_a_private_block_gives_torch_its_generator(name):
    with private_rng(3):
        drawn = TORCHS[name]()
    assert torch.equal(drawn, as_torch_draws(3, TORCHS[name]))


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize(
    ("own", "torchs"),
    [
        (lambda: randn(3, 2), lambda: torch.randn(3, 2)),
        (lambda: uniform(-2, 2, 5), lambda: torch.empty(5).uniform_(-2, 2)),
        *(
            (lambda q=q, ours=ours: ours(q, (3,)), lambda q=q, name=name: getattr(q, name)((3,)))
            for q in (distributions.Normal(ONES, ONES), distributions.Beta(ONES, ONES), distributions.Dirichlet(ONES))
            for ours, name in ((rsample, "rsample"), (sample, "sample"))
        ),
    ],
)
def test_own_draws_are_torchs_to_the_bit(own, torchs):
    with own_rng(3):
        first, second = own(), own()
    assert torch.equal(first, as_torch_draws(3, torchs))
    assert not torch.equal(first, second)


def test_draws_by_hand_are_from_the_global_generator():
    assert torch.equal(as_torch_draws(3, lambda: randn(3)), as_torch_draws(3, lambda: torch.randn(3)))
    assert generator_for(CPU) is None


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("p", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_is_torchs(p, inplace):
    def outcome(layer):
        x = torch.linspace(-1, 1, 60).reshape(6, 10).requires_grad_()
        y = layer(x * 1)
        y.square().sum().backward()
        return torch.stack([y.detach(), x.grad])

    layer = Dropout(p, inplace=inplace)
    expected = as_torch_draws(3, lambda: outcome(lambda x: F.dropout(x, p)))
    with own_rng(3):
        drawn = outcome(layer)
        assert torch.equal(layer.eval()(ONES), ONES)
    assert torch.equal(drawn, expected)
    assert not layer.state_dict()


def test_a_thread_does_not_inherit_the_block():
    found = []
    with own_rng(3):
        thread = threading.Thread(target=lambda: found.append(generator_for(CPU)))
        thread.start()
        thread.join()
        assert generator_for(CPU) is not None
    assert found == [None]


@pytest.mark.usefixtures("global_rng_untouched")
def test_blocks_within_blocks_keep_apart():
    with own_rng(3):
        first = randn(2)
        with own_rng(4):
            inner = randn(2)
        with global_rng(5):
            outside = randn(2)
        second = randn(2)
    with own_rng(3):
        assert torch.equal(torch.cat([first, second]), torch.cat([randn(2), randn(2)]))
    assert torch.equal(inner, as_torch_draws(4, lambda: torch.randn(2)))
    assert torch.equal(outside, as_torch_draws(5, lambda: torch.randn(2)))


@pytest.mark.usefixtures("global_rng_untouched")
def test_states_put_a_block_back():
    with own_rng(3):
        randn(5)
        states = generator_states(CPU)
        wanted = randn(4)
    with own_rng(8):
        set_generator_states(states, CPU)
        assert torch.equal(randn(4), wanted)
    with global_rng(8):
        set_generator_states(states, CPU)
        assert torch.equal(torch.randn(4), wanted)


@pytest.mark.usefixtures("global_rng_untouched")
def test_another_generator_goes_on_where_one_was():
    with own_rng(3):
        generator = generator_for(CPU)
        state, expected = generator.get_state(), randn(4)
        renew_generator(CPU, state)
        assert generator_for(CPU) is not generator
        assert torch.equal(randn(4), expected)
    renew_generator(CPU, state)  # outside of a block there is none to replace


@pytest.mark.usefixtures("global_rng_untouched")
def test_blocks_for_code_of_others_never_overlap():
    drawn = {}

    def draw(seed):
        with global_rng(seed):
            drawn[seed] = torch.cat([torch.randn(1) for _ in range(300)])

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, numbers in drawn.items():
        assert torch.equal(numbers, as_torch_draws(seed, lambda: torch.cat([torch.randn(1) for _ in range(300)])))


@pytest.mark.usefixtures("global_rng_untouched")
def test_fresh_seeds():
    seeds = [fresh_seed(None) for _ in range(20)]
    assert len(set(seeds)) == 20
    assert all(0 <= seed < 2**31 for seed in seeds)
    with own_rng(3):
        inside = fresh_seed(None)
    with own_rng(3):
        assert fresh_seed(None) == inside
        assert fresh_seed(None) != inside
    assert fresh_seed(7) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore")  # JAX, where another test has loaded it, warns of any fork
def test_fresh_seeds_of_forked_processes_differ():
    seeds = set()
    for _ in range(3):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.write(write, str(fresh_seed(None)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as answer:
            seeds.add(int(answer.read()))
    assert len(seeds | {fresh_seed(None)}) == 4
