"""Are these counts? An exact answer over every entry, in one pass and bounded memory."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from ..core import checked
from ..core.argument_names import MATRIX
from ..core.process import give_back_free_blocks
from ..store import mapped as scratch
from ..store.matrices.blocks import CompressedBlock, DenseBlock, blocks, shape_of
from ..store.matrices.digest import MatrixDigest, digest_of
from ..store.matrices.matrix import StoredMatrix
from .count_report import HUGE, KINDS, CountReport

__all__ = ["check_counts", "digest_of_counts", "fault_of_fragments", "is_count_matrix", "looks_like_reads"]


@checked
def check_counts(
    x: Annotated[Any, MATRIX],
    *,
    obs_names: Sequence[str] | None = None,
    var_names: Sequence[str] | None = None,
    chunk_rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CountReport:
    """Look at every entry of a count matrix once.

    Parameters
    ----------
    x
        ``(n, g)`` counts in any storage that :func:`~celbo.store.matrices.blocks.blocks` reads.
        Neither copied nor changed.
    obs_names, var_names
        Names for the report, ``(n,)`` and ``(g,)``; positions are shown without them.
    chunk_rows
        Rows (columns of a CSC matrix) that are looked at together. Default: about 2**18 stored values.
    progress
        Called with (done, total) after every piece, in rows or columns.

    Returns
    -------
    What was found; see :class:`CountReport`. Nothing is raised for bad counts: ask the report.

    Raises
    ------
    ValueError
        For names of another number.

    Notes
    -----
    Duplicate entries of a sparse matrix (the same row and column stored twice) are looked at one by one.
    """
    for name, names, length in zip(("obs_names", "var_names"), (obs_names, var_names), shape_of(x)):
        if names is not None and len(names) != length:
            raise ValueError(f"{name} has {len(names)} names for {length}.")
    tally = x.tally if isinstance(x, StoredMatrix) and x.tally is not None else _tally(x, chunk_rows, progress)
    report = tally.report(obs_names, var_names)
    if isinstance(x, StoredMatrix) and x.tally is None:
        x.tally = tally  # the files are read once, whoever asks
        give_back_free_blocks()
    return report


def _tally(x: object, chunk_rows: int | None, progress: Callable[[int, int], None] | None) -> "_Tally":
    n, g = shape_of(x)
    stored = isinstance(x, StoredMatrix)
    tally = _Tally(n, g, on_disk=stored and n >= scratch.COMPACT_FROM, wants_digest=stored)
    for block in blocks(x, chunk_rows):
        tally.add(block)
        if progress is not None:
            progress(block.stop, g if isinstance(block, CompressedBlock) and block.by_column else n)
    return tally


def digest_of_counts(x: object) -> str:
    """The fingerprint of a count matrix; see :func:`celbo.store.matrices.digest.digest_of`.

    Parameters
    ----------
    x
        ``(n, g)`` counts. A matrix on disk that was checked has been read for it already.
    """
    if not isinstance(x, StoredMatrix):
        return digest_of(x)
    if x.tally is None:
        check_counts(x)
    return x.tally.digest.hexdigest()


def is_count_matrix(x: object) -> bool:
    """Whether every entry is a finite, non-negative whole number; stops at the first piece that has another."""
    return not any(_is_suspicious(_stored(block)) for block in blocks(x))


def looks_like_reads(x: object) -> bool:
    """Whether twos are more frequent than ones, as in reads of ATAC-seq, which come in pairs: a fragment's two ends."""
    ones, twos, _ = _small_counts(x)
    return twos > ones


def fault_of_fragments(x: object) -> str | None:
    """Why counts are probably not those of fragments, and what to do; None: they look right. All of them are read."""
    ones, twos, others = _small_counts(x)
    if twos > ones:
        return (
            "looks like reads, not fragments: twos are more frequent than ones. celbo.data.reads_to_fragments(adata) "
            "makes a layer of fragments: set up with layer='fragments'."
        )
    if not (twos or others):
        return (
            "has no count above 1, so it says which regions are open, not how many fragments they have: take the "
            "fragments, or PEAKVI, which looks at no more than that."
        )
    return None


def _small_counts(x: object) -> tuple[int, int, int]:
    """How many entries are 1, 2, and larger."""
    found = np.zeros(3, np.int64)
    for block in blocks(x):
        values = _stored(block)
        found += [np.count_nonzero(which) for which in (values == 1, values == 2, values > 2)]
    return int(found[0]), int(found[1]), int(found[2])


def _stored(block: DenseBlock | CompressedBlock) -> np.ndarray:
    return block.values if isinstance(block, DenseBlock) else block.data


def _is_suspicious(values: np.ndarray) -> bool:
    """Whether anything here is no count; cheap, so that clean pieces cost two passes."""
    if values.size == 0 or values.dtype.kind == "b" or (values.dtype.kind == "u" and values.itemsize < 4):
        return False
    # min and max hand a NaN on, and no comparison holds for it
    if not (values.min() >= 0 and float(values.max()) <= HUGE):
        return True
    if values.dtype.kind in "iu":
        return False
    return not np.array_equal(values, np.rint(values))


