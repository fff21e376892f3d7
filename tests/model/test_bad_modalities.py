"""Bad input of the models of several modalities: each is named in one message with the cure, and nothing is lost."""

import logging
import re
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from celbo.cli.errors import as_options
from celbo.external import TOTALANVI
from celbo.model import MULTIVI, TOTALVI

mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
pytestmark = pytest.mark.usefixtures("mudata_pulls_nothing")

N_CELLS, N_GENES, N_REGIONS, N_PROTEINS = 48, 12, 9, 12
Parts = dict[str, AnnData]


def some_parts() -> Parts:
    """Genes, regions and proteins of the same cells in two batches; a third of the proteins is low in each cell."""
    rng = np.random.default_rng(0)
    low = rng.random((N_CELLS, N_PROTEINS)) < 1 / 3
    tables = {
        "rna": rng.poisson(3.0, (N_CELLS, N_GENES)),
        "atac": rng.poisson(1.0, (N_CELLS, N_REGIONS)),
        "protein": rng.poisson(np.where(low, 3.0, 30.0)),
    }
    parts = {name: AnnData(x.astype(np.float32)) for name, x in tables.items()}
    for name, part in parts.items():
        part.obs_names = [f"cell{i}" for i in range(N_CELLS)]
        part.var_names = [f"{name}_{j}" for j in range(part.n_vars)]
        part.obs["batch"] = pd.Categorical([f"b{i % 2}" for i in range(N_CELLS)])
        part.obs["seen"] = pd.Categorical([("unknown", "t0", "t1")[i % 3] for i in range(N_CELLS)])
    return parts


def of_anndata(parts: Parts, model: type) -> AnnData:
    """Proteins in ``obsm``; of MULTIVI, regions behind the genes."""
    adata = parts["rna"].copy()
    if model is MULTIVI:
        x = np.concatenate([parts["rna"].X, parts["atac"].X], axis=1)
        adata = AnnData(x, obs=adata.obs, var=pd.DataFrame(index=[*adata.var_names, *parts["atac"].var_names]))
    proteins = parts["protein"]
    adata.obsm["protein"] = pd.DataFrame(proteins.X, index=adata.obs_names, columns=proteins.var_names)
    return adata


def set_up(model: type, data: object) -> None:
    """The model's setup, with all that it may be told."""
    labels = {"labels_key": "seen", "unlabeled_category": "unknown"} if model is TOTALANVI else {}
    if isinstance(data, AnnData):
        model.setup_anndata(data, batch_key="batch", protein_expression_obsm_key="protein", **labels)
        return
    modalities = {f"{name}_layer": name for name in data.mod}
    modalities |= {"labels_key": "rna"} if labels else {}
    model.setup_mudata(data, batch_key="batch", modalities=modalities, **labels)


def held(model: type, kind: str, parts: Parts) -> object:
    """The parts as the data that a model takes."""
    if kind == "AnnData":
        return of_anndata(parts, model)
    chosen = {name: part for name, part in parts.items() if model is MULTIVI or name != "atac"}
    return mudata.MuData(chosen)


def contents(data: object) -> dict[str, object]:
    """All that is the user's in the data; what setup notes there for itself is left out."""
    parts = {"": data} if isinstance(data, AnnData) else {"": None, **data.mod}
    found: dict[str, object] = {}
    for name, part in parts.items():
        table = data.obs if part is None else part.obs
        found[f"{name}.obs"] = table[[column for column in table if not str(column).startswith("_")]].copy()
        if part is not None:
            found |= {f"{name}.X": part.X.copy(), f"{name}.var": part.var.copy()}
            found |= {f"{name}.{key}": part.obsm[key].copy() for key in part.obsm if not str(key).startswith("_")}
    return found


def put(name: str, value: float) -> Callable[[Parts], None]:
    """Change one entry of a matrix."""

    def change(parts: Parts) -> None:
        parts[name].X[5, 3] = value

    return change


def without_counts(parts: Parts) -> None:
    parts["protein"].X[:] = np.nan


def of_fewer_cells(parts: Parts) -> None:
    parts["protein"] = parts["protein"][:40].copy()


def of_other_cells(parts: Parts) -> None:
    parts["protein"].obs_names = parts["protein"].obs_names + "-1"


def in_another_order(parts: Parts) -> None:
    parts["protein"] = parts["protein"][::-1].copy()


