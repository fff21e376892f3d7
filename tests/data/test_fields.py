import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.core.rules import SCVI_TOOLS, followed
from celbo.data import fields as f


@pytest.fixture
def adata():
    n = 12
    i = np.arange(n)
    obs = pd.DataFrame(
        {
            "batch": np.array(["a", "b"])[i % 2],
            "levels": pd.Categorical(np.array(["y", "x"])[i % 2], categories=["z", "y", "w", "x"]),
            "holes": np.where(i % 3 == 0, None, "q"),
            "nan": np.where(i % 4 == 1, np.nan, 1.0),
            "number": i * 0.5,
            "flag": i % 2 == 0,
            "mixed": np.array([1, "1"], dtype=object)[i % 2],
            "int": np.array([7, 3])[i % 2],
        },
        index=[f"cell{k}" for k in i],
    )
    made = anndata.AnnData(np.ones((n, 3), dtype=np.float32), obs=obs)
    made.layers["counts"] = np.ones((n, 3))
    return made


def test_unused_categories_are_dropped_and_named(adata, log):
    state = f.CategoricalObsField("labels", "levels").register_field(adata)
    assert state["categorical_mapping"].tolist() == ["y", "x"]
    assert adata.obs["_scvi_labels"].tolist() == [0, 1] * 6
    assert any("2 unused categories (z, w)" in message for message in log)
    joint = f.CategoricalJointObsField("c", ["levels"]).register_field(adata)
    assert joint["n_cats_per_key"] == [2]
    labels = f.LabelsWithUnlabeledObsField("labels", "levels", "y").register_field(adata)
    assert labels["categorical_mapping"].tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("column", "expected", "first"),
    [("flag", [False, True], [1, 0]), ("int", [3, 7], [1, 0]), ("number", list(np.arange(12) * 0.5), [0, 1])],
)
@pytest.mark.filterwarnings("ignore:Category:UserWarning")
def test_bool_and_numeric_columns_are_categories_too(adata, column, expected, first):
    state = f.CategoricalObsField("labels", column).register_field(adata)
    assert state["categorical_mapping"].tolist() == expected
    assert state["categorical_mapping"].dtype == adata.obs[column].dtype
    assert adata.obs["_scvi_labels"].tolist()[:2] == first


def test_codes_take_a_type_that_holds_them(adata):
    n = 300
    many = anndata.AnnData(
        np.ones((3 * n, 1)),
        obs=pd.DataFrame({"c": [f"{k:03}" for k in range(n)] * 3}, index=[f"{k}" for k in range(3 * n)]),
    )
    f.CategoricalObsField("batch", "c").register_field(many)
    assert many.obs["_scvi_batch"].dtype == np.int16
    assert many.obs["_scvi_batch"].tolist() == list(range(n)) * 3


def test_missing_categories_are_counted_and_named(adata):
    with pytest.raises(ValueError, match=r"adata.obs\['holes'\] has no value for 4 of 12 cells: 'cell0', 'cell3'"):
        f.CategoricalObsField("batch", "holes").register_field(adata)
    with pytest.raises(ValueError, match="no value for 3 of 12 cells: 'cell1', 'cell5', 'cell9'"):
        f.CategoricalJointObsField("c", ["batch", "nan"]).register_field(adata)
    assert "_scvi_batch" not in adata.obs


def test_mixed_types_cannot_be_sorted(adata):
    with pytest.raises(TypeError, match=r"mixes values of different types \(int, str\).*astype\(str\)"):
        f.CategoricalObsField("batch", "mixed").register_field(adata)


def test_numbers_and_their_text_are_different_categories(adata):
    field = f.CategoricalObsField("batch", "int")
    state = field.register_field(adata)
    adata.obs["int"] = adata.obs["int"].astype(str)
    with pytest.raises(ValueError, match="They look alike but are of type str here and int in the registry"):
        field.transfer_field(state, adata)


def test_rare_categories_warn_once_with_their_names(adata):
    adata.obs["rare"] = ["a"] * 9 + ["b"] * 2 + ["c"]
    with pytest.warns(
        UserWarning, match=r"Category 'b' \(2\), 'c' \(1\) of adata.obs\['rare'\] has fewer than 3"
    ) as seen:
        state = f.CategoricalObsField("batch", "rare").register_field(adata)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f.CategoricalObsField("batch", "rare").transfer_field(state, adata)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (f.CategoricalObsField("batch", "bacth"), "column of adata.obs is called 'bacth'. Did you mean 'batch'"),
        (f.NumericalObsField("s", "numbr"), "Did you mean 'number'"),
        (f.CategoricalJointObsField("c", ["batch", "levls"]), "Did you mean 'levels'"),
        (f.NumericalJointObsField("c", ["numbers"]), "Did you mean 'number'"),
        (f.LayerField("X", "count"), "layer of adata.layers is called 'count'. Did you mean 'counts'"),
        (f.ObsmField("p", "protein"), "entry of adata.obsm is called 'protein': there are none"),
        (f.StringUnsField("u", "type"), "entry of adata.uns"),
    ],
)
def test_missing_keys_list_the_nearest(adata, field, message):
    with pytest.raises(KeyError, match=message):
        field.register_field(adata)


