"""Damaged heaps of strings in HDF5: libhdf5 walks them for ever, or takes 4 GB, unless somebody looks first."""

import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.io import write_elem
from scipy import sparse

from celbo.data import read
from celbo.store.damage import DamagedDataError
from celbo.store.hdf5 import heap as hdf5_heap
from celbo.store.hdf5.walk import elements

N = 300
LIMIT_S = 120
"""For a child process that reads all damaged files, which takes it two seconds."""

CHILD = """
import json, pathlib, sys
from celbo.data import open, read
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.h5ad")):
    for how in (read, lambda path: open(path, stream=True)):
        try:
            how(path)
            said = "no error"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        print(json.dumps([path.stem, said]))
"""


def cells(names=None, **columns):
    x = sparse.random(N, 20, 0.3, format="csr", dtype=np.float32, random_state=0)
    names = [f"cell number {i}" for i in range(N)] if names is None else names
    return AnnData(x, obs=pd.DataFrame({"batch": pd.Categorical(["a", "b"] * (N // 2)), **columns}, index=names))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "cells.h5ad"
    cells().write_h5ad(path)
    return path


def heaps(path):
    """Where the collections of strings begin: by their signature, which stands nowhere else in these files."""
    return [found.start() for found in re.finditer(b"GCOL", path.read_bytes())]


def overwritten(path, damaged, at, value):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(value)] = value
    damaged.write_bytes(raw)
    return damaged


def eight(number):
    return (number % 2**64).to_bytes(8, "little")


OVERWRITTEN = {
    "attributes": lambda heaps, names: (heaps[0] + 16, bytes(16)),
    "attributes_inside": lambda heaps, names: (heaps[0] + 40, bytes(1000)),
    "names": lambda heaps, names: (heaps[1] + 16 + 5 * 32, bytes(64)),
    "back_to_itself": lambda heaps, names: (heaps[1] + 24, eight(-16)),
    "back_to_before": lambda heaps, names: (heaps[1] + 24 + 32, eight(-48)),
    "behind_the_end": lambda heaps, names: (heaps[1] + 24, eight(4096)),
    "length_of_string": lambda heaps, names: (names + 32, b"\xff\xff\xff\xf0"),
}
"""What is written where, by the places of the collections and of the list of the cells' names."""

STRING_TYPE = b"\x19\x01\x01\0\x10\0\0\0"
"""The type of an attribute that is a string: what the second byte says that it is."""


@pytest.fixture(scope="module")
def said(whole, tmp_path_factory):
    """What `read` and `open` say to each damaged file, in another process: this one could not be stopped."""
    folder = tmp_path_factory.mktemp("damaged")
    with h5py.File(whole) as file:
        names = file["obs/_index"].id.get_offset()
    for kind, place in OVERWRITTEN.items():
        overwritten(whole, folder / f"{kind}.h5ad", *place(heaps(whole), names))
    raw = whole.read_bytes()
    overwritten(whole, folder / "type.h5ad", raw.index(STRING_TYPE) + 1, b"\x03")
    links = raw.index(b"TREE\0\0", raw.index(b"TREE\0\0") + 1)  # of a group in the file, not of the file itself
    overwritten(whole, folder / "circle.h5ad", links + 16, eight(links))  # the list to the right is the list itself
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    answers: dict[str, list[str]] = {}
    for line in ran.stdout.splitlines():
        kind, answer = json.loads(line)
        answers.setdefault(kind, []).append(answer)
    return answers


@pytest.mark.parametrize("kind", OVERWRITTEN)
def test_damaged_strings_end_in_an_error_that_names_the_file(said, kind):
    assert len(said[kind]) == 2
    for answer in said[kind]:
        assert re.match(rf"DamagedDataError: .*{kind}\.h5ad is damaged: the strings .*Copy the file again", answer)


def test_a_type_that_there_is_not_ends_in_an_error(said):
    assert len(said["type"]) == 2
    for answer in said["type"]:
        assert re.match(r"DamagedDataError: .*type\.h5ad is damaged: an attribute of /\S* has a type that", answer)


def test_a_list_of_links_that_is_its_own_neighbour_does_no_harm(said):
    assert said["circle"] == ["no error", "no error"]


class TestEveryHeapIsSeen:
    @pytest.fixture(params=[17, 4099, hdf5_heap._PIECE], ids=lambda piece: f"in_pieces_of_{piece}")
    def path(self, request, tmp_path, monkeypatch):
        monkeypatch.setattr(hdf5_heap, "_PIECE", request.param)
        cells(note=[f"{i}" * (i % 50) for i in range(N)], long=["y" * 100_000, *"x" * (N - 1)]).write_h5ad(
            tmp_path / "cells.h5ad", compression="gzip"
        )
        return tmp_path / "cells.h5ad"

    def test_whole(self, path):
        with h5py.File(path) as file:
            hdf5_heap.require_sound_heaps(file)

    def test_damaged(self, path):
        found = heaps(path)
        assert len(found) > 3
        for at in found:
            damaged = overwritten(path, path.with_name("damaged.h5ad"), at + 16, bytes(16))
            with h5py.File(damaged) as file, pytest.raises(DamagedDataError, match=f"from byte {at} on"):
                hdf5_heap.require_sound_heaps(file)


def spelling_a_heap(shape):
    """Bytes that are a damaged collection to whoever does not know that they are numbers."""
    raw = np.zeros(int(np.prod(shape)), np.uint8)
    raw[100:116] = np.frombuffer(b"GCOL\x01\0\0\0" + eight(4096), np.uint8)
    return raw.reshape(shape)


class TestGoodFiles:
    @pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
    @pytest.mark.parametrize(
        "adata",
        [
            cells(),
            cells([f"{i:040d}" for i in range(N)], note=["", *"x" * (N - 1)]),
            cells(long=["y" * 100_000, "", *"z" * (N - 2)]),
            cells(note=["GCOL\x01", *["GCOL" * 3] * (N - 1)]),
            AnnData(spelling_a_heap((N, 40))),
            AnnData(np.ones((0, 3), np.float32)),
        ],
        ids=["plain", "names", "long", "signature_in_strings", "signature_in_numbers", "empty"],
    )
    def test_are_read(self, tmp_path, adata, options):
        adata.write_h5ad(tmp_path / "cells.h5ad", **options)
        back = read(tmp_path / "cells.h5ad")
        pd.testing.assert_frame_equal(back.obs, adata.obs)

    @pytest.mark.parametrize("how", [{"libver": "latest"}, {"libver": "v108"}, {"userblock_size": 512}], ids=str)
    def test_of_other_formats(self, tmp_path, how):
        with h5py.File(tmp_path / "cells.h5ad", "w", **how) as file:
            write_elem(file, "/", cells())
        assert list(read(tmp_path / "cells.h5ad").obs_names) == list(cells().obs_names)

    def test_changed_in_place(self, whole, tmp_path):
        path = overwritten(whole, tmp_path / "cells.h5ad", 0, b"")
        with h5py.File(path, "r+") as file:
            for names in (["short"] * N, [f"{i:0100d}" for i in range(N)]):
                file["obs/_index"][...] = names
            del file["obs/batch"]
            file["obs"].attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
            write_elem(file, "uns/numbers", np.zeros(10_000, np.uint8))
        assert read(path).obs_names[-1] == f"{N - 1:0100d}"

    @pytest.mark.parametrize("chunks", [None, (50, 20)])
    def test_numbers_are_not_looked_through(self, tmp_path, chunks):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("X", data=spelling_a_heap((N, 200)), chunks=chunks)
            file["text"] = ["a", "b"]
        with h5py.File(tmp_path / "x.h5") as file:
            numbers, strings = hdf5_heap._arrays(file.filename, [*elements(file)])
            assert sum(stop - start for start, stop in numbers) == N * 200
            assert len(numbers) == (60 if chunks else 1)
            assert len(strings) == 1
            hdf5_heap.require_sound_heaps(file)


def test_of_what_lies_behind_the_end_nothing_is_asked(tmp_path, whole):
    """Places in a damaged list of chunks may be anywhere: libhdf5 is left to complain."""
    cells().write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    raw = (tmp_path / "cells.h5ad").read_bytes()
    with h5py.File(tmp_path / "cells.h5ad") as file:
        place = file["X/data"].id.get_chunk_info(0).byte_offset
    at = raw.index(eight(place))
    damaged = overwritten(tmp_path / "cells.h5ad", tmp_path / "damaged.h5ad", at, eight(2**40))
    with h5py.File(damaged) as file:
        assert any(stop > len(raw) for _, stop in hdf5_heap._arrays(file.filename, [*elements(file)])[0])
        hdf5_heap.require_sound_heaps(file)
    with pytest.raises(DamagedDataError, match=r"damaged\.h5ad"):
        read(damaged)