def without_columns(parts: Parts) -> None:
    parts["protein"] = parts["protein"][:, :0].copy()


def other_batches(parts: Parts) -> None:
    parts["protein"].obs["batch"] = pd.Categorical(["b1", *parts["protein"].obs["batch"][1:]])


ANN, MU = "AnnData", "MuData"
PROTEINS = {ANN: r"adata.obsm['protein']", MU: r"mdata.mod['protein'].X"}
NOT_MEASURED = "in all cells of a batch (or panel) means that it was not measured there: leave the cell out, or give it"
ENDED = [
    # what is wrong, whose setup, of which data, what the error says
    (put("protein", np.nan), TOTALVI, ANN, "'protein_3' in the cell 'cell5'", NOT_MEASURED),
    (put("protein", np.nan), TOTALVI, MU, "'protein_3' in the cell 'cell5'", NOT_MEASURED),
    (put("protein", np.nan), TOTALANVI, ANN, "'protein_3' in the cell 'cell5'", NOT_MEASURED),
    (put("protein", np.nan), TOTALANVI, MU, "'protein_3' in the cell 'cell5'", NOT_MEASURED),
    (
        put("protein", np.nan),
        MULTIVI,
        ANN,
        "1 NaN value in 1 of 48 cells ('cell5')",
        "by a 0 in every column, as a cell",
    ),
    (
        put("protein", np.nan),
        MULTIVI,
        MU,
        "1 NaN value in 1 of 48 cells ('cell5')",
        "leaving the cells out of this mod",
    ),
    *[
        (put("protein", -1.0), model, kind, "1 negative value in 1 of 48 cells ('cell5')", "Counts cannot be negative")
        for model in (TOTALVI, TOTALANVI, MULTIVI)
        for kind in (ANN, MU)
    ],
    (put("protein", np.inf), TOTALVI, MU, "1 infinite value in 1 of 48 cells ('cell5')", "leave these cells out"),
    (without_counts, TOTALVI, ANN, "no count of any protein in any cell", "or take SCVI"),
    (without_counts, TOTALANVI, MU, "no count of any protein in any cell", "or take SCVI"),
    (without_columns, TOTALVI, ANN, "has no columns", "name the table that has"),
    (without_columns, MULTIVI, ANN, "has no columns", "name the table that has"),
    (without_columns, TOTALANVI, MU, "is 48 x 0", "no columns in it"),
    *[
        (of_fewer_cells, model, MU, "unpaired observations in modality protein", "MULTIVI takes them as they are")
        for model in (TOTALVI, TOTALANVI)
    ],
    (in_another_order, TOTALVI, MU, "protein are in another order", "mdata.mod['protein'][mdata.obs_names].copy()"),
    *[
        (of_other_cells, model, MU, "'rna' has 'cell0', 'protein' has 'cell0-1'", "Rename obs_names")
        for model in (TOTALVI, TOTALANVI)
    ],
    (of_other_cells, MULTIVI, MU, "in 'rna + atac' and in 'protein', so that nothing links them", "Rename obs_names"),
    *[
        (other_batches, model, MU, "'batch' is in two places with different values for 1 cell", "rename or delete")
        for model in (TOTALVI, TOTALANVI, MULTIVI)
    ],
]
HAS_ITS_PLACE = (put, without_counts, without_columns)


def names(cases: list[tuple]) -> list[str]:
    """Ids of cases, the same in each process."""
    return [f"{case[0].__qualname__.split('.')[0]}{i}-{case[1].__name__}-{case[2]}" for i, case in enumerate(cases)]


@pytest.mark.parametrize(("spoil", "model", "kind", "what", "cure"), ENDED, ids=names(ENDED))
def test_setup_ends_with_what_is_wrong_where_and_what_to_do(spoil, model, kind, what, cure):
    parts = some_parts()
    spoil(parts)
    data = held(model, kind, parts)
    before = contents(data)
    with pytest.raises(ValueError, match=re.escape(what)) as error:
        set_up(model, data)
    assert cure in str(error.value)
    if spoil.__qualname__.split(".")[0] in {one.__name__ for one in HAS_ITS_PLACE}:
        assert str(error.value).startswith(PROTEINS[kind])
    assert_kept(data, before)


