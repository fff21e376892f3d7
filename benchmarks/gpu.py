"""What celbo computes on a GPU, and how fast: one script of at most eight minutes that runs as it is.

``python -m benchmarks.gpu [--parity FOLDER] [--sections NAME ...] [--minutes 8] [--device cuda|cpu]``

First whether it is right: losses and gradients against float64 on the CPU, steps recorded as a graph against the same
ones asked for by Python, a killed run that goes on to the same bits, archives of scvi-tools from a folder with the
numbers that they must give, every model's training and verbs. Then how fast: step, epoch, default training,
latents, expression, differential expression, and PEAKVI's step; the CPU of the same machine beside it. It needs the
checkout and what celbo needs. A section that fails is said, the others go on; the exit code counts what failed.
``--device cpu`` runs the same path without a GPU, which is how the script itself is tested.
"""

import cProfile
import io
import json
import math
import pstats
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import anndata
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from celbo.data import simulate_counts
from celbo.model import PEAKVI, SCANVI, SCVI
from celbo.module import VAE
from celbo.train import Callback, loop
from celbo.train.engines.recorded import RecordedStage

from . import common
from .accessibility import simulate_peaks
from .gpu_verbs import ask_everything

__all__ = ["main"]


class Means(TorchDispatchMode):
    """Every normal draw is its mean, so that two devices compute the same."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace what a draw gave."""
        result, name = func(*args, **(kwargs or {})), func.name().split("::")[1].split(".")[0]
        if name == "normal_":
            return args[0].fill_(args[1] if len(args) > 1 else (kwargs or {}).get("mean", 0.0))
        if name in ("randn", "randn_like"):
            return torch.zeros_like(result)
        if name == "normal":
            return args[0].expand_as(result).clone() if torch.is_tensor(args[0]) else torch.full_like(result, args[0])
        return result