def test_own_columns_are_not_suggested(adata):
    f.CategoricalObsField("batch", "batch").register_field(adata)
    with pytest.raises(KeyError) as raised:
        f.CategoricalObsField("labels", "scvi_batch").register_field(adata)
    assert "'_scvi_batch'" not in str(raised.value)


def test_one_name_is_a_list_of_one_and_a_list_is_no_name(adata):
    state = f.CategoricalJointObsField("c", "batch").register_field(adata)
    assert state["field_keys"] == ["batch"]
    assert f.NumericalJointObsField("c", ("number",)).attr_keys == ["number"]
    for make in (f.CategoricalObsField, f.NumericalObsField, f.StringUnsField, f.ObsmField):
        with pytest.raises(TypeError, match="takes one column name"):
            make("batch", ["batch"])
    with pytest.raises(TypeError, match="takes a list of column names, got 3"):
        f.CategoricalJointObsField("c", 3)
    with pytest.raises(ValueError, match="names columns twice: 'batch'"):
        f.CategoricalJointObsField("c", ["batch", "batch"])


def test_required_fields_want_a_name():
    with pytest.raises(ValueError, match="`attr_key` cannot be `None`"):
        f.NumericalObsField("s", None)
    with pytest.raises(ValueError, match="`uns_key` cannot be `None`"):
        f.StringUnsField("s", None)
    assert f.NumericalObsField("s", None, required=False).is_empty
    with pytest.raises(ValueError, match="requires that `batch_field is not None`"):
        f.ProteinObsmField("p", "protein")


def test_numbers_must_be_finite_numbers(adata):
    with pytest.raises(ValueError, match="NaN or infinite for 3 of 12 rows: 'cell1', 'cell5', 'cell9'"):
        f.NumericalObsField("s", "nan").register_field(adata)
    with pytest.raises(TypeError, match=r"adata.obs\['batch'\] is of dtype .*numbers are wanted"):
        f.NumericalJointObsField("c", ["number", "batch"]).register_field(adata)
    assert f.NumericalObsField("s", "flag").register_field(adata) == {}


def test_unlabeled_swaps_with_the_last_place(adata):
    adata.obs["labels"] = np.array(["T", "Unknown", "A", "Z"])[np.arange(12) % 4]
    state = f.LabelsWithUnlabeledObsField("labels", "labels", "A").register_field(adata)
    assert state["categorical_mapping"].tolist() == ["Z", "T", "Unknown", "A"]
    assert adata.obs["_scvi_labels"].tolist() == [1, 2, 3, 0] * 3
    assert state["unlabeled_category"] == "A"


def test_unlabeled_of_another_type_than_the_labels(adata, log):
    state = f.LabelsWithUnlabeledObsField("labels", "int", "Unknown").register_field(adata)
    assert state["categorical_mapping"].tolist() == [3, 7, "Unknown"]
    assert adata.obs["_scvi_labels"].tolist() == [1, 0] * 6
    assert any("all cells count as labelled" in message for message in log)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["T", None, "A"], ["A", "T"]),
        ([2.0, np.nan, 1.0], [1.0, 2.0]),
        (pd.Categorical(["T", None, "A"], categories=["T", "B", "A"]), ["T", "A"]),
    ],
)
@pytest.mark.parametrize("unlabeled", [None, np.nan, "Unknown"])
def test_cells_without_a_value_are_unlabelled(adata, values, labels, unlabeled):
    column = pd.Series(values).iloc[np.arange(12) % 3]
    adata.obs["labels"] = column.set_axis(adata.obs_names)
    field = f.LabelsWithUnlabeledObsField("labels", "labels", unlabeled)
    state = field.register_field(adata)
    assert state["categorical_mapping"].tolist() == [*labels, "Unknown"]
    assert state["unlabeled_category"] == "Unknown"
    codes = [2 if missing else labels.index(value) for value, missing in zip(column, column.isna())]
    assert adata.obs["_scvi_labels"].tolist() == codes
    again = field.transfer_field(state, adata)
    assert again["categorical_mapping"].tolist() == [*labels, "Unknown"]
    assert adata.obs["labels"].isna().sum() == 4


