"""Motifs of transcription factors put into sequences that have none, to see which cells they open.

Dims: s sequences, l bases, w bases of a motif.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...core import ArgumentError, unknown_name
from ...formats.fasta import read_fasta
from .dna import codes_of
from .module import ANY_BASE

__all__ = ["Motif", "injected", "motif_chances", "of_files", "shuffled"]

Motif = str | np.ndarray
"""A consensus in IUPAC letters, or the chances of A, C, G and T at each base, ``(w, 4)``."""

_IUPAC: Mapping[str, str] = {
    **{letter: letter for letter in "ACGT"},
    **{"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"},
    **{"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"},
}
_BACKGROUND, _FOLDER = "shuffled_peaks.fasta", "shuffled_peaks_motifs"
_SPECIES: Mapping[str, str] = {"human": "Homo_sapiens_motif_fasta"}


def motif_chances(motif: Motif) -> np.ndarray:
    """Chances of A, C, G and T at each base of a motif, ``(w, 4)``, rows that sum to 1.

    Raises
    ------
    ArgumentError
        A letter outside of IUPAC's code, or a table that does not hold chances.
    """
    if isinstance(motif, str):
        unknown = [letter for letter in motif.upper() if letter not in _IUPAC]
        if unknown or not motif:
            raise ArgumentError(unknown_name("letter of a motif", unknown[0] if unknown else "", _IUPAC))
        sets = [_IUPAC[letter] for letter in motif.upper()]
        return np.array([[(base in letters) / len(letters) for base in "ACGT"] for letters in sets])
    table = np.asarray(motif, dtype=float)
    is_table = table.ndim == 2 and table.shape[1] == 4 and len(table) and np.isfinite(table).all()
    if not is_table or (table < 0).any() or (table.sum(1) <= 0).any():
        raise ArgumentError(
            "motif must be text of IUPAC letters, or chances (or counts) of A, C, G and T at each base: a table of "
            f"shape (bases, 4) that is not negative, got {table.shape}."
        )
    return table / table.sum(1, keepdims=True)


def shuffled(codes_rl: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Sequences in which a base follows another as often as in those given, ``(n, l)``; N counts as any base.

    Parameters
    ----------
    codes_rl
        Sequences, ``(r, l)`` codes.
    n
        How many to draw.
    rng
        Source of randomness.
    """
    pairs = np.ones((4, 4))  # one of each beforehand
    left, right = codes_rl[:, :-1].ravel(), codes_rl[:, 1:].ravel()
    known = (left < ANY_BASE) & (right < ANY_BASE)
    np.add.at(pairs, (left[known], right[known]), 1)
    steps = (pairs / pairs.sum(1, keepdims=True)).cumsum(1)
    drawn = np.empty((n, codes_rl.shape[1]), dtype=np.uint8)
    drawn[:, 0] = rng.choice(4, n, p=pairs.sum(1) / pairs.sum())
    for i in range(1, drawn.shape[1]):
        drawn[:, i] = (rng.random(n)[:, None] > steps[drawn[:, i - 1]]).sum(1).clip(0, 3)
    return drawn


def injected(codes_sl: np.ndarray, chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sequences with a draw of the motif in the middle of each; ``ArgumentError`` for a motif longer than they."""
    width, length = len(chances), codes_sl.shape[1]
    if width > length:
        raise ArgumentError(f"The motif has {width} bases, the sequences {length}.")
    drawn = (rng.random((len(codes_sl), width, 1)) > chances.cumsum(1)).sum(2).clip(0, 3)
    at = (length - width) // 2
    return np.concatenate([codes_sl[:, :at], drawn, codes_sl[:, at + width :]], axis=1)


def of_files(folder: Path, tf: str, genome: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences without and with the motif of a factor, from the files of scBasset's authors, ``(s, l)`` each.

    Parameters
    ----------
    folder
        Has ``shuffled_peaks.fasta`` and ``shuffled_peaks_motifs/{tf}.fasta``, or a folder of the species with them.
    tf, genome
        Names of the factor and of the species.
    length
        Bases that the model reads.

    Raises
    ------
    ArgumentError
        No such files or factor, or sequences of another length.
    """
    places = [folder, folder / _SPECIES.get(genome, genome)]
    found = [place for place in places if (place / _BACKGROUND).is_file()]
    if not found:
        raise ArgumentError(
            f"{folder} has no {_BACKGROUND}: name the folder of scBasset's motif files, or give motif=. Nothing is "
            "downloaded."
        )
    with_motif = found[0] / _FOLDER / f"{tf}.fasta"
    if not with_motif.is_file():
        there = sorted(path.stem for path in with_motif.parent.glob("*.fasta"))
        raise ArgumentError(unknown_name(f"transcription factor in {with_motif.parent}", tf, there))
    background, motif = (_read(path, length) for path in (found[0] / _BACKGROUND, with_motif))
    return background, motif


def _read(path: Path, length: int) -> np.ndarray:
    sequences = read_fasta(path)
    codes = codes_of(list(sequences.values()), list(sequences))
    if codes.shape[1] != length:
        raise ArgumentError(f"The sequences in {path} have {codes.shape[1]} bases, the model reads {length}.")
    return codes
