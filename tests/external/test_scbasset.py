"""SCBASSET: its tower against a plain one, its areas against scipy, sequences from files, a planted motif, archives."""

import logging
import subprocess

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch.nn import functional

import celbo
from celbo.compat.aliases import ADDED
from celbo.core import ArgumentError
from celbo.external import SCBASSET
from celbo.external.scbasset import ScBassetModule, add_dna_sequence, codes_of
from celbo.external.scbasset.layers import _Pool, gelu
from celbo.external.scbasset.motifs import injected, motif_chances, shuffled
from celbo.formats.fasta import Fasta, read_fasta
from celbo.ops.random import private_rng
from celbo.ops.ranking import area_of, auroc, binned
from celbo.store.damage import DamagedDataError

TOWER = {"n_filters_init": 8, "n_repeat_blocks_tower": 2, "n_filters_pre_bottleneck": 4}
TRAIN = {"max_epochs": 2, "seed": 0, "verbose": 0, "accelerator": "cpu"}
MOTIF = "TGACTCA"


def regions(n: int = 60, length: int = 48, n_cells: int = 20, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    adata = ad.AnnData((rng.random((n, n_cells)) < 0.4).astype(np.float32))
    adata.obsm["dna_code"] = rng.integers(0, 5, (n, length)).astype(np.int8)
    adata.var["batch"] = np.where(np.arange(n_cells) % 2, "a", "b")
    return adata


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("length", [6, 7, 8, 9, 11])
def test_pooling_and_activation_go_back_as_in_torch(size, length):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(3, 2, length, dtype=torch.float64, generator=generator).requires_grad_()
    own, torchs = _Pool.apply(h, size), functional.max_pool1d(h, size, padding=(size - 1) // 2)
    weight = torch.randn(own.shape, dtype=torch.float64, generator=generator)
    assert torch.equal(own, torchs)
    assert torch.equal(*(torch.autograd.grad(one, h, weight)[0] for one in (own, torchs)))
    assert torch.autograd.gradcheck(gelu, h)


def trained(adata=None, setup=None, **init):
    adata = regions() if adata is None else adata
    SCBASSET.setup_anndata(adata, dna_code_key="dna_code", **(setup or {}))
    model = SCBASSET(adata, 4, **(TOWER | init))
    model.train(**TRAIN)
    return model


def area_by_scipy(scores: np.ndarray, positive: np.ndarray) -> float:
    return mannwhitneyu(scores[positive], scores[~positive]).statistic / (positive.sum() * (~positive).sum())


def test_area_under_the_curve(rng):
    scores = rng.normal(0, 2, 3000).round(1)  # with ties
    positive = rng.random(3000) < 1 / (1 + np.exp(-scores))
    exact = area_by_scipy(scores, positive)
    tensors = torch.tensor(scores), torch.tensor(positive)
    assert float(auroc(*tensors)) == pytest.approx(exact, abs=1e-12)
    halves = [binned(x[half], y[half], 512) for x, y in [tensors] for half in (slice(1000), slice(1000, None))]
    assert float(area_of(sum(halves))) == pytest.approx(exact, abs=2e-3)
    assert sum(halves).sum(1).tolist() == [(~positive).sum(), positive.sum()]
    assert np.isnan(float(auroc(tensors[0], torch.ones(3000, dtype=torch.bool))))
    assert binned(torch.tensor([-1e9, 1e9]), torch.tensor([False, True]), 8)[:, [0, 7]].tolist() == [[1, 0], [0, 1]]


def test_tower_is_the_plain_formula():
    with private_rng(0):
        module = ScBassetModule(7, np.arange(7) % 2, n_bottleneck_layer=3, sequence_length=48, **TOWER).eval().double()
    codes = torch.randint(0, 5, (6, 48), generator=torch.Generator().manual_seed(0))
    x = torch.cat([torch.eye(4), torch.full((1, 4), 0.25)]).double()[codes].mT
    state = dict(module.named_parameters()) | dict(module.named_buffers())

    def block(name, h, pool):
        h = functional.conv1d(h * (1.702 * h).sigmoid(), state[f"{name}.conv.weight"], padding="same")
        h = h * state[f"{name}.batch_norm.weight"][:, None] / (1 + 1e-3) ** 0.5
        return functional.max_pool1d(h, pool, padding=(pool - 1) // 2)

    h = block("stem", x, 3)
    for i in range(2):
        h = block(f"tower.{i}", h, 2)
    h = block("pre_bottleneck", h, 1).flatten(1)
    h = (h * (1.702 * h).sigmoid()) @ state["bottleneck.dense.weight"].T / (1 + 1e-3) ** 0.5
    h = h * (1.702 * h).sigmoid()
    cells = state["cell_embedding"].T + state["batch_emdedding.weight"][torch.arange(7) % 2]
    expected = h @ cells.T + state["cell_bias"]
    encoded = module.inference(codes)
    logits = module.generative(encoded["region_embedding"])["reconstruction_logits"]
    torch.testing.assert_close(logits, expected)
    is_open = torch.rand(6, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    module.l2_reg_cell_embedding = 0.3
    out = module({"X": 2.0 * is_open, "dna_code": codes})[2]  # counts are open or not
    nll = functional.binary_cross_entropy_with_logits(logits, is_open.double())
    torch.testing.assert_close(out.loss, nll + 0.3 * state["cell_embedding"].square().mean())
    assert float(out.extra_metrics["auroc"]) == pytest.approx(
        area_by_scipy(logits.detach().numpy().ravel(), is_open.numpy().ravel())
    )


def test_sequences_are_turned_and_moved_in_training():
    with private_rng(0):
        module = ScBassetModule(3, sequence_length=48, **TOWER)
        codes = torch.randint(0, 4, (400, 48))
        codes[:, 10] = 4
        varied = module._varied(codes)
    complement = torch.tensor([3, 2, 1, 0, 4])
    seen = set()
    for sequence, found in zip(codes, varied, strict=True):
        for is_turned in (False, True):
            base = complement[sequence].flip(0) if is_turned else sequence
            for move in range(-3, 4):
                padded = torch.cat([torch.full((3,), 4), base, torch.full((3,), 4)])
                if torch.equal(padded[3 - move : 51 - move], found):
                    seen.add((is_turned, move))
                    break
            else:
                continue
            break
        else:
            raise AssertionError("a sequence that is none of the fourteen")
    assert len(seen) == 14
    module.eval()
    torch.testing.assert_close(module.inference(codes), module.inference(codes))


@pytest.mark.parametrize(("length", "positions"), [(1344, 7), (192, 1), (190, 1), (1000, 5)])
def test_any_length_that_the_tower_allows(length, positions):
    module = ScBassetModule(2, n_filters_init=2, n_filters_pre_bottleneck=2, sequence_length=length).eval()
    assert module.bottleneck.dense.in_features == 2 * positions
    assert module.inference(torch.zeros(1, length))["region_embedding"].shape == (1, 32)


def test_what_is_empty_is_called_what_it_is(caplog):
    adata = regions()
    adata.X[[3, 7]] = 0
    adata.X[:, 4] = 0
    logger = logging.getLogger("celbo")
    logger.addHandler(caplog.handler)
    SCBASSET.setup_anndata(adata, dna_code_key="dna_code")
    logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records]
    assert any("2 of 60 regions have no counts ('3', '7')" in one for one in said)
    assert any("1 of 20 cells has no counts ('4')" in one for one in said)
    assert any("sc.pp.filter_cells(adata, min_counts=1), which drops rows, here regions." in one for one in said)
    assert any("sc.pp.filter_genes(adata, min_counts=1), which drops columns, here cells." in one for one in said)
    adata.X[:] = 0
    with pytest.warns(UserWarning, match="all 60 regions are empty"):
        SCBASSET.setup_anndata(adata, dna_code_key="dna_code")


def test_sequences_that_are_too_short():
    with pytest.raises(
        ArgumentError, match="Sequences of 189 bases are too short for a tower of 6 blocks, which takes 190"
    ):
        ScBassetModule(2, n_filters_init=2, sequence_length=189)


@pytest.mark.usefixtures("global_rng_untouched")
def test_training_archives_and_batches(tmp_path):
    model = trained(setup={"batch_key": "batch"}, l2_reg_cell_embedding=1e-3)
    history = model.history
    assert {"auroc_train", "auroc_validation", "elbo_validation"} <= set(history)
    assert not [name for name in history if "histogram" in name]
    assert ((history["auroc_train"] > 0) & (history["auroc_train"] < 1)).all(axis=None)
    assert (model.get_latent_representation().shape, model.get_cell_bias().shape) == ((20, 4), (20,))
    model.save(str(tmp_path / "model"))
    for adata in (regions(), False):
        again = SCBASSET.load(str(tmp_path / "model"), adata, accelerator="cpu")
        np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
        torch.testing.assert_close(again.module.batch_ids, model.module.batch_ids)
    same = trained(setup={"batch_key": "batch"}, l2_reg_cell_embedding=1e-3)
    np.testing.assert_array_equal(same.get_latent_representation(), model.get_latent_representation())
    model.train(**(TRAIN | {"recipe": "classic", "max_epochs": 3}))  # stops by auroc_train, which is there
    assert trained().module.has_batches is False


def test_epochs_area_is_that_of_all_its_scores():
    """The histogram of an epoch gives what all validation scores together give."""
    adata = regions(300)
    SCBASSET.setup_anndata(adata, dna_code_key="dna_code")
    model = SCBASSET(adata, 4, **TOWER)
    model.train(**(TRAIN | {"max_epochs": 1, "train_size": 0.4, "batch_size": 32}), keep_best=False)
    rows = model.validation_indices
    with torch.no_grad():
        encoded = model.module.inference(torch.tensor(adata.obsm["dna_code"][rows]))["region_embedding"]
        logits = model.module.generative(encoded)["reconstruction_logits"].numpy()
    exact = area_by_scipy(logits.ravel(), adata.X[rows].ravel() > 0)
    assert model.history["auroc_validation"].iloc[-1, 0] == pytest.approx(exact, abs=5e-3)


def planted(n: int = 1200, length: int = 60, n_cells: int = 40) -> ad.AnnData:
    """Two regions in five have the motif, on either strand; it opens every other cell."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (n, length)).astype(np.uint8)
    forward, has = codes_of([MOTIF])[0], rng.random(n) < 0.4
    for row in np.flatnonzero(has):
        start = rng.integers(5, length - 12)
        codes[row, start : start + 7] = forward if rng.random() < 0.5 else 3 - forward[::-1]
    logit = -2 + rng.normal(0, 0.3, n_cells) + 2 * has[:, None] * (np.arange(n_cells) % 2)
    adata = ad.AnnData((rng.random((n, n_cells)) < 1 / (1 + np.exp(-logit))).astype(np.float32))
    adata.obsm["dna_code"] = codes
    return adata


def test_a_planted_motif_is_found():
    adata = planted()
    SCBASSET.setup_anndata(adata, dna_code_key="dna_code")
    model = SCBASSET(adata, 8, n_filters_init=16, n_repeat_blocks_tower=2, n_filters_pre_bottleneck=8)
    model.train(max_epochs=25, verbose=0, seed=0, accelerator="cpu")
    activity = model.get_tf_activity("planted", motif=MOTIF, n_sequences=200, seed=0)
    assert area_by_scipy(activity, np.arange(40) % 2 == 1) > 0.9
    assert (abs(activity.mean()) < 1e-6, activity.std() == pytest.approx(1, abs=1e-6)) == (True, True)
    assert model.history["auroc_validation"].iloc[-1, 0] > 0.65


def test_backgrounds_follow_the_pairs_of_bases(rng):
    codes = np.tile([0, 1, 2, 3, 3], (50, 12)).astype(np.uint8)
    drawn = shuffled(codes, 200, rng)
    after_0 = drawn[:, 1:][drawn[:, :-1] == 0]
    assert (after_0 == 1).mean() > 0.98
    after_3 = drawn[:, 1:][drawn[:, :-1] == 3]
    assert abs((after_3 == 0).mean() - 0.5) < 0.05


def test_motifs(rng):
    np.testing.assert_allclose(motif_chances("ary"), [[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]])
    np.testing.assert_allclose(motif_chances(np.array([[2, 0, 0, 6]])), [[0.25, 0, 0, 0.75]])
    changed = injected(np.full((500, 9), 1, np.uint8), motif_chances("AWT"), rng)
    assert (changed[:, [0, 1, 2, 6, 7, 8]] == 1).all()
    assert ((changed[:, 3] == 0).all(), (changed[:, 5] == 3).all()) == (True, True)
    assert set(changed[:, 4]) == {0, 3}
    for wrong, said in (
        ("AXT", "letter of a motif"),
        (np.ones((3, 3)), r"\(bases, 4\)"),
        (-np.ones((2, 4)), "negative"),
    ):
        with pytest.raises(ArgumentError, match=said):
            motif_chances(wrong)


def test_motifs_from_files(tmp_path):
    model = trained()
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("ACGT"), 48)) for _ in range(6)]
    folder = tmp_path / "Homo_sapiens_motif_fasta"
    (folder / "shuffled_peaks_motifs").mkdir(parents=True)
    for path, sequences in (
        (folder / "shuffled_peaks.fasta", letters),
        (folder / "shuffled_peaks_motifs" / "JUN.fasta", [text[:20] + MOTIF + text[27:] for text in letters]),
        (folder / "shuffled_peaks_motifs" / "LONG.fasta", [text + "A" for text in letters]),
    ):
        path.write_text("".join(f">{i}\n{text}\n" for i, text in enumerate(sequences)))
    assert model.get_tf_activity("JUN", motif_dir=tmp_path).shape == (20,)
    for options, said in (
        ({"tf": "JUM", "motif_dir": tmp_path}, "JUN"),
        ({"tf": "LONG", "motif_dir": tmp_path}, "have 49 bases, the model reads 48"),
        ({"tf": "JUN", "motif_dir": tmp_path / "no"}, "has no shuffled_peaks.fasta"),
        ({"tf": "JUN"}, "Nothing is downloaded"),
        ({"tf": "x", "motif": "A" * 49}, "The motif has 49 bases, the sequences 48"),
    ):
        with pytest.raises(ArgumentError, match=said):
            model.get_tf_activity(**options)


GENOME = {"chr1": "acgtnACGTACGTAC", "chr2": "TTTTTGGGGG"}


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "genome.fa"
    text = (f">{name} some words\n{s[:6]}\n{s[6:12]}\n{s[12:]}\n" for name, s in GENOME.items())
    path.write_text("".join(text))
    return path


def test_stretches_of_a_genome(genome):
    for _ in range(2):  # without an index, and with one
        with Fasta(genome) as fasta:
            assert dict(fasta.lengths) == {"chr1": 15, "chr2": 10}
            assert fasta.fetch("chr1", 4, 13) == GENOME["chr1"][4:13].upper()
            assert fasta.fetch("chr2", -2, 12) == "NN" + GENOME["chr2"] + "NN"
            assert fasta.fetch("chr2", 20, 23) == "NNN"
            with pytest.raises(KeyError, match="chr2"):
                fasta.fetch("chr3", 0, 1)
        # name, length, where it begins, bases and bytes a line
        genome.with_name("genome.fa.fai").write_text("chr1\t15\t17\t6\t7\nchr2\t10\t52\t6\t7\n")
    assert read_fasta(genome) == {name: text.upper() for name, text in GENOME.items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x1f\x8b1234", "is compressed"), (b"ACGT\n", "no FASTA"), (b">a\nACG\nA\nACG\n", "not all of one length")],
)
def test_files_that_are_no_genome(tmp_path, content, said):
    (tmp_path / "x.fa").write_bytes(content)
    with pytest.raises(DamagedDataError, match=said):
        Fasta(tmp_path / "x.fa")


def test_sequences_of_regions(genome, tmp_path):
    adata = ad.AnnData(np.ones((3, 2), dtype=np.float32))
    adata.var = adata.var.assign(chr=["chr1", "chr2"], start=[4, 0], end=[10, 2])
    add_dna_sequence(adata, seq_len=6, fasta=genome, sequence_varm_key="letters")
    np.testing.assert_array_equal(adata.varm["dna_code"], codes_of(["NACGTA", "NNTTTT"]))
    assert list(adata.varm["letters"].iloc[0]) == list("NACGTA")
    (tmp_path / "hg").mkdir()
    genome.rename(tmp_path / "hg" / "hg.fa")
    add_dna_sequence(adata, 4, "hg", tmp_path)
    assert adata.varm["dna_code"].shape == (2, 4)
    SCBASSET.setup_anndata(adata.T.copy(), dna_code_key="dna_code")
    assert ADDED["data"]["add_dna_sequence"].find() is add_dna_sequence
    for options, said in (
        ({}, "celbo does not download any"),
        ({"fasta": tmp_path / "no.fa"}, "There is no file"),
        ({"fasta": tmp_path / "hg" / "hg.fa", "chr_var_key": "chrom"}, "column of adata.var"),
    ):
        with pytest.raises(ArgumentError, match=said):
            add_dna_sequence(adata, 4, **options)
    adata.var["chr"] = ["chr1", "2"]
    with pytest.raises(ArgumentError, match=r"sequence of hg\.fa"):
        add_dna_sequence(adata, 4, fasta=tmp_path / "hg" / "hg.fa")


def test_sequences_that_are_none():
    with pytest.raises(ArgumentError, match="that of 'r1' is 3, that of 'r2' 4"):
        codes_of(["ACG", "ACGT"], ["r1", "r2"])
    with pytest.raises(ArgumentError, match="The sequence of 'r2' has 'R' at base 2"):
        codes_of(["ACG", "ARG"], ["r1", "r2"])
    for value, said in ((5, "holds 5 for region '3', base 8"), (-1, "holds -1 for region '3'")):
        adata = regions()
        adata.obsm["dna_code"][3, 7] = value
        with pytest.raises(ArgumentError, match=said):
            SCBASSET.setup_anndata(adata, dna_code_key="dna_code")
    adata = regions()
    adata.obsm["dna_code"] = adata.obsm["dna_code"].astype(str)
    with pytest.raises(ArgumentError, match="not codes of bases"):
        SCBASSET.setup_anndata(adata, dna_code_key="dna_code")


@pytest.mark.parametrize("case", ["scbasset", "scbasset_batch"])
def test_scvi_tools_archives_answer_as_there(case, check_case):
    assert check_case(case)[2] == []


ASK = """
import sys, anndata, numpy, scvi
folder = sys.argv[1]
model = scvi.external.SCBASSET.load(folder + "/theirs", adata=anndata.read_h5ad(folder + "/a.h5ad"), accelerator="cpu")
numpy.save(folder + "/out.npy", model.get_latent_representation())
"""


def test_scvi_tools_reads_what_is_exported(tmp_path, peer_python):
    adata = regions(40, 1344)
    model = trained(adata, {"batch_key": "batch"}, n_repeat_blocks_tower=6)
    model.save(str(tmp_path / "own"))
    celbo.model.base.archives.export_archive(tmp_path / "own", tmp_path / "theirs")
    adata.write_h5ad(tmp_path / "a.h5ad")
    done = subprocess.run([peer_python, "-W", "ignore", "-c", ASK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), model.get_latent_representation())


def test_the_bottleneck_is_normalized_whatever_the_tower_is():
    module = ScBassetModule(4, n_filters_init=4, n_repeat_blocks_tower=1, n_filters_pre_bottleneck=4, batch_norm=False)
    assert {name.partition(".")[0] for name in module.state_dict() if "batch_norm" in name} == {"bottleneck"}
