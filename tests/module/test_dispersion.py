"""Dispersions and levels of genes to begin with, from the counts."""

import anndata
import numpy as np
import pytest
import torch

from celbo.model import SCVI
from celbo.module import LDVAE, VAE
from celbo.module.likelihoods import log_theta_by_moments, two_levels

LEVEL = "decoder.px_scale_decoder.0.bias"


def negative_binomial(theta_g, n_cells=2000, depth=5000.0):
    """Counts of cells that differ in their totals alone."""
    rng = np.random.default_rng(0)
    mu_ng = rng.uniform(0.5, 2, (n_cells, 1)) * depth / len(theta_g)
    return torch.from_numpy(rng.poisson(rng.gamma(theta_g, mu_ng / theta_g)).astype(np.float32))


def test_recovers_what_was_drawn():
    theta_g = np.repeat([0.3, 1.0, 3.0], 20)
    found = log_theta_by_moments(negative_binomial(theta_g)).exp().numpy()
    for theta in (0.3, 1.0, 3.0):
        assert np.median(found[theta_g == theta]) == pytest.approx(theta, rel=0.15)


def test_genes_of_few_counts_take_the_usual_one():
    x_ng = negative_binomial(np.full(40, 1.0))
    x_ng[:, 0] = 0
    x_ng[:, 1] = 0
    x_ng[7, 1] = 1
    assert log_theta_by_moments(x_ng)[:2].abs().max() < 0.5


def test_counts_without_excess_and_counts_of_one_cell():
    assert log_theta_by_moments(torch.full((5, 3), 7.0)).tolist() == [3.0] * 3
    x_ng = torch.ones(50, 4)
    x_ng[3, 2] = 1e6
    assert log_theta_by_moments(x_ng).abs().max() <= 3


@pytest.mark.parametrize(
    ("cls", "head"), [(VAE, "px_scale_decoder.0"), (LDVAE, "factor_regressor.fc_layers.Layer 0.0")]
)
def test_levels_are_those_of_the_counts(cls, head):
    """With latents that say nothing a cell has the mean profile, and a tenth of an even one beside it."""
    x_ng = negative_binomial(np.full(40, 1.0))
    x_ng[:, :20] *= 9
    x_ng[:, 39] = 0
    module = cls(40, n_hidden=4, use_observed_lib_size=True).eval()
    assert module.start_from_counts(x_ng)
    decoder = module.decoder
    torch.nn.init.zeros_(decoder.get_submodule(head).weight)
    scale_g = decoder.scale(decoder.logits("gene", torch.zeros(1, 10), torch.zeros(1, 1), use_dropout=False)[0])[0]
    share_g = x_ng.sum(0) / x_ng.sum()
    torch.testing.assert_close(scale_g, (share_g + 0.1 / 40) / 1.1)


@pytest.mark.parametrize(
    ("kwargs", "does", "changes"),
    [
        ({}, True, [LEVEL, "px_r"]),
        ({"dispersion": "gene-batch", "n_batch": 2}, True, [LEVEL, "px_r"]),
        ({"gene_likelihood": "nb"}, True, [LEVEL, "px_r"]),
        ({"use_size_factor_key": True}, True, ["px_r"]),
        ({"dispersion": "gene-cell"}, True, [LEVEL]),
        ({"gene_likelihood": "poisson"}, True, [LEVEL]),
        ({"gene_likelihood": "normal"}, False, []),
    ],
)
def test_which_modules_begin_with_them(kwargs, does, changes):
    x_ng = negative_binomial(np.full(6, 1.0), n_cells=50)
    module = VAE(6, n_hidden=4, **kwargs)
    assert module.starts_from_profile is ("use_size_factor_key" not in kwargs)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert module.start_from_counts(x_ng) is does
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    assert sorted(changed) == changes
    assert not module.start_from_counts(torch.zeros(5, 6))
    assert not module.start_from_counts(torch.full((5, 6), torch.nan))


def test_a_trained_model_goes_on_with_its_own():
    adata = anndata.AnnData(negative_binomial(np.full(6, 1.0), n_cells=60).numpy())
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=4)
    options = {"max_epochs": 1, "verbose": 0, "seed": 0, "accelerator": "cpu", "plan_kwargs": {"lr": 0.0}}
    model.train(**options)
    with torch.no_grad():
        model.module.px_r.fill_(0.125)
    model.train(**options)
    assert model.module.px_r.unique().tolist() == [0.125]


def test_two_levels_are_those_of_two_groups():
    low_np, high_np = np.array([[2.0, 4.0, 1.0, 7.0]]), np.array([[30.0, 50.0, 80.0, 7.0]])
    is_high_np = np.arange(10)[:, None] < [3, 5, 8, 0]
    counts = torch.as_tensor(np.where(is_high_np, high_np, low_np))
    counts[0, 2] = torch.nan
    counts = torch.nn.functional.pad(counts, (0, 1), value=torch.nan)  # a protein that no cell has
    low_p, high_p, share_p = two_levels(counts)
    np.testing.assert_allclose(low_p, [*low_np[0], np.nan])
    np.testing.assert_allclose(high_p, [*high_np[0], np.nan])
    np.testing.assert_allclose(share_p, [0.3, 0.5, 7 / 9, 0, np.nan])
