"""Chunks that say they are more than belongs there: refused before they are unpacked."""

import bz2
import gzip
import json
import lzma
import zlib

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import open as open_data
from celbo.data import read
from celbo.store.damage import DamagedDataError
from celbo.store.zarr.chunks import Layout, layout_of, require_sound_chunk
from celbo.store.zarr.inside import guarded_group

pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Writing zarr v2 data", "ignore:zarr v3 autosharding", "ignore:Consolidated metadata"
)

N = 500


def cells():
    x = sparse.random(N, 30, 0.3, format="csr", dtype=np.float32, random_state=0)
    columns = {"depth": np.arange(N) / 3, "note": [f"n{i}" for i in range(N)]}
    return anndata.AnnData(x, obs=pd.DataFrame(columns, index=[f"c{i}" for i in range(N)]))


def zeros_of_zstd(n):
    """A frame of blocks of one repeated byte, which does not say its size."""
    block = (1 << 1) | (2**17 << 3)
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(
        (block | (i == n - 1)).to_bytes(3, "little") + b"\0" for i in range(n)
    )


PLAIN = np.arange(1000, dtype="<f8")
PACKED = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "lzma": lzma.compress,
    "zstd": lambda raw: numcodecs.Zstd().encode(raw),
    "blosc": lambda raw: numcodecs.Blosc().encode(raw),
    "lz4": lambda raw: numcodecs.LZ4().encode(raw),
}


@pytest.mark.parametrize("codec", PACKED)
def test_what_belongs_there_passes_and_what_does_not_is_refused(codec):
    pack = PACKED[codec]
    layout = Layout(8000, 1000, 8, (codec, "bytes"))
    require_sound_chunk(memoryview(pack(PLAIN.tobytes())), layout, "a")
    with pytest.raises(DamagedDataError, match="a is damaged, or made to fill the memory: its"):
        require_sound_chunk(memoryview(pack(bytes(2**24))), layout, "a")
    if codec in ("gzip", "bz2", "lzma"):  # one stream after another
        with pytest.raises(DamagedDataError, match="fill the memory"):
            require_sound_chunk(memoryview(pack(b"x") + pack(bytes(2**24))), layout, "a")


@pytest.mark.parametrize("codec", list(numcodecs.blosc.list_compressors()))
@pytest.mark.parametrize("more", [1, 2**16, 2**27])
def test_a_head_of_blosc_that_announces_more_than_there_is(codec, more):
    """The decoder believes it, reads behind the chunk and ends the process."""
    raw = bytearray(numcodecs.Blosc(cname=codec).encode(PLAIN))
    raw[12:16] = (int.from_bytes(raw[12:16], "little") + more).to_bytes(4, "little")
    with pytest.raises(
        DamagedDataError, match=rf"a is damaged: its head announces \d+ bytes, and there are {len(raw)}"
    ):
        require_sound_chunk(memoryview(raw), Layout(8000, 1000, 8, ("blosc", "bytes")), "a")


@pytest.mark.parametrize("length", [0, 1, 8, 15, 16])
def test_a_chunk_of_blosc_that_is_cut(length):
    raw = numcodecs.Blosc().encode(PLAIN)[:length]
    with pytest.raises(DamagedDataError, match=f"a is damaged: its head announces .* and there are {length}"):
        require_sound_chunk(memoryview(raw), Layout(8000, 1000, 8, ("blosc", "bytes")), "a")


def test_frames_that_do_not_say_their_size():
    for n, fits in ((1, True), (2, True), (1000, False)):
        raw, layout = memoryview(zeros_of_zstd(n)), Layout(0, 2**15, 8, ("zstd", "bytes"))
        if fits:
            require_sound_chunk(raw, layout, "a")
        else:
            with pytest.raises(DamagedDataError, match="fill the memory"):
                require_sound_chunk(raw, layout, "a")


