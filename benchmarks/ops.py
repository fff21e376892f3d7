"""Row sums of count log-probabilities: the fused pass against plain torch, forward and backward.

``python -m benchmarks.ops [--threads T] [--repeats R]`` prints milliseconds (20th, 50th and 80th percentile). The two
forms take turns within a repeat, so that a busy machine slows both. ``--linear`` compares linear layers instead, by
oneDNN and by torch's own product, whatever their size: processor time, forward and backward.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from celbo import ops
from celbo.core.process import keep_large_blocks
from celbo.ops import fused_cpu, linear

SHAPES = ((128, 2000), (128, 8000), (1024, 2000), (16, 500))
LAYERS = ((128, 64, 128), (128, 128, 128), (128, 256, 256), (128, 512, 128), (128, 2000, 128), (128, 128, 2000))
"""Cells, inputs, outputs."""
FAMILIES = ("zinb", "nb", "poisson")


def made_up_cells(n: int, g: int) -> dict[str, Tensor]:
    """Arguments of ``zinb_log_prob_sum``; about 8% of the counts are not zero."""
    rng = torch.Generator().manual_seed(0)
    scale_logits = 1.5 * torch.randn(n, g, generator=rng)
    log_theta = torch.randn(g, generator=rng)
    mean_ng = torch.softmax(scale_logits, 1) * 0.13 * g
    rate_ng = mean_ng / log_theta.exp() * torch._standard_gamma(log_theta.exp().expand(n, g), generator=rng)
    x = torch.poisson(rate_ng, generator=rng)
    log_library = x.sum(1, keepdim=True).log()
    zi_logits = torch.randn(n, g, generator=rng) - 1
    return {
        "x": x,
        "scale_logits": scale_logits,
        "log_library": log_library,
        "log_theta": log_theta,
        "zi_logits": zi_logits,
    }


def time_step(family: str, backend: str, cells: dict[str, Tensor], backward: bool) -> float:
    """Seconds of one sum, with its gradients if ``backward``."""
    names = {"zinb": 4, "nb": 3, "poisson": 2}
    parameters = [cells[name].requires_grad_(backward) for name in list(cells)[1 : 1 + names[family]]]
    function = getattr(ops, f"{family}_log_prob_sum")
    for parameter in parameters:
        parameter.grad = None
    with ops.use_backend(backend):
        start = time.perf_counter()
        loss = function(cells["x"], *parameters).mean()
        if backward:
            loss.backward()
        return time.perf_counter() - start


def time_layers(repeats: int) -> None:
    """Print what each of :data:`LAYERS` takes by both products, in microseconds: the median and the least."""
    for n, n_in, n_out in LAYERS:
        x_ni, grad_no = torch.randn(n, n_in, requires_grad=n_in < 1000), torch.randn(n, n_out)
        weights = [torch.randn(shape, requires_grad=True) for shape in ((n_out, n_in), (n_out,))]
        products = {"oneDNN": linear._Linear.apply, "torch": torch.nn.functional.linear}
        took: dict[str, list[float]] = {name: [] for name in products}
        for _ in range(repeats):
            for name, product in products.items():
                start = time.process_time_ns()
                torch.autograd.grad(product(x_ni, *weights), weights, grad_no)
                took[name].append((time.process_time_ns() - start) / 1e3)
        texts = [f"{name} {np.median(one):.0f} ({min(one):.0f})" for name, one in took.items()]
        print(f"{n} x {n_in} -> {n_out}: {', '.join(texts)}, torch is {min(took['oneDNN']) / min(took['torch']):.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--linear", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_large_blocks()  # as training does
    if arguments.linear:
        time_layers(arguments.repeats)
        return
    for family in ("negative_binomial", "poisson"):
        start = time.perf_counter()
        fused_cpu.kernel(family)
        print(f"{family} kernel ready after {time.perf_counter() - start:.2f} s")
    print(f"{'':38}{'fused_cpu p20/p50/p80':>26}{'reference p20/p50/p80':>26}  ratio of p50")
    for shape in SHAPES:
        cells = made_up_cells(*shape)
        nonzero = (cells["x"] > 0).float().mean().item()
        for family in FAMILIES:
            for backward in (True, False):
                row = (
                    f"{shape[0]} x {shape[1]} ({nonzero:.0%}) {family} {'forward+backward' if backward else 'forward'}"
                )
                print_row(row, family, cells, backward, arguments.repeats)


def print_row(label: str, family: str, cells: dict[str, Tensor], backward: bool, repeats: int) -> None:
    """One line of the table."""
    backends = ("fused_cpu", "reference")
    seconds = [[time_step(family, backend, cells, backward) for backend in backends] for _ in range(repeats)]
    quantiles = 1e3 * np.percentile(np.array(seconds), [20, 50, 80], axis=0)
    texts = ["/".join(f"{value:.2f}" for value in quantiles[:, i]) for i in (0, 1)]
    print(f"{label:38}{texts[0]:>26}{texts[1]:>26}  {quantiles[1, 1] / quantiles[1, 0]:.1f}")


if __name__ == "__main__":
    main()
