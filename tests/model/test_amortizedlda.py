"""AmortizedLDA: topics of documents whose topics are known."""

import anndata
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from celbo.model import AmortizedLDA

K = 4


@pytest.fixture(scope="module")
def documents():
    """400 documents of 200 words, four topics over 60 words."""
    rng = np.random.default_rng(0)
    topics_kg, mixture_nk = rng.dirichlet(np.full(60, 0.1), K), rng.dirichlet(np.full(K, 0.3), 400)
    probs_ng = mixture_nk @ topics_kg
    counts = np.stack([rng.multinomial(200, p / p.sum()) for p in probs_ng]).astype(np.float32)
    counts[0, counts.sum(0) == 0] = 1  # every word is there
    adata = anndata.AnnData(counts)
    adata.obs_names = [f"document_{i}" for i in range(400)]
    adata.var_names = [f"word_{i}" for i in range(60)]
    adata.obsm["mixture"], adata.varm["topics"] = mixture_nk, topics_kg.T.copy()
    adata.uns["perplexity"] = float(np.exp(-(counts * np.log(np.maximum(probs_ng, 1e-30))).sum() / counts.sum()))
    return adata


def fresh(adata, **kwargs) -> AmortizedLDA:
    adata = adata.copy()
    AmortizedLDA.setup_anndata(adata)
    return AmortizedLDA(adata, **({"n_topics": K} | kwargs))


@pytest.fixture(scope="module")
def trained(documents):
    model = fresh(documents)
    model.train(max_epochs=300, verbose=0, seed=0, accelerator="cpu")
    return model


def correlations(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of each column of ``found`` with its own column of ``truth``, and which one that is."""
    table = np.corrcoef(found.T, truth.T)[:K, K:]
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns], columns


def test_topics_are_recovered(trained):
    features, topics = (
        trained.get_feature_by_topic(200, seed=0),
        trained.get_latent_representation(n_samples=200, seed=0),
    )
    assert list(features.columns) == list(topics.columns) == [f"topic_{k}" for k in range(K)]
    assert list(features.index) == list(trained.adata.var_names)
    assert list(topics.index) == list(trained.adata.obs_names)
    np.testing.assert_allclose(features.sum(0), 1, rtol=1e-4)
    np.testing.assert_allclose(topics.sum(1), 1, rtol=1e-4)
    of_topics, order = correlations(features.to_numpy(), trained.adata.varm["topics"])
    of_documents, same = correlations(topics.to_numpy(), trained.adata.obsm["mixture"])
    assert of_topics.min() > 0.9
    assert of_documents.min() > 0.9
    assert order.tolist() == same.tolist()


def test_perplexity_is_near_that_of_the_truth(trained):
    perplexity, truth = trained.get_perplexity(seed=0), trained.adata.uns["perplexity"]
    assert truth < perplexity < 1.25 * truth
    elbo = trained.get_elbo(seed=0)
    np.testing.assert_allclose(perplexity, np.exp(-elbo / trained.adata.X.sum()), rtol=1e-5)  # sums in float32
    assert elbo < 0


def test_the_bound_of_some_cells(trained):
    """Batches do not matter beyond the draws; the parts of the data add up to the whole."""
    halves = [trained.get_elbo(indices=np.arange(i, 400, 2), seed=0) for i in (0, 1)]
    whole = trained.get_elbo(seed=0)
    np.testing.assert_allclose(sum(halves), whole, rtol=0.02)
    np.testing.assert_allclose(trained.get_elbo(batch_size=50, seed=1), whole, rtol=0.02)


def test_history_holds_local_and_global_divergence(trained):
    history = trained.history
    assert {"kl_local_train", "kl_global_train", "elbo_validation"} <= set(history)
    assert history["kl_global_train"].iloc[-1, 0] > 0
    assert history["elbo_train"].iloc[-1, 0] < history["elbo_train"].iloc[0, 0]


def test_settings_of_training(documents):
    def plan_of(**kwargs):
        model = fresh(documents)
        model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu", **kwargs)
        plan = model.trainer.plan
        return plan.lr, plan.eps, plan.weight_decay

    assert plan_of() == (0.05, 1e-8, 0.0)
    assert plan_of(lr=0.01) == (0.01, 1e-8, 0.0)
    assert plan_of(plan_kwargs={"lr": 0.02}) == (0.02, 1e-8, 0.0)
    assert plan_of(recipe="long_cycle") == (0.05, 1e-8, 0.0)
    assert plan_of(recipe="classic") == (0.001, 1e-8, 0.0)


def test_a_plan_of_pyro_is_refused(documents):
    with pytest.raises(TypeError, match="plan_kwargs"):
        fresh(documents).train(training_plan=object())


def test_archives(trained, tmp_path):
    trained.save(str(tmp_path / "own"))
    again = AmortizedLDA.load(str(tmp_path / "own"), trained.adata, accelerator="cpu")
    ours, theirs = (m.get_latent_representation(n_samples=10, seed=0) for m in (trained, again))
    np.testing.assert_array_equal(ours, theirs)


def test_an_untrained_model_says_so(documents):
    with pytest.raises(RuntimeError, match="train"):
        fresh(documents).get_feature_by_topic()
