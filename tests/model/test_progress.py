"""Long work shows itself, where somebody sees it and only there; what is interrupted leaves what was done."""

import logging
import re
import sys
import threading
import types

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import celbo
from celbo.data import synthetic_iid
from celbo.store import progress
from celbo.store.progress import Bar, figures_of, is_seen, tracking
from celbo.utils import track


class Drawn:
    """Stands in for a screen: what a bar said."""

    def __init__(self):
        self.said, self.titles, self.open = [], [], 0

    def terminal(self, title):
        self.titles.append(title)
        self.open += 1
        return types.SimpleNamespace(show=lambda *now: self.said.append((title, *now)), close=self.close)

    def close(self):
        self.open -= 1


def ipython(shell=None, displayed=None):
    """Stands in for IPython: the shell that runs, if any, and what takes what is displayed."""
    face, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    face.get_ipython = lambda: shell
    display.HTML = lambda text: text
    display.display = lambda page, display_id: displayed and (displayed.update(page) or displayed)
    return {"IPython": face, "IPython.display": display, "ipykernel": types.ModuleType("ipykernel")}


KERNEL = types.SimpleNamespace(kernel=object())


def use(monkeypatch, modules):
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def screen(monkeypatch):
    """A terminal that shows bars at once, and keeps what they say."""
    drawn = Drawn()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    monkeypatch.setattr(progress, "_Terminal", drawn.terminal)
    monkeypatch.setattr(celbo.settings, "_verbosity", logging.INFO)
    yield drawn
    assert drawn.open == 0
    assert not progress._on_screen.locked()


@pytest.fixture
def adata():
    made = synthetic_iid(batch_size=60, n_genes=20, n_proteins=0, n_regions=0, seed=0)
    made.X = sp.csr_matrix(made.X)
    return made


@pytest.fixture
def model(adata):
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    made = celbo.model.SCVI(adata, n_hidden=8, n_latent=3)
    made.train(max_epochs=2, seed=0, verbose=0)
    return made


class TestFigures:
    @pytest.mark.parametrize(
        ("now", "said"),
        [
            ((0, 100, 5.0, "cells", None), "0/100 cells"),
            ((25, 100, 5.0, "cells", None), "25/100 cells  5 cells/s  0:00:15 left"),
            ((100, 100, 5.0, "cells", 2_000_000), "100/100 cells  20 cells/s  0:00:00 left  2 MB"),
            ((3600, None, 2.0, "rows", None), "3,600 rows  1.8e+03 rows/s"),
            ((1.5, 4, 6.0, "epochs", None), "1/4 epochs  4 s per epoch  0:00:10 left"),
            ((1, 8000, 1.0, "cells", None), "1/8,000 cells  1 cells/s  2:13:19 left"),
            ((92, 100, 6.0, "epochs", None, 90), "92/100 epochs  3 s per epoch  0:00:24 left"),
            ((90, 100, 0.0, "epochs", None, 90), "90/100 epochs"),
        ],
    )
    def test_by_hand(self, now, said):
        assert figures_of(*now) == said

    def test_a_bar_counts_from_what_it_is_told_first(self, screen, monkeypatch):
        clock = iter([0.0, 50.0, 60.0, 80.0])
        monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
        monkeypatch.setattr(progress, "resident_memory", lambda: None)
        with tracking("x", "epochs") as tell:
            for done in (90.5, 91.5, 94.5):
                tell(done, 100)
        assert [figures for *_, figures in screen.said] == [
            "90/100 epochs",
            "91/100 epochs  10 s per epoch  0:01:25 left",
            "94/100 epochs  7.5 s per epoch  0:00:41 left",
        ]

    def test_memory_is_that_of_the_process(self):
        before = progress.resident_memory()
        if before is None:
            pytest.skip("this system does not say how much memory a process has")
        held = np.ones(2**25)
        assert progress.resident_memory() - before > held.nbytes / 2