class Gpu:
    """The measurements, on one device."""

    def __init__(self, device: str, parity: Path | None, report: common.Report) -> None:
        self.device, self.parity, self.report = torch.device(device), parity, report
        self.where = "gpu" if device == "cuda" else "cpu"

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def add(self, case: str, figure: str, unit: str, value: float) -> None:
        """One row."""
        self.report.add(case, figure, unit, {f"celbo, {self.where}": value})

    def train(self, model: Any, **options: Any) -> float:
        """Seconds that a training took."""
        options = {"accelerator": self.where, "verbose": 0, "seed": 0} | options
        self.wait()
        start = time.perf_counter()
        _Noted.noted.clear()
        model.train(**options)
        self.wait()
        seconds = time.perf_counter() - start
        for why in sorted(_Noted.noted):
            print(f"    {type(model).__name__}: {why}")
        return seconds

    def gradients(self) -> None:
        """Loss and gradients of one minibatch in float32 there against float64 on the CPU."""
        counts, peaks = simulate_counts(256, 300, n_batches=2, n_cell_types=3, seed=0), simulate_peaks(seed=0)
        cases = [(SCVI, counts, {"gene_likelihood": name}) for name in ("zinb", "nb", "poisson")]
        cases += [
            (PEAKVI, peaks, {}),
            (SCVI, counts, {"dispersion": "gene-batch", "n_layers": 2, "use_layer_norm": "both"}),
        ]
        for cls, adata, options in cases:
            cls.setup_anndata(adata, batch_key="batch")
            model = cls(adata, **options)
            batch = next(iter(model._make_data_loader(adata, batch_size=128)))
            exact = _loss_and_gradients(model.module.double().eval(), {k: _wide(v) for k, v in batch.items()})
            module = model.module.float().to(self.device)
            there = _loss_and_gradients(module, {k: v.to(self.device) for k, v in batch.items()})
            name = f"{cls.__name__} {' '.join(map(str, options.values()))}"
            self.add(name, "loss, relative error", "", abs(there[0] / exact[0] - 1))
            error = torch.cat([(a.cpu().double() - b).flatten() for a, b in zip(there[1], exact[1], strict=True)])
            norm = torch.cat([b.flatten() for b in exact[1]]).norm()
            worst = float(error.norm() / norm)
            self.add(name, "gradients, relative error", "", worst)
            if not worst < 1e-4:
                raise AssertionError(f"the gradients of {name} are off by {worst:.2g}")

    def recorded(self) -> None:
        """Steps that the device has recorded against those that Python asks for one by one."""
        cases = [(name, recipe) for name in ("SCVI", "SCANVI", "PEAKVI") for recipe in ("classic", "one_cycle")]
        for name, recipe in cases:
            options = {"recipe": recipe, "batch_size": 64, "early_stopping": False}
            python, graph = _small_model(name), _small_model(name)
            self.train(python, **options, max_epochs=12, callbacks=[_Within()])
            self.train(graph, **options, max_epochs=12)
            pairs = list(zip(_weights(python), _weights(graph), strict=True))
            self.add(f"{name} {recipe}", "tensors with the same bits", "share", _share_of_equal(pairs))
            worst = max(float((a.double() - b.double()).norm() / max(a.double().norm(), 1e-30)) for a, b in pairs)
            self.add(f"{name} {recipe}", "recorded steps, relative difference of the weights", "", worst)
            curves = [float(m.history["train_loss"].iloc[-1, 0]) for m in (python, graph)]
            self.add(
                f"{name} {recipe}",
                "recorded steps, relative difference of the loss",
                "",
                abs(curves[1] / curves[0] - 1),
            )
            if not abs(curves[1] / curves[0] - 1) < 1e-3:
                raise AssertionError(f"{name} {recipe}: the losses are {curves}")

    def verbs(self) -> None:
        """Every model's training and verbs."""
        wrong: list[str] = []
        ask_everything(self.train, Means, self.add, wrong)
        print(*wrong, sep="\n")
        if wrong:
            raise AssertionError(f"{len(wrong)} verbs or trainings fail or differ")

    def refused(self) -> None:
        """What a graph cannot hold although nothing said so: training goes on without."""
        own = VAE.loss

        def loss(self: Any, *args: Any, **kwargs: Any) -> Any:
            torch.cuda.current_stream().query()
            return own(self, *args, **kwargs)

        VAE.loss = loss  # type: ignore[method-assign]
        try:
            self.resume()
        finally:
            VAE.loss = own  # type: ignore[method-assign]

    def resume(self) -> None:
        """Stop in the middle of an epoch, go on: the same bits as a run that nobody stopped."""
        with tempfile.TemporaryDirectory() as folder:
            whole, killed = _small_model(), _small_model()
            options = {"max_epochs": 6, "batch_size": 64}
            self.train(whole, **options, callbacks=[_Stop()])
            checkpoints = {"checkpoint_dir": folder, "checkpoint_every": "3 steps"}
            with suppress(KeyboardInterrupt):
                self.train(killed, **options, **checkpoints, callbacks=[_Stop(after=20)])
            again = _small_model()
            self.train(again, **options, callbacks=[_Stop()], resume=folder)
            same = _share_of_equal(zip(_weights(whole), _weights(again), strict=True))
            self.add("resumed run", "tensors with the same bits", "share", same)
            if same < 1:
                raise AssertionError("a resumed run ends with other weights")

    def archives(self) -> None:
        """Latents of scvi-tools' archives."""
        if self.parity is None:
            print("no --parity FOLDER: archives of scvi-tools are left out")
            return
        import celbo

        for case in sorted(self.parity.glob("*/case.json")):
            said = json.loads(case.read_text())
            expected = np.load(case.parent / "expected.npz")
            if "latent" not in expected:
                continue
            adata = anndata.read_h5ad(case.parent / "adata.h5ad")
            model = getattr(celbo.model, said["class"]).load(case.parent / "model", adata=adata, accelerator=self.where)
            error = np.abs(model.get_latent_representation() - expected["latent"]).max()
            relative = float(error / np.abs(expected["latent"]).max())
            self.add(case.parent.name, "latent, relative error", "", relative)
            if not relative < 1e-5:
                raise AssertionError(f"{case.parent.name} is off by {relative:.2g}")

    def steps(self) -> None:
        """Milliseconds a step of the classic recipe, and where the device makes the host wait."""
        for n_genes, n_cells in ((2000, 20_000), (8000, 8_000)):
            adata = simulate_counts(n_cells, n_genes, n_batches=2, seed=0)
            SCVI.setup_anndata(adata, batch_key="batch")
            for likelihood in ("zinb", "nb"):
                case, steps = f"{n_cells} x {n_genes} {likelihood}", -(-n_cells // 128)
                best = self._epoch(SCVI(adata, gene_likelihood=likelihood))
                self.add(case, "step", "ms", 1e3 * best / steps)
                self.add(case, "epoch", "s", best)
            if self.device.type == "cuda":
                eager = self._epoch(SCVI(adata, gene_likelihood="nb"), 3, _Within())
                self.add(f"{n_cells} x {n_genes} nb", "step, not recorded", "ms", 1e3 * eager / steps)
                self._waits(adata)
                self._profile(adata)

    def _epoch(self, model: Any, max_epochs: int = 6, *callbacks: Any) -> float:
        """Seconds of the best epoch, the first apart."""
        watch = _Epochs(self.wait)
        epochs = max_epochs if self.device.type == "cuda" else 2
        self.train(model, recipe="classic", train_size=1.0, callbacks=[watch, *callbacks], max_epochs=epochs)
        return watch.best()

    def _profile(self, adata: anndata.AnnData) -> None:
        """Where the time of a recorded step goes: of the device by kernel, of the host by function."""
        look = _Profile()
        self.train(SCVI(adata), recipe="classic", train_size=1.0, max_epochs=2, callbacks=[look])
        print(look.table())

    def _waits(self, adata: anndata.AnnData) -> None:
        model = SCVI(adata)
        self.train(model, recipe="classic", train_size=1.0, max_epochs=1)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                model.train(recipe="classic", train_size=1.0, max_epochs=1, accelerator="gpu", verbose=0, seed=0)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        lines = Counter(
            f"{Path(w.filename).parent.name}/{Path(w.filename).name}:{w.lineno}"
            for w in heard
            if "sync" in str(w.message)
        )
        print(f"    the host waits {sum(lines.values())} times in an epoch: {lines.most_common(8)}")

    def default_training(self) -> None:
        """Default training of SCVI and of SCANVI, with the memory of the device."""
        for n_cells in (2_000, 40_000):
            adata = simulate_counts(n_cells, 2000, n_batches=2, seed=0)
            SCVI.setup_anndata(adata, batch_key="batch")
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            model = SCVI(adata)
            self.add(f"SCVI, {n_cells} x 2000", "default training", "s", self.train(model))
            self.add(
                f"SCVI, {n_cells} x 2000", "validation ELBO", "", float(model.history["elbo_validation"].iloc[-1, 0])
            )
            if self.device.type == "cuda":
                self.add(f"SCVI, {n_cells} x 2000", "device memory", "MB", torch.cuda.max_memory_allocated() / 1e6)
            if n_cells == 2_000:
                SCANVI.setup_anndata(adata, labels_key="cell_type", unlabeled_category="?", batch_key="batch")
                self.add("SCANVI, 2000 x 2000", "default training", "s", self.train(SCANVI(adata)))

    def answers(self) -> None:
        """Seconds of latents, of expression over batches, of differential expression."""
        n_cells = 40_000
        adata = simulate_counts(n_cells, 2000, n_batches=3, n_cell_types=4, seed=0)
        SCVI.setup_anndata(adata, batch_key="batch")
        model = SCVI(adata)
        self.train(model, max_epochs=1)
        batches = list(adata.obs["batch"].unique())
        group = adata.obs["cell_type"].iloc[0]
        questions: dict[str, Callable[[], Any]] = {
            "latents": model.get_latent_representation,
            "expression over 3 batches": lambda: model.get_normalized_expression(
                indices=np.arange(8000), transform_batch=batches, return_numpy=True
            ),
            "differential expression": lambda: model.differential_expression(
                groupby="cell_type", group1=group, idx1=None, silent=True
            ),
        }
        for name, ask in questions.items():
            self.add("40000 x 2000", name, "s", _median(ask, self.wait))

    def peaks(self) -> None:
        """A step of PEAKVI on 5,000 cells x 50,000 peaks."""
        adata = simulate_peaks(5_000, 50_000, seed=0)
        PEAKVI.setup_anndata(adata, batch_key="batch")
        model, watch = PEAKVI(adata), _Epochs(self.wait)
        self.train(model, max_epochs=3, train_size=1.0, callbacks=[watch], early_stopping=False)
        self.add("PEAKVI, 5000 x 50000", "step", "ms", 1e3 * watch.best() / 40)


SECTIONS = (
    *("gradients", "recorded", "resume", "refused", "archives", "verbs"),
    *("steps", "default_training", "answers", "peaks"),
)


class _Noted(RecordedStage[Any]):
    """Keeps why a stage is not recorded."""

    noted: ClassVar[set[str]] = set()

    def _give_up(self, why: str) -> None:
        super()._give_up(why)
        _Noted.noted.add(f"{self._stage} is not recorded: {why}")


class _Within(Callback):
    """Looks into each step, which is therefore not recorded."""

    def on_after_backward(self, *args: Any) -> None:
        pass


class _Profile(Callback):
    """Twenty steps of the second epoch."""

    def __init__(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        self.device, self.host = torch.profiler.profile(activities=kinds), cProfile.Profile()

    def on_train_batch_start(self, trainer: Any, plan: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 10:
            torch.cuda.synchronize()
            self.device.start()
        if trainer.current_epoch == 1 and batch_idx == 32:
            self.host.enable()

    def on_train_batch_end(self, trainer: Any, plan: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 29:
            torch.cuda.synchronize()
            self.device.stop()
        if trainer.current_epoch == 1 and batch_idx == 51:
            self.host.disable()

    def table(self) -> str:
        events = [e for e in self.device.key_averages() if e.self_device_time_total]
        events.sort(key=lambda e: -e.self_device_time_total)
        total, n = sum(e.self_device_time_total for e in events), sum(e.count for e in events)
        lines = [f"    a step: {n / 20:.0f} kernels, {total / 20e3:.3f} ms of the device"]
        lines += [
            f"    {e.self_device_time_total / 20:7.1f} us {e.count / 20:6.1f} x {e.key[:90]}" for e in events[:28]
        ]
        text = io.StringIO()
        pstats.Stats(self.host, stream=text).sort_stats("tottime").print_stats(22)
        return "\n".join([*lines, text.getvalue()])


class _Stop(Callback):
    """Ends a run as Ctrl-C pressed twice would."""

    def __init__(self, after: float = math.inf) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step >= self.after:
            raise KeyboardInterrupt


class _Epochs(Callback):
    """Seconds of each epoch."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait, self.seconds, self.start = wait, [], 0.0

    def on_train_epoch_start(self, *args: Any) -> None:
        self.wait()
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *args: Any) -> None:
        self.wait()
        self.seconds.append(time.perf_counter() - self.start)

    def best(self) -> float:
        """Of the epochs, the first left out."""
        return min(self.seconds[1:])


def _small_model(name: str = "SCVI") -> Any:
    adata = simulate_counts(400, 60, n_batches=2, n_cell_types=3, seed=0)
    adata.obs["labels"] = np.where(np.arange(400) % 3, adata.obs["cell_type"].astype(str), "?")
    cls = {"SCVI": SCVI, "SCANVI": SCANVI, "PEAKVI": PEAKVI}[name]
    cls.setup_anndata(
        adata, batch_key="batch", **({"labels_key": "labels", "unlabeled_category": "?"} if cls is SCANVI else {})
    )
    return cls(adata, n_hidden=32)


def _share_of_equal(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    same = [torch.equal(a, b) for a, b in pairs]
    return sum(same) / len(same)


def _weights(model: Any) -> list[torch.Tensor]:
    return [value.cpu() for value in model.module.state_dict().values()]


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _loss_and_gradients(module: Any, batch: dict[str, torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
    module.zero_grad()
    with Means():
        _, _, record = module(batch)
        record.loss.backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    return record.loss.item(), [gradient.detach().clone() for gradient in gradients]


def _median(ask: Callable[[], Any], wait: Callable[[], None], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        ask()
        wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@contextmanager
def _said(failures: list[str], name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    except Exception:
        failures.append(name)
        traceback.print_exc(limit=-6, file=sys.stdout)
    print(f"-- {name}: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    """Measure."""
    parser = common.arguments(__doc__)
    parser.add_argument("--parity", type=Path, help="folder of archives of scvi-tools")
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS)
    parser.add_argument("--minutes", type=float, default=8, help="no section begins after 7/8 of that")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = parser.parse_args()
    start, failures = time.perf_counter(), []
    report = common.Report("gpu", given.dry)
    print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    loop.RecordedStage = _Noted  # type: ignore[misc]
    gpu = Gpu(given.device, given.parity, report)
    for name in given.sections:
        if time.perf_counter() - start > 60 * given.minutes * 7 / 8:
            failures.append(name)
            print(f"-- {name}: no time left")
            continue
        with _said(failures, name):
            getattr(gpu, name)()
    report.write()
    if failures:
        raise SystemExit(f"failed: {', '.join(failures)}")


if __name__ == "__main__":
    main()