@pytest.mark.parametrize("version", [2, 3])
def test_layouts_are_read_as_zarr_reads_them(tmp_path, version):
    import zarr

    for dtype, size in (("f4", 4), ("i1", 1), ("bool", 1), ("c8", 8)):
        made = zarr.create_array(
            tmp_path / dtype, shape=(7, 5), chunks=(4, 5), dtype=dtype, zarr_format=version, overwrite=True
        )
        document = json.loads((tmp_path / dtype / (".zarray" if version == 2 else "zarr.json")).read_text())
        found = layout_of(document)
        assert (found.items, found.item_bytes, found.size) == (20, size, 35 * size)
        assert made.nbytes == found.size
    with pytest.raises(ValueError, match="whole numbers"):
        layout_of({**document, "shape": [1.5]})
    assert layout_of({"zarr_format": version, "node_type": "group"}) is None


@pytest.mark.parametrize("codec", ["blosc", "gzip", "zstd"])
@pytest.mark.parametrize("index", ["start", "end"])
def test_parts_of_sound_shards(tmp_path, codec, index):
    """Zarr reads the index of a shard, then single chunks: neither is a shard."""
    import zarr

    compressor = {"blosc": zarr.codecs.BloscCodec, "gzip": zarr.codecs.GzipCodec, "zstd": zarr.codecs.ZstdCodec}[codec]
    inner = zarr.codecs.ShardingCodec(
        chunk_shape=(50,), codecs=[zarr.codecs.BytesCodec(), compressor()], index_location=index
    )
    values = np.random.default_rng(0).integers(0, 3, 20_000).astype("i4")
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    group.create_array("x", shape=(20_000,), chunks=(5000,), dtype="i4", serializer=inner, compressors=None)[:] = values
    stored = guarded_group(tmp_path / "a.zarr")["x"]
    for start in range(0, 19_500, 487):
        np.testing.assert_array_equal(stored[start : start + 210], values[start : start + 210])
    shard = tmp_path / "a.zarr/x/c/1"
    raw = bytearray(shard.read_bytes())
    index_at = 0 if index == "start" else len(raw) - 16 * 100 - 4
    first, size = np.frombuffer(raw[index_at : index_at + 16], "<u8").tolist()
    if codec == "blosc":
        raw[first + 15] = 1
        shard.write_bytes(raw)
        with pytest.raises(
            DamagedDataError, match=rf"\(x/c/1\) is damaged: its head announces \d+ bytes, and there are {size}"
        ):
            guarded_group(tmp_path / "a.zarr")["x"][5000:5010]


class TestStores:
    @pytest.fixture(params=[2, 3])
    def store(self, request, tmp_path):
        with anndata.settings.override(zarr_write_format=request.param):
            cells().write_zarr(tmp_path / "cells.zarr")
        return tmp_path / "cells.zarr"

    def chunk(self, store, name):
        files = [one for one in (store / name).rglob("*") if one.is_file()]
        return next(one for one in files if not one.name.startswith((".z", "zarr")))

    def test_a_number_of_strings(self, store):
        chunk = self.chunk(store, "obs/note")
        codec = numcodecs.Blosc() if (store / ".zattrs").exists() else numcodecs.Zstd()
        raw = bytearray(codec.decode(chunk.read_bytes()))
        raw[:4] = b"\xff\xff\xff\xff"
        chunk.write_bytes(codec.encode(bytes(raw)))
        for way in (read, lambda path: open_data(path, stream=True)):
            with pytest.raises(
                DamagedDataError, match=rf"cells\.zarr \(obs/note/\S+\) .* 4294967295 strings, {N} belong"
            ):
                way(store)

    def test_a_megabyte_of_zeros(self, store):
        if (store / ".zattrs").exists():
            metadata = store / "obs/depth/.zarray"
            document = json.loads(metadata.read_text())
            metadata.write_text(json.dumps({**document, "compressor": {"id": "zstd", "level": 0}}))
        self.chunk(store, "obs/depth").write_bytes(zeros_of_zstd(2**16))
        with pytest.raises(DamagedDataError, match=r"cells\.zarr \(obs/depth/\S+\) .* its 262150 bytes unpack to more"):
            read(store)


def test_shards(tmp_path):
    with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=True):
        cells().write_zarr(tmp_path / "a.zarr")
    document = json.loads((tmp_path / "a.zarr/X/data/zarr.json").read_text())
    layout = layout_of(document)
    assert layout.inner is not None
    for x in (read(tmp_path / "a.zarr").X, open_data(tmp_path / "a.zarr", stream=True).X[:]):
        assert (x != cells().X).nnz == 0
    shard = (tmp_path / "a.zarr/X/data/c/0").read_bytes()
    bomb = zeros_of_zstd(1000)
    index = np.frombuffer(shard[-4 - 16 * layout.n_inner : -4], "<u8").reshape(-1, 2).copy()
    index[0] = len(shard), len(bomb)
    made = shard + bomb + index.tobytes() + bytes(4)
    with pytest.raises(DamagedDataError, match="fill the memory"):
        require_sound_chunk(memoryview(made), layout, "a")