class TestWhere:
    def test_a_terminal(self, screen):
        assert is_seen()

    @pytest.mark.parametrize("value", ["1", "true", "yes"])
    def test_not_in_ci(self, screen, monkeypatch, value):
        monkeypatch.setenv("CI", value)
        assert not is_seen()

    @pytest.mark.parametrize("value", ["", "0", "false"])
    def test_what_is_no_ci(self, screen, monkeypatch, value):
        monkeypatch.setenv("CI", value)
        assert is_seen()

    def test_not_where_output_is_kept(self, screen, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
        assert not is_seen()
        use(monkeypatch, ipython(KERNEL))
        assert is_seen()

    @pytest.mark.parametrize("shell", [None, types.SimpleNamespace()], ids=["no shell", "a shell without kernel"])
    def test_ipykernel_alone_is_no_notebook(self, screen, monkeypatch, shell):
        use(monkeypatch, ipython(shell))
        with tracking("x") as tell:
            tell(1, 2)
        assert screen.titles == ["x"]
        monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
        assert not is_seen()

    def test_not_where_celbo_is_to_be_silent(self, screen, monkeypatch):
        monkeypatch.setattr(celbo.settings, "_verbosity", logging.WARNING)
        assert not is_seen()
        with tracking("x") as tell:
            assert tell is None

    def test_what_is_soon_done_shows_nothing(self, screen, monkeypatch):
        monkeypatch.setattr(progress, "PATIENCE", 60.0)
        with tracking("x") as tell:
            tell(1, 2)
        assert screen.titles == []

    def test_one_at_a_time(self, screen):
        with tracking("outer") as tell:
            tell(1, 2)
            with tracking("inner") as inner:
                assert inner is None
            found = []
            other = threading.Thread(target=lambda: found.append(tracking("other").__enter__()))
            other.start()
            other.join()
            assert found == [None]
        with tracking("next") as tell:
            tell(1, 2)
        assert screen.titles == ["outer", "next"]

    def test_gone_after_an_error(self, screen):
        def interrupted():
            with tracking("x") as tell:
                tell(1, 2)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert screen.titles == ["x"]

    def test_rich_writes_to_stderr_and_takes_names_as_they_are(self, monkeypatch, capsys):
        monkeypatch.setattr(progress, "PATIENCE", 0.0)
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
        for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "160"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("NO_COLOR", raising=False)
        bar = Bar("Writing [red]x[/red].h5ad", "cells")
        bar.tell(1, 4, "[bold]y")
        bar.close()
        shown = capsys.readouterr()
        assert shown.out == ""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.err)
        assert "Writing [red]x[/red].h5ad" in text
        assert "1/4 cells" in text
        assert "[bold]y" in text


class Handle:
    def __init__(self):
        self.pages = []

    def update(self, page):
        self.pages.append(page)


def test_a_notebook_gets_a_page(monkeypatch):
    handle = Handle()
    use(monkeypatch, ipython(KERNEL, handle))
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    bar = Bar("Writing <b>x</b>", "cells")
    bar.tell(2, 8, "<i>")
    bar.tell(3)
    bar.close()
    first, second, third, last = handle.pages
    assert "Writing &lt;b&gt;x&lt;/b&gt;" in first
    assert '<progress value="2" max="8"></progress> 2/8 cells' in second
    assert second.rstrip("</div>").endswith("&lt;i&gt;")
    assert "<progress></progress> 3 cells" in third
    assert last == ""


def test_training_goes_on_where_a_kernel_displays_nothing(screen, monkeypatch, adata):
    use(monkeypatch, ipython(KERNEL))
    celbo.model.SCVI.setup_anndata(adata)
    made = celbo.model.SCVI(adata, n_hidden=8)
    made.train(max_epochs=2, seed=0)
    assert len(made.history["elbo_train"]) == 2
    assert screen.titles == []


class TestWork:
    def told(self, screen, title):
        """(done, total) of a bar, in order."""
        return [now[1:3] for now in screen.said if now[0] == title]

    def test_training_moves_within_epochs_and_says_the_figures(self, screen, adata):
        celbo.model.SCVI.setup_anndata(adata)
        made = celbo.model.SCVI(adata, n_hidden=8)
        made.train(max_epochs=2, batch_size=36, seed=0)
        told = self.told(screen, "Training")
        assert screen.titles[-1] == "Training"
        assert told == sorted(told)
        assert {total for _, total in told} == {2}
        assert {round(done, 3) for done, _ in told} >= {round(1 / 3, 3), 1, 2}
        assert f"validation ELBO {made.history['elbo_validation'].iloc[-1, 0]:.1f}" in screen.said[-1][3]

    @pytest.mark.parametrize("verbose", [0, 2])
    def test_training_without_a_bar(self, screen, model, verbose):
        screen.titles.clear()
        model.train(max_epochs=1, seed=0, verbose=verbose)
        assert screen.titles == []

    @pytest.mark.parametrize("verb", ["get_latent_representation", "get_normalized_expression", "get_elbo"])
    def test_verbs(self, screen, model, verb):
        screen.said.clear()
        shown = getattr(model, verb)(batch_size=50, seed=0)
        assert self.told(screen, "Computing") == [(50, 120), (100, 120), (120, 120)]
        celbo.settings.verbosity, before = logging.WARNING, celbo.settings.verbosity
        try:
            assert np.array_equal(shown, getattr(model, verb)(batch_size=50, seed=0))
        finally:
            celbo.settings.verbosity = before
        assert len(self.told(screen, "Computing")) == 3

    def test_comparisons(self, screen, model):
        screen.said.clear()
        model.differential_expression(groupby="labels", n_samples_overall=20, seed=0)
        assert self.told(screen, "Comparing") == [(0, 3), (1, 3), (2, 3)]
        assert "Computing" not in {title for title, *_ in screen.said}
        model.differential_expression(groupby="labels", group1="label_0", n_samples_overall=20, seed=0)
        assert self.told(screen, "Computing") != []

    def test_writing(self, screen, model, tmp_path):
        screen.said.clear()
        model.write_normalized_expression(tmp_path / "denoised.h5ad", batch_size=50, seed=0)
        assert self.told(screen, "Writing denoised.h5ad") == [(50, 120), (100, 120), (120, 120)]
        assert {title for title, *_ in screen.said} == {"Writing denoised.h5ad"}

    def test_setup_of_cells_on_disk(self, screen, adata, tmp_path):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        celbo.model.SCVI.setup_anndata(backed)
        told = self.told(screen, "Reading adata.X")
        assert told[-1] == (120, 120)
        backed.file.close()

    def test_sharding(self, screen, adata, tmp_path):
        pytest.importorskip("zarr")
        from celbo.store.writing.shard import shard

        shard(adata, tmp_path / "cells.zarr", bucket_bytes=20_000)
        told = self.told(screen, "Sharding")
        assert told == sorted(told)
        assert told[-1] == (240, 240)

    def test_a_sequence(self, screen):
        assert list(track("abc", "Letters")) == ["a", "b", "c"]
        assert self.told(screen, "Letters") == [(1, 3), (2, 3), (3, 3)]
        assert list(track(iter("ab"), "Few", disable=True)) == ["a", "b"]
        assert list(track(iter("ab"), "Unknown", total=9)) == ["a", "b"]
        assert self.told(screen, "Few") == []
        assert self.told(screen, "Unknown") == [(1, 9), (2, 9)]


