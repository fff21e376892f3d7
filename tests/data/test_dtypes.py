"""Every dtype that anndata writes, loaded and streamed, from h5ad and zarr: the same registries, codes and rows."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.data import AnnDataManager, check_counts
from celbo.data import open as open_data
from celbo.data.fields import CategoricalJointObsField, CategoricalObsField, LayerField, NumericalJointObsField
from celbo.dataloaders.row_sources.open import rows
from celbo.store.writing.matrix import matrix_writer

N = 24
SUFFIXES = ("h5ad", "zarr")
_TEXT = [f"d{i % 2}" for i in range(N)]
_HALF = np.arange(N) % 3 / 2

COLUMNS = {
    # name: values, whether it has a value for each cell, whether it counts as numbers
    "text": (np.array(_TEXT, object), True, False),
    "unique_text": (np.array([f"u{i}" for i in range(N)], object), True, False),
    "string": (pd.array(_TEXT, dtype="string"), True, False),
    "unique_string": (pd.array([f"u{i}" for i in range(N)], dtype="string"), True, False),
    "unique_string_na": (pd.array([None, *(f"u{i}" for i in range(1, N))], dtype="string"), False, False),
    "text_none": (np.array([None, *_TEXT[1:]], object), False, False),
    "category": (pd.Categorical(_TEXT, categories=["d1", "none", "d0"]), True, False),
    "category_ordered": (pd.Categorical(_TEXT, ["d1", "d0"], ordered=True), True, False),
    "category_string": (pd.Categorical(pd.array(_TEXT, dtype="string")), True, False),
    "category_int": (pd.Categorical([i % 3 - 1 for i in range(N)]), True, False),
    "category_float": (pd.Categorical(_HALF), True, False),
    "category_bool": (pd.Categorical(np.arange(N) % 2 == 0), True, False),
    "category_na": (pd.Categorical([None, *_TEXT[1:]]), False, False),
    "Int64": (pd.array(np.arange(N) % 3, dtype="Int64"), True, True),
    "Int8_na": (pd.array([None, *(np.arange(1, N) % 3)], dtype="Int8"), False, True),
    "UInt16": (pd.array(np.arange(N) % 3, dtype="UInt16"), True, True),
    "boolean": (pd.array(np.arange(N) % 2 == 0, dtype="boolean"), True, True),
    "boolean_na": (pd.array([None, *(np.arange(1, N) % 2 == 0)], dtype="boolean"), False, True),
    "bool": (np.arange(N) % 2 == 0, True, True),
    **{f"int{b}": (np.arange(N, dtype=f"i{b // 8}") % 3, True, True) for b in (8, 16, 32, 64)},
    **{f"uint{b}": (np.arange(N, dtype=f"u{b // 8}") % 3, True, True) for b in (8, 16, 32, 64)},
    **{f"float{b}": (_HALF.astype(f"f{b // 8}"), True, True) for b in (16, 32, 64)},
    "float_na": (np.where(np.arange(N) == 0, np.nan, _HALF), False, True),
    "big_endian": (_HALF.astype(">f8"), True, True),
}
COMPLETE = [name for name, (_, complete, _) in COLUMNS.items() if complete]
NUMBERS = [name for name, (_, complete, numbers) in COLUMNS.items() if complete and numbers]


def table() -> pd.DataFrame:
    return pd.DataFrame({name: values for name, (values, *_) in COLUMNS.items()}, index=[f"c{i}" for i in range(N)])


def write(adata: ad.AnnData, path) -> None:
    with ad.settings.override(allow_write_nullable_strings=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's, of versions of zarr
        (adata.write_zarr if path.suffix == ".zarr" else adata.write_h5ad)(path)


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    x = np.random.default_rng(0).poisson(1.0, (N, 5)).astype(np.float32)
    return ad.AnnData(x, obs=table(), var=pd.DataFrame(index=[f"g{i}" for i in range(5)]))


@pytest.fixture(scope="module")
def files(adata, tmp_path_factory):
    """Files with names of cells and genes as plain text, and as nullable strings."""
    folder, paths = tmp_path_factory.mktemp("dtypes"), {}
    strings = adata.copy()
    strings.obs.index, strings.var.index = strings.obs.index.astype("string"), strings.var.index.astype("string")
    for suffix in SUFFIXES:
        for names, one in (("plain", adata), ("strings", strings)):
            paths[suffix, names] = folder / f"{names}.{suffix}"
            write(one.copy(), paths[suffix, names])
    return paths


@pytest.fixture(
    scope="module", params=[(s, n, t) for s in SUFFIXES for n in ("plain", "strings") for t in (False, True)], ids=str
)
def opened(request, files) -> ad.AnnData:
    suffix, names, stream = request.param
    return open_data(files[suffix, names], stream=stream)


def registered(adata: ad.AnnData, field) -> tuple[dict, np.ndarray]:
    manager = AnnDataManager([LayerField("X", None), field], {})
    manager.register_fields(adata)
    codes = np.asarray(manager.get_from_registry(field.registry_key))
    return {**manager.get_state_registry("X"), **manager.get_state_registry(field.registry_key)}, codes


def same(state: dict, other: dict) -> None:
    assert state.keys() == other.keys()
    for key, value in state.items():
        if isinstance(value, dict):
            same(value, other[key])
        else:
            assert list(np.atleast_1d(value)) == list(np.atleast_1d(other[key])), key
            assert np.asarray(value).dtype.kind == np.asarray(other[key]).dtype.kind, key


@pytest.mark.filterwarnings("ignore:Category")
def test_categories_are_those_of_the_table_in_memory(adata, opened):
    assert list(opened.obs_names) == list(adata.obs_names)
    for name in COMPLETE:
        if not name.startswith("unique"):  # 24 batches say nothing more than these names
            state, codes = registered(opened, CategoricalObsField("batch", name))
            given = state["categorical_mapping"][codes[:, 0]]
            assert [str(v) for v in given] == [str(v) for v in adata.obs[name]], name
            wanted, _ = registered(adata, CategoricalObsField("batch", name))
            assert list(map(str, state["categorical_mapping"])) == list(map(str, wanted["categorical_mapping"])), name
            same({"names": state["column_names"]}, {"names": wanted["column_names"]})


@pytest.mark.filterwarnings("ignore:Category")
def test_several_columns_together(adata, opened):
    fields = (CategoricalJointObsField("cats", COMPLETE), NumericalJointObsField("numbers", NUMBERS))
    for field in fields:
        state, values = registered(opened, field)
        wanted_state, wanted = registered(adata, field)
        same(state, wanted_state)
        np.testing.assert_array_equal(values.astype(np.float64), wanted.astype(np.float64))
    assert wanted.dtype == np.float64
    np.testing.assert_array_equal(wanted, np.column_stack([np.asarray(COLUMNS[n][0], np.float64) for n in NUMBERS]))


def test_missing_values_are_named(opened):
    for name, (_, complete, numbers) in COLUMNS.items():
        if not complete:
            with pytest.raises(ValueError, match=rf"\['{name}'\] has no value for 1 of {N} cells: 'c0'"):
                registered(opened, CategoricalObsField("batch", name))
        if numbers and not complete:
            with pytest.raises(ValueError, match=rf"\['{name}'\] is NaN or infinite for 1 of {N} rows: 'c0'"):
                registered(opened, NumericalJointObsField("numbers", ["float32", name]))


def test_any_table_can_be_written_back(adata, opened, tmp_path):
    path = tmp_path / "out.h5ad"
    with matrix_writer(path, opened.obs[list(COLUMNS)], opened.var) as writer:
        writer.append(np.zeros((N, 5), np.float32))
    back = open_data(path, stream=False)
    assert list(back.obs) == list(COLUMNS)
    assert list(back.obs_names) == list(adata.obs_names)
    for name in COLUMNS:
        np.testing.assert_array_equal(back.obs[name].isna(), adata.obs[name].isna(), name)
        assert back.obs[name].dropna().astype(str).tolist() == adata.obs[name].dropna().astype(str).tolist(), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_anndata_does_not_write_is_written_as_text(tmp_path, suffix):
    values = {
        "times": pd.date_range("2020-01-01", periods=N),
        "spans": pd.to_timedelta(np.arange(N), "D"),
        "periods": pd.period_range("2020-01", periods=N, freq="M"),
        "intervals": pd.cut(np.arange(N), 3),
        "mixed": np.array([None, 3, *_TEXT[2:]], object),
        "numbers": np.array([None, 2, 1.5, *range(3, N)], object),
        "Float64": pd.array(_HALF, dtype="Float64"),
        "category_times": pd.Categorical(pd.date_range("2020-01-01", periods=N)),
    }
    obs = pd.DataFrame(values, index=range(N))
    obs = pd.concat([obs, obs[["mixed"]].rename(columns={"mixed": "times"})], axis=1)
    path = tmp_path / f"out.{suffix}"
    with matrix_writer(path, obs, pd.DataFrame(index=["g"])) as writer:
        writer.append(np.zeros((N, 1)))
    back = open_data(path, stream=False).obs
    assert list(back) == list(values)
    assert list(back.index) == [str(i) for i in range(N)]
    for name in ("spans", "periods", "intervals", "category_times"):
        assert back[name].astype(str).tolist() == [str(value) for value in obs[name]], name
    assert back["numbers"].dtype == np.float64
    assert np.isnan(back["numbers"].iloc[0])
    assert back["mixed"].tolist()[1:3] == ["3", "d0"]


def test_a_column_that_cannot_be_written_is_left_out_and_said(tmp_path, log):
    class Odd:
        def __str__(self):
            raise ValueError("no words")

    obs = pd.DataFrame({"odd": [Odd(), Odd()], "fine": [1, 2]}, index=["a", "b"])
    with matrix_writer(tmp_path / "out.h5ad", obs, pd.DataFrame(index=["g"])) as writer:
        writer.append(np.zeros((2, 1)))
    assert list(open_data(tmp_path / "out.h5ad", stream=False).obs) == ["fine"]
    assert any("'odd'" in message and "no words" in message for message in log)


_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i4")
_STORAGES = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr_matrix": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "csc_matrix": sp.csc_matrix,
    "csc_array": sp.csc_array,
}


def stored(x_ng: np.ndarray, storage: str, dtype: str):
    """The matrix in a storage and dtype; scipy cannot convert to half floats, but holds them."""
    made = _STORAGES[storage](x_ng)
    if not sp.issparse(made):
        return made.astype(dtype, order="K")
    parts = (made.data.astype(dtype), made.indices, made.indptr)
    return type(made)(parts, shape=made.shape)


@pytest.mark.parametrize("storage", _STORAGES)
def test_every_matrix_gives_the_same_counts_and_rows(storage, tmp_path, rng):
    x_ng = rng.poisson(0.5, (9, 4)).clip(0, 1).astype(np.float32)  # booleans are among the dtypes
    order = np.array([3, 0, 8, 3])
    whole = check_counts(x_ng)
    for dtype in _DTYPES:
        adata = ad.AnnData(stored(x_ng, storage, dtype))
        path = tmp_path / f"x{ord(dtype[0])}{dtype[1:]}.h5ad"
        adata.write_h5ad(path)
        places = [adata.X]
        places.append(open_data(path, stream=False).X)
        if not storage.startswith("csc"):
            places += [open_data(path, stream=True).X, ad.read_h5ad(path, backed="r").X]
        for x in places:
            report = check_counts(x)
            np.testing.assert_array_equal(report.total_per_cell, whole.total_per_cell, (dtype, type(x)))
            np.testing.assert_array_equal(rows(x).take(order).numpy(), x_ng[order], str((dtype, type(x))))


def test_old_tables_of_records_are_streamed_as_they_are_loaded(shared_dir):
    if not (shared_dir / "data" / "odd").is_dir():
        pytest.skip("no folder 'odd' among the shared data")
    for name in ("anndata_v0.5.0", "anndata_v0.7.0", "cellxgene_nan", "scvitools_pbmc5k_protein_old"):
        path = shared_dir / "data" / "odd" / f"{name}.h5ad"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's, of old formats
            loaded, streamed = (open_data(path, stream=stream) for stream in (False, True))
        pd.testing.assert_frame_equal(streamed.obs, loaded.obs)
        pd.testing.assert_frame_equal(streamed.var, loaded.var)
        assert streamed.obsm.keys() == loaded.obsm.keys()
        assert streamed.uns.keys() == loaded.uns.keys()
        for key in loaded.obsm:
            one, other = (
                x.toarray() if sp.issparse(x) else np.asarray(x) for x in (streamed.obsm[key], loaded.obsm[key])
            )
            np.testing.assert_array_equal(one, other)