def _offending(values: np.ndarray) -> dict[str, np.ndarray]:
    """For each kind of fault, where it is; each entry is of one kind at most, negative fractions of both."""
    nan, inf = np.isnan(values), np.isinf(values)
    finite = ~(nan | inf)
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "nan": nan,
            "inf": inf,
            "negative": finite & (values < 0),
            "noninteger": finite & (values != np.rint(values)),
            "huge": finite & (values > HUGE),
        }


class _Tally:
    """Running totals of one pass over a matrix.

    Parameters
    ----------
    n, g
        Its shape.
    on_disk
        Keep what there is one of for each cell in temporary files; rows then come in their order.
    wants_digest
        Compute the fingerprint of the matrix in the same pass.
    """

    def __init__(self, n: int, g: int, on_disk: bool = False, wants_digest: bool = False) -> None:
        self._n, self._on_disk, self._kept_from = n, on_disk, 0
        self.entries = dict.fromkeys(KINDS, 0)
        self.rows: dict[str, np.ndarray] = {}
        self.maximum = 0.0
        self.digest = MatrixDigest() if wants_digest else None
        self.totals_n = self._zeros(np.float64)
        self.genes_n = self._zeros(np.int32)
        self.cells_g = np.zeros(g, dtype=np.int64)

    def _zeros(self, dtype: type) -> np.ndarray:
        return scratch.zeros(self._n, dtype) if self._on_disk else np.zeros(self._n, dtype)

    def add(self, block: DenseBlock | CompressedBlock) -> None:
        """Count in some rows (or columns)."""
        if self.digest is not None:
            self.digest.add(block)
        self._count(block)
        if self._on_disk and block.stop - self._kept_from >= scratch.STRETCH:
            self._kept_from = block.stop
            for kept_n in (self.totals_n, self.genes_n, *self.rows.values()):
                scratch.forget(kept_n)

    def _count(self, block: DenseBlock | CompressedBlock) -> None:
        values = _stored(block)
        if values.size == 0:
            return
        # a whole piece of NaN has no maximum; fmax passes over NaN elsewhere
        top = np.fmax.reduce(values, axis=None)
        self.maximum = float(np.fmax(self.maximum, top))
        if _is_suspicious(values):
            self._add_faults(block, values)
        with np.errstate(invalid="ignore"):  # inf - inf in a sum: such a cell's total is NaN, and it is reported
            if isinstance(block, DenseBlock):
                self._add_dense(block)
            else:
                self._add_compressed(block)

    def _add_faults(self, block: DenseBlock | CompressedBlock, values: np.ndarray) -> None:
        for kind, where in _offending(values).items():
            count = int(np.count_nonzero(where))
            if count:
                self.entries[kind] += count
                if kind not in self.rows:
                    self.rows[kind] = self._zeros(bool)
                self.rows[kind][_rows_of(block, where)] = True

    def _add_dense(self, block: DenseBlock) -> None:
        nonzero = block.values != 0
        self.totals_n[block.start : block.stop] = block.values.sum(axis=1, dtype=np.float64)
        self.genes_n[block.start : block.stop] = np.count_nonzero(nonzero, axis=1)
        self.cells_g += np.count_nonzero(nonzero, axis=0)

    def _add_compressed(self, block: CompressedBlock) -> None:
        major = self.cells_g if block.by_column else self.genes_n
        minor = self.genes_n if block.by_column else self.cells_g
        stop = block.start + len(block.indptr) - 1
        nonzero = block.data != 0
        if nonzero.all():
            major[block.start : stop] = np.diff(block.indptr)
            minor += np.bincount(block.indices, minlength=len(minor))
        else:
            major[block.start : stop] = _segment_sums(nonzero, block.indptr)
            minor += np.bincount(block.indices[nonzero], minlength=len(minor))
        if block.by_column:
            self.totals_n += np.bincount(block.indices, weights=block.data, minlength=len(self.totals_n))
        else:
            self.totals_n[block.start : stop] = _segment_sums(block.data, block.indptr)

    def report(self, obs_names: Sequence[str] | None, var_names: Sequence[str] | None) -> CountReport:
        return CountReport.from_tally(
            self.entries, self.rows, self.maximum, self.totals_n, self.genes_n, self.cells_g, obs_names, var_names
        )


def _rows_of(block: DenseBlock | CompressedBlock, where: np.ndarray) -> np.ndarray:
    if isinstance(block, DenseBlock):
        return block.start + np.flatnonzero(where.any(axis=1))
    return block.row_of_entry()[where]


def _segment_sums(values: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Sum of each row's stored values in float64; ``reduceat`` has no empty segments, so those are left at 0."""
    sums = np.zeros(len(indptr) - 1)
    filled = np.diff(indptr) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(values, indptr[:-1][filled], dtype=np.float64)
    return sums
