"""Sequences of regions: from a FASTA file to codes in ``adata.varm``."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError, checked, unknown_name
from ...core.kinds import Text, Whole
from ...data.fields import ObsmField
from ...formats.fasta import Fasta
from .module import ANY_BASE

__all__ = ["LETTERS", "SequenceField", "add_dna_sequence", "codes_of"]

logger = logging.getLogger("celbo")

LETTERS = "ACGTN"
"""Letters of the codes 0 to 4."""

_NO_LETTER = 255
_CODE_OF = np.full(256, _NO_LETTER, dtype=np.uint8)
_CODE_OF[[ord(letter) for letter in LETTERS]] = range(len(LETTERS))
_ROWS_AT_ONCE = 4096


class SequenceField(ObsmField):
    """A table of codes of bases, 0 to 3 for A, C, G, T and 4 for N, a row for each region."""

    def validate_field(self, adata: AnnData) -> None:
        """Raise an ``ArgumentError`` for a number that is not a code, with the first region that has it."""
        super().validate_field(adata)
        table = adata.obsm[self.attr_key]
        for start in range(0, adata.n_obs, _ROWS_AT_ONCE):
            codes = np.asarray(
                table.iloc[start:][:_ROWS_AT_ONCE] if isinstance(table, pd.DataFrame) else table[start:][:_ROWS_AT_ONCE]
            )
            _require_codes(codes, adata.obs_names[start:], self.place)


def _require_codes(codes: np.ndarray, names: Sequence[str], place: str) -> None:
    if codes.dtype.kind not in "biuf":
        raise ArgumentError(
            f"{place} holds {codes.dtype}, not codes of bases: celbo.external.scbasset.codes_of gives them."
        )
    wrong = ~np.isin(codes, range(ANY_BASE + 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ArgumentError(
            f"{place} holds {codes[row, column]} for region {names[row]!r}, base {column + 1}: codes are 0 to 3 for A, "
            "C, G, T, and 4 for N (celbo.external.scbasset.codes_of makes them of letters)."
        )


@checked
def codes_of(sequences: Sequence[str], names: Sequence[Any] | None = None) -> np.ndarray:
    """Codes of the bases of sequences of one length.

    Parameters
    ----------
    sequences
        Text of A, C, G, T and N, small letters too.
    names
        What the sequences are called in messages; None: their numbers.

    Returns
    -------
    ``(n, l)`` uint8: 0 to 3, and 4 for N.

    Raises
    ------
    ArgumentError
        Sequences of unlike lengths, or another letter; names the first.

    Examples
    --------
    >>> codes_of(["ACGT", "nnga"])
    array([[0, 1, 2, 3],
           [4, 4, 2, 0]], dtype=uint8)
    """
    called = range(len(sequences)) if names is None else names
    lengths = {len(sequence) for sequence in sequences}
    if len(lengths) > 1:
        other = next(i for i, sequence in enumerate(sequences) if len(sequence) != len(sequences[0]))
        raise ArgumentError(
            f"Sequences must have one length: that of {called[0]!r} is {len(sequences[0])}, that of {called[other]!r} "
            f"{len(sequences[other])}. Take the same number of bases around the middle of each region."
        )
    text = "".join(sequences).upper().encode("latin-1", "replace")
    codes = _CODE_OF[np.frombuffer(text, dtype=np.uint8)].reshape(len(sequences), *lengths)
    if (codes == _NO_LETTER).any():
        row, column = np.argwhere(codes == _NO_LETTER)[0]
        raise ArgumentError(
            f"The sequence of {called[row]!r} has {sequences[row][column]!r} at base {column + 1}: it may have A, C, "
            "G, T and N. Write N for other letters, which stand for several bases."
        )
    return codes


@checked
def add_dna_sequence(
    adata: AnnData,
    seq_len: Annotated[int, Whole(1)] = 1344,
    genome_name: Annotated[str, Text()] = "hg38",
    genome_dir: Path | str | None = None,
    genome_provider: str | None = None,
    install_genome: bool = True,
    chr_var_key: Annotated[str, Text()] = "chr",
    start_var_key: Annotated[str, Text()] = "start",
    end_var_key: Annotated[str, Text()] = "end",
    sequence_varm_key: Annotated[str | None, Text()] = None,
    code_varm_key: Annotated[str, Text()] = "dna_code",
    *,
    fasta: Path | str | None = None,
) -> None:
    """Write the codes of the bases around the middle of each region to ``adata.varm``.

    Parameters
    ----------
    adata
        Cells by regions.
    seq_len
        Bases for each region. Beyond the end of a chromosome they are N.
    genome_name, genome_dir
        Where no ``fasta`` is given: ``genome_dir/genome_name/genome_name.fa``, as the package genomepy has it, or
        ``genome_dir/genome_name.fa``.
    genome_provider, install_genome
        Accepted for compatibility with scvi-tools. Nothing is downloaded.
    chr_var_key, start_var_key, end_var_key
        Columns of ``adata.var`` with the place of each region, starts counted from 0.
    sequence_varm_key
        Key of ``adata.varm`` for the letters; None: only codes are written.
    code_varm_key
        Key of ``adata.varm`` for the codes, ``(g, seq_len)`` uint8.
    fasta
        FASTA file of the genome, not compressed. With the index of ``samtools faidx`` beside it it is not read
        through.

    Raises
    ------
    ArgumentError
        No file, a column or chromosome that is not there, another letter than A, C, G, T and N.
    """
    columns = [_column(adata, key) for key in (chr_var_key, start_var_key, end_var_key)]
    chromosomes, starts, ends = (column.tolist() for column in columns)
    with Fasta(_found(fasta, genome_dir, genome_name)) as genome:
        missing = sorted({str(name) for name in chromosomes} - genome.lengths.keys())
        if missing:
            raise ArgumentError(unknown_name(f"sequence of {genome.path.name}", missing[0], genome.lengths))
        firsts = [(int(start) + int(end)) // 2 - seq_len // 2 for start, end in zip(starts, ends, strict=True)]
        sequences = [genome.fetch(str(name), i, i + seq_len) for name, i in zip(chromosomes, firsts, strict=True)]
    adata.varm[code_varm_key] = codes_of(sequences, list(adata.var_names))
    if sequence_varm_key is not None:
        adata.varm[sequence_varm_key] = pd.DataFrame([list(sequence) for sequence in sequences], adata.var_names)


def _column(adata: AnnData, key: str) -> pd.Series:
    if key not in adata.var:
        raise ArgumentError(unknown_name("column of adata.var", key, list(adata.var)))
    return adata.var[key]


def _found(fasta: Path | str | None, genome_dir: Path | str | None, genome_name: str) -> Path:
    if fasta is None and genome_dir is None:
        raise ArgumentError("Give fasta=, the FASTA file of the genome: celbo does not download any.")
    folder = Path(genome_dir or "")
    places = (
        [Path(fasta)]
        if fasta is not None
        else [folder / genome_name / f"{genome_name}.fa", folder / f"{genome_name}.fa"]
    )
    for place in places:
        if place.is_file():
            return place
    raise ArgumentError(
        f"There is no file {places[0]}: give fasta=, the FASTA file of the genome. celbo does not download any."
    )