class Interrupted:
    """Presses Ctrl-C at the n-th call of a function."""

    def __init__(self, function, n):
        self.function, self.left = function, n

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.function(*args, **kwargs)


class TestInterrupted:
    @pytest.fixture
    def at_second(self, monkeypatch, model):
        """Ctrl-C while the second minibatch is encoded."""
        monkeypatch.setattr(model.module, "inference", Interrupted(model.module.inference, 2))
        return monkeypatch

    @pytest.mark.parametrize(
        ("verb", "options"),
        [
            ("get_latent_representation", {}),
            ("get_normalized_expression", {}),
            ("get_elbo", {}),
            ("differential_expression", {"groupby": "labels"}),
            ("posterior_predictive_sample", {}),
        ],
    )
    def test_a_verb_leaves_the_model_as_it_was(self, screen, model, at_second, verb, options):
        if verb == "posterior_predictive_sample":
            pytest.importorskip("sparse")
        weights = {name: value.clone() for name, value in model.module.state_dict().items()}
        places = set(model.adata.obsm), set(model.adata.layers), set(model.adata.obs), set(model.adata.uns)
        with pytest.raises(KeyboardInterrupt):
            getattr(model, verb)(batch_size=50, seed=0, **options)
        assert not model.module.training
        assert places == (set(model.adata.obsm), set(model.adata.layers), set(model.adata.obs), set(model.adata.uns))
        assert all(np.array_equal(weights[name], value) for name, value in model.module.state_dict().items())
        at_second.undo()
        assert getattr(model, verb)(batch_size=50, seed=0, **options) is not None

    def test_a_key_is_written_whole_or_not_at_all(self, screen, model, at_second):
        with pytest.raises(KeyboardInterrupt):
            model.get_latent_representation(batch_size=50, key_added="X_z")
        assert "X_z" not in model.adata.obsm
        assert "celbo" not in model.adata.uns

    def test_a_file_is_there_whole_or_not_at_all(self, screen, model, at_second, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            model.write_normalized_expression(tmp_path / "denoised.h5ad", batch_size=50, seed=0)
        assert list(tmp_path.iterdir()) == []

    def test_training_keeps_the_epochs_that_were_done(self, screen, adata):
        class Stops(celbo.train.Callback):
            def on_train_batch_start(self, trainer, plan, batch, batch_idx):
                if (trainer.current_epoch, batch_idx) == (2, 1):
                    raise KeyboardInterrupt

        celbo.model.SCVI.setup_anndata(adata)
        made = celbo.model.SCVI(adata, n_hidden=8)
        made.train(max_epochs=5, batch_size=36, seed=0, callbacks=[Stops()])
        assert len(made.history["elbo_train"]) == 2
        assert made.is_trained
        assert made.get_latent_representation().shape == (120, 10)

    def test_setup_can_be_done_again(self, screen, adata, monkeypatch):
        from celbo.data import counts

        monkeypatch.setattr(counts._Tally, "add", Interrupted(counts._Tally.add, 1))
        with pytest.raises(KeyboardInterrupt):
            celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
        monkeypatch.undo()
        celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
        assert celbo.model.SCVI(adata).summary_stats["n_batch"] == 2
