"""What the report says of proteins and of several modalities, against counts and distances worked out here."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from celbo.data import synthetic_iid
from celbo.external import TOTALANVI
from celbo.model import MULTIVI, TOTALVI
from celbo.report import model_report
from celbo.report.modalities import ModalityDetail, share_nearer
from celbo.report.proteins import ProteinDetail


def headings(path):
    return re.findall("<h2>(.*?)</h2>", path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def adata():
    """Cells with six proteins; the second batch was not stained for the last one."""
    found = synthetic_iid(batch_size=60, n_genes=15, n_proteins=6, seed=0)
    counts_np = found.obsm["protein_expression"].astype(float)
    counts_np[(found.obs["batch"] == "batch_1").to_numpy(), 5] = 0
    counts_np[:, 0] += np.where(np.arange(found.n_obs) % 2, 300, 0)
    found.obsm["protein_expression"] = pd.DataFrame(counts_np, found.obs_names, ["<b>&", *(f"P{i}" for i in range(5))])
    found.obs["known"] = np.where(np.arange(found.n_obs) % 3 > 0, found.obs["labels"].astype(str), "?")
    return found


@pytest.fixture(scope="module")
def totalvi(adata):
    TOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
    model = TOTALVI(adata, n_latent=4)
    model.train(30, seed=0, verbose=0)
    return model


class TestProteins:
    def test_figures_are_those_of_the_counts(self, totalvi, adata):
        table = ProteinDetail.of(totalvi, 0).proteins
        counts_np = adata.obsm["protein_expression"].to_numpy()
        assert list(table.index) == list(adata.obsm["protein_expression"])
        assert list(table["n_cells"]) == [*[120] * 5, 60]
        np.testing.assert_allclose(table["observed"][:5], counts_np[:, :5].mean(0), rtol=1e-5)
        assert table["observed"].iloc[5] == pytest.approx(counts_np[:60, 5].mean())
        probability_np = totalvi.get_protein_foreground_probability(n_samples=10, seed=0, return_numpy=True)
        is_np = np.asarray(probability_np) > 0.5
        np.testing.assert_allclose(table["share"][:5], is_np[:, :5].mean(0), rtol=1e-6)
        wanted = [counts_np[is_np[:, p], p].mean() if is_np[:, p].any() else np.nan for p in range(5)]
        np.testing.assert_allclose(table["foreground"][:5], wanted, rtol=1e-5)
        background = totalvi.get_protein_background_mean(seed=0)
        np.testing.assert_allclose(table["expected_background"][:5], background[:, :5].mean(0), rtol=1e-4)

    def test_a_protein_of_half_of_the_cells(self, totalvi):
        found = ProteinDetail.of(totalvi, 0)
        first = found.proteins.iloc[0]
        assert first["share"] == pytest.approx(0.5, abs=0.2)
        assert first["foreground"] > 200 > 100 > first["background"]
        assert found.figures["protein means, observed and expected (r of logs)"] > 0.9

    def test_the_page(self, totalvi, tmp_path):
        found = model_report(totalvi, tmp_path / "r.html")
        assert found.problems == {}
        assert headings(tmp_path / "r.html")[1:3] == ["Proteins, foreground and background", "Fit of each protein"]
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert "<b>&P" not in text
        assert '<th scope="row">&lt;b&gt;&amp;</th>' in text
        assert "proteins with foreground" in text

    def test_labels_and_proteins(self, adata, tmp_path):
        TOTALANVI.setup_anndata(adata, "protein_expression", labels_key="known", unlabeled_category="?")
        model = TOTALANVI(adata, n_latent=4)
        model.train(1, seed=0, verbose=0)
        found = model_report(model, tmp_path / "r.html")
        assert found.problems == {}
        assert {"Predicted labels", "Fit of each protein"} <= set(headings(tmp_path / "r.html"))

    def test_without_counts_nothing_is_said(self, totalvi, adata):
        TOTALVI.setup_anndata(other := adata.copy(), "protein_expression", batch_key="batch")
        model = TOTALVI(other, n_latent=3)
        model.train(1, seed=0, verbose=0)
        other.obsm["m"], other.obsm["v"] = model.get_latent_representation(return_dist=True)
        model.minify_adata(use_latent_qzm_key="m", use_latent_qzv_key="v")
        found = ProteinDetail.of(model, 0)
        assert (dict(found.figures), found.sections()) == ({}, [])


@pytest.fixture(scope="module")
def multivi():
    """60 cells with both modalities, 20 with genes only, 10 with regions only."""
    mudata = pytest.importorskip("mudata")
    rng = np.random.default_rng(0)
    names = [f"cell_{i}" for i in range(90)]

    def modality(cells, features, prefix):
        counts = rng.poisson(1.5, (len(cells), features)).astype(np.float32)
        var = pd.DataFrame(index=[f"{prefix}{i}" for i in range(features)])
        return anndata.AnnData(counts, obs=pd.DataFrame(index=cells), var=var)

    with mudata.set_options(pull_on_update=False):
        with_peaks = names[:60] + names[80:]
        mdata = mudata.MuData({"gex": modality(names[:80], 12, "g"), "peaks": modality(with_peaks, 20, "p")})
        mdata.obs["donor"] = np.where(np.arange(90) % 2, "a", "b")
        MULTIVI.setup_mudata(mdata, batch_key="donor", modalities={"rna_layer": "gex", "atac_layer": "peaks"})
    model = MULTIVI(mdata, n_latent=3)
    model.train(2, seed=0, verbose=0, adversarial_mixing=False)
    return model


class TestModalities:
    def test_presence_and_agreement(self, multivi):
        found = ModalityDetail.of(multivi, 0)
        assert found.presence is not None
        assert found.presence["cells"].to_dict() == {"gex + peaks": 60, "gex": 20, "peaks": 10}
        assert found.mixing is not None
        assert found.mixing > 0
        by_genes = multivi.get_latent_representation(modality="expression")[:60]
        by_regions = multivi.get_latent_representation(modality="accessibility")[:60]
        assert found.nearer == {("expression", "accessibility"): pytest.approx(nearer(by_genes, by_regions))}

    def test_the_page(self, multivi, tmp_path):
        found = model_report(multivi, tmp_path / "r.html")
        assert found.problems == {}
        assert headings(tmp_path / "r.html")[1:3] == ["Cells by their modalities", "Agreement of modalities"]
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert '<th scope="row">gex + peaks</th><td>60</td><td>30</td><td>30</td>' in text

    def test_an_anndata_does_not_say_what_its_cells_have(self, adata):
        MULTIVI.setup_anndata(other := adata.copy(), batch_key="batch")
        model = MULTIVI(other, n_genes=9, n_latent=3)
        model.train(1, seed=0, verbose=0, adversarial_mixing=False)
        found = ModalityDetail.of(model, 0)
        assert (found.presence, found.mixing, len(found.nearer)) == (None, None, 1)


def nearer(first, second):
    distance = cdist(first, second)
    n = len(first)
    own = np.diag(distance)
    rows = [(distance[i] < own[i]).sum() / (n - 1) for i in range(n)]
    columns = [(distance[:, i] < own[i]).sum() / (n - 1) for i in range(n)]
    return np.mean([*rows, *columns])


def test_share_nearer():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(200, 3))
    assert share_nearer(first, first) == 0
    assert share_nearer(first, rng.normal(size=(200, 3))) == pytest.approx(0.5, abs=0.05)
    near = first + 0.3 * rng.normal(size=first.shape)
    assert share_nearer(first, near) == pytest.approx(nearer(first, near))
