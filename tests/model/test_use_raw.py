"""``use_raw=True``: the same as the counts and genes of ``raw`` in ``X``, in every verb."""

import inspect

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import celbo
from celbo.data import open as open_data
from celbo.external import (
    GIMVI,
    MRVI,
    RESOLVI,
    SCAR,
    SCVIVA,
    SOLO,
    CellAssign,
    ContrastiveVI,
    Decipher,
    RNAStereoscope,
    SpatialStereoscope,
    SysVI,
)
from celbo.model import AUTOZI, SCANVI, SCVI, AmortizedLDA, CondSCVI, DestVI, LinearSCVI

N, G, H = 60, 12, 20
MODELS = (SCVI, SCANVI, LinearSCVI, AUTOZI, AmortizedLDA, CondSCVI, DestVI, *(SOLO, CellAssign), RNAStereoscope)


def pair(seed: int = 0, n: int = N) -> tuple[ad.AnnData, ad.AnnData]:
    """Scaled values of some genes in ``X`` with the counts of more in ``raw``, and these counts as ``X``."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {"batch": np.where(np.arange(n) % 2, "a", "b"), "type": np.where(np.arange(n) % 3, "t", "u")},
        index=[f"c{i}" for i in range(n)],
    )
    x_nh = rng.poisson(rng.gamma(1, 1, H), (n, H)).astype(np.float32)
    plain = ad.AnnData(x_nh, obs=obs.copy(), var=pd.DataFrame(index=[f"g{i}" for i in range(H)]))
    scaled = plain[:, 3 : 3 + G].copy()
    scaled.X = scaled.X - scaled.X.mean(0)
    scaled.raw = plain.copy()
    return scaled, plain


def trained(adata: ad.AnnData, cls=SCVI, setup=None, **kwargs):
    cls.setup_anndata(adata, **({"batch_key": "batch"} | (setup or {})))
    model = cls(adata, **({"n_hidden": 8, "n_latent": 3} | kwargs))
    model.train(max_epochs=2, seed=0, verbose=0, accelerator="cpu")
    return model


@pytest.fixture(scope="module")
def models():
    scaled, plain = pair()
    return trained(scaled, setup={"use_raw": True}), trained(plain)


@pytest.mark.parametrize(
    "cls",
    [*MODELS, SpatialStereoscope, SysVI, SCAR, ContrastiveVI, MRVI, GIMVI, SCVIVA, RESOLVI, Decipher],
    ids=lambda cls: cls.__name__,
)
def test_every_setup_takes_it_as_its_last_keyword(cls):
    parameters = list(inspect.signature(cls.setup_anndata).parameters.values())
    assert parameters[-2].name == "use_raw"
    assert parameters[-2].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters[-2].default is False
    assert not {"use_raw"} & {p.name for p in parameters[:-2]}


def test_answers_are_those_of_the_counts_in_x(models):
    raw, plain = models
    np.testing.assert_array_equal(raw.get_latent_representation(), plain.get_latent_representation())
    assert list(raw.get_var_names()) == [f"g{i}" for i in range(H)]
    assert raw.summary_stats.n_vars == H
    pd.testing.assert_frame_equal(raw.get_normalized_expression(seed=0), plain.get_normalized_expression(seed=0))
    found = [model.differential_expression(groupby="type", seed=0) for model in models]
    pd.testing.assert_frame_equal(*found)
    drawn = [model.posterior_predictive_sample(n_samples=1, seed=0) for model in models]
    np.testing.assert_array_equal(*(np.asarray(one.todense()) for one in drawn))


def test_the_registry_says_it_and_only_then(models):
    raw, plain = models
    assert raw.registry_["setup_args"] == plain.registry_["setup_args"] | {"use_raw": True}
    places = [model.registry_["field_registries"]["X"]["data_registry"] for model in models]
    assert places == [{"attr_name": "raw", "attr_key": None}, {"attr_name": "X", "attr_key": None}]


def test_an_archive_takes_raw_again(models, tmp_path):
    raw, plain = models
    raw.save(str(tmp_path / "m"), save_anndata=True)
    later, _ = pair()
    wanted = plain.get_latent_representation()
    for adata in (later, None, False):
        model = SCVI.load(str(tmp_path / "m"), adata=adata)
        answer = model.get_latent_representation(later if adata is False else None)
        np.testing.assert_allclose(answer, wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"adata\.raw is None"):
        SCVI.load(str(tmp_path / "m"), adata=pair()[1])


def test_an_archive_for_scvi_tools_has_it_in_x(models, tmp_path, log_of):
    models[0].save(str(tmp_path / "m"))
    celbo.model.base.export_archive(tmp_path / "m", tmp_path / "old")
    assert "scvi-tools does not do" in log_of[-1]
    model = SCVI.load(str(tmp_path / "old"), adata=pair()[1])
    np.testing.assert_allclose(model.get_latent_representation(), models[1].get_latent_representation(), atol=1e-6)


@pytest.fixture
def log_of(caplog):
    import logging

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("celbo").addHandler(handler)
    yield messages
    logging.getLogger("celbo").removeHandler(handler)


def test_views_and_other_orders_of_genes(models):
    raw, plain = models
    wanted = plain.get_latent_representation()
    np.testing.assert_allclose(raw.get_latent_representation(raw.adata[5:9]), wanted[5:9], atol=1e-6)
    scaled, counts = pair()
    scaled.raw = counts[:, ::-1].copy()
    np.testing.assert_allclose(raw.get_latent_representation(scaled), wanted, atol=1e-6)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.filterwarnings("ignore:Writing zarr")
def test_streamed_and_backed(models, tmp_path, suffix, form):
    scaled, counts = pair()
    counts.X = form(counts.X)
    scaled.raw = counts
    paths = [tmp_path / f"{name}.{suffix}" for name in ("raw", "plain")]
    for one, path in zip((scaled, counts), paths):
        (one.write_zarr if suffix == "zarr" else one.write_h5ad)(path)
    ways = [lambda path: open_data(path, stream=True), lambda path: open_data(path, stream=False)]
    ways += [lambda path: ad.read_h5ad(path, backed="r")] if suffix == "h5ad" else []
    for way in ways:
        adata, plain = map(way, paths)
        answers = [trained(adata, setup={"use_raw": True}), trained(plain)]
        np.testing.assert_array_equal(*(model.get_latent_representation() for model in answers))
        few = models[0].get_latent_representation(adata[2:5])
        np.testing.assert_allclose(few, models[1].get_latent_representation()[2:5], atol=1e-5)


def test_several_files_with_other_genes_in_raw(tmp_path):
    for number in range(2):
        scaled, counts = pair(number)
        scaled.raw = counts[:, number:].copy()
        scaled.obs_names = [f"{number}_{name}" for name in scaled.obs_names]
        scaled.write_h5ad(tmp_path / f"{number}.h5ad")
    wanted = np.concatenate([pair(number)[1].X[:, 1:] for number in range(2)])
    for stream in (True, False):
        adata = open_data(tmp_path, stream=stream)
        assert list(adata.raw.var_names) == [f"g{i}" for i in range(1, H)]
        np.testing.assert_array_equal(adata.raw.X[:].toarray(), wanted)
        assert open_data(tmp_path, stream=stream, raw=False).raw is None


def test_a_query_is_mapped_by_the_genes_of_raw(models):
    raw, plain = models
    answers = []
    for model, take in ((raw, 0), (plain, 1)):
        query = pair(3)[take]
        query.obs["batch"] = "new"
        if take == 0:
            query.raw = pair(3)[1][:, ::-1].copy()
        mapped = SCVI.load_query_data(query, model)
        mapped.train(max_epochs=1, seed=0, verbose=0, accelerator="cpu")
        answers.append(mapped.get_latent_representation())
    np.testing.assert_allclose(*answers, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Only 15 of the reference's 20 genes")
def test_a_query_that_lacks_genes_in_raw(models):
    scaled, counts = pair(3)
    scaled.raw = counts[:, :15].copy()
    with pytest.raises(ValueError, match="lacks 5 of the reference's 20 genes"):
        SCVI.load_query_data(scaled, models[0])
    SCVI.prepare_query_anndata(scaled, models[0])
    assert list(scaled.raw.var_names) == [f"g{i}" for i in range(H)]
    assert scaled.n_vars == G
    SCVI.load_query_data(scaled, models[0])


def test_minified_data_keep_the_genes(models, tmp_path):
    scaled, _ = pair()
    model = trained(scaled, setup={"use_raw": True})
    wanted = model.get_normalized_expression(seed=0)
    scaled.obsm["X_latent_qzm"], scaled.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
    model.minify_adata()
    assert model.adata.raw.shape == (N, H)
    assert model.adata.raw.X.nnz == 0
    pd.testing.assert_frame_equal(model.get_normalized_expression(seed=0), wanted, atol=1e-6)
    model.save(str(tmp_path / "m"), save_anndata=True)
    pd.testing.assert_frame_equal(SCVI.load(str(tmp_path / "m")).get_normalized_expression(seed=0), wanted, atol=1e-6)


def test_models_made_from_models():
    scaled, _ = pair()
    scvi = trained(scaled, setup={"use_raw": True, "labels_key": "type"})
    scanvi = SCANVI.from_scvi_model(scvi, unlabeled_category="u")
    assert list(scanvi.get_var_names()) == [f"g{i}" for i in range(H)]
    solo = SOLO.from_scvi_model(scvi, restrict_to_batch="a")
    assert solo.adata.n_vars == 4
    spots, _ = pair(2)
    cells = trained(pair(1)[0], CondSCVI, {"batch_key": None, "labels_key": "type", "use_raw": True})
    DestVI.setup_anndata(spots, use_raw=True)
    assert DestVI.from_rna_model(spots, cells).summary_stats.n_vars == H


def test_what_does_not_go_together():
    scaled, plain = pair()
    with pytest.raises(ValueError, match=r"layer='x' and use_raw=True name two matrices"):
        SCVI.setup_anndata(scaled, layer="x", use_raw=True)
    with pytest.raises(ValueError, match=r"adata\.raw is None"):
        SCVI.setup_anndata(plain, use_raw=True)
    with pytest.raises(ValueError, match=r"use use_raw=True \(adata\.raw, 20 genes\)"):
        SCVI.setup_anndata(scaled)


def test_bad_values_are_said_of_raw():
    scaled, plain = pair()
    plain.X[4, 2] = 0.5
    scaled.raw = plain
    with pytest.warns(UserWarning, match=r"adata\.raw\.X does not contain unnormalized count data: .* \('c4'\)"):
        SCVI.setup_anndata(scaled, use_raw=True)


def test_checks_of_the_model_compare_with_raw(models):
    pytest.importorskip("sparse")
    raw, plain = models
    tables = []
    for model in (raw, plain):
        check = celbo.criticism.PosteriorPredictiveCheck(model.adata, {"m": model}, n_samples=2)
        check.zero_fraction()
        tables.append(check.metrics["zero_fraction"]["Raw"])
    pd.testing.assert_series_equal(*tables)
