"""Where the counts are, on the command line: ``--raw``, what to type instead, and what ``-q`` does not silence."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celbo.cli.errors import as_options
from celbo.data import read

N, G, H = 80, 10, 16


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"batch": np.where(np.arange(N) % 2, "a", "b")}, index=[f"c{i}" for i in range(N)])
    x_nh = rng.poisson(rng.gamma(2, 1, H), (N, H)).astype(np.float32)
    return ad.AnnData(x_nh, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(H)]))


@pytest.fixture
def with_raw(counts, tmp_path):
    """Logarithms of some genes in ``X``, the counts of more in ``raw``."""
    adata = counts[:, :G].copy()
    adata.X = np.log1p(adata.X)
    adata.raw = counts.copy()
    adata.write_h5ad(tmp_path / "with_raw.h5ad")
    return tmp_path / "with_raw.h5ad"


QUICK = ("--max-epochs", "1", "--seed", "0", "--accelerator", "cpu", "-q")


@pytest.mark.parametrize("mode", ["load", "stream"])
def test_raw_is_trained_on_and_remembered(with_raw, counts, celbo, tmp_path, mode):
    counts.write_h5ad(tmp_path / "plain.h5ad")
    for name, more in (("with_raw", ["--raw"]), ("plain", [])):
        args = ["--n-top-genes", "12", "--batch-key", "batch", "--data", mode, *more]
        done = celbo("train", tmp_path / f"{name}.h5ad", *args, *QUICK, "-o", tmp_path / name)
        assert (done.exit_code, done.stderr) == (0, ""), done.stderr
        again = celbo("embed", tmp_path / name, tmp_path / f"{name}.h5ad", "-o", tmp_path / f"{name}_e.h5ad", "-q")
        assert (again.exit_code, again.stderr) == (0, ""), again.stderr
        smooth = tmp_path / f"{name}_d.h5ad"
        assert (
            celbo("denoise", tmp_path / name, tmp_path / f"{name}.h5ad", "-o", smooth, "--seed", 0, "-q").exit_code == 0
        )
    for one, other in (("with_raw/embedding.h5ad", "plain/embedding.h5ad"), ("with_raw_e.h5ad", "plain_e.h5ad")):
        ours, theirs = (read(tmp_path / name).obsm["X_celbo"] for name in (one, other))
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (read(tmp_path / f"{name}_d.h5ad") for name in ("with_raw", "plain"))
    np.testing.assert_array_equal(ours.X, theirs.X)
    assert list(ours.var_names) == list(theirs.var_names)
    assert json.loads((tmp_path / "with_raw" / "run.json").read_text())["settings"]["raw"] is True


def test_shard_takes_raw(with_raw, counts, celbo, tmp_path):
    assert celbo("shard", with_raw, "--raw", "-o", tmp_path / "s.zarr", "-q").exit_code == 0
    written = read(tmp_path / "s.zarr")
    assert list(written.var_names) == list(counts.var_names)
    np.testing.assert_array_equal(written[counts.obs_names].X.toarray(), counts.X)


@pytest.mark.parametrize("mode", ["load", "stream"])
def test_logarithms_are_said_however_quiet(with_raw, celbo, tmp_path, mode):
    done = celbo("train", with_raw, *QUICK, "--data", mode, "-o", tmp_path / "o")
    assert done.exit_code == 0
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert f"X of {with_raw} does not contain unnormalized count data" in line
    assert line.endswith(f"use --raw ({H} genes).")
    done = celbo("embed", tmp_path / "o", with_raw, "-o", tmp_path / "e.h5ad", "-q", "--data", mode)
    assert "does not contain unnormalized count data" in done.stderr


def test_the_file_with_values_that_are_no_counts_is_named(counts, celbo, tmp_path):
    for number in range(3):
        adata = counts.copy()
        adata.obs_names = [f"{number}_{name}" for name in adata.obs_names]
        adata.layers["my umi"] = adata.X.copy()
        adata.X = adata.X - (0.5 if number == 1 else 0)
        adata.write_h5ad(tmp_path / f"part_{number}.h5ad")
    for mode in ("load", "stream"):
        args = [tmp_path / f"part_{number}.h5ad" for number in range(3)]
        done = celbo("train", *args, *QUICK, "--data", mode, "-o", tmp_path / "o")
        assert done.exit_code == 2
        assert f"X of {tmp_path / 'part_1.h5ad'} holds" in done.stderr
        assert "part_0" not in done.stderr
        assert done.stderr.strip().endswith("use --layer 'my umi'.")
    args += ["--layer", "my umi"]
    assert celbo("train", *args, *QUICK, "-o", tmp_path / "o").stderr == ""


def test_raw_that_is_not_there(counts, celbo, tmp_path):
    counts.write_h5ad(tmp_path / "a.h5ad")
    for mode in ("load", "stream"):
        done = celbo("train", tmp_path / "a.h5ad", "--raw", *QUICK, "--data", mode, "-o", tmp_path / "o")
        assert done.exit_code == 2
        assert "no raw" in done.stderr
    done = celbo("train", tmp_path / "a.h5ad", "--raw", "--layer", "x", *QUICK, "-o", tmp_path / "o")
    assert "--raw and --layer" in done.stderr


@pytest.mark.parametrize("mode", ["load", "stream"])
def test_names_as_strings_that_may_be_missing(counts, celbo, tmp_path, mode):
    adata = counts.copy()
    adata.obs["note"] = pd.array([None, *map(str, range(1, N))], dtype="string")
    adata.obs["n"] = pd.array([None, *range(1, N)], dtype="Int64")
    adata.obs.index = adata.obs.index.astype("string")
    with ad.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(tmp_path / "a.h5ad")
    done = celbo("train", tmp_path / "a.h5ad", *QUICK, "--data", mode, "-o", tmp_path / "o")
    assert (done.exit_code, done.stderr) == (0, ""), done.stderr
    obs = read(tmp_path / "o" / "embedding.h5ad").obs
    assert list(obs.index) == list(counts.obs_names)
    assert obs["n"].isna().sum() == obs["note"].isna().sum() == 1


def test_arguments_become_options():
    said = as_options('use layer="my umi"; layer=None and use_raw=True would be counts too')
    assert said == "use --layer 'my umi'; X (leave --layer out) and --raw would be counts too"
    assert as_options("use use_raw=False") == "use X (leave --raw out)"
