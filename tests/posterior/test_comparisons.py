"""Who is compared with whom."""

import numpy as np
import pandas as pd
import pytest

from celbo.posterior import comparisons

OBS = pd.DataFrame(
    {"type": ["a", "b", "a", None, "c", "b", "a", "c"], "depth": range(8)}, index=[f"cell{i}" for i in range(8)]
)


def as_lists(found):
    return [(c.group1, c.group2, c.cells1.tolist(), c.cells2.tolist()) for c in found]


class TestGroups:
    def test_each_against_the_rest(self):
        """The cell without a type is nowhere, not in the rest either."""
        assert as_lists(comparisons(OBS, groupby="type")) == [
            ("a", "Rest", [0, 2, 6], [1, 4, 5, 7]),
            ("b", "Rest", [1, 5], [0, 2, 4, 6, 7]),
            ("c", "Rest", [4, 7], [0, 1, 2, 5, 6]),
        ]

    @pytest.mark.parametrize("group1", ["c", ["c"], np.array(["c"], dtype=object)])
    def test_one_against_another(self, group1):
        assert as_lists(comparisons(OBS, groupby="type", group1=group1, group2="a")) == [("c", "a", [4, 7], [0, 2, 6])]

    def test_rest_stays_in_the_subset(self):
        found = comparisons(OBS, groupby="type", group1="a", subset_idx=[0, 1, 2, 3, 4])
        assert as_lists(found) == [("a", "Rest", [0, 2], [1, 4])]
        found = comparisons(OBS, groupby="type", subset_idx="depth < 3")
        assert [c.group1 for c in found] == ["a", "b"]

    def test_unused_category(self):
        obs = OBS.assign(type=pd.Categorical(OBS["type"], categories=["z", "c", "b", "a"]))
        assert [c.group1 for c in comparisons(obs, groupby="type")] == ["c", "b", "a"]

    def test_numbers(self):
        obs = pd.DataFrame({"cluster": [0, 1, 1, 2]})
        assert as_lists(comparisons(obs, groupby="cluster", group1=1)) == [("1", "Rest", [1, 2], [0, 3])]


class TestIndices:
    @pytest.mark.parametrize(
        "idx1", [[6, 0], np.array([True, False, False, False, False, False, True, False]), "depth in [0, 6]"]
    )
    def test_kinds(self, idx1):
        (found,) = comparisons(OBS, idx1=idx1, idx2=[3, 1])
        assert sorted(found.cells1) == [0, 6]
        assert found.cells2.tolist() == [3, 1]
        assert found.group1 is None

    def test_others(self):
        (found,) = comparisons(OBS, idx1=[0, 1], subset_idx=[0, 1, 4, 5])
        assert found.cells2.tolist() == [4, 5]

    def test_indices_win(self):
        (found,) = comparisons(OBS, groupby="type", idx1=[0])
        assert found.group1 is None


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({}, ValueError, "groupby="),
        ({"groupby": "typ"}, KeyError, "Did you mean 'type'"),
        ({"groupby": "type", "group1": "A"}, ValueError, "Did you mean 'a'"),
        ({"groupby": "type", "group2": "q"}, ValueError, "No group"),
        ({"groupby": "type", "group1": "c", "subset_idx": [0, 1]}, ValueError, "No group"),
        ({"groupby": "type", "group1": "a", "subset_idx": [0, 2]}, ValueError, r"'type'\] has one group only \('a'\)"),
        ({"idx1": []}, ValueError, "Group 1 has no cells"),
        ({"idx1": "depth > 99"}, ValueError, "Group 1 has no cells"),
        ({"idx1": list(range(8))}, ValueError, "Group 2 has no cells"),
        ({"idx1": [8]}, IndexError, "No cell 8"),
        ({"idx1": [True, False]}, IndexError, "mask"),
    ],
)
def test_refusals(wrong, error, message):
    with pytest.raises(error, match=message):
        comparisons(OBS, **wrong)
