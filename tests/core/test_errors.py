"""Messages about unknown names."""

import pytest

import celbo
from celbo.core import nearest_first, number_of, unknown_name


def test_nearest_name_is_proposed():
    assert unknown_name("column of adata.obs", "bach", ["donor", "batch"]) == (
        "No column of adata.obs is called 'bach'. Did you mean 'batch'? There are: 'batch', 'donor'."
    )


def test_case_does_not_matter():
    assert "Did you mean 'Batch'?" in unknown_name("column", "BATCH", ["Batch", "x"])


def test_nothing_near_proposes_nothing():
    assert unknown_name("layer", "zzz", ["counts"]) == "No layer is called 'zzz'. There are: 'counts'."


def test_one_is_no_plural():
    assert [number_of(count, "epoch") for count in (0, 1, 1200)] == ["0 epochs", "1 epoch", "1,200 epochs"]


def test_nothing_known():
    assert unknown_name("layer", "counts", []) == "No layer is called 'counts': there are none."


def test_long_lists_are_cut_and_say_so():
    message = unknown_name("gene", "g7", [f"g{i}" for i in range(25)])
    assert message.endswith("and 15 more.")
    assert message.index("'g7'", 10) < message.index("'g0'")


def test_names_need_not_be_text():
    assert unknown_name("category", 3, [1, 2]).startswith("No category is called 3.")
    assert unknown_name("category", 3, (str(i) for i in range(2)))


def test_nearest_first_keeps_the_order_of_ties():
    assert nearest_first("x", ["b", "a"]) == ["b", "a"]
    assert nearest_first("x", ["b", "x", "a"], limit=2) == ["x", "b"]


def test_the_root_uses_it():
    with pytest.raises(AttributeError, match=r"No attribute of celbo is called 'modul'\. Did you mean 'module'\?"):
        _ = celbo.modul