def test_a_label_called_unknown_must_be_explained(adata):
    adata.obs["labels"] = ["T", "Unknown", "A"] * 4
    with pytest.raises(ValueError, match="pass unlabeled_category='Unknown' if these cells are not labelled"):
        f.LabelsWithUnlabeledObsField("labels", "labels", None).register_field(adata)


@pytest.mark.parametrize("given", ["unknown", "UNKNOWN", "Unknwon", "Unknow"])
def test_an_unlabeled_category_with_a_slip_of_the_keys(adata, given):
    adata.obs["labels"] = ["T", "Unknown", "A"] * 4
    field = f.LabelsWithUnlabeledObsField("labels", "labels", given)
    with pytest.raises(ValueError, match=f"No cell of .* is '{given}', .* Did you mean 'Unknown'"):
        field.register_field(adata)
    with followed(SCVI_TOOLS):
        assert field.register_field(adata)["categorical_mapping"].tolist() == ["A", "T", "Unknown", given]


@pytest.mark.parametrize("given", ["none", "?", "type_c", "CD8 T cells"])
def test_an_unlabeled_category_unlike_all_labels(adata, given):
    adata.obs["labels"] = ["type_a", "type_b", "CD4 T cells"] * 4
    state = f.LabelsWithUnlabeledObsField("labels", "labels", given).register_field(adata)
    assert state["categorical_mapping"].tolist() == ["CD4 T cells", "type_a", "type_b", given]


def test_labels_are_never_extended(adata):
    field = f.LabelsWithUnlabeledObsField("labels", "batch", "b")
    state = field.register_field(adata)
    adata.obs["batch"] = ["a", "new"] * 6
    with pytest.raises(ValueError, match=r"'new'.*Labels cannot be extended.*give these cells the label 'b'"):
        field.transfer_field(state, adata, extend_categories=True)


def test_missing_label_column_can_mean_unlabelled(adata):
    field = f.LabelsWithUnlabeledObsField("labels", "batch", "a")
    state = field.register_field(adata)
    del adata.obs["batch"]
    with pytest.raises(KeyError, match=r"No column of adata.obs is called 'batch'"):
        field.transfer_field(state, adata)
    with pytest.warns(UserWarning, match="every cell is taken as 'a'"):
        field.transfer_field(state, adata, allow_missing_labels=True)
    assert (adata.obs["_scvi_labels"] == 1).all()
    assert "batch" not in adata.obs


def test_protein_mask_follows_the_columns_of_the_source(adata):
    codes = f.CategoricalObsField("batch", "batch")
    codes.register_field(adata)
    protein = np.ones((12, 3), dtype=int)
    protein[::2, 1] = 0
    for form in (protein, sp.csr_matrix(protein), pd.DataFrame(protein, index=adata.obs_names)):
        adata.obsm["p"] = form
        state = f.ProteinObsmField("proteins", "p", batch_field=codes).register_field(adata)
        assert {key: mask.tolist() for key, mask in state["protein_batch_mask"].items()} == {
            "0": [True, False, True],
            "1": [True, True, True],
        }
    adata.obsm["p"] = pd.DataFrame(protein, index=adata.obs_names, columns=["x", "y", "z"])
    field = f.ProteinObsmField("proteins", "p", batch_field=codes)
    state = field.register_field(adata)
    adata.obsm["p"] = adata.obsm["p"][["y", "z", "x"]]
    assert field.transfer_field(state, adata)["protein_batch_mask"]["0"].tolist() == [True, False, True]


def test_column_names_must_fit_the_table(adata):
    adata.obsm["p"], adata.uns["names"] = np.ones((12, 3)), np.array(["a", "b"])
    with pytest.raises(ValueError, match=r"has 2 names, adata.obsm\['p'\] has 3 columns"):
        f.ObsmField("p", "p", colnames_uns_key="names").register_field(adata)


def test_reads_are_told_from_fragments(adata):
    adata.X = np.tile([2.0, 4.0, 2.0], (12, 1))
    with pytest.warns(UserWarning, match="looks like reads, not fragments"):
        f.LayerField("X", None, check_fragment_counts=True).register_field(adata)
    adata.X = np.tile([1.0, 2.0, 1.0], (12, 1))
    f.LayerField("X", None, check_fragment_counts=True).register_field(adata)


def test_bad_counts_say_where_the_counts_are(adata):
    adata.X[11, 2] = 0.5
    adata.raw = adata.copy()
    adata.raw.X[11, 2] = 1
    with pytest.warns(
        UserWarning, match=r"adata.X does not contain unnormalized count data: 1 of 36.*'cell11'"
    ) as seen:
        f.LayerField("X", None).register_field(adata)
    assert 'use layer="counts"; use_raw=True (adata.raw, 3 genes) would be counts too' in str(seen[0].message)
    assert seen[0].category is UserWarning
    adata.layers["counts"] += 0.5
    adata.X[11, 2] = 1
    with pytest.warns(UserWarning, match=r"adata.layers\['counts'\] does not.*use layer=None"):
        f.LayerField("X", "counts").register_field(adata)
    f.LayerField("X", "counts", is_count_data=False).register_field(adata)
    adata.X[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"adata.X holds 1 NaN value in 1 of 12 cells \('cell3'\)"):
        f.LayerField("X", None).register_field(adata)


