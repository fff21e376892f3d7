"""AmortizedLDA against scvi-tools 1.4.2: an archive that it saved (``make_golden_lda.py``), read and asked."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from celbo.model import AmortizedLDA

FOLDER = Path(__file__).parent
TOLERANCE = 1e-5


@pytest.fixture
def model(monkeypatch):
    sys.path.insert(0, str(FOLDER))
    try:
        from make_golden_lda import data
    finally:
        sys.path.remove(str(FOLDER))
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
    return AmortizedLDA.load(str(FOLDER / "golden_lda"), data(), accelerator="cpu")


@pytest.fixture
def expected():
    with np.load(FOLDER / "golden_lda" / "expected.npz") as archive:
        return dict(archive)


def more_than_one_draw(q: Normal, p: Normal) -> torch.Tensor:
    """KL(q, p) less the log-ratio of the densities at the mean of q, which is all that Pyro sees of it."""
    return (q.scale.square() / (2 * p.scale.square()) - 0.5).sum(-1)


def test_posteriors_likelihood_and_divergences(model, expected):
    with torch.no_grad():
        inference, generative, out = model.module({"X": torch.as_tensor(model.adata.X)})
    qz, pz, q_topics, p_topics = inference["qz"], generative["pz"], generative["q_topics"], generative["p_topics"]
    ours = {
        "cells_mean": qz.loc,
        "cells_scale": qz.scale,
        "topics_mean": q_topics.loc,
        "topics_scale": q_topics.scale,
        "log_likelihood": -out.reconstruction_loss["reconstruction_loss"],
        "cells_log_ratio": out.kl_local["kl_local"] - more_than_one_draw(qz, pz),
    }
    for name, value in ours.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value.detach(), expected[name], rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=name)
    topics = out.kl_global_sum - more_than_one_draw(q_topics, p_topics).sum()
    np.testing.assert_allclose(topics, expected["topics_log_ratio"].sum(), rtol=TOLERANCE)


def test_the_bound_has_the_other_sign(model, expected):
    """scvi-tools gives the loss as ELBO and the reciprocal of the perplexity."""
    parts = ("log_likelihood", "cells_log_ratio", "topics_log_ratio")
    likelihood, cells, topics = (float(expected[name].sum()) for name in parts)
    np.testing.assert_allclose(expected["elbo"], -(likelihood - cells - topics), rtol=TOLERANCE)
    np.testing.assert_allclose(expected["perplexity"], np.exp(-expected["elbo"] / model.adata.X.sum()), rtol=1e-4)
    assert model.get_elbo() < 0
    assert model.get_perplexity() > 1 > expected["perplexity"]
