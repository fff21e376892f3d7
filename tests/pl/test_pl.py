"""Pictures draw what they say: their artists are looked at, not their pixels."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import celbo
from celbo.core import ArgumentError

matplotlib.use("Agg")


@pytest.fixture
def ax():
    """Axes of a figure that pyplot does not know, so that nothing is left open."""
    return Figure().subplots()


@pytest.fixture(scope="module")
def adata():
    made = celbo.data.simulate_counts(n_cells=120, n_genes=40, n_cell_types=3, n_batches=2, seed=0)
    made.obsm["X_celbo"] = np.random.default_rng(0).normal(size=(120, 5)) * [5, 3, 1, 1, 1]
    made.obsm["X_umap"] = np.random.default_rng(1).normal(size=(120, 2))
    return made


@pytest.fixture(scope="module")
def model(adata):
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    trained = celbo.model.SCVI(adata)
    trained.train(max_epochs=4, verbose=0, seed=0, recipe="classic")
    return trained


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestHistory:
    def test_curves_are_the_history(self, model, ax):
        assert celbo.pl.history(model, ax=ax) is ax
        training, validation, best = ax.get_lines()
        assert np.array_equal(training.get_xdata(), model.history["elbo_train"].index)
        assert np.array_equal(training.get_ydata(), model.history["elbo_train"].to_numpy().ravel())
        elbo = model.history["elbo_validation"].to_numpy().ravel()
        assert np.array_equal(validation.get_ydata(), elbo)
        assert best.get_xdata()[0] == 3
        assert best.get_ydata()[0] == elbo[3]
        assert "epoch whose weights were kept: 3" in texts(ax)

    def test_the_dot_is_the_epoch_kept_rather_than_the_least(self, model, ax, monkeypatch):
        elbo = model.history["elbo_validation"].to_numpy().ravel()
        kept = int(np.argmax(elbo))
        monkeypatch.setattr(model, "kept_epoch_", kept)
        celbo.pl.history(model, ax=ax)
        assert ax.get_lines()[2].get_xydata().tolist() == [[kept, elbo[kept]]]

    def test_a_model_that_does_not_know_has_its_least_epoch_marked(self, model, ax, monkeypatch):
        monkeypatch.setattr(model, "kept_epoch_", None)
        celbo.pl.history(model, ax=ax)
        elbo = model.history["elbo_validation"].to_numpy().ravel()
        assert ax.get_lines()[2].get_xydata().tolist() == [[np.argmin(elbo), elbo.min()]]
        assert f"best epoch: {np.argmin(elbo)}" in texts(ax)

    def test_curves_differ_without_colour(self, model, ax):
        celbo.pl.history(model, ax=ax)
        assert len({line.get_linestyle() + line.get_marker() for line in ax.get_lines()}) == 3

    def test_a_weight_that_rises_has_an_axis_of_its_own(self, model, ax):
        celbo.pl.history(model, ax=ax)
        (right,) = [other for other in ax.figure.axes if other is not ax]
        assert right.get_ylabel() == "weight of the KL divergence"
        assert np.array_equal(right.get_lines()[0].get_ydata(), model.history["kl_weight"].to_numpy().ravel())

    @pytest.mark.parametrize("metric", ["elbo", "loss", "reconstruction_loss", "kl_local"])
    def test_names_of_axes(self, model, ax, metric):
        celbo.pl.history(model, metric, ax=ax)
        assert ax.get_xlabel() == "epoch"
        assert metric == "loss" or "nats per cell" in ax.get_ylabel()

    def test_before_training(self, adata, ax):
        with pytest.raises(ValueError, match="train the model first"):
            celbo.pl.history(celbo.model.SCVI(adata), ax=ax)

    def test_wrong_metric_names_the_nearest(self, model, ax):
        with pytest.raises(ArgumentError, match="elbo"):
            celbo.pl.history(model, "elb", ax=ax)

    def test_makes_a_figure(self, model):
        from matplotlib import pyplot

        made = celbo.pl.history(model)
        assert made.figure.number in pyplot.get_fignums()
        pyplot.close(made.figure)


class TestLatent:
    def test_two_columns_are_drawn_as_they_are(self, adata, ax):
        celbo.pl.latent(adata, "X_umap", ax=ax)
        assert np.array_equal(np.asarray(ax.collections[0].get_offsets()), adata.obsm["X_umap"])
        assert ax.get_xlabel() == "coordinate 1 of X_umap"

    def test_more_columns_are_projected(self, adata, ax):
        celbo.pl.latent(adata, layout="principal", ax=ax)
        assert ax.get_xlabel() == "principal component 1 of X_celbo"
        z_nk = adata.obsm["X_celbo"] - adata.obsm["X_celbo"].mean(0)
        u, s, _ = np.linalg.svd(z_nk, full_matrices=False)
        drawn = np.asarray(ax.collections[0].get_offsets())
        assert np.allclose(np.abs(drawn), np.abs(u[:, :2] * s[:2]))

    def test_neighbours_by_default(self, adata, ax):
        celbo.pl.latent(adata, ax=ax)
        drawn = np.asarray(ax.collections[0].get_offsets())
        assert np.allclose(drawn, celbo.report.neighbour_layout(adata.obsm["X_celbo"]))
        assert ax.get_ylabel() == "neighbour layout 2 of X_celbo"

    def test_groups_differ_by_colour_and_by_marker(self, adata, ax):
        celbo.pl.latent(adata, color="cell_type", ax=ax)
        assert texts(ax) == ["type_0", "type_1", "type_2"]
        assert ax.get_legend().get_title().get_text() == "cell_type"
        counts = adata.obs["cell_type"].value_counts()
        assert [len(points.get_offsets()) for points in ax.collections] == [counts[name] for name in texts(ax)]
        assert len({tuple(points.get_facecolor()[0]) for points in ax.collections}) == 3
        assert len({len(points.get_paths()[0]) for points in ax.collections}) == 3

    def test_cells_without_a_group(self, adata, ax):
        copy = adata.copy()
        copy.obs["part"] = copy.obs["batch"].astype(object).where(np.arange(120) < 100)
        celbo.pl.latent(copy, color="part", ax=ax)
        assert texts(ax) == ["none", "batch_0", "batch_1"]
        assert len(ax.collections[0].get_offsets()) == 20

    def test_numbers_are_shades(self, adata, ax):
        celbo.pl.latent(adata, color="library_size", ax=ax)
        assert np.array_equal(ax.collections[0].get_array(), adata.obs["library_size"])
        assert ax.figure.axes[1].get_ylabel() == "library_size"

    @pytest.mark.parametrize(("wrong", "nearest"), [({"key": "X_cello"}, "X_celbo"), ({"color": "bach"}, "batch")])
    def test_unknown_names(self, adata, ax, wrong, nearest):
        with pytest.raises(KeyError, match=nearest):
            celbo.pl.latent(adata, ax=ax, **wrong)


class TestMixing:
    def test_bars_are_the_figures(self, adata, ax):
        shifted = adata.obsm["X_celbo"] + 100 * (adata.obs["batch"] == "batch_0").to_numpy()[:, None]
        celbo.pl.mixing({"before": shifted, "after": adata.obsm["X_celbo"]}, adata.obs["batch"], ax=ax)
        before, after = ax.containers
        assert [bar.get_height() for bar in before] == [0.0, 0.0]
        found = celbo.report.batch_mixing(adata.obsm["X_celbo"], adata.obs["batch"])
        assert [bar.get_height() for bar in after] == [found.foreign_share, found.ilisi]
        assert texts(ax) == ["before", "after"]
        assert before[0].get_hatch() != after[0].get_hatch()

    def test_labels(self, adata, ax):
        apart = np.eye(3)[adata.obs["cell_type"].cat.codes] * 10
        apart = np.hstack([apart, np.random.default_rng(0).normal(size=(120, 1))])
        celbo.pl.mixing({"z": apart}, adata.obs["batch"], adata.obs["cell_type"], ax=ax)
        assert ax.containers[0][2].get_height() == 1.0
        assert len(ax.get_xticklabels()) == 3

    def test_nothing(self, adata, ax):
        with pytest.raises(ValueError, match="latent space or more"):
            celbo.pl.mixing({}, adata.obs["batch"], ax=ax)


class TestVolcano:
    @pytest.fixture
    def table(self):
        columns = {"lfc_mean": [3.0, -2.0, 0.1, 1.0], "proba_de": [0.99, 0.95, 0.3, 0.6]}
        return pd.DataFrame(columns | {"is_de_fdr_0.05": [True, True, False, False]}, index=list("abcd"))

    def test_listed_genes_and_the_line(self, table, ax):
        celbo.pl.volcano(table, ax=ax)
        rest, listed = ax.collections
        assert np.asarray(listed.get_offsets()).tolist() == [[3.0, 0.99], [-2.0, 0.95]]
        assert len(rest.get_offsets()) == 2
        assert ax.get_lines()[0].get_ydata()[0] == 0.95
        assert texts(ax) == ["not listed", "listed, expected FDR 5%"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("log2 fold change", "probability of a change")

    def test_names(self, table, ax):
        celbo.pl.volcano(table, n_names=1, ax=ax)
        assert [text.get_text() for text in ax.texts] == ["a"]

    def test_without_a_target_nothing_is_listed(self, table, ax):
        celbo.pl.volcano(table[["lfc_mean", "proba_de"]], ax=ax)
        assert len(ax.collections) == 1
        assert not ax.get_lines()

    def test_another_table_is_refused(self, ax):
        with pytest.raises(ArgumentError, match="mode='change'"):
            celbo.pl.volcano(pd.DataFrame({"bayes_factor": [1.0]}), ax=ax)

    def test_of_a_model(self, model, ax):
        found = model.differential_expression(groupby="cell_type", group1="type_0", mode="change", fdr_target=0.05)
        celbo.pl.volcano(found, ax=ax)
        assert sum(len(points.get_offsets()) for points in ax.collections) == 40


class TestPredictive:
    def test_observed_are_those_of_the_data(self, model, adata, ax):
        x_ng = adata.X.toarray()
        x_ng = x_ng.astype(float)
        expected = {"mean": x_ng.mean(0), "variance": x_ng.var(0), "zeros": (x_ng == 0).mean(0)}
        for statistic, observed_g in expected.items():
            ax = Figure().subplots()
            celbo.pl.predictive(model, statistic, ax=ax)
            drawn = np.asarray(ax.collections[0].get_offsets())
            assert set(np.round(drawn[:, 0], 6)) <= set(np.round(observed_g.astype(float), 6))
            assert (ax.get_xscale() == "log") == (statistic != "zeros")
            line = ax.get_lines()[0]
            assert np.array_equal(line.get_xdata(), line.get_ydata())

    def test_models_without_counts_to_simulate(self, adata, ax):
        celbo.model.AmortizedLDA.setup_anndata(adata)
        with pytest.raises(ValueError, match="AmortizedLDA simulates no counts"):
            celbo.pl.predictive(celbo.model.AmortizedLDA(adata), ax=ax)


class TestLatentDimensions:
    def test_bars_are_the_divergences(self, model, ax):
        celbo.pl.latent_dimensions(model, ax=ax)
        mean_nk, variance_nk = model.get_latent_representation(return_dist=True)
        kl_k = 0.5 * (mean_nk**2 + variance_nk - 1 - np.log(variance_nk)).mean(0)
        heights = {bar.get_x(): bar.get_height() for bars in ax.containers for bar in bars}
        assert np.allclose([heights[x] for x in sorted(heights)], np.sort(kl_k)[::-1], rtol=1e-4)
        assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(k) for k in np.argsort(-kl_k)]

    def test_unused_ones_are_hatched(self, ax):
        from celbo.report.figures import draw_dimensions

        draw_dimensions(ax, np.array([0.0, 2.0, 0.1]), np.array([False, True, False]))
        active, spare = ax.containers
        assert [bar.get_height() for bar in active] == [2.0]
        assert [bar.get_height() for bar in spare] == [0.1, 0.0]
        assert active[0].get_hatch() != spare[0].get_hatch()

    def test_models_without(self, model, ax):
        solo = celbo.external.SOLO.from_scvi_model(model, restrict_to_batch="batch_0")
        solo.is_trained_ = True
        with pytest.raises(ValueError, match="SOLO has no normal posterior"):
            celbo.pl.latent_dimensions(solo, ax=ax)


class TestLoadings:
    @pytest.fixture
    def table(self):
        return pd.DataFrame({"Z_0": [0.5, -0.2, 0.1, -0.9, 0.0], "Z_1": [1.0, 2, 3, 4, 5]}, index=list("abcde"))

    def test_largest_of_either_sign(self, table, ax):
        celbo.pl.loadings(table, n_genes=1, ax=ax)
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "d"]
        up, down = ax.containers
        assert (up[0].get_width(), down[0].get_width()) == (0.5, -0.9)
        assert up[0].get_hatch() != down[0].get_hatch()

    def test_another_dimension(self, table, ax):
        celbo.pl.loadings(table, "Z_1", ax=ax)
        assert [tick.get_text() for tick in ax.get_yticklabels()] == list("edcba")
        with pytest.raises(KeyError, match="Did you mean 'Z_1'"):
            celbo.pl.loadings(table, "Z_11", ax=ax)


class TestConfusion:
    def test_shares_of_rows(self, ax):
        known = ["a", "a", "b", None, "a", "b"]
        celbo.pl.confusion(known, ["a", "b", "b", "a", "a", "c"], ax=ax)
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]
        shown = np.asarray(ax.images[0].get_array())
        assert np.allclose(shown, [[2 / 3, 1 / 3, 0], [0, 0.5, 0.5], [0, 0, 0]])
        assert sorted(text.get_text() for text in ax.texts) == ["0.33", "0.50", "0.50", "0.67"]

    @pytest.mark.parametrize(("known", "said"), [(["a"], "One prediction a cell"), ([None, None], "No cell has")])
    def test_what_cannot_be_compared(self, ax, known, said):
        with pytest.raises(ValueError, match=said):
            celbo.pl.confusion(known, ["a", "b"], ax=ax)


class TestCalibration:
    def test_shares_that_are_right(self, ax):
        soft = pd.DataFrame({"B": [0.9, 0.9, 0.2, 0.5], "T": [0.1, 0.1, 0.8, 0.5]})
        celbo.pl.calibration(soft, ["B", "T", "T", None], ax=ax)
        drawn = np.asarray(ax.collections[0].get_offsets())
        assert np.allclose(drawn, [[0.8, 1.0], [0.9, 0.5]])

    @pytest.mark.parametrize(("known", "said"), [(["B"], "1 of 1 for 2"), (["B", "Tx"], "Did you mean 'T'")])
    def test_other_labels(self, ax, known, said):
        with pytest.raises(ValueError, match=said):
            celbo.pl.calibration(pd.DataFrame({"B": [0.9, 0.2], "T": [0.1, 0.8]}), known, ax=ax)


class TestProportions:
    table = pd.DataFrame({"B": [0.2, 0.7, 0.1], "T": [0.8, 0.3, 0.9]})

    def test_spots_lie_where_they_are(self, ax):
        places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        celbo.pl.proportions(self.table, places, "B", ax=ax)
        assert np.array_equal(np.asarray(ax.collections[0].get_offsets()), places)
        assert np.array_equal(ax.collections[0].get_array(), [0.2, 0.7, 0.1])
        assert ax.collections[0].get_clim()[0] == 0
        assert ax.yaxis_inverted()

    def test_most_frequent_type(self, ax):
        assert celbo.pl.proportions(self.table, np.zeros((3, 2)), ax=ax).get_title(loc="left") == "T"

    def test_what_is_wrong(self, ax):
        with pytest.raises(KeyError, match="Did you mean 'B'"):
            celbo.pl.proportions(self.table, np.zeros((3, 2)), "Bx", ax=ax)
        with pytest.raises(ValueError, match="two coordinates of 3 spots, got shape"):
            celbo.pl.proportions(self.table, np.zeros((2, 2)), ax=ax)


def test_protein_levels(ax):
    adata = celbo.data.synthetic_iid(batch_size=40, n_genes=20, n_proteins=4, n_regions=0, seed=0)
    celbo.model.TOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
    model = celbo.model.TOTALVI(adata)
    model.train(max_epochs=2, verbose=0, seed=0)
    celbo.pl.protein_levels(model, ax=ax)
    _, background, foreground = ax.collections
    found = celbo.report.proteins.ProteinDetail.of(model, 0).proteins
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert sorted(names) == sorted(found.index)
    drawn = np.ma.getdata(background.get_offsets())[:, 0]
    assert np.allclose(drawn, found.loc[names, "background"], equal_nan=True)
    assert len(background.get_paths()[0]) != len(foreground.get_paths()[0])
    assert texts(ax) == ["cells with background", "cells with foreground"]


def test_doublet_scores(model, ax):
    solo = celbo.external.SOLO.from_scvi_model(model, restrict_to_batch="batch_0")
    solo.train(max_epochs=2, verbose=0, seed=0)
    celbo.pl.doublet_scores(solo, ax=ax)
    cells, simulated = ax.patches
    values, edges, _ = cells.get_data()
    share, _ = np.histogram(solo.predict()["doublet"], edges)
    assert np.allclose(values, share / share.sum())
    assert simulated.get_data().values.sum() == pytest.approx(1)
    assert texts(ax) == ["cells", "simulated doublets"]
    assert ax.get_xlabel() == "probability of being a doublet"


def test_an_ax_that_is_none(model):
    with pytest.raises(ArgumentError, match="ax must be matplotlib Axes"):
        celbo.pl.history(model, ax="axes")
