"""``celbo map``: the query's cells lie where the same calls in Python put them, and what goes wrong is one line."""

import anndata
import numpy as np
import pandas as pd
import pytest

from celbo.model import SCANVI, SCVI

QUICK = ["--max-epochs", "2", "--seed", "1"]


@pytest.fixture(scope="module")
def query(small, tmp_path_factory):
    """Cells of a batch that the reference does not know, their genes in another order and three of them lacking."""
    adata = small.adata[:60, ::-1][:, 3:].copy()
    adata.obs["batch"] = "new"
    path = tmp_path_factory.mktemp("query") / "query.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def references(small, tmp_path_factory):
    """Folders of an SCVI and of a SCANVI whose encoders see the batch."""
    from typer.testing import CliRunner

    from celbo.cli import app

    folders = {}
    for model, more in {"scvi": [], "scanvi": ["--labels-key", "cell_type"]}.items():
        folder = tmp_path_factory.mktemp("references") / model
        given = ["train", small.path, "--model", model, "--batch-key", "batch", "--encode-covariates", *more, *QUICK]
        done = CliRunner().invoke(app, [*map(str, given), "-o", str(folder)])
        assert done.exit_code == 0, done.stderr
        folders[model] = folder
    return folders


def mapped_in_python(cls, archive, query):
    reference = cls.load(str(archive / "model"), adata=False)
    prepared = cls.prepare_query_anndata(anndata.read_h5ad(query), reference, inplace=False)
    model = cls.load_query_data(prepared, reference)
    model.train(max_epochs=2, seed=1, verbose=0)
    return model


def test_latents_are_those_of_python(references, query, celbo, tmp_path):
    done = celbo("map", references["scvi"], query, *QUICK, "-o", tmp_path / "m.h5ad", "--model-output", tmp_path / "q")
    assert done.exit_code == 0, done.stderr
    assert "60 cells mapped, 10 latent dimensions: obsm['X_celbo'], in" in done.stdout
    model = mapped_in_python(SCVI, references["scvi"], query)
    found, given = anndata.read_h5ad(tmp_path / "m.h5ad"), anndata.read_h5ad(query)
    np.testing.assert_allclose(found.obsm["X_celbo"], model.get_latent_representation(), rtol=1e-5, atol=1e-6)
    assert list(found.obs_names) == list(given.obs_names)
    assert list(found.obs["batch"]) == ["new"] * 60
    before = SCVI.load(str(references["scvi"] / "model"), adata=False).get_latent_representation
    kept = SCVI.load(str(tmp_path / "q" / "model"), adata=False).module.state_dict()
    for name, weights in model.module.state_dict().items():
        np.testing.assert_allclose(kept[name].numpy(), weights.numpy(), rtol=1e-5, atol=1e-6)
    reference = given[:, :].copy()
    reference.obs["batch"] = "batch_0"
    padded = SCVI.prepare_query_anndata(reference, str(references["scvi"] / "model"), inplace=False)
    np.testing.assert_array_equal(before(padded), model.get_latent_representation(padded))


def test_remedies_are_those_of_the_command_line(trained, references, query, celbo, tmp_path):
    """A reference that cannot adapt, missing genes on disk, one epoch: nothing says what to type in Python."""
    out = ["-o", tmp_path / "m.h5ad", "--overwrite"]
    stays = celbo("map", trained.folder, query, *QUICK, *out)
    assert "(it was trained without --encode-covariates)" in stays.stderr
    assert "train the reference with --encode-covariates.\n" in stays.stderr
    lacks = celbo("map", references["scvi"], query, "--data", "stream", *QUICK, *out)
    assert (lacks.exit_code, lacks.stderr.count("\n")) == (2, 1)
    assert lacks.stderr.endswith("celbo map --data load counts them as zeros.\n")
    for said in (stays.stderr, lacks.stderr):
        assert "=True" not in said
        assert "SCVI." not in said


def test_labels_too(references, query, celbo, tmp_path):
    done = celbo("map", references["scanvi"], query, *QUICK, "-o", tmp_path / "m.h5ad", "-q")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    model = mapped_in_python(SCANVI, references["scanvi"], query)
    found = anndata.read_h5ad(tmp_path / "m.h5ad")
    np.testing.assert_allclose(found.obsm["X_celbo"], model.get_latent_representation(), rtol=1e-5, atol=1e-6)
    assert list(found.obs["celbo_predicted"].astype(str)) == list(model.predict())
    probability_nc = pd.DataFrame(found.obsm["celbo_probabilities"], columns=found.uns["celbo_classes"])
    np.testing.assert_allclose(probability_nc, model.predict(soft=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("model", ["scvi", "scanvi"])
def test_as_a_table(references, query, celbo, tmp_path, model, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    done = celbo("map", references[model], query, *QUICK, "-o", tmp_path / f"m{suffix}")
    assert done.exit_code == 0, done.stderr
    assert "a line a cell, in " in done.stdout
    assert celbo("map", references[model], query, *QUICK, "-q", "-o", tmp_path / "m.h5ad").exit_code == 0
    wanted = anndata.read_h5ad(tmp_path / "m.h5ad")
    if suffix == ".parquet":
        found = pd.read_parquet(tmp_path / "m.parquet")
    else:
        found = pd.read_csv(tmp_path / f"m{suffix}", index_col="cell", sep="\t" if suffix == ".tsv" else ",")
    assert list(found.index) == list(wanted.obs_names)
    np.testing.assert_allclose(found.filter(regex="^latent_"), wanted.obsm["X_celbo"], rtol=1e-4, atol=1e-5)
    assert found.shape[1] == 10 + (0 if model == "scvi" else 2 + len(wanted.uns["celbo_classes"]))
    if model == "scanvi":
        assert list(found["predicted"]) == list(wanted.obs["celbo_predicted"].astype(str))


WRONG = {
    "suffix": (["-o", "m.txt"], "mapped cells are written as .csv, .tsv, .parquet, .h5ad"),
    "recipe": (["-o", "m.h5ad", "--recipe", "clasic"], "value of --recipe is called 'clasic'. Did you mean 'classic'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong(references, query, celbo, tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    args, said = WRONG[fault]
    done = celbo("map", references["scvi"], query, *args)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_takes_no_query(small, query, celbo, tmp_path):
    run = tmp_path / "run"
    assert celbo("train", small.path, "--model", "linear_scvi", *QUICK, "-q", "-o", run).exit_code == 0
    done = celbo("map", run, query, "-o", tmp_path / "m.h5ad")
    assert done.exit_code == 2
    assert "holds a model of class LinearSCVI, which has no query mapping: that is of SCVI" in done.stderr


def test_a_query_without_the_batch_column(references, query, celbo, tmp_path):
    adata = anndata.read_h5ad(query)
    del adata.obs["batch"]
    adata.write_h5ad(tmp_path / "without.h5ad")
    done = celbo("map", references["scvi"], tmp_path / "without.h5ad", "-o", tmp_path / "m.h5ad")
    assert done.exit_code == 2
    assert "'batch'" in done.stderr
    assert not (tmp_path / "m.h5ad").exists()


def test_shells_complete(celbo):
    text = celbo("--help").stdout
    assert "--install-completion" in text
    assert "--show-completion" in text
