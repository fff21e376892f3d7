"""Private randomness: generators that belong to one block of one thread.

Whatever celbo draws inside :func:`own_rng` comes from generators of that block: the code that draws asks
:func:`generator_for` and passes the answer to torch's operator. Torch's global generators are then neither seeded, nor
advanced, nor restored, so nothing that other threads draw can change a result, and nobody else's numbers change.
:func:`private_rng` gives these generators to torch's own random functions too, whoever calls them.

Outside a block :func:`generator_for` gives None, with which torch's operators draw from the global generator: layers
and distributions used by hand behave as torch's do. :func:`global_rng` is for code of others, which draws globally by
itself; two such blocks never overlap.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "FILLING",
    "fresh_seed",
    "generator_for",
    "generator_or",
    "generator_states",
    "global_rng",
    "own_rng",
    "private_rng",
    "redirected",
    "renew_generator",
    "set_generator_states",
]

_KINDS = ("cpu", "cuda", "mps", "xpu", "meta")
"""Kinds of devices that generators are given for. Nothing is drawn on the meta device: it takes the CPU's as it is."""


_OPERATORS = (
    *("rand", "randn", "randint", "randperm", "normal", "rand_like", "randn_like", "randint_like"),
    *("bernoulli", "poisson", "multinomial", "binomial", "_standard_gamma", "_sample_dirichlet"),
)
_METHODS = (
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_"),
    *("bernoulli", "multinomial"),
)
_INITIALISERS = ("kaiming_uniform_", "uniform_", "normal_")
"""Those that torch shows to a function mode as a whole; the others show the methods they call."""


def _found(place: object, names: Iterable[str]) -> Iterator[Any]:
    return (getattr(place, name) for name in names if hasattr(place, name))


_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    (*_found(torch, _OPERATORS), *_found(torch.Tensor, _METHODS), *_found(nn.init, _INITIALISERS))
)
FILLING: frozenset[Callable[..., Any]] = frozenset(draw for draw in _DRAWS if draw.__name__.endswith("_"))
"""Draws that fill the tensor they are given, and give it back."""


class _Block:
    """The randomness of a block: a seed, and generators where the block is private."""

    def __init__(self, seed: int, private: bool) -> None:
        self.seed, self.private = seed, private
        self.calls = itertools.count()
        self._generators: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device) -> torch.Generator | None:
        found = self._generators.get(device)
        return self._make(device) if found is None and device.type in _KINDS else found

    def put(self, device: torch.device, generator: torch.Generator) -> None:
        self._generators = {known: made for known, made in self._generators.items() if _numbered(known) != device}
        self._generators[device] = generator

    def _make(self, device: torch.device) -> torch.Generator:
        numbered = _numbered(device)
        if numbered not in self._generators:
            self._generators[numbered] = torch.Generator(numbered).manual_seed(self.seed)
        self._generators[device] = self._generators[numbered]
        return self._generators[device]


class _Here(threading.local):
    """The innermost block of each thread. A thread begins with none: a context variable may be inherited."""

    block: _Block | None = None


_here = _Here()
_calls = itertools.count()
_forks = itertools.count(1)
_fork: tuple[int, ...] = ()
_others = threading.RLock()
_initial_seed: int | None = None


