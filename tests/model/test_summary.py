"""Objects that explain themselves: what they say is so, no name breaks the page, what is private is not listed."""

import html.parser
import importlib
import pkgutil
import types

import numpy as np
import pandas as pd
import pytest
from tests.train.test_resume_everything import MODELS, untrained

import celbo
from celbo.core import Summary
from celbo.data import synthetic_iid

NASTY = "<script>alert('x')</script>&\"b\""


class Page(html.parser.HTMLParser):
    """The text of each cell of the tables, and every tag that was opened."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "br":
            self.cells[-1] += "\n"

    def handle_data(self, data):
        if self.cells and data.strip():
            self.cells[-1] += data.rstrip("\n ")


class TestSummary:
    def test_text(self):
        made = Summary("A die", {"sides": "6", "colour": "white\nand black"})
        assert repr(made) == str(made) == "A die\n  sides   6\n  colour  white\n          and black"

    def test_long_lines_are_broken(self):
        lines = repr(Summary("Words", {"many": " ".join(["word"] * 60), "more": ""})).splitlines()
        assert max(map(len, lines)) <= 100
        assert sum(line.count("word") for line in lines) == 60
        assert lines[2].startswith("        word")

    def test_page_says_the_same_and_nothing_is_run(self):
        page = Page(Summary(NASTY, {NASTY: f"{NASTY}\nsecond", "sides": "6"})._repr_html_())
        assert page.cells == [NASTY, f"{NASTY}\nsecond", "sides", "6"]
        assert set(page.tags) == {"div", "strong", "table", "tr", "th", "td", "br"}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_explains_itself(name):
    model, given, named = untrained(MODELS[name])
    before = model.summary()
    assert before.title == name
    assert before.rows["state"].startswith("not trained")
    model.train(*given, **named)
    rows = model.summary().rows
    n_epochs = max(len(frame) for frame in model.history.values() if frame.index.name == "epoch")
    assert rows["state"].startswith(f"trained, {n_epochs} epochs")
    if "elbo_validation" in model.history:
        assert f"{model.history['elbo_validation'].loc[model.kept_epoch_].item():.6g}" in rows["state"]
    n_weights = sum(weight.numel() for weight in model.module.parameters())
    assert f"{type(model.module).__name__}, {n_weights:,} weights on cpu" == rows["module"]
    asked = [one for one in rows.get("ask it", "").split(", ") if one]
    assert all(callable(getattr(model, one)) and one in dir(model) for one in asked)
    for wanted in ("get_latent_representation", "predict", "get_proportions"):
        assert (wanted in asked) == hasattr(model, wanted)
    assert max(map(len, rows.values())) < 2000
    page = Page(model._repr_html_())
    assert dict(zip(page.cells[::2], page.cells[1::2], strict=True)) == dict(model.summary().rows)


@pytest.mark.parametrize("name", MODELS)
def test_dir_shows_what_is_public(name):
    model, _, _ = untrained(MODELS[name])
    shown = dir(model)
    assert [one for one in shown if one.startswith("_") and not one.startswith("__")] == []
    assert {"train", "save", "summary", "module", "history"} <= set(shown)
    assert set(shown) >= {one for one in dir(type(model)) if not one.startswith("_")}


def packages():
    for name in celbo.__all__:
        package = getattr(celbo, name)
        if isinstance(package, types.ModuleType):
            yield package
            for below in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if below.ispkg and "shims" not in below.name:
                    yield importlib.import_module(below.name)


def test_dir_of_packages_shows_what_is_public():
    for package in packages():
        if "__dir__" not in vars(package):
            continue
        further = {one for one in dir(package) if not one.startswith("__")} - set(package.__all__)
        assert all(hasattr(getattr(package, one), "__path__") for one in further), package.__name__
    assert "scvi" not in dir(celbo.model)
    assert "fields" in dir(celbo.data)


class TestManager:
    def test_says_where_everything_is(self):
        adata = synthetic_iid(batch_size=20, n_genes=10, seed=0)
        celbo.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="labels")
        manager = celbo.model.SCVI(adata).adata_manager
        rows = manager.summary().rows
        assert manager.summary().title == "AnnDataManager of SCVI"
        assert rows["batch_key"] == "'batch'"
        assert rows["X"] == "adata.X"
        assert rows["batch"] == "adata.obs['_scvi_batch']"
        assert "40 cells" in rows["sizes"]
        assert "2 batch" in rows["sizes"]
        assert "3 labels" in rows["sizes"]
        assert repr(manager).startswith("AnnDataManager of SCVI\n")
        assert [one for one in dir(manager) if one.startswith("_") and not one.startswith("__")] == []

    def test_names_of_the_user_are_escaped(self):
        adata = synthetic_iid(batch_size=20, n_genes=10, seed=0)
        adata.obs[NASTY] = adata.obs["batch"]
        adata.layers[NASTY] = adata.X
        celbo.model.SCVI.setup_anndata(adata, batch_key=NASTY, layer=NASTY)
        model = celbo.model.SCVI(adata)
        for shown in (model, model.adata_manager):
            page = Page(shown._repr_html_())
            assert "script" not in page.tags
            assert any("<script>" in cell for cell in page.cells)

    def test_one_without_data(self):
        assert repr(celbo.data.AnnDataManager()) == "AnnDataManager"


class TestCountReport:
    def test_says_what_was_found(self):
        x = np.array([[1.0, 0, 0], [3, -1, 0], [0, 0, 0]])
        report = celbo.data.check_counts(x, obs_names=["a", NASTY, "c"])
        rows = report.summary().rows
        assert rows["matrix"] == "3 cells by 3 genes, 33.3% of the entries not zero"
        assert rows["largest"] == "3"
        assert rows["totals"] == "0 to 2 a cell, median 1, mean 1"
        assert rows["counts"] == "no"
        assert [line.partition(":")[0] for line in rows["to know"].splitlines()] == ["error", "info", "info"]
        page = Page(report._repr_html_())
        assert "script" not in page.tags
        assert repr(NASTY) in page.cells[-1]
        assert len(repr(report)) < 1500

    def test_counts(self):
        rows = celbo.data.check_counts(np.ones((3, 2))).summary().rows
        assert rows["counts"] == "yes"
        assert "to know" not in rows


def test_tables_of_differential_expression_escape_names():
    adata = synthetic_iid(batch_size=20, n_genes=10, seed=0)
    adata.var_names = [NASTY, *adata.var_names[1:]]
    celbo.model.SCVI.setup_anndata(adata)
    model = celbo.model.SCVI(adata, n_hidden=4)
    model.train(max_epochs=1, verbose=0, seed=0)
    table = model.differential_expression(groupby="labels", group1="label_0", seed=0)
    page = Page(table._repr_html_())
    assert "script" not in page.tags
    assert NASTY in page.cells


def test_tables_of_niches():
    from celbo.external.scviva.differential_expression import DifferentialExpressionResults

    names = [[f"{NASTY}{name}{g}" for g in range(20)] for name in "abc"]
    tables = [pd.DataFrame({"lfc_mean": np.arange(20.0)}, index=index) for index in names]
    page = Page(DifferentialExpressionResults(None, *tables)._repr_html_())
    assert page.tags.count("table") == 3
    assert "script" not in page.tags
    assert [cell for cell in page.cells if cell.startswith(f"{NASTY}b")] == names[1][:10]


def test_a_model_without_its_data_and_a_query(tmp_path):
    adata = synthetic_iid(batch_size=20, n_genes=10, seed=0)
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = celbo.model.SCVI(adata, n_hidden=4)
    model.train(max_epochs=2, verbose=0, seed=0)
    model.save(tmp_path / "model")
    alone = celbo.model.SCVI.load(tmp_path / "model", adata=False)
    assert alone.summary() == model.summary()
    query = celbo.model.SCVI.load_query_data(adata.copy(), model)
    assert query.summary().rows["state"].startswith("not trained")


def test_a_model_that_waits_for_its_loaders():
    waiting = celbo.model.SCVI()
    assert waiting.summary().rows["data"] == "none yet"
    assert "module" not in waiting.summary().rows
