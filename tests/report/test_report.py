"""The page, its pictures, and the numbers behind them."""

import base64
import html.parser
import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from torch.distributions import Normal, kl_divergence

from celbo.data import Finding, simulate_counts
from celbo.model import SCVI
from celbo.report import document, figures, knn_label_accuracy, model_report, page, projection, summary

HOSTILE = "<b>&\"é細'$x$"


class Reader(html.parser.HTMLParser):
    """Tags that are open at the end, all tags, all text, sources of pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.sources = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name == "src"]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def model():
    adata = simulate_counts(120, 30, n_cell_types=2, seed=1)
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"type_0": HOSTILE})
    SCVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = SCVI(adata, n_latent=4)
    model.train(max_epochs=2, seed=0, verbose=0)
    return model


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    found = model_report(model, path, title=HOSTILE, settings={HOSTILE: HOSTILE}, versions={"celbo": "1"})
    return path, found, Reader(path.read_text(encoding="utf-8"))


class TestModelReport:
    def test_is_one_well_formed_page_with_its_pictures_inside(self, written):
        path, _, reader = written
        assert reader.open == []
        assert len(reader.sources) == 5
        for source in reader.sources:
            kind, _, data = source.partition(";base64,")
            assert kind == "data:image/svg+xml"
            assert b"<svg" in base64.b64decode(data)
        assert "link" not in reader.tags
        assert [p.name for p in path.parent.iterdir()] == ["report.html"]

    def test_names_of_the_user_are_text(self, written):
        _, _, reader = written
        assert reader.text.count(HOSTILE) >= 4  # title twice, legend, settings
        assert set(reader.tags) <= ALL_TAGS

    def test_numbers(self, written, model):
        _, found, reader = written
        mean_nk, variance_nk = model.get_latent_representation(return_dist=True)
        q = Normal(*(torch_of(a) for a in (mean_nk, np.sqrt(variance_nk))))
        expected_k = kl_divergence(q, Normal(0.0, 1.0)).mean(0)
        np.testing.assert_allclose(found.kl_k, expected_k, rtol=1e-4)
        np.testing.assert_array_equal(found.is_active_k, mean_nk.var(0) > 0.01)
        x_ng = model.adata.X.toarray()
        np.testing.assert_allclose(found.fit.mean_observed_g, x_ng.mean(0), rtol=1e-6)
        np.testing.assert_allclose(found.fit.zeros_observed_g, (x_ng == 0).mean(0))
        assert found.fit.n_cells == 120
        assert "120 cells, 30 genes, 2 batches" in reader.text

    def test_the_same_page_every_time(self, written, model, tmp_path, global_rng_untouched):
        path, _, _ = written
        model_report(model, tmp_path / "r.html", title=HOSTILE, settings={HOSTILE: HOSTILE}, versions={"celbo": "1"})
        without_ids = [re.sub(r"base64,[^\"]+", "", p.read_text(encoding="utf-8")) for p in (path, tmp_path / "r.html")]
        assert without_ids[0] == without_ids[1]
        assert model_report(model, tmp_path / "r.html").place_n2.tolist() == written[1].place_n2.tolist()

    def test_findings_stand_in_the_page(self, model, tmp_path):
        findings = [Finding("warning", f"What {HOSTILE}.", "Do this.")]
        model_report(model, tmp_path / "r.html", findings=findings)
        assert f"What {HOSTILE}. Do this." in Reader((tmp_path / "r.html").read_text(encoding="utf-8")).text
        model_report(model, tmp_path / "r.html", findings=[])
        assert "all are counts" in (tmp_path / "r.html").read_text(encoding="utf-8")

    def test_a_failure_leaves_the_old_page(self, model, tmp_path, monkeypatch):
        (tmp_path / "r.html").write_text("old")
        monkeypatch.setattr("celbo.report.report.page", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model_report(model, tmp_path / "r.html")
        assert (tmp_path / "r.html").read_text() == "old"

    def test_without_data(self, model, tmp_path):
        model.save(str(tmp_path / "m"))
        with pytest.raises(ValueError, match=r"set model\.adata"):
            model_report(SCVI.load(str(tmp_path / "m"), adata=False), tmp_path / "r.html")

    def test_untrained(self, model, tmp_path):
        with pytest.raises(RuntimeError, match="train"):
            model_report(SCVI(model.adata), tmp_path / "r.html")

    def test_neither_batch_nor_label(self, tmp_path):
        adata = simulate_counts(60, 20, seed=1)
        SCVI.setup_anndata(adata)
        model = SCVI(adata, n_latent=1)
        model.train(max_epochs=1, seed=0, verbose=0)
        found = model_report(model, tmp_path / "r.html")
        assert found.metrics == {}
        assert len(Reader((tmp_path / "r.html").read_text(encoding="utf-8")).sources) == 4
        np.testing.assert_array_equal(found.place_n2[:, 1], 0)


ALL_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "div", "h1", "h2", "p"),
    *("dl", "dt", "dd", "figure", "figcaption", "img", "ul", "li", "i", "b"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def torch_of(a):
    import torch

    return torch.from_numpy(a)


class TestFigures:
    def test_more_groups_than_colours(self, rng):
        name_n = np.array([f"g{i % 25:02}" for i in range(100)], dtype=object)
        from celbo.report import report

        text = report._coloured(rng.normal(size=(100, 2)), "batch", name_n)
        assert f"{25 - len(figures.PALETTE)} others" in text
        assert text.count("<li>") == len(figures.PALETTE) + 1

    def test_curves_of_what_there_is(self):
        figure = figures.training_curves(pd.DataFrame({"train_loss": [3.0, 2.0], "elbo_train": [3.0, np.nan]}))
        drawn = [[len(line.get_ydata()) for line in ax.get_lines()] for ax in figure.axes]
        assert drawn == [[2, 0], [1, 0], [0, 0], [0, 0]]

    def test_the_first_epoch_does_not_flatten_the_rest(self):
        figure = figures.training_curves(pd.DataFrame({"train_loss": [1e6, 5.0, 4.0, 3.0, 2.0, 1.0]}))
        low, high = figure.axes[0].get_ylim()
        assert low < 1
        assert 5 < high < 6

    def test_kl_largest_first(self):
        figure = figures.kl_by_dimension(np.array([0.1, 3.0, 2.0]), np.array([False, True, True]))
        assert [bar.get_height() for bar in figure.axes[0].patches] == [3.0, 2.0, 0.1]
        assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1", "2", "0"]

    def test_genes_without_counts_are_left_out_of_the_logarithm(self):
        ones = np.ones(3)
        figure = figures.gene_fit(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 2.0]), ones, ones)
        assert [len(ax.collections[0].get_offsets()) for ax in figure.axes] == [1, 3]


def test_parts_of_the_page_escape():
    parts = (
        page.tiles({HOSTILE: HOSTILE}),
        page.verdict("amber", HOSTILE, [(HOSTILE, "amber", HOSTILE, HOSTILE)]),
        page.picture("data:,", HOSTILE, HOSTILE),
        page.legend({HOSTILE: "#000"}),
        page.table([HOSTILE], [[HOSTILE, HOSTILE]]),
        page.notes([("info", HOSTILE, HOSTILE)]),
        page.page(HOSTILE, HOSTILE, "", [page.Section(HOSTILE, HOSTILE, "")], HOSTILE),
    )
    for part in parts:
        assert '<b>&"' not in part
        assert HOSTILE in Reader(part).text


def test_mixing_within_labels_leaves_out_what_batches_lack(rng):
    """Batches of different labels lie apart, as they should: within the label that both have they are mixed."""
    label_n = np.repeat(["a", "b", "c"], 100)
    batch_n = np.concatenate([np.full(100, "x"), np.tile(["x", "y"], 50), np.full(100, "y")])
    z_nk = rng.normal(size=(300, 3)) + 50 * np.eye(3)[np.repeat([0, 1, 2], 100)]
    found = summary.latent_metrics(z_nk, label_n, batch_n)
    assert found[summary.MIXED] < 0.5
    assert 0.9 < found[summary.MIXED_WITHIN] < 1.1
    only = summary.latent_metrics(z_nk[:100], label_n[:100], batch_n[100:200])
    assert summary.MIXED_WITHIN in only
    assert summary.MIXED_WITHIN not in summary.latent_metrics(z_nk, np.where(batch_n == "x", "a", "b"), batch_n)


class TestLayout:
    def test_neighbours_stay_together(self, rng):
        code_n = np.repeat(np.arange(6), 40)
        z_nk = rng.normal(size=(240, 8)) + 12 * rng.normal(size=(6, 8))[code_n]
        place_n2 = projection.neighbour_layout(z_nk)
        rows = rng.permutation(240)
        assert knn_label_accuracy(place_n2, code_n, rows[:120], rows[120:], k=5) > 0.98

    def test_the_same_every_time_and_private(self, rng, global_rng_untouched):
        z_nk = rng.normal(size=(60, 4))
        assert np.array_equal(projection.neighbour_layout(z_nk), projection.neighbour_layout(z_nk))
        assert not np.array_equal(projection.neighbour_layout(z_nk), projection.neighbour_layout(z_nk, seed=1))

    def test_two_dimensions_are_turned_only(self, rng):
        z_n2 = rng.normal(size=(50, 2))
        place_n2 = projection.neighbour_layout(z_n2)
        apart = [np.linalg.norm(a[:25] - a[25:], axis=1) for a in (z_n2, place_n2)]
        np.testing.assert_allclose(*apart)

    @pytest.mark.parametrize("z_nk", [np.zeros((40, 5)), np.ones((3, 5)), np.repeat(np.eye(4), 20, axis=0)])
    def test_cells_at_one_place(self, z_nk):
        assert np.isfinite(projection.neighbour_layout(z_nk)).all()


class TestJson:
    def test_the_same_figures(self, model, written, tmp_path):
        model_report(model, tmp_path / "r.json", settings={HOSTILE: HOSTILE})
        document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
        _, found, _ = written
        assert document["metrics"] == found.metrics
        assert document["latent"]["kl"] == found.kl_k.tolist()
        assert [one["question"] for one in document["verdict"]["answers"]] == [j.question for j in found.judgements]
        assert document["history"]["elbo_validation"] == found.history["elbo_validation"].tolist()
        assert document["data"]["n_cells"] == 120
        assert document["settings"] == {HOSTILE: HOSTILE}

    def test_what_is_not_finite_is_null(self):
        assert document._plain({"a": [float("nan"), 1.0, np.int64(3)]}) == {"a": [None, 1.0, "3"]}


class TestComparison:
    def test_best_is_marked(self, model, tmp_path):
        other = SCVI(model.adata, n_latent=2)
        other.train(max_epochs=6, seed=0, verbose=0)
        found = model_report(models={"short": model, "long": other}, path=tmp_path / "c.html")
        text = (tmp_path / "c.html").read_text(encoding="utf-8")
        reader = Reader(text)
        assert reader.open == []
        assert set(reader.tags) <= ALL_TAGS
        elbo = {name: one.history["elbo_validation"].min() for name, one in found.items()}
        assert f"<td>{elbo['long']:.2f} (best)</td>" in text
        assert f"<td>{elbo['short']:.2f}</td>" in text
        assert re.findall("<h2>(Latent space of .*?)</h2>", text) == ["Latent space of short", "Latent space of long"]
        model_report(models=[model, other], path=tmp_path / "c.json")
        assert list(json.loads((tmp_path / "c.json").read_text())["models"]) == ["SCVI", "SCVI 2"]

    def test_one_or_several(self, model, tmp_path):
        with pytest.raises(ValueError, match="Give one model, or models="):
            model_report(model, tmp_path / "r.html", models=[model])
        with pytest.raises(ValueError, match="path= must name the file"):
            model_report(model)
        with pytest.raises(ValueError, match="models must be a list of trained models"):
            model_report(models=[3], path=tmp_path / "r.html")


class TestProjection:
    def test_components_are_those_of_the_svd(self, rng):
        x_ng = rng.normal(size=(50, 6)) * [5, 3, 2, 1, 1, 1] + 7
        found_nk = projection.principal_components(x_ng, 3)
        u, s, _ = np.linalg.svd(x_ng - x_ng.mean(0), full_matrices=False)
        np.testing.assert_allclose(np.abs(found_nk), np.abs(u[:, :3] * s[:3]), rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
    def test_log_normalised(self, form):
        x_ng = np.array([[1.0, 3.0], [0.0, 0.0], [10.0, 0.0]])
        expected = np.log1p([[1.0, 3.0], [0.0, 0.0], [4.0, 0.0]])  # 4 is the median total
        np.testing.assert_allclose(projection.log_normalised(form(x_ng)), expected, rtol=1e-6)


def test_latent_metrics_only_of_groups_there_are(rng):
    z_nk, name_n = rng.normal(size=(40, 2)), np.array(["a", "b"] * 20)
    assert summary.latent_metrics(z_nk, None, None) == {}
    assert summary.latent_metrics(z_nk, np.array(["a"] * 40), np.array(["a"] * 40)) == {}
    of_labels, of_batches = summary.latent_metrics(z_nk, name_n, None), summary.latent_metrics(z_nk, None, name_n)
    assert (len(of_labels), len(of_batches)) == (3, 2)
    assert of_labels[summary.BY_GUESSING] == 0.5
