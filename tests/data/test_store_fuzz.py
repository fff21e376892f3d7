"""Damaged files end in the AnnData or in one error that names the file, soon and in little memory.

The damage and the watching are those of benchmarks/fuzz_stores.py, which does more of it.
"""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("kinds", "n"), [(("h5ad", "h5ad_gzip"), 130), (("zarr2", "zarr3"), 50)])
def test_damaged_files_end_clean(kinds, n, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)  # where the watched process finds the benchmark too
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks import fuzz_stores

    bad = fuzz_stores.main(["--n", str(n), "--seed", "14", "--one-way", "--kinds", *kinds])
    said = capsys.readouterr().out
    assert bad == 0, said
    assert [f"{kind}: {n} damaged, 0 did not end clean" in said for kind in kinds] == [True, True]
