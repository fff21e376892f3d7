"""Write what scvi-tools 1.4.2 computes for Stereoscope and CellAssign: losses, ten optimizer steps, small archives.

Run it with the Python of an environment with scvi-tools: ``python tests/parity/make_golden_cell_types.py [FOLDER]``.
One ``.npz`` a module with weights, minibatch and figures; one folder a model with its archive, data and answers.
"""

import json
import sys
from pathlib import Path

import numpy as np

N, G, C, N_CATS = 20, 7, 3, [2, 3]
SC_PARAMS = ["W", "px_o"]
COVARIATES = {"n_batch": 2, "n_cats_per_cov": N_CATS, "n_continuous_cov": 2}
CASES = {
    "rna": ("RNADeconv", {"n_genes": G, "n_labels": C}),
    "spatial_n_obs": ("SpatialDeconv", {"n_spots": N, "prior_weight": "n_obs"}),
    "spatial_minibatch": ("SpatialDeconv", {"n_spots": N, "prior_weight": "minibatch"}),
    "cellassign": ("CellAssignModule", {"n_genes": G, "n_batch": 1}),
    "cellassign_covariates": ("CellAssignModule", {"n_genes": G, **COVARIATES}),
}
UNUSED = ("px_r", "z_encoder.", "l_encoder.", "decoder.")


def arrays_of(rng: np.random.Generator, cls: str) -> dict[str, np.ndarray]:
    """Arguments of the constructor that are arrays."""
    if cls == "SpatialDeconv":
        return {"W": rng.normal(size=(G, C)).astype(np.float32), "px_o": rng.normal(size=G).astype(np.float32)}
    if cls == "CellAssignModule":
        rho = (np.arange(G)[:, None] % C == np.arange(C)).astype(np.float32)
        return {"rho": rho, "basis_means": np.linspace(0, 25, 10, dtype=np.float32)}
    return {}


def minibatch(rng: np.random.Generator, has_covariates: bool = False) -> dict[str, np.ndarray]:
    """Counts, codes and covariates by registry key."""
    covariates = {
        "extra_categorical_covs": np.stack([np.arange(N) % n for n in N_CATS], axis=1),
        "extra_continuous_covs": rng.normal(size=(N, 2)).astype(np.float32),
    }
    batch = {
        "X": rng.poisson(rng.gamma(1.0, 3.0, (N, G))).astype(np.float32),
        "labels": np.arange(N)[:, None] % C,
        "ind_x": rng.permutation(N)[:, None],
        "batch": np.arange(N)[:, None] % 2,
        "size_factor": rng.uniform(0.5, 2.0, (N, 1)).astype(np.float32),
    }
    return batch | covariates if has_covariates else batch


def made(classes: dict, cls: str, kwargs: dict, arrays: dict):
    """The module of a case."""
    import torch

    if cls == "SpatialDeconv":
        return classes[cls](sc_params=tuple(arrays[name] for name in SC_PARAMS), **kwargs)
    return classes[cls](**kwargs, **{name: torch.as_tensor(value) for name, value in arrays.items()})


def record(module, tensors: dict) -> dict[str, np.ndarray]:
    """Terms of the loss, gradients, and the losses of ten Adam steps."""
    import torch

    tensors = {**tensors, "batch": tensors["batch"] * (getattr(module, "n_batch", 2) > 1)}
    kwargs = {} if "Deconv" in type(module).__name__ and not hasattr(module, "V") else {"n_obs": 50}
    figures = {}
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-2, eps=0.01)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        _, generative, out = module(tensors, loss_kwargs=kwargs)
        out.loss.backward()
        if step == 0:
            figures["loss"] = out.loss
            figures["reconstruction_loss"] = out.reconstruction_loss["reconstruction_loss"]
            figures["kl_global"] = out.kl_global["kl_global"]
            figures |= {name: generative[name] for name in ("mu", "phi", "gamma", "p_x_c") if name in generative}
            gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
            figures |= {f"grad/{name}": grad.clone() for name, grad in gradients.items()}
        optimizer.step()
        losses.append(out.loss.item())
    return {name: value.detach().numpy() for name, value in figures.items()} | {"losses": np.array(losses)}


