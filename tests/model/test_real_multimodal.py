"""Models of several modalities on real cells."""

import numpy as np
import pytest
from anndata import AnnData

from celbo.data import top_variable_genes
from celbo.model import MULTIVI, TOTALVI

mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
pytestmark = [
    pytest.mark.usefixtures("mudata_pulls_nothing"),
    pytest.mark.filterwarnings("ignore:var_names are not unique"),  # mudata's, of the file of antibodies
]


def modalities_of(shared_dir, name: str) -> dict[str, AnnData]:
    path = shared_dir / "data" / f"{name}.h5mu"
    if not path.is_file():
        pytest.skip(f"no file {path.name} in 'shared': the real data are not here")
    return dict(mudata.read_h5mu(path).mod)


def test_isotype_controls_are_background(shared_dir):
    """Antibodies that bind to nothing in human cells, beside 47 that may; nobody tells the model which they are."""
    parts = modalities_of(shared_dir, "cite_pbmc_hashed")
    parts["protein"].var_names = [f"{name} (antibody)" for name in parts["protein"].var_names]
    rna = parts["rna"][:, top_variable_genes(parts["rna"].X, 1000)].copy()
    mdata = mudata.MuData({"rna": rna, "protein": parts["protein"]})
    TOTALVI.setup_mudata(mdata, modalities={"rna_layer": "rna", "protein_layer": "protein"})
    model = TOTALVI(mdata)
    model.train(verbose=0, seed=0, accelerator="cpu")
    probability = model.get_protein_foreground_probability(n_samples=5, seed=0)
    share = (probability > 0.5).mean()
    isotypes = ["IgG1 (antibody)", "IgG2a (antibody)"]
    assert (share[isotypes] < 0.02).all()
    assert (probability[isotypes].mean() < probability.drop(columns=isotypes).mean().median()).all()
    of_cells = share.drop(isotypes)
    assert of_cells.median() > 0.3
    assert 0.7 < share["CD3 (antibody)"] < 0.9  # most of the cells are T cells
    assert share["CD19 (antibody)"] < 0.15  # and few B cells


@pytest.fixture
def parts(shared_dir) -> dict[str, AnnData]:
    return modalities_of(shared_dir, "multiome_pbmc_small")


@pytest.fixture
def empty_n(parts) -> np.ndarray:
    return np.asarray(parts["atac"].X.sum(1)).ravel() == 0


class TestMultiome:
    """1,000 cells of 45 genes and 174 regions; 19 have no count of a region."""

    WHERE = {"rna_layer": "rna", "atac_layer": "atac"}

    def made(self, parts: dict[str, AnnData]) -> MULTIVI:
        MULTIVI.setup_mudata(mdata := mudata.MuData(parts), modalities=self.WHERE)
        model = MULTIVI(mdata)
        model.train(max_epochs=3, adversarial_mixing=False, verbose=0, seed=0, accelerator="cpu")
        return model

    def test_empty_cells_are_asked_about_and_count_as_measured(self, parts, empty_n, caplog):
        model = self.made(parts)
        assert "19 of the 1000 cells of modality 'atac' have no counts there, and count as measured" in caplog.text
        assert empty_n.sum() == 19
        for answer in (
            model.get_latent_representation(),
            model.get_normalized_expression(return_numpy=True),
            model.get_normalized_accessibility(return_numpy=True),
        ):
            assert answer.shape[0] == 1000
            assert np.isfinite(answer).all()
        assert np.isfinite(model.history["elbo_validation"].to_numpy(float)).all()
        of_rna = model.get_latent_representation(modality="expression")
        assert (np.abs(model.get_latent_representation() - of_rna)[empty_n].max(1) > 1e-3).all()  # zeros say something

    def test_taken_out_as_the_message_says_they_are_those_of_their_genes(self, parts, empty_n):
        chosen = {"rna": parts["rna"], "atac": parts["atac"][~empty_n].copy()}
        model = self.made(chosen)
        latent = model.get_latent_representation()
        of_rna = model.get_latent_representation(modality="expression")
        np.testing.assert_allclose(latent[empty_n], of_rna[empty_n], rtol=1e-5, atol=1e-6)
        imputed = model.get_normalized_accessibility(return_numpy=True)
        assert imputed.shape == (1000, 174)
        assert ((imputed >= 0) & (imputed <= 1)).all()
