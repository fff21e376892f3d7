"""Wrong input: one line that says what to do, exit code 2, nothing written."""

import shutil
import subprocess
import sys

import anndata
import h5py
import numpy as np
import pytest

from celbo.cli import runs
from celbo.cli.errors import as_options, one_line


@pytest.fixture
def files(small, tmp_path):
    """Inputs with one fault each, by name."""

    def changed(name, change):
        adata = small.adata.copy()
        change(adata)
        adata.write_h5ad(tmp_path / f"{name}.h5ad")

    def put(value):
        def change(adata):
            x_ng = adata.X.tolil()
            x_ng[3, 4] = value
            adata.X = x_ng.tocsr()

        return change

    changed("nan", put(np.nan))
    changed("negative", put(-1.0))
    (tmp_path / "corrupt.h5ad").write_bytes(small.path.read_bytes()[:3000])
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "text.h5ad").write_text("no HDF5 at all")
    anndata.AnnData(obs=small.adata.obs, var=small.adata.var).write_h5ad(tmp_path / "no_x.h5ad")
    anndata.AnnData(obs=small.adata.obs).write_h5ad(tmp_path / "no_genes.h5ad")
    layers = {"counts": small.adata.X, "velocity": small.adata.X}
    anndata.AnnData(obs=small.adata.obs, var=small.adata.var, layers=layers).write_h5ad(tmp_path / "layers.h5ad")
    anndata.AnnData(small.adata.X.astype(np.complex64)).write_h5ad(tmp_path / "complex.h5ad")
    anndata.AnnData(small.adata.X).write_h5ad(tmp_path / "words.h5ad")
    with h5py.File(tmp_path / "words.h5ad", "r+") as file:
        del file["X"]
        anndata.io.write_elem(file, "X", np.full(small.adata.shape, "a", object))
    return tmp_path


WRONG_INPUT = {
    "missing file": (["nothing.h5ad"], ["no file", "nothing.h5ad"]),
    "no rows": (["table.csv"], ["a header and no rows"]),
    "cut short": (["corrupt.h5ad"], ["corrupt.h5ad", "cannot be read"]),
    "no HDF5": (["text.h5ad"], ["text.h5ad", "cannot be read"]),
    "no X": (["no_x.h5ad"], ["--layer"]),
    "no counts at all": (["no_genes.h5ad"], ["no_genes.h5ad holds no counts", "name the file with"]),
    "no X but layers": (["layers.h5ad"], ["'counts', 'velocity'", "--layer counts"]),
    "no X but layers, streamed": (["layers.h5ad", "--data", "stream"], ["'counts', 'velocity'", "--layer counts"]),
    "complex numbers": (["complex.h5ad"], ["complex64", "numbers"]),
    "complex numbers, streamed": (["complex.h5ad", "--data", "stream"], ["complex.h5ad", "complex64"]),
    "text": (["words.h5ad"], ["object", "numbers"]),
    "text, streamed": (["words.h5ad", "--data", "stream"], ["words.h5ad", "object", "numbers"]),
    "NaN": (["nan.h5ad"], ["1 NaN value", "細胞_3_é"]),
    "NaN and fewer genes": (["nan.h5ad", "--n-top-genes", "3"], ["1 NaN value", "細胞_3_é"]),
    "negative": (["negative.h5ad"], ["1 negative value", "--layer counts"]),
    "batch column": (["small.h5ad", "--batch-key", "bach"], ["'bach'", "Did you mean 'batch'?"]),
    "labels column": (["small.h5ad", "--labels-key", "celltype"], ["Did you mean 'cell_type'?"]),
    "covariate column": (["small.h5ad", "--continuous-covariate", "dept"], ["Did you mean 'depth'?"]),
    "layer": (["small.h5ad", "--layer", "count"], ["Did you mean 'counts'?"]),
    "too many genes": (["small.h5ad", "--n-top-genes", "41"], ["41", "40 genes"]),
    "no genes": (["small.h5ad", "--n-top-genes", "0"], ["--n-top-genes", "greater than or equal to 1"]),
    "model": (["small.h5ad", "--model", "svci"], ["--model", "Did you mean 'scvi'?"]),
    "recipe": (["small.h5ad", "--recipe", "clasic"], ["--recipe", "Did you mean 'classic'?"]),
    "accelerator": (["small.h5ad", "--accelerator", "cup"], ["--accelerator", "Did you mean 'cpu'?"]),
    "epochs": (["small.h5ad", "--max-epochs", "many"], ["--max-epochs", "valid integer"]),
    "option": (["small.h5ad", "--bach-key", "batch"], ["--bach-key"]),
    "covariates of the linear model": (
        ["small.h5ad", "--model", "linear_scvi", "--categorical-covariate", "donor"],
        ["linear_scvi", "--model scvi"],
    ),
}


