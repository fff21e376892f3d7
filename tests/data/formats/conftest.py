import gzip

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

GENES = ["ACTB", "GAPDH", "CD3D", "MT-CO1", "LYZ"]
IDS = [f"ENSG0000000000{i}" for i in range(5)]
CELLS = [f"ACGTACGTACG{c}-1" for c in "ACGT"] + ["TTTTTTTTTTTT-1", "GGGGGGGGGGGG-2"]
COUNTS = np.random.default_rng(0).poisson(0.8, (6, 5)).astype(np.int32)  # cells x genes
COUNTS[0, 0], COUNTS[2] = 7, 0


@pytest.fixture
def heard(caplog):
    """What celbo says."""
    import logging

    logger = logging.getLogger("celbo")
    logger.addHandler(caplog.handler)
    before, logger.level = logger.level, logging.INFO
    yield lambda: " | ".join(record.getMessage() for record in caplog.records)
    logger.removeHandler(caplog.handler)
    logger.level = before


def put(path, text):
    """Text in a file, packed where its name says so."""
    raw = text if isinstance(text, bytes) else text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def mtx(matrix, field="integer", comment=""):
    """A matrix in the format of Matrix Market."""
    coo = sp.coo_matrix(matrix)
    lines = [f"%%MatrixMarket matrix coordinate {field} general", *([comment] if comment else [])]
    lines.append(f"{coo.shape[0]} {coo.shape[1]} {coo.nnz}")
    values = [""] * coo.nnz if field == "pattern" else [f" {v}" for v in coo.data]
    lines += [f"{i + 1} {j + 1}{v}" for i, j, v in zip(coo.row, coo.col, values)]
    return "\n".join(lines) + "\n"


def tenx_group(group, counts=COUNTS, by_cells=True, **more):
    """The counts of a 10x .h5: cells x features given, features x cells in columns stored."""
    matrix = sp.csc_matrix(counts.T) if by_cells else sp.csr_matrix(counts.T)
    for name in ("data", "indices", "indptr"):
        group.create_dataset(name, data=getattr(matrix, name))
    group.create_dataset("shape", data=np.array(matrix.shape, np.int32))
    for name, values in more.items():
        group.create_dataset(name, data=np.array(values, dtype="S") if isinstance(values[0], str) else values)


def tenx_v3(path, counts=COUNTS, types=None, names=GENES, ids=IDS, cells=CELLS, features=(), **more):
    """A 10x .h5 of version 3."""
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        tenx_group(group, counts, barcodes=cells, **more)
        table = group.create_group("features")
        types = ["Gene Expression"] * len(names) if types is None else types
        columns = {"id": ids, "name": names, "feature_type": types, "genome": ["GRCh38"] * len(names)} | dict(features)
        for name, values in columns.items():
            table.create_dataset(name, data=np.array(values, dtype="S") if isinstance(values[0], str) else values)
        table.create_dataset("_all_tag_keys", data=np.array(["genome"], dtype="S"))
    return path