def _numbered(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu") if device.type == "meta" else device


def fresh_seed(seed: int | None) -> int:
    """The given seed, or a new one.

    Parameters
    ----------
    seed
        Given back as it is unless None.

    Returns
    -------
    A seed in [0, 2**31). For None it is new at every call, also in processes that were forked from this one. It comes
    from the seed of the block that this thread is in, or else from torch's initial seed, which is read and not
    advanced: the sequence is the same in a process that began with ``torch.manual_seed``.
    """
    if seed is not None:
        return int(seed)
    block = _here.block
    if block is not None:
        source = [block.seed, next(block.calls)]
    else:
        source = [torch.initial_seed() if _initial_seed is None else _initial_seed, next(_calls), *_fork]
    return int(np.random.SeedSequence(source).generate_state(1)[0]) >> 1


@contextmanager
def own_rng(seed: int | None) -> Iterator[int]:
    """Let what celbo draws in this thread come from generators of the block, seeded when they are first asked for.

    Parameters
    ----------
    seed
        Seed of the block; None takes a fresh one.

    Yields
    ------
    The seed that was used.
    """
    used = fresh_seed(seed)
    with _in_block(_Block(used, private=True)):
        yield used


@contextmanager
def private_rng(seed: int | None) -> Iterator[int]:
    """As :func:`own_rng`, and let torch's random functions draw from these generators, whoever calls them here.

    Each of torch's functions takes some microseconds longer: for initial weights and the like, not for steps.

    Parameters
    ----------
    seed
        Seed of the block; None takes a fresh one.

    Yields
    ------
    The seed that was used.
    """
    with own_rng(seed) as used, redirected():
        yield used


@contextmanager
def global_rng(seed: int | None, device: torch.device | str = "cpu") -> Iterator[int]:
    """Seed torch's global generators inside the block and put their states back afterwards, for code of others.

    One thread at a time is in such a block; another waits for it. Threads that draw from the global generator without
    such a block do change each other's numbers.

    Parameters
    ----------
    seed
        Seed of the block; None takes a fresh one.
    device
        The accelerator whose generator is seeded and kept too.

    Yields
    ------
    The seed that was used.
    """
    device = torch.device(device)
    own = [] if device.type == "cpu" else [device]
    with _others, _keeping_initial_seed():
        used = fresh_seed(seed)
        with torch.random.fork_rng(devices=own, device_type=device.type if own else "cuda"):
            _seed_globally(used, device)
            with _in_block(_Block(used, private=False)):
                yield used


@contextmanager
def _in_block(block: _Block) -> Iterator[None]:
    outer, _here.block = _here.block, block
    try:
        yield
    finally:
        _here.block = outer


@contextmanager
def _keeping_initial_seed() -> Iterator[None]:
    """Other threads take fresh seeds from the process's initial seed, not from that of the block."""
    global _initial_seed
    outer = _initial_seed
    _initial_seed = torch.initial_seed() if outer is None else outer
    try:
        yield
    finally:
        _initial_seed = outer


def _seed_globally(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of one device: ``torch.manual_seed`` seeds those of all devices."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        with torch.device(device):
            torch.get_device_module(device).manual_seed(seed)


def generator_for(device: torch.device) -> torch.Generator | None:
    """The generator that celbo's code in this thread draws from.

    Parameters
    ----------
    device
        Where the numbers are wanted.

    Returns
    -------
    The innermost block's; None, which means torch's global one to torch's operators, outside of private blocks and in
    code that ``torch.compile`` reads, which cannot hold a generator.
    """
    if torch.compiler.is_compiling():
        return None
    block = _here.block
    return block.on(device) if block is not None and block.private else None


def renew_generator(device: torch.device, state: Tensor) -> None:
    """Let the block draw from a new generator of this state: torch refuses one that a failed CUDA graph still holds."""
    block, numbered = _here.block, _numbered(device)
    if block is not None and block.private:
        made = torch.Generator(numbered)
        made.set_state(state)
        block.put(numbered, made)


def generator_or(given: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """The generator that a caller gave, else :func:`generator_for`."""
    return generator_for(device) if given is None else given


class _Redirect(TorchFunctionMode):
    """Gives torch's random functions the block's generator where they are called without one. Torch keeps the modes of
    each thread apart.
    """

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS and not _has_generator(args, kwargs):
            generator = generator_for(_device(args, kwargs))
            kwargs = kwargs if generator is None else {**kwargs, "generator": generator}
        return func(*args, **kwargs)


def _has_generator(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return tensors[0].device if tensors else torch.get_default_device()


def redirected() -> AbstractContextManager[Any]:
    """Let torch's random functions draw from the generators of this thread's private block, whoever calls them.

    For initial weights and for distributions of torch, which take no generator. Without effect outside of such a block.
    """
    return nullcontext() if _here.block is None or not _here.block.private else _Redirect()


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """States of the generators that this thread's block draws from, by kind of device.

    Parameters
    ----------
    device
        The accelerator whose generator is wanted beside the CPU's; the CPU for none.
    """
    states = {"cpu": (generator_for(torch.device("cpu")) or torch.default_generator).get_state()}
    if device.type in ("cuda", "mps"):
        own = generator_for(device)
        states[device.type] = _global_state(device) if own is None else own.get_state()
    return states


def set_generator_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the states back that :func:`generator_states` gave.

    Parameters
    ----------
    states
        By kind of device.
    device
        As it was there.
    """
    (generator_for(torch.device("cpu")) or torch.default_generator).set_state(states["cpu"])
    if device.type in ("cuda", "mps"):
        own = generator_for(device)
        if own is None:
            _set_global_state(states[device.type], device)
        else:
            own.set_state(states[device.type])


def _global_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.mps.get_rng_state()


def _set_global_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.mps.set_rng_state(state)


def _before_fork() -> None:
    global _next_fork
    _next_fork = next(_forks)


def _after_fork_in_child() -> None:
    """Fresh seeds differ from the parent's and from other children's; a lock held by another thread is free."""
    global _fork, _forks, _others
    _fork, _forks, _others = (*_fork, _next_fork), itertools.count(1), threading.RLock()


_next_fork = 0
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
