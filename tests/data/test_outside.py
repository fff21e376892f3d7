"""Files that send their reader to other files: refused by name, wherever the link is."""

import json
import os
import shutil
import socket

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import open as open_data
from celbo.data import read
from celbo.store.damage import DamagedDataError, OutsideDataError
from celbo.store.hdf5.walk import refuse_outside

pytestmark = pytest.mark.filterwarnings(
    "ignore:Writing zarr v2 data", "ignore:zarr v3 autosharding", "ignore:Consolidated metadata"
)

SECRET = b"what nobody is to know"
N = len(SECRET)

WAYS = {
    "read": read,
    "streamed": lambda path: open_data(path, stream=True),
    "chosen": open_data,
    "loaded": lambda path: open_data(path, stream=False),
}


def cells():
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (N, 5)).astype(np.float32))
    obs = pd.DataFrame({"batch": pd.Categorical(["a", "b"] * (N // 2))}, index=[f"c{i}" for i in range(N)])
    adata = anndata.AnnData(x, obs=obs, obsm={"place": np.ones((N, 2))}, uns={"deep": {"deeper": {"n": 1}}})
    adata.layers["counts"] = x
    adata.raw = adata
    return adata


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.frombuffer(SECRET, np.uint8)
    return path


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    return path


def external_storage(group, name, folder):
    group.create_dataset(name, shape=(N,), dtype="u1", external=[(str(folder / "secret"), 0, N)])


def external_link(group, name, folder):
    group[name] = h5py.ExternalLink(str(folder / "other.h5"), "/x")


def virtual(group, name, folder):
    layout = h5py.VirtualLayout((N,), "u1")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (N,))
    group.create_virtual_dataset(name, layout)


def through_a_soft_link(group, name, folder):
    external_link(group.file, "elsewhere", folder)
    group[name] = h5py.SoftLink("/elsewhere")


HDF5_WAYS = (external_storage, external_link, virtual, through_a_soft_link)


PLACES = ("obs", "var", "uns/deep/deeper", "layers", "obsm", "raw/X", "X", "obs/batch", "/")
CASES = [*((place, external_storage) for place in PLACES), *(("obs", how) for how in HDF5_WAYS[1:])]


@pytest.mark.parametrize(("place", "how"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_hdf5_refused_by_name(path, secret, place, how):
    with h5py.File(path, "r+") as file:
        how(file[place], "leak", path.parent)
    for way in WAYS.values():
        with pytest.raises(OutsideDataError, match=r"cells\.h5ad: .*(leak|elsewhere).*(secret|other\.h5)"):
            way(path)


@pytest.mark.parametrize("name", ["X/data", "obs/batch/codes", "obsm"])
def test_parts_of_what_is_read_anyway(path, secret, name):
    with h5py.File(path, "r+") as file:
        del file[name]
        external_link(file, name, path.parent)
    for way in WAYS.values():
        with pytest.raises(OutsideDataError, match=name):
            way(path)


def test_links_within_the_file_are_followed(path):
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.SoftLink("/layers/counts")
        layout = h5py.VirtualLayout((N, 2), "f8")
        layout[:] = h5py.VirtualSource(".", "obsm/place", (N, 2))
        again = file["obsm"].create_virtual_dataset("again", layout)
        again.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for way in WAYS.values():
        found = way(path)
        np.testing.assert_array_equal(found.X[:].toarray(), cells().X.toarray())
        np.testing.assert_array_equal(found.obsm["again"][:], np.ones((N, 2)))


def test_the_named_file_may_be_a_link(path, written, tmp_path):
    (tmp_path / "link.h5ad").symlink_to(path)
    (tmp_path / "link.zarr").symlink_to(written / "3.zarr")
    for name in ("link.h5ad", "link.zarr"):
        for way in WAYS.values():
            assert way(tmp_path / name).n_obs == N


def test_what_only_an_attribute_refers_to(tmp_path, secret):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        external_storage(file, "leak", tmp_path)
        file.create_group("obs").attrs["categories"] = file["leak"].ref
        with pytest.raises(OutsideDataError, match="the values of /leak are in another file"):
            refuse_outside(file["obs"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A store of each version of zarr."""
    folder = tmp_path_factory.mktemp("zarr")
    for version in (2, 3):
        with anndata.settings.override(zarr_write_format=version):
            cells().write_zarr(folder / f"{version}.zarr")
    return folder


class TestZarr:
    @pytest.fixture(params=[2, 3])
    def store(self, request, written, tmp_path):
        for name in ("cells", "secret"):
            shutil.copytree(written / f"{request.param}.zarr", tmp_path / f"{name}.zarr")
        return tmp_path / "cells.zarr"

    @pytest.mark.parametrize("name", ["X", "obs/batch/codes", "obsm/place", "uns"])
    def test_folders_that_are_links(self, store, name):
        folder = store / name
        os.rename(folder, store.parent / "moved")
        folder.symlink_to(store.parent / "moved")
        for way in WAYS.values():
            with pytest.raises(OutsideDataError, match=rf"cells\.zarr: {name} is a link to .*moved"):
                way(store)

    def test_chunks_that_are_links(self, store, secret):
        chunk = max((p for p in (store / "X/data").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        chunk.unlink()
        chunk.symlink_to(secret)
        for way in WAYS.values():
            with pytest.raises(OutsideDataError, match=r"cells\.zarr: X/data/\S+ is a link to .*secret"):
                way(store)

    def test_names_that_lead_out(self, store):
        attributes = store / "obs" / (".zattrs" if (store / ".zattrs").exists() else "zarr.json")
        document = json.loads(attributes.read_text())
        document.get("attributes", document)["column-order"] = ["../../secret.zarr/obs/batch"]
        attributes.write_text(json.dumps(document))
        for way in WAYS.values():
            with pytest.raises(DamagedDataError, match=r"cells\.zarr"):
                way(store)

    def test_links_within_the_store(self, store):
        os.rename(store / "obsm/place", store / "obsm/moved")
        (store / "obsm/place").symlink_to("moved")
        for way in WAYS.values():
            np.testing.assert_array_equal(way(store).obsm["place"][:], np.ones((N, 2)))

    def test_codecs_that_run_code(self, store, tmp_path):
        v2 = (store / ".zattrs").exists()
        metadata = store / "obs/_index" / (".zarray" if v2 else "zarr.json")
        document = json.loads(metadata.read_text())
        if v2:
            document["filters"] = [{"id": "pickle", "protocol": 5}]
        else:
            document["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
        metadata.write_text(json.dumps(document))
        for way in WAYS.values():
            with pytest.raises(DamagedDataError, match=r"obs/_index/\S+\) names the codec '\S*pickle'"):
                way(store)

    def test_a_pipe_in_it(self, store):
        os.mkfifo(store / "X" / "c")
        for way in WAYS.values():
            with pytest.raises(DamagedDataError, match="neither a file nor a folder"):
                way(store)


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "other"])
def test_only_regular_files(tmp_path, monkeypatch, name, kind):
    path = tmp_path / name
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
    elif name.endswith("h5ad"):
        path.mkdir()
    else:
        path.write_text("x")
    for way in WAYS.values():
        with pytest.raises(DamagedDataError, match=rf"{name} is a \w+"):
            way(path)