class TestHDF5:
    def test_a_chunk_that_unpacks_to_gigabytes(self, tmp_path):
        path = tmp_path / "cells.h5ad"
        cells().write_h5ad(path)
        pack = zlib.compressobj(9)
        bomb = b"".join(pack.compress(bytes(2**24)) for _ in range(4)) + pack.flush()
        with h5py.File(path, "r+") as file:
            attributes = dict(file["obs/depth"].attrs)
            del file["obs/depth"]
            made = file.create_dataset("obs/depth", (N,), "f8", chunks=(N,), compression="gzip")
            made.attrs.update(attributes)
            made.id.write_direct_chunk((0,), bomb)
        for way in (read, lambda path: open_data(path, stream=True)):
            with pytest.raises(DamagedDataError, match=r"cells\.h5ad .*/obs/depth has more in its chunk at \(0,\)"):
                way(path)

    @pytest.mark.parametrize("compression", [None, "gzip"])
    def test_many_strings_that_are_one(self, tmp_path, compression):
        path = tmp_path / "cells.h5ad"
        adata = cells()
        adata.obs["note"] = ["x" * 2_000_000, *(f"n{i}" for i in range(1, N))]
        adata.write_h5ad(path)
        assert read(path).obs["note"].iloc[-1] == f"n{N - 1}"
        with h5py.File(path) as file:
            at = file["obs/note"].id.get_offset()
        raw = bytearray(path.read_bytes())
        raw[at : at + 16 * N] = raw[at : at + 16] * N
        path.write_bytes(raw)
        if compression is not None:
            with h5py.File(path, "r+") as file:
                attributes = dict(file["obs/note"].attrs)
                del file["obs/note"]
                made = file.create_dataset(
                    "obs/note", (N,), h5py.string_dtype(), chunks=(N,), compression="gzip", shuffle=True
                )
                made.attrs.update(attributes)
                references = np.frombuffer(bytes(raw[at : at + 16 * N]), np.uint8).reshape(N, 16)
                made.id.write_direct_chunk((0,), zlib.compress(references.T.tobytes()))
        for way in (read, lambda path: open_data(path, stream=True)):
            with pytest.raises(DamagedDataError, match=r"cells\.h5ad is damaged: the strings .* longer than the file"):
                way(path)

    @pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
    def test_strings_of_attributes(self, tmp_path, libver):
        path = tmp_path / "cells.h5ad"
        with h5py.File(path, "w", libver=libver) as file:
            anndata.io.write_elem(file, "/", cells())
        raw = path.read_bytes()
        read(path)
        reference = (10).to_bytes(4, "little")  # "csr_matrix"
        places = [i for i in range(len(raw)) if raw.startswith(reference, i) and raw[i + 8 : i + 12] == bytes(4)]
        refused = 0
        for at in places:
            path.write_bytes(raw[:at] + b"\xff\xff\xff\x7f" + raw[at + 4 :])
            try:
                read(path)
            except DamagedDataError as error:
                refused += "a string of the attribute" in str(error)
        assert refused

    def test_strings_of_attributes_behind_damaged_reserved_bytes(self, tmp_path):
        path = tmp_path / "cells.h5ad"
        with h5py.File(path, "w", libver="earliest") as file:
            anndata.io.write_elem(file, "/", cells())
        raw = path.read_bytes()
        reserved = b"\x01" + bytes(7)  # shape of one string: its version, and what nobody reads
        reference = (10).to_bytes(4, "little")  # "csr_matrix"
        at = raw.index(reserved + reference) + len(reserved)
        path.write_bytes(raw[: at - 4] + b"\xff" * 8 + raw[at + 4 :])
        for way in (read, lambda path: open_data(path, stream=True)):
            with pytest.raises(DamagedDataError, match="a string of the attribute"):
                way(path)