@pytest.mark.parametrize("fault", WRONG_INPUT)
def test_wrong_input(fault, files, small, celbo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(small.path, "small.h5ad")
    before = sorted(tmp_path.iterdir())
    args, said = WRONG_INPUT[fault]
    done = celbo("train", *args, "-o", "new/run")
    assert_one_line(done, said)
    assert sorted(tmp_path.iterdir()) == before


def assert_one_line(done, said):
    assert done.exit_code == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("celbo: ")
    assert done.stderr.count("\n") == 1
    assert [text for text in said if text not in done.stderr] == []


class TestPlace:
    def test_existing_folder(self, small, trained, celbo):
        assert_one_line(celbo("train", small.path, "-o", trained.folder), ["is there already", "--overwrite"])

    def test_a_folder_of_the_users_is_never_replaced(self, small, celbo, tmp_path):
        (tmp_path / "thesis.txt").write_text("years")
        done = celbo("train", small.path, "-o", tmp_path, "--overwrite")
        assert_one_line(done, ["'thesis.txt'", "not replaced"])
        assert (tmp_path / "thesis.txt").read_text() == "years"

    def test_a_folder_that_holds_the_input_is_never_replaced(self, trained, celbo, tmp_path):
        run = shutil.copytree(trained.folder, tmp_path / "run")
        done = celbo("train", run / "embedding.h5ad", "-o", run, "--overwrite")
        assert_one_line(done, ["The input", "another folder"])

    def test_a_file(self, small, celbo, tmp_path):
        (tmp_path / "run").write_text("")
        assert_one_line(celbo("train", small.path, "-o", tmp_path / "run", "--overwrite"), ["no folder"])

    def test_below_a_file(self, small, celbo, tmp_path):
        (tmp_path / "file").write_text("")
        assert_one_line(celbo("train", small.path, "-o", tmp_path / "file" / "run"), ["cannot be written", "-o"])

    def test_not_writable(self, small, celbo, tmp_path, monkeypatch):
        """As root every folder can be written to, so the refusal is played."""
        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
        assert_one_line(celbo("train", small.path, "-o", tmp_path / "run"), ["cannot be written", "Permission denied"])


def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


class TestModels:
    def test_no_folder(self, small, celbo, tmp_path):
        assert_one_line(celbo("info", tmp_path / "none"), ["no folder"])
        assert_one_line(celbo("embed", tmp_path / "none", small.path, "-o", tmp_path / "e.h5ad"), ["no folder"])

    def test_no_archive(self, celbo, tmp_path):
        assert_one_line(celbo("info", tmp_path), ["no saved model", "model.json"])

    @pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
    def test_damaged(self, trained, small, celbo, tmp_path, name):
        run = shutil.copytree(trained.folder, tmp_path / "run")
        content = bytearray((run / "model" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (run / "model" / name).write_bytes(content)
        assert_one_line(celbo("info", run), [])
        assert_one_line(celbo("embed", run, small.path, "-o", tmp_path / "e.h5ad"), [])
        assert not (tmp_path / "e.h5ad").exists()

    def test_missing_genes(self, trained, small, celbo, tmp_path):
        small.adata[:, :20].write_h5ad(tmp_path / "few.h5ad")
        done = celbo("embed", trained.folder, tmp_path / "few.h5ad", "-o", tmp_path / "e.h5ad")
        assert_one_line(done, ["The input lacks", "of the 30 genes of the model", "gene_"])
        assert "adata_target" not in done.stderr
        assert sorted(p.name for p in tmp_path.iterdir()) == ["few.h5ad"]

    def test_unknown_batch(self, trained, small, celbo, tmp_path):
        adata = small.adata.copy()
        adata.obs["batch"] = "batch_9"
        adata.write_h5ad(tmp_path / "other.h5ad")
        done = celbo("embed", trained.folder, tmp_path / "other.h5ad", "-o", tmp_path / "e.h5ad")
        assert_one_line(done, ["'batch_9' in obs['batch']", "'batch_0'", "celbo train"])
        assert "extend_categories" not in done.stderr

    @pytest.mark.parametrize(("suffix", "separator"), [(".csv", ";"), (".csv", "\t"), (".tsv", ","), (".tsv", ";")])
    def test_separator_of_the_markers(self, small, celbo, tmp_path, suffix, separator):
        path = tmp_path / f"markers{suffix}"
        path.write_text(f"gene{separator}A{separator}B\ngene_0{separator}1{separator}0\n")
        names = {";": "semicolons", ",": "commas", "\t": "tabs"}
        done = celbo("train", small.path, "--model", "cellassign", "--markers", path, "-o", tmp_path / "run")
        assert_one_line(done, [f"is separated by {names[separator]}", "save it with"])

    def test_suffix_of_the_output(self, trained, small, celbo, tmp_path):
        assert_one_line(celbo("embed", trained.folder, small.path, "-o", tmp_path / "e.txt"), ["'.txt'", ".h5ad"])

    def test_output_exists(self, trained, small, celbo, tmp_path):
        (tmp_path / "e.h5ad").write_text("mine")
        done = celbo("embed", trained.folder, small.path, "-o", tmp_path / "e.h5ad")
        assert_one_line(done, ["is there already", "--overwrite"])
        assert (tmp_path / "e.h5ad").read_text() == "mine"


class TestFaultsOfCelbo:
    @pytest.fixture
    def broken(self, monkeypatch):
        def broken(*args, **kwargs):
            raise AssertionError("a\nb")

        monkeypatch.setattr(runs, "data_to_train", broken)

    def test_one_line_and_another_code(self, broken, small, celbo, tmp_path):
        done = celbo("train", small.path, "-o", tmp_path / "run")
        assert done.exit_code == 1
        assert done.stderr == "celbo: AssertionError: a b (a fault of celbo: the same line with --debug shows where)\n"

    def test_debug_raises(self, broken, small, celbo, tmp_path):
        assert isinstance(celbo("train", small.path, "-o", tmp_path / "run", "--debug").exception, AssertionError)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 74.5 GiB for an array with shape (100000, 100000)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 74.5 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_is_not_there(small, celbo, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(runs, "data_to_train", fail)
    done = celbo("train", small.path, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert_one_line(done, ["not enough memory", "74.5 GiB", "--data stream"])


def test_what_a_library_refuses_is_no_fault_of_the_users(small, celbo, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "findings_of", lambda *args: np.zeros(2).reshape(3, 5))
    done = celbo("train", small.path, "-o", tmp_path / "run")
    assert done.exit_code == 1
    assert "a fault of celbo" in done.stderr


def test_arguments_of_python_are_options_here():
    assert as_options("pass restrict_to_batch,\n or layer='counts'") == "pass --restrict-to-batch, or --layer counts"


def test_one_line():
    assert one_line(KeyError("No column 'x'.")) == "No column 'x'."
    assert one_line(ValueError("a\n   b; layer='raw counts'")) == "a b; --layer 'raw counts'"
    assert one_line(ZeroDivisionError()) == "ZeroDivisionError"
    assert one_line(PermissionError(13, "Permission denied", "a.h5ad")) == "a.h5ad: Permission denied"


class TestStart:
    def test_help_without_anything(self, celbo):
        done = celbo()
        assert done.exit_code == 0
        assert "Usage: " in done.stdout
        assert done.stdout == celbo("--help").stdout

    def test_version(self, celbo):
        from celbo.core import __version__

        assert celbo("--version").stdout == f"celbo {__version__}\n"

    def test_help_loads_nothing_heavy(self):
        code = """
import sys
from celbo.cli import app
try:
    app(["train", "--help"])
except SystemExit as end:
    assert not end.code
heavy = {"torch", "numpy", "anndata", "pandas", "numba", "matplotlib", "lightning_fabric", "rich"} & set(sys.modules)
print(heavy, file=sys.stderr)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr == "set()\n"
        assert "--n-top-genes" in done.stdout


class TestInTheWordsOfTheCommandLine:
    @pytest.mark.parametrize("option", ["--continuous-covariate", "--size-factor-key"])
    def test_numbers_are_wanted(self, small, celbo, tmp_path, option):
        done = celbo("train", small.path, option, "donor", "-o", tmp_path / "run")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"celbo: {option} donor: numbers are wanted")

    def test_a_run_is_no_data(self, small, trained, celbo, tmp_path):
        for line in (["train", trained.folder], ["embed", trained.folder, trained.folder]):
            done = celbo(*line, "-o", tmp_path / "new.h5ad")
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
            assert done.stderr.endswith("holds a saved model, not data: celbo info says what it is.\n")

    def test_a_file_is_no_run(self, small, celbo):
        done = celbo("info", small.path)
        assert done.exit_code == 2
        assert "small.h5ad is a file: give the folder of a run" in done.stderr

    def test_a_run_is_not_exported_into_itself(self, trained, celbo, tmp_path):
        """``model.pt`` there would be taken for the run's model from then on."""
        before = sorted(trained.folder.iterdir())
        done = celbo("export", trained.folder, trained.folder / ".." / trained.folder.name, "--overwrite")
        assert done.exit_code == 2
        assert "is the run itself: choose another folder." in done.stderr
        assert sorted(trained.folder.iterdir()) == before

    def test_a_group_is_not_compared_with_itself(self, small, trained, celbo, tmp_path):
        given = ["--groupby", "donor", "--group1", "a", "--group2", "a", "-o", tmp_path / "t.csv"]
        done = celbo("de", trained.folder, small.path, *given)
        assert done.exit_code == 2
        assert "'a' is named by --group1 and by --group2" in done.stderr

    def test_fractions_are_no_groups(self, small, trained, celbo, tmp_path):
        done = celbo("de", trained.folder, small.path, "--groupby", "depth", "-o", tmp_path / "t.csv")
        assert done.exit_code == 2
        assert "--groupby depth has" in done.stderr
        assert "different numbers: name a column of groups" in done.stderr

    def test_genes_and_coordinates(self, small, trained, celbo, tmp_path):
        done = celbo("denoise", trained.folder, small.path, "--gene", "gene_x", "-o", tmp_path / "d.h5ad")
        assert done.stderr.endswith("None of --gene is there.\n")
        of_niches = ["--model", "scviva", "--labels-key", "cell_type", "--embedding-key", "X"]
        done = celbo("train", small.path, *of_niches, "-o", tmp_path / "run")
        assert done.stderr.startswith("celbo: obsm has no coordinates under 'spatial'")
        assert done.stderr.endswith("name where they lie: --spatial-key.\n")

    def test_a_short_warm_up(self):
        said = "its warm-up takes 50 epochs, training 1. plan_kwargs={'n_epochs_kl_warmup': 1} would let it reach 1."
        assert as_options(said).endswith("training 1. Give more --max-epochs, or leave that out.")

    def test_a_question_keeps_its_mark(self, celbo):
        assert celbo("mapp", "run").stderr.endswith("Did you mean 'map'? See --help.\n")
