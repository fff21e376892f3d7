"""Metrics of a latent space against closed forms and scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from celbo.report import metrics

sklearn_neighbors = pytest.importorskip("sklearn.neighbors")


@pytest.fixture
def cloud(rng):
    """300 cells of three labels, apart but overlapping, ``(n, k)`` and ``(n,)``."""
    label_n = rng.integers(3, size=300)
    return rng.normal(size=(300, 4)) + 1.5 * label_n[:, None], np.array(["a", "é", "c"])[label_n]


class TestNeighbours:
    def test_against_all_distances(self, rng):
        z_nk = rng.normal(size=(80, 3))
        distance_nm, index_nm = metrics.neighbours(z_nk, 7)
        all_nn = cdist(z_nk, z_nk)
        np.fill_diagonal(all_nn, np.inf)
        np.testing.assert_array_equal(index_nm, np.argsort(all_nn, 1)[:, :7])
        np.testing.assert_allclose(distance_nm, np.sort(all_nn, 1)[:, :7])

    def test_never_the_cell_itself_though_many_lie_at_one_place(self):
        _, index_nm = metrics.neighbours(np.zeros((40, 2)), 5)
        assert index_nm.shape == (40, 5)
        assert not (index_nm == np.arange(40)[:, None]).any()

    def test_no_more_than_there_are(self, rng):
        assert metrics.neighbours(rng.normal(size=(4, 2)), 10)[1].shape == (4, 3)

    @pytest.mark.parametrize(
        ("z", "message"), [(np.zeros((1, 2)), "two cells"), (np.zeros(3), "shape"), (np.full((3, 1), np.nan), "3 of 3")]
    )
    def test_refused(self, z, message):
        with pytest.raises(ValueError, match=message):
            metrics.neighbours(z, 2)


class TestKnnLabelAccuracy:
    @pytest.mark.parametrize("k", [1, 4, 15])
    def test_against_sklearn(self, cloud, k):
        z_nk, label_n = cloud
        train, test = np.arange(0, 300, 2), np.arange(1, 300, 2)
        model = sklearn_neighbors.KNeighborsClassifier(k).fit(z_nk[train], label_n[train])
        expected = model.score(z_nk[test], label_n[test])
        assert metrics.knn_label_accuracy(z_nk, label_n, train, test, k) == pytest.approx(expected)
        assert 0.5 < expected < 1

    def test_more_neighbours_than_cells(self):
        z_nk = np.array([[0.0], [1.0], [2.0], [9.0]])
        assert metrics.knn_label_accuracy(z_nk, ["a", "a", "b", "b"], [0, 1, 2], [3], k=15) == 0.0

    def test_a_cell_cannot_name_itself(self, cloud):
        with pytest.raises(ValueError, match="share cells"):
            metrics.knn_label_accuracy(*cloud, [0, 1], [1, 2])

    def test_labels_without_name_are_refused(self):
        with pytest.raises(ValueError, match="1 of 3 cells have no name"):
            metrics.knn_label_accuracy(np.zeros((3, 1)), ["a", None, "b"], [0], [2])


class TestBatchMixing:
    def test_separate_batches(self, rng):
        batch_n = np.repeat(["a", "b"], 200)
        z_nk = rng.normal(size=(400, 2)) + 1000.0 * (batch_n == "b")[:, None]
        assert metrics.batch_mixing(z_nk, batch_n) == metrics.BatchMixing(0.0, pytest.approx(0.0, abs=1e-12))

    def test_one_cloud_in_unequal_batches(self, rng):
        batch_n = rng.choice(3, size=3000, p=[0.6, 0.3, 0.1])
        mixed = metrics.batch_mixing(rng.normal(size=(3000, 2)), batch_n)
        assert mixed.foreign_share == pytest.approx(1.0, abs=0.03)
        inverse_simpson = 1 / (0.36 + 0.09 + 0.01)  # of the population; that of a sample around a cell is near it
        assert mixed.ilisi == pytest.approx((inverse_simpson - 1) / 2, abs=0.08)

    def test_pairs_that_are_foreign_throughout(self):
        """Each cell's nearest neighbour is of the other batch: half the neighbours by chance, so almost 2 of chance."""
        z_nk = np.repeat(np.arange(50) * 10.0, 2)[:, None] + np.tile([0.0, 1.0], 50)[:, None]
        mixed = metrics.batch_mixing(z_nk, np.tile(["a", "b"], 50), k=1)
        assert mixed.foreign_share == pytest.approx(1 / (50 / 99))

    def test_a_single_batch_is_refused(self):
        with pytest.raises(ValueError, match="two batches"):
            metrics.batch_mixing(np.zeros((5, 1)), ["a"] * 5)

    def test_weights_have_the_perplexity(self, rng):
        weight_nm = metrics.perplexity_weights(np.sort(rng.exponential(size=(20, 90)), 1), 30.0)
        np.testing.assert_allclose(weight_nm.sum(1), 1)
        np.testing.assert_allclose(np.exp(-(weight_nm * np.log(weight_nm)).sum(1)), 30.0, rtol=1e-6)
        assert (np.diff(weight_nm, axis=1) <= 0).all()

    def test_weights_of_equal_distances_are_equal(self):
        np.testing.assert_allclose(metrics.perplexity_weights(np.ones((2, 9)), 3.0), 1 / 9)


class TestGraphConnectivity:
    def test_one_label_in_two_places(self, rng):
        """30 cells here, 10 far away, all of one label: three quarters; another label in one piece: 1."""
        centre_n = np.repeat([0.0, 1e3, 1e6], [30, 10, 20])
        z_nk = rng.normal(size=(60, 2)) + centre_n[:, None]
        assert metrics.graph_connectivity(z_nk, ["a"] * 40 + ["b"] * 20, k=9) == pytest.approx((0.75 + 1) / 2)

    def test_every_cell_alone(self):
        """Neighbours are always of the other label: each piece of a label is a single cell."""
        z_nk = np.repeat(np.arange(5) * 10.0, 2)[:, None] + np.tile([0.0, 1.0], 5)[:, None]
        assert metrics.graph_connectivity(z_nk, ["a", "b"] * 5, k=1) == pytest.approx(1 / 5)


class TestNmiAri:
    def test_clusters_that_are_the_labels(self, rng):
        label_n = np.repeat([0, 1, 2], 30)
        assert metrics.nmi_ari(rng.normal(size=(90, 2)) + 100 * label_n[:, None], label_n) == (
            pytest.approx(1),
            pytest.approx(1),
        )

    def test_clusters_that_say_nothing(self, rng):
        nmi, ari = metrics.nmi_ari(rng.normal(size=(600, 2)), rng.integers(3, size=600))
        assert nmi < 0.03
        assert abs(ari) < 0.03


def test_global_generators_untouched(cloud, global_rng_untouched):
    z_nk, label_n = cloud
    metrics.nmi_ari(z_nk, label_n)
    metrics.batch_mixing(z_nk, label_n)
