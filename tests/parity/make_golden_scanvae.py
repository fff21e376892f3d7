"""Write what scvi-tools 1.4.2 computes for small SCANVAEs: losses of pairs of minibatches, ten optimizer steps.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_golden_scanvae.py [FOLDER]``.
Minibatch and weights come from ``make_golden.py``; every label code below the last is a class, the last means "not
labelled". Latents are at their posterior mean and there is no dropout: nothing is random.
"""

import json
import sys
from pathlib import Path

import numpy as np
from make_golden import COVARIATES, N_LABELS, PRIOR, SIZES, minibatch, weights

CASES = {
    "scanvae_zinb": {"n_layers": 2, "classifier_parameters": {"n_hidden": 5}},
    "scanvae_linear": {"linear_classifier": True, "gene_likelihood": "nb", "encode_covariates": True, **COVARIATES},
    "scanvae_latent_library": {"use_layer_norm": "both", "use_batch_norm": "none", "dispersion": "gene-batch", **PRIOR},
}
LOSS_KWARGS = {"kl_weight": 0.5, "classification_ratio": 20}


def pair(rng: np.random.Generator, has_covariates: bool) -> dict[str, np.ndarray]:
    """A minibatch in which every third cell is not labelled."""
    batch = minibatch(rng, has_covariates)
    batch["labels"] = np.where(np.arange(len(batch["X"])) % 3 == 0, N_LABELS, batch["labels"][:, 0])[:, None]
    return batch


def labelled_of(tensors: dict) -> dict:
    """The labelled cells of a minibatch."""
    keep = tensors["labels"][:, 0] < N_LABELS
    return {key: value[keep] for key, value in tensors.items()}


def record(module, tensors: dict) -> dict[str, np.ndarray]:
    """Terms of the loss in eval mode, and the losses of ten Adam steps."""
    import torch

    def loss_of():
        return module(tensors, loss_kwargs={**LOSS_KWARGS, "labelled_tensors": labelled_of(tensors)})[2]

    module.eval()
    out = loss_of()
    figures = {
        "loss": out.loss,
        "classification_loss": out.classification_loss,
        "logits": out.logits,
        "true_labels": out.true_labels,
        "reconstruction_loss": out.reconstruction_loss["reconstruction_loss"],
        "kl_local": out.kl_local["kl_local"],
    }
    module.train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-3, eps=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of().loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {name: value.detach().numpy() for name, value in figures.items()} | {"losses": np.array(losses)}


def main(folder: Path) -> None:
    import torch
    from scvi.module import SCANVAE
    from torch.distributions import Normal

    Normal.rsample = lambda self, sample_shape=None: self.loc
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, options) in enumerate(CASES.items()):
        rng = np.random.default_rng(100 + number)
        kwargs = {**SIZES, **options} | ({"use_observed_lib_size": False} if "library_log_means" in options else {})
        arrays = {key: np.array(value) for key, value in kwargs.items() if key in PRIOR}
        module = SCANVAE(**{**kwargs, **arrays})
        state = module.state_dict()
        values = weights(rng, state) | {"y_prior": state["y_prior"].numpy()}
        module.load_state_dict({key: torch.tensor(values[key]) for key in state})
        batch = pair(rng, "n_cats_per_cov" in options)
        figures = record(module, {key: torch.as_tensor(value) for key, value in batch.items()})
        np.savez_compressed(
            folder / f"{name}.npz",
            case=np.array(json.dumps({"class": "SCANVAE", "kwargs": kwargs})),
            **{f"weights/{key}": values[key] for key in state},
            **{f"batch/{key}": value for key, value in batch.items()},
            **{f"figures/{key}": value for key, value in figures.items()},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden_scanvae")
