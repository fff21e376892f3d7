"""Write what scvi-tools 1.4.2 computes for small modules: outputs, loss, gradients, ten optimizer steps.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_golden.py [FOLDER]``.
One ``.npz`` a case holds the constructor's arguments, weights and minibatch beside the figures, so that
``test_modules.py`` needs nothing else. Latents are at their posterior mean and there is no dropout: nothing is random.
"""

import json
import sys
from pathlib import Path

import numpy as np

N_CELLS, N_GENES, N_BATCH, N_LABELS, N_CATS = 24, 14, 3, 2, [2, 3]
SIZES = {
    "n_input": N_GENES,
    "n_batch": N_BATCH,
    "n_labels": N_LABELS,
    "n_hidden": 9,
    "n_latent": 4,
    "dropout_rate": 0.0,
}
COVARIATES = {"n_continuous_cov": 2, "n_cats_per_cov": N_CATS}
PRIOR = {"library_log_means": [[3.0, 3.2, 3.4]], "library_log_vars": [[0.1, 0.2, 0.3]]}

CASES = {
    "zinb": ("VAE", {}),
    "nb_deep": (
        "VAE",
        {"gene_likelihood": "nb", "dispersion": "gene-batch", "n_layers": 2, "encode_covariates": True, **COVARIATES},
    ),
    "poisson_logistic_normal": ("VAE", {"gene_likelihood": "poisson", "latent_distribution": "ln"}),
    "gene_cell_layer_norm": (
        "VAE",
        {"dispersion": "gene-cell", "use_layer_norm": "both", "use_batch_norm": "none", "encode_covariates": True},
    ),
    "gene_label_size_factor": ("VAE", {"dispersion": "gene-label", "use_size_factor_key": True}),
    "nb_size_factor": ("VAE", {"gene_likelihood": "nb", "use_size_factor_key": True, "use_batch_norm": "decoder"}),
    "embedding_shallow": (
        "VAE",
        {
            "batch_representation": "embedding",
            "deeply_inject_covariates": False,
            "n_layers": 2,
            "encode_covariates": True,
            "use_batch_norm": "encoder",
            **COVARIATES,
        },
    ),
    "latent_library": ("VAE", {"use_observed_lib_size": False, "encode_covariates": True, **PRIOR}),
    "normal": ("VAE", {"gene_likelihood": "normal", "log_variational": False}),
    "linear": ("LDVAE", PRIOR),
    "linear_plain": ("LDVAE", {"use_batch_norm": False, "bias": True, "use_observed_lib_size": True}),
}


def minibatch(rng: np.random.Generator, has_covariates: bool) -> dict[str, np.ndarray]:
    """Counts, codes and covariates by registry key."""
    batch = {
        "X": rng.poisson(rng.gamma(1.0, 3.0, (N_CELLS, N_GENES))).astype(np.float32),
        "batch": np.arange(N_CELLS)[:, None] % N_BATCH,
        "labels": rng.integers(0, N_LABELS, (N_CELLS, 1)),
        "size_factor": rng.uniform(0.5, 2.0, (N_CELLS, 1)).astype(np.float32),
    }
    if has_covariates:
        batch["extra_categorical_covs"] = np.stack([np.arange(N_CELLS) % n for n in N_CATS], axis=1)
        batch["extra_continuous_covs"] = rng.normal(size=(N_CELLS, 2)).astype(np.float32)
    return batch


def weights(rng: np.random.Generator, state: dict) -> dict[str, np.ndarray]:
    """Values for a ``state_dict``: small parameters, positive variances, priors and counters as they are."""
    values = {}
    for name, old in state.items():
        if name.endswith(("num_batches_tracked", "library_log_means", "library_log_vars")):
            values[name] = old.numpy().copy()
        elif name.endswith("running_var"):
            values[name] = rng.uniform(0.5, 1.5, old.shape).astype(np.float32)
        else:
            values[name] = rng.uniform(-0.5, 0.5, old.shape).astype(np.float32)
    return values


def record(module, tensors: dict) -> dict[str, np.ndarray]:
    """The ladder: outputs and loss in eval mode, loss and gradients in train mode, ten Adam steps."""
    import torch

    def array(tensor):
        return tensor.detach().numpy().copy()

    figures = {}
    module.eval()
    inference, generative, loss = module(tensors)
    for name in ("z", "library"):
        figures[f"inference/{name}"] = array(inference[name])
    for name in ("qz", "ql"):
        if inference[name] is not None:
            figures[f"inference/{name}/loc"] = array(inference[name].loc)
            figures[f"inference/{name}/scale"] = array(inference[name].scale)
    for name in ("mu", "theta", "zi_logits", "scale", "rate", "loc", "normal_mu"):
        value = getattr(generative["px"], name, None)
        if value is not None:
            figures[f"px/{name}"] = array(value)
    figures["eval/loss"] = array(loss.loss)
    for group in ("reconstruction_loss", "kl_local"):
        for name, value in getattr(loss, group).items():
            figures[f"eval/{group}/{name}"] = array(value)

    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        loss = module(tensors, loss_kwargs={"kl_weight": 0.5})[2].loss
        loss.backward()
        if step == 0:
            figures |= {f"grad/{name}": array(p.grad) for name, p in module.named_parameters() if p.grad is not None}
        optimizer.step()
        losses.append(loss.item())
    figures["train/losses"] = np.array(losses)
    figures |= {f"after/{name}": array(value) for name, value in module.state_dict().items()}
    return figures


def main(folder: Path) -> None:
    import torch
    from scvi.module import LDVAE, VAE
    from torch.distributions import Normal

    Normal.rsample = lambda self, sample_shape=None: self.loc
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (cls, options)) in enumerate(CASES.items()):
        rng = np.random.default_rng(number)
        kwargs = {**SIZES, **options}
        arrays = {key: np.array(value) for key, value in kwargs.items() if key in PRIOR}
        module = {"VAE": VAE, "LDVAE": LDVAE}[cls](**{**kwargs, **arrays})
        values = weights(rng, module.state_dict())
        module.load_state_dict({key: torch.tensor(value) for key, value in values.items()})
        batch = minibatch(rng, "n_cats_per_cov" in options)
        figures = record(module, {key: torch.as_tensor(value) for key, value in batch.items()})
        case = json.dumps({"class": cls, "kwargs": kwargs})
        if cls == "LDVAE":
            figures["loadings"] = module.get_loadings()
        np.savez_compressed(
            folder / f"{name}.npz",
            case=np.array(case),
            **{f"weights/{key}": value for key, value in values.items()},
            **{f"batch/{key}": value for key, value in batch.items()},
            **figures,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden")