def test_no_matrix_is_an_error():
    with pytest.raises(ValueError, match=r"adata.X is None"):
        f.LayerField("X", None).register_field(anndata.AnnData(obs=pd.DataFrame(index=["a"])))


class TestValuesThatReadAlike:
    @pytest.mark.parametrize(
        ("known", "new", "kinds"), [([0, 1], "1", ("str", "int")), (["0", "1"], 1, ("int", "str"))]
    )
    @pytest.mark.parametrize(
        "field", [f.CategoricalObsField("batch", "key"), f.CategoricalJointObsField("cats", ["key"])]
    )
    def test_are_no_new_category(self, adata, field, known, new, kinds):
        adata.obs["key"] = np.array(known, dtype=object)[np.arange(12) % 2]
        state = field.register_field(adata)
        adata.obs["key"] = [new] * 12
        with pytest.raises(ValueError, match=rf"of type {kinds[0]}, the registry has .* of type {kinds[1]}.*astype"):
            field.transfer_field(state, adata, extend_categories=True)

    def test_other_text_is_a_new_category(self, adata):
        field = f.CategoricalObsField("batch", "key")
        adata.obs["key"] = ["1", "2"] * 6
        state = field.register_field(adata)
        adata.obs["key"] = ["01", "2.0"] * 6
        extended = field.transfer_field(state, adata, extend_categories=True)
        assert list(extended["categorical_mapping"]) == ["1", "2", "01", "2.0"]

    @pytest.mark.parametrize(
        ("labels", "given", "meant"),
        [([0, -1], "-1", -1), ([0.5, -1.0], "-1", -1.0), (["a", "-1"], -1, "-1"), ([True, False], "False", False)],
    )
    def test_are_the_label_that_is_none(self, adata, log, labels, given, meant):
        adata.obs["key"] = [labels[i % 2] for i in range(12)]
        state = f.LabelsWithUnlabeledObsField("labels", "key", given).register_field(adata)
        assert list(state["categorical_mapping"]) == [labels[0], meant]
        assert state["unlabeled_category"] == meant
        assert type(state["unlabeled_category"]) is type(meant)
        assert any(f"unlabeled_category={given!r} is of type" in message for message in log)


def test_a_column_that_is_there_twice_is_named(adata):
    adata.obs = pd.concat([adata.obs, adata.obs[["batch"]], adata.obs[["number"]]], axis=1)
    for field in (
        f.CategoricalObsField("batch", "batch"),
        f.CategoricalJointObsField("cats", ["levels", "batch"]),
        f.LabelsWithUnlabeledObsField("labels", "batch", "a"),
        f.NumericalObsField("depth", "number"),
        f.NumericalJointObsField("numbers", ["number"]),
    ):
        with pytest.raises(ValueError, match=r"adata\.obs has 2 columns called '(batch|number)'"):
            field.register_field(adata)
    f.CategoricalObsField("batch", "levels").register_field(adata)


@pytest.mark.parametrize("value", [0.0, -1.0, 0])
def test_size_factors_are_above_zero(adata, value):
    adata.obs["sf"] = np.where(np.arange(12) == 3, value, 1)
    with pytest.raises(ValueError, match=r"\['sf'\] is 0 or negative for 1 of 12 cells: 'cell3'"):
        f.NumericalObsField("size_factor", "sf").register_field(adata)
    f.NumericalObsField("depth", "sf").register_field(adata)


def test_numbers_of_every_kind_together(adata):
    adata.obs["Int64"] = pd.array(range(12), dtype="Int64")
    adata.obs["bool"] = np.arange(12) % 2 == 0
    adata.obs["objects"] = np.array([1, 2.5, *range(10)], dtype=object)
    field = f.NumericalJointObsField("numbers", ["Int64", "bool", "number", "objects"])
    field.register_field(adata)
    wanted = [range(12), np.arange(12) % 2 == 0, np.arange(12) * 0.5, [1, 2.5, *range(10)]]
    np.testing.assert_array_equal(field.get_field_data(adata).to_numpy(), np.column_stack(wanted))
    for bad, error in ((1e300, ValueError), (2j, TypeError), ("x", TypeError)):
        adata.obs["objects"] = pd.Series([bad, *range(11)], index=adata.obs_names, dtype=object if bad == "x" else None)
        with pytest.raises(error, match=r"\['objects'\]"):
            field.register_field(adata)
