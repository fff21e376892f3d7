"""Files as people have them: each trains, loaded and streamed, or ends in one line that a biologist can act on."""

import numpy as np
import pytest

import celbo
import celbo.data

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # old layouts, and counts that are none: said, and not the question here

TRAIN = {
    "10x_v3_filtered.h5": (1107, 507),
    "10x_v3_mtx": (1107, 507),
    "10x_visium_seurat_test.h5": (2695, 100),
    "anndata_v0.7.0.h5ad": (30, 20),
    "anndata_v0.7.0.zarr.zip": (30, 20),
    "loompy_test.loom": (200, 20),
    "osmfish_all_cells.loom": (6471, 33),
    "parse_biosciences": (5000, 266),
    "scirpy_wu2020_200.h5ad": (200, 3000),
    "scvitools_brain_large_10x.h5": (70, 4000),
    "scvitools_pbmc5k_protein_old.h5ad": (200, 16581),
    "simba_10xpbmc_atac.h5ad": (100, 200),
    "simba_10xpbmc_rna.h5ad": (100, 200),
}
"""Cells and genes of what holds counts in X."""

OF_A_MODALITY = {
    ("10x_v2_multiple_genomes.h5", "hg19_chr21"): (12, 343),
    ("muon_test_rna_atac.h5mu", "rna"): (1000, 45),
    ("muon_test_rna_atac.h5mu", "atac"): (1000, 174),
    ("mudata_v0.1.2_axis0.h5mu", "mod2"): (100, 30),
    ("mudata_v0.2.4_axis1.h5mu", "mod2"): (100, 30),
    ("mudata_v0.4.1_axis0.zarr.zip", "mod2"): (100, 30),
}

SAID = {
    "10x_v2_multiple_genomes.h5": "2 genomes.*'hg19_chr21'.*modality=",
    "muon_test_rna_atac.h5mu": "2 modalities.*modality='rna'",
    "mudata_v0.1.2_axis0.h5mu": "2 modalities.*'mod2'.*modality=",
    "mudata_v0.2.4_axis1.h5mu": "2 modalities.*'mod2'.*modality=",
    "mudata_v0.4.1_axis0.zarr.zip": "2 modalities.*'mod2'.*modality=",
    "anndata_v0.11.4.h5ad": "no X|X is None|has none",
    "anndata_v0.5.0.h5ad": "negative|NaN|count",
    "cellxgene_nan.h5ad": "negative|NaN|count",
    "zellkonverter_krumsiek11.h5ad": "negative|NaN|count",
}

EITHER = (
    "anndataR_example.h5ad",
    "cellxgene_schema_valid.h5ad",
    "squidpy_test_data.h5ad",
    "zellkonverter_example.h5ad",
)
"""Values that are no whole numbers, which is said, and two cells: they train, or the message is about that."""

MOST_CELLS = 300


@pytest.fixture
def odd(shared_dir):
    folder = shared_dir / "data" / "odd"
    if not folder.is_dir():
        pytest.skip("shared/data/odd, files as people have them, is not here")
    return folder


def train(adata):
    celbo.model.SCVI.setup_anndata(adata)
    model = celbo.model.SCVI(adata, n_hidden=8, n_latent=2)
    model.train(max_epochs=1, batch_size=512, verbose=0, seed=0, accelerator="cpu")
    assert np.isfinite(model.get_latent_representation()).all()


def test_all_are_tried(odd):
    tried = {*TRAIN, *SAID, *EITHER, *(name for name, _ in OF_A_MODALITY)}
    assert {path.name for path in odd.iterdir()} <= tried


@pytest.mark.parametrize("name", TRAIN)
def test_what_trains(odd, name):
    if ".zarr" in name:
        pytest.importorskip("zarr")
    loaded, streamed = celbo.data.read(odd / name), celbo.data.open(odd / name, stream=True)
    assert loaded.shape == streamed.shape == TRAIN[name]
    assert list(loaded.obs_names[:20]) == list(streamed.obs_names[:20])
    rows = np.arange(0, loaded.n_obs, max(1, loaded.n_obs // 9))
    wanted = loaded.X[rows]
    np.testing.assert_array_equal(streamed.X[rows].toarray(), getattr(wanted, "toarray", lambda: wanted)())
    train(loaded[:MOST_CELLS].copy())


@pytest.mark.parametrize(("name", "modality"), OF_A_MODALITY)
def test_a_modality(odd, name, modality):
    if ".zarr" in name:
        pytest.importorskip("zarr")
    loaded, streamed = (celbo.data.open(odd / name, stream=stream, modality=modality) for stream in (False, True))
    assert loaded.shape == streamed.shape == OF_A_MODALITY[name, modality]
    train(loaded)


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("stream", [False, None])
def test_what_is_said(odd, name, stream):
    if ".zarr" in name:
        pytest.importorskip("zarr")
    with pytest.raises((ValueError, TypeError, KeyError), match=SAID[name]) as raised:
        train(celbo.data.open(odd / name, stream=stream))
    assert "\n" not in str(raised.value).strip()


@pytest.mark.parametrize("name", EITHER)
def test_what_trains_or_is_refused_as_no_counts(odd, name):
    said = ""
    try:
        train(celbo.data.open(odd / name))
    except (ValueError, TypeError) as error:
        said = str(error)
    assert not said or any(word in said for word in ("count", "cells", "validation"))
