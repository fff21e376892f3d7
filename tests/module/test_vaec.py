"""The contract of VAEC, and its loss of fine labels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from celbo.module import VAEC
from celbo.testing import check_module

N, G = 8, 12


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "X": torch.poisson(torch.full((N, G), 3.0), generator=generator),
        "batch": torch.arange(N)[:, None] % 2,
        "labels": torch.arange(N)[:, None] % 3,
        "fine_labels": torch.arange(N)[:, None] % 5,
    }


def vaec(**options):
    return VAEC(G, n_batch=2, n_labels=3, n_hidden=6, n_latent=3, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"prior": "mog", "num_classes_mog": 2}, {"n_fine_labels": 5}, {"encode_covariates": True}],
    ids=lambda options: ", ".join(options) or "default",
)
def test_contract(options, batch):
    check_module(lambda: vaec(**options), batch)


def test_cells_without_fine_label_teach_the_classifier_nothing(batch):
    module = vaec(n_fine_labels=5).eval()
    inference, _, out = module(batch)
    known = batch["fine_labels"].squeeze(-1) < 4
    logits = module.classify(inference["qz"].loc, batch["labels"])
    expected = F.cross_entropy(logits[known], batch["fine_labels"].squeeze(-1)[known])
    torch.testing.assert_close(out.classification_loss, expected)
    none = batch | {"fine_labels": torch.full((N, 1), 4)}
    assert module(none)[2].classification_loss == 0


def test_weights_of_types_weigh_the_loss_and_no_term(batch):
    module = vaec(ct_weight=np.array([1.0, 2.0, 3.0])).eval()
    inference, generated = module(batch, compute_loss=False)
    out = module.loss(batch, inference, generated)
    per_cell_n = out.reconstruction_loss["reconstruction_loss"] + out.kl_local["kl_local"]
    torch.testing.assert_close(out.loss, (torch.arange(N) % 3 + 1.0).mul(per_cell_n).mean())