def test_nan_among_sparse_proteins():
    parts = some_parts()
    put("protein", np.nan)(parts)
    parts["protein"].X = csr_matrix(parts["protein"].X)
    with pytest.raises(ValueError, match="0 would say that the protein was measured: leave these cells out"):
        set_up(TOTALVI, held(TOTALVI, MU, parts))


@pytest.mark.parametrize("kind", [ANN, MU])
def test_the_cure_of_nan_takes_the_proteins_of_the_cell_for_missing(kind):
    parts = some_parts()
    put("protein", np.nan)(parts)
    if kind == MU:
        parts["protein"] = parts["protein"][np.arange(N_CELLS) != 5].copy()
    data = held(MULTIVI, kind, parts)
    if kind == ANN:
        data.obsm["protein"].iloc[5] = 0
    set_up(MULTIVI, data)
    model = MULTIVI(data, n_hidden=8, n_latent=2, **({"n_genes": N_GENES} if kind == ANN else {}))
    model.is_trained_ = True
    lacking = np.isnan(model.get_latent_representation(modality="protein")).any(1)
    np.testing.assert_array_equal(np.flatnonzero(lacking), [5])


@pytest.mark.parametrize("model", [TOTALVI, TOTALANVI])
def test_the_cure_of_a_missing_protein_is_an_argument_of_the_setup(model, caplog):
    parts = some_parts()
    parts["protein"].X[::2, 3] = 0  # of b0
    adata = of_anndata(parts, model)
    with caplog.at_level(logging.INFO, logger="celbo"):
        set_up(model, adata)
    assert "say so: measured_proteins={batch: names}" in caplog.text
    labels = {"labels_key": "seen", "unlabeled_category": "unknown"} if model is TOTALANVI else {}
    every = {"b0": list(adata.obsm["protein"].columns)}
    model.setup_anndata(adata, "protein", batch_key="batch", measured_proteins=every, **labels)
    assert model(adata, n_latent=3, n_hidden=8).module.measured is None


def assert_kept(data, before):
    after = contents(data)
    assert set(after) == set(before)
    for name, value in before.items():
        same = after[name].equals(value) if isinstance(value, pd.DataFrame) else None
        assert np.array_equal(after[name], value, equal_nan=True) if same is None else same, name


@pytest.mark.parametrize("kind", [ANN, MU])
@pytest.mark.parametrize("model", [TOTALVI, TOTALANVI, MULTIVI])
def test_fractions_are_warned_of_where_they_are(model, kind):
    parts = some_parts()
    put("protein", 0.5)(parts)
    with pytest.warns(UserWarning, match=re.escape(PROTEINS[kind])) as said:
        set_up(model, held(model, kind, parts))
    assert len(said) == 1
    assert "nonzero values are not whole numbers, in 1 of 48 cells ('cell5')" in str(said[0].message)


def test_other_tables_of_counts_are_named():
    adata = of_anndata(some_parts(), TOTALVI)
    adata.obsm["adt"] = adata.obsm["protein"].copy()
    adata.obsm["short"] = adata.obsm["protein"].to_numpy()[:, :3]
    adata.obsm["protein"].iloc[0, 0] = -0.5
    with pytest.raises(ValueError, match=re.escape("use adata.obsm['adt'].")):
        set_up(TOTALVI, adata)
    mdata = held(TOTALVI, MU, some_parts())
    mdata.mod["protein"].layers["umi"] = mdata.mod["protein"].X.copy()
    mdata.mod["protein"].X[0, 0] = -0.5
    with pytest.raises(ValueError, match=re.escape("use layer=\"umi\" of mdata.mod['protein'].")):
        set_up(TOTALVI, mdata)


@pytest.mark.parametrize("kind", [ANN, MU])
@pytest.mark.parametrize("model", [TOTALVI, TOTALANVI])
def test_names_of_genes_and_proteins(model, kind, caplog):
    """A protein that is called as a gene is told from it in tables of both, so nothing is said of it."""
    parts = some_parts()
    parts["protein"].var_names = ["rna_1", "rna_2", *parts["protein"].var_names[2:]]
    with pytest.warns(UserWarning, match="not unique") if kind == MU else nullcontext():
        data = held(model, kind, parts)
    with caplog.at_level(logging.WARNING, logger="celbo"):
        set_up(model, data)
    assert "rna_1" not in caplog.text
    made = model(data, n_latent=3, n_hidden=8)
    made.is_trained_ = True
    correlation = made.get_feature_correlation_matrix(n_samples=1, correlation_type="pearson", seed=0)
    names = [f"rna_{i}" for i in range(N_GENES)] + ["rna_1_protein", "rna_2_protein"]
    assert list(correlation.index) == list(correlation.columns) == [*names, *parts["protein"].var_names[2:]]
    differences = made.differential_expression(groupby="batch", group1="b0", mode="change", seed=0)
    assert differences.index.is_unique
    assert {"rna_1", "rna_1_protein"} <= set(differences.index)