def make_modules(folder: Path) -> None:
    import torch
    from scvi.external.cellassign import CellAssignModule
    from scvi.external.stereoscope import RNADeconv, SpatialDeconv

    classes = {"RNADeconv": RNADeconv, "SpatialDeconv": SpatialDeconv, "CellAssignModule": CellAssignModule}
    for number, (name, (cls, kwargs)) in enumerate(CASES.items()):
        rng = np.random.default_rng(200 + number)
        arrays, batch = arrays_of(rng, cls), minibatch(rng, "n_cats_per_cov" in kwargs)
        module = made(classes, cls, kwargs, arrays)
        with torch.no_grad():
            for parameter_name, parameter in module.named_parameters():
                if not parameter_name.startswith(UNUSED):
                    parameter.copy_(torch.tensor(rng.uniform(-0.5, 0.5, parameter.shape)))
        state = {k: v.numpy().copy() for k, v in module.state_dict().items() if not k.startswith(UNUSED)}
        figures = record(module, {key: torch.as_tensor(value) for key, value in batch.items()})
        np.savez_compressed(
            folder / f"{name}.npz",
            case=np.array(json.dumps([cls, kwargs])),
            **{f"arrays/{key}": value for key, value in arrays.items()},
            **{f"weights/{key}": value for key, value in state.items()},
            **{f"batch/{key}": value for key, value in batch.items()},
            **{f"figures/{key}": value for key, value in figures.items()},
        )


def data(seed: int):
    """Cells (or spots) with everything the three models can be told."""
    import anndata
    import pandas as pd

    batch = minibatch(np.random.default_rng(seed))
    obs = {"labels": [f"type_{code}" for code in batch["labels"][:, 0]], "sf": batch["size_factor"][:, 0]}
    obs["site"] = [f"site_{code}" for code in batch["batch"][:, 0]]
    obs = pd.DataFrame(obs, index=[f"cell_{i}" for i in range(N)])
    return anndata.AnnData(batch["X"], obs=obs, var=pd.DataFrame(index=[f"gene_{j}" for j in range(G)]))


def markers():
    """Which gene marks which type."""
    import pandas as pd

    rho = arrays_of(np.random.default_rng(0), "CellAssignModule")["rho"]
    return pd.DataFrame(rho, index=[f"gene_{j}" for j in range(G)], columns=[f"type_{c}" for c in range(C)])


def make_models(folder: Path) -> None:
    import scvi
    from scvi.external import CellAssign, RNAStereoscope, SpatialStereoscope

    scvi.settings.seed = 0
    cells, spots, marked = data(0), data(1), data(2)
    options = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}
    RNAStereoscope.setup_anndata(cells, labels_key="labels")
    rna = RNAStereoscope(cells)
    rna.train(**options)
    SpatialStereoscope.setup_anndata(spots)
    spatial = SpatialStereoscope.from_rna_model(spots, rna)
    spatial.train(**options)
    CellAssign.setup_anndata(marked, size_factor_key="sf", batch_key="site")
    assign = CellAssign(marked, markers())
    assign.train(**options)
    answers = {
        "rna": rna.module.get_params()[0],
        "spatial": spatial.get_proportions().to_numpy(),
        "cellassign": assign.predict().to_numpy(),
    }
    for name, model in {"rna": rna, "spatial": spatial, "cellassign": assign}.items():
        model.save(str(folder / name), overwrite=True)
        np.save(folder / name / "answer.npy", answers[name])


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden_cell_types"
    folder.mkdir(parents=True, exist_ok=True)
    make_modules(folder)
    make_models(folder)