class TestPanels:
    """A batch whose panel has one protein."""

    def one_protein(self) -> Parts:
        parts = some_parts()
        parts["protein"].X[::2, 1:] = 0
        return parts

    @pytest.mark.parametrize("kind", [ANN, MU])
    def test_it_is_named_with_what_it_lacks_and_where_its_background_begins(self, kind, caplog):
        data = held(TOTALVI, kind, self.one_protein())
        with caplog.at_level(logging.INFO, logger="celbo"):
            set_up(TOTALVI, data)
        missing = [said for said in caplog.messages if "missing protein expression" in said]
        assert len(missing) == 1
        assert "'b0' has no count of protein_1, protein_2" in missing[0]
        assert "protein_10 and 1 more" in missing[0]
        assert ("measured_proteins=" in missing[0]) == (kind == ANN)  # which setup_mudata does not have
        assert "as of a batch that measured them: get_normalized_expression(transform_batch=...)" in missing[0]
        in_shell = as_options(missing[0])
        assert f"(in Python{', to setup_anndata: measured' if kind == ANN else ': setup_mudata(override'}_" in in_shell
        assert in_shell.endswith("as of a batch that measured them: celbo denoise --transform-batch.")
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="celbo"):
            model = TOTALVI(data, n_latent=3, n_hidden=8)
            model._validate_anndata(held(TOTALVI, kind, self.one_protein()))
        assert "missing protein expression" not in caplog.text  # it was said of this batch when it was set up
        assert "background from foreground in the cells of 'b0' (1); 5 are wanted" in caplog.text
        of_b0, of_b1 = model.module.background_pro_alpha.detach().numpy().T
        assert np.array_equal(of_b0, np.zeros(N_PROTEINS))
        assert of_b1[0] == pytest.approx(np.log(4), abs=0.4)  # log(1 + 3), as these were drawn

    @pytest.mark.parametrize("model", [TOTALVI, TOTALANVI])
    def test_what_it_lacks_is_no_matter_of_its_cells(self, model):
        """Other counts under the mask: the same loss of proteins."""
        terms = []
        for under in (0.0, np.nan):
            parts = self.one_protein()
            parts["protein"].X[::2, 1:] = under
            data = held(model, MU, parts)
            set_up(model, data)
            made = model(data, n_latent=3, n_hidden=8)
            assert made.module.measured.sum(1).tolist() == [1, N_PROTEINS]
            made.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu", batch_size=32)
            terms.append(made.get_latent_representation())
        assert np.isfinite(terms[0]).all()
        np.testing.assert_array_equal(*terms)


@pytest.mark.parametrize("model", [TOTALVI, MULTIVI])
def test_one_protein_in_all(model):
    """Is a panel too: every answer has a column for it."""
    parts = some_parts()
    parts["protein"] = parts["protein"][:, :1].copy()
    data = held(model, MU, parts)
    set_up(model, data)
    made = model(data) if model is MULTIVI else model(data, n_latent=3, n_hidden=8)
    made.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu", batch_size=32)
    found = made.get_protein_foreground_probability()
    assert list(found.columns) == ["protein_0"]
    assert ((found > 0) & (found < 1)).to_numpy().all()


def test_a_model_from_before_answers_after_a_setup_that_ended():
    adata = of_anndata(some_parts(), TOTALVI)
    set_up(TOTALVI, adata)
    model = TOTALVI(adata, n_latent=3, n_hidden=8)
    model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu", batch_size=32)
    before = model.get_latent_representation()
    adata.obsm["spoilt"] = adata.obsm["protein"] - 1e6
    with pytest.raises(ValueError, match="576 negative values in 48 of 48 cells"):
        TOTALVI.setup_anndata(adata, "spoilt", batch_key="batch")
    np.testing.assert_array_equal(model.get_latent_representation(), before)
