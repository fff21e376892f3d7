"""Tangram: its loss against a plain one, gradients by differences, modes, projections, archives, real mixtures."""

import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import nnls
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tests.io.hostile import Reduced, torch_zip

from celbo.core import ArgumentError
from celbo.external import Tangram
from celbo.external.tangram import TangramMapper, by_clusters
from celbo.external.tangram.module import _Mapping
from celbo.io import ArchiveError
from celbo.ops.random import private_rng

mudata = pytest.importorskip("mudata")
pytestmark = pytest.mark.filterwarnings("ignore:var_names are not unique")  # cells and spots have the same genes

WHERE = {"sc_layer": "sc", "sp_layer": "sp", "density_prior_key": "sp"}
TRAIN = {"max_epochs": 3, "seed": 0, "verbose": 0, "accelerator": "cpu"}


def tables(n: int = 24, s: int = 15, g: int = 12, seed: int = 0):
    """Cells of three types, and spots that are mixtures of them; genes of the spots in another order."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.5, size=(3, g)) * 20
    kind = np.arange(n) % 3
    shares = rng.dirichlet([0.5] * 3, s)
    names = [f"gene_{i}" for i in range(g)]
    cells = ad.AnnData(rng.poisson(profiles[kind]).astype(np.float32), var=pd.DataFrame(index=names))
    cells.obs_names, cells.obs["type"] = [f"cell_{i}" for i in range(n)], [f"type_{k}" for k in kind]
    spots = ad.AnnData(rng.poisson(5 * shares @ profiles).astype(np.float32), var=pd.DataFrame(index=names))
    spots.obs_names, spots.obsm["shares"] = [f"spot_{i}" for i in range(s)], shares
    return cells, spots[:, rng.permutation(g)].copy()


def together(cells=None, spots=None):
    cells, spots = tables() if cells is None else (cells, spots)
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData({"sc": cells, "sp": spots})


def trained(mdata=None, density="rna_count_based", train=None, **init):
    mdata = together() if mdata is None else mdata
    Tangram.setup_mudata(mdata, density_prior_key=density, modalities=WHERE)
    model = Tangram(mdata, **init)
    model.train(**(TRAIN | (train or {})))
    return model


def module_of(n=7, s=5, g=6, **options) -> TangramMapper:
    generator = torch.Generator().manual_seed(0)
    with private_rng(0):
        module = TangramMapper(n, s, **options)
    density = torch.rand(s, generator=generator)
    data = (torch.rand(n, g, generator=generator), torch.rand(s, g, generator=generator), density / density.sum())
    module.take_data(*(part.numpy() for part in data))
    return module.double()


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("block", [2**22, 10])
def test_loss_is_the_plain_formula(constrained, block, monkeypatch):
    monkeypatch.setattr("celbo.external.tangram.module._NUMBERS_IN_A_BLOCK", block)
    weights = np.arange(1, 8) / 4
    options = {"lambda_d": 0.7, "lambda_g2": 0.4, "lambda_r": 0.05, "lambda_count": 0.3, "lambda_f_reg": 0.2}
    module = module_of(constrained=constrained, target_count=3, cell_weights=weights, **options)
    out = module({})[2]
    m = module.mapper_unconstrained.softmax(1)
    f = module.filter_unconstrained.sigmoid() if constrained else torch.ones(7, 1).double()
    predicted, wanted = (m * f).T @ module.expression_sc, module.expression_sp
    unit = [x / x.norm(dim=0) for x in (predicted, wanted, predicted.T, wanted.T)]
    similarity = (unit[0] * unit[1]).sum(0).mean() + 0.4 * (unit[2] * unit[3]).sum(0).mean()
    w = torch.tensor(weights)[:, None]
    share = (m * f * w).sum(0) / (f * w).sum()
    penalty = 0.7 * (module.density * (module.density / share).log()).sum() - 0.05 * (m * m.log()).sum()
    if constrained:
        penalty = penalty + 0.3 * (f.sum() - 3).abs() + 0.2 * (f - f**2).sum()
    torch.testing.assert_close(out.loss, penalty - similarity)
    torch.testing.assert_close(out.extra_metrics["expression_term"], similarity.detach())
    expected = torch.autograd.grad(penalty - similarity, list(module.parameters()))
    for found, gradient in zip(torch.autograd.grad(out.loss, list(module.parameters())), expected, strict=True):
        torch.testing.assert_close(found, gradient)


def test_gradients_by_differences(torch_rng):
    logits, kept, weight, expression = (
        torch.rand(*size, generator=torch_rng).double() for size in ((6, 4), (6,), (6,), (6, 5))
    )
    assert torch.autograd.gradcheck(
        lambda a, b: _Mapping.apply(a, b, weight, expression), (logits.requires_grad_(), kept.requires_grad_())
    )


def test_least_squares_are_those_of_scipy():
    """Three cells that differ: the shares of each spot are unique, and so is the start but for the cells' masses."""
    rng = np.random.default_rng(0)
    cells = rng.gamma(0.5, size=(3, 20))
    spots = rng.dirichlet([1, 1, 1], 8) @ cells * rng.uniform(0.8, 1.2, (8, 20))
    with private_rng(0):
        module = TangramMapper(3, 8)
    module.take_data(cells, spots, None)
    module.start_from_least_squares(3000)
    length = np.linalg.norm(spots, axis=0)
    shares = np.stack([nnls((cells / length).T, spot / length)[0] for spot in spots])
    np.testing.assert_allclose(module.mapper().detach(), (shares / shares.sum(0)).T, atol=2e-3)


def test_as_many_rounds_of_least_squares_as_asked_for():
    still = {"recipe": "one_cycle", "lr": 1e-6, "max_epochs": 1}
    found = trained(train=still | {"warm_start": 7}).get_mapper_matrix()
    model = trained(train=still | {"warm_start": True})
    default = model.get_mapper_matrix()
    for n_rounds, mapper in ((30, default), (7, found)):
        model.module.start_from_least_squares(n_rounds)
        np.testing.assert_allclose(mapper, model.module.mapper().detach(), atol=1e-5)
    assert np.abs(found - default).max() > 0.01


def test_mapping_finds_the_shares():
    cells, spots = tables(n=60, s=40, g=60)
    model = trained(together(cells, spots), "uniform", {"max_epochs": 200})
    assert float(model.history["train_loss"].iloc[-1, 0]) < -0.9
    mapper = model.get_mapper_matrix()
    np.testing.assert_allclose(mapper.sum(1), 1, rtol=1e-5)
    found = model.project_cell_annotations(cells, spots, mapper, cells.obs["type"])
    assert (list(found.columns), list(found.index)) == (["type_0", "type_1", "type_2"], list(spots.obs_names))
    shares = found.div(found.sum(1), axis=0).to_numpy()
    assert np.corrcoef(shares.ravel(), spots.obsm["shares"].ravel())[0, 1] > 0.9
    genes = model.project_genes(cells, spots, mapper)
    np.testing.assert_allclose(genes.X, mapper.T @ cells.X, rtol=1e-4)
    assert (list(genes.obs_names), list(genes.var_names)) == (list(spots.obs_names), list(cells.var_names))
    assert set(trained(density=None).history) >= {"expression_term_train", "regularizer_term_train"}


def test_some_cells_are_kept():
    model = trained(constrained=True, target_count=6, train={"max_epochs": 300})
    kept = model.get_cell_filter()
    assert kept.shape == (24,)
    assert abs(kept.sum() - 6) < 0.5
    assert np.minimum(kept, 1 - kept).max() < 0.1
    assert (trained().get_cell_filter() == 1).all()


def test_clusters_are_mapped_in_place_of_cells():
    cells, spots = tables(n=60, s=40, g=60)
    clusters = by_clusters(cells, "type")
    np.testing.assert_allclose(clusters.X[1], cells.X[cells.obs["type"] == "type_1"].sum(0), rtol=1e-5)
    assert list(clusters.obs["n_cells"]) == [20, 20, 20]
    sizes = clusters.obs["n_cells"].to_numpy()
    model = trained(together(clusters, spots), "uniform", {"max_epochs": 200}, cell_weights=sizes)
    found = model.get_mapper_matrix().T * sizes
    shares = found / found.sum(1, keepdims=True)
    assert np.corrcoef(shares.ravel(), spots.obsm["shares"].ravel())[0, 1] > 0.9
    with pytest.raises(ArgumentError, match=r"column of adata_sc\.obs"):
        by_clusters(cells, "typ")


def test_archives_and_seeds(tmp_path):
    model = trained(constrained=True)
    np.testing.assert_array_equal(trained(constrained=True).get_mapper_matrix(), model.get_mapper_matrix())
    assert set(model.module.state_dict()) == {"mapper_unconstrained", "filter_unconstrained"}
    model.save(str(tmp_path / "model"))
    again = Tangram.load(str(tmp_path / "model"), together(), accelerator="cpu")
    np.testing.assert_array_equal(again.get_mapper_matrix(), model.get_mapper_matrix())
    again.train(**TRAIN)
    assert np.abs(again.get_mapper_matrix() - model.get_mapper_matrix()).max() < 0.2  # it went on
    bare = Tangram.load(str(tmp_path / "model"), False, accelerator="cpu")
    np.testing.assert_array_equal(bare.get_mapper_matrix(), model.get_mapper_matrix())
    with pytest.raises(ValueError, match="loaded without data"):
        bare.train(**TRAIN)


def _reconstruct_array(*parts):
    """Stands for JAX's function of this name, by which its arrays are pickled."""
    raise AssertionError(f"{parts} were run")


def _as_jax(array):
    function, arguments, state = array.__reduce__()
    return Reduced(_reconstruct_array, function, arguments, state, {"weak_type": False, "named_shape": {}})


def save_as_jax(model, folder, array=_as_jax):
    """An archive as scvi-tools 1.4.2 writes it: the state of flax, with optax's moments, and not said to be trained."""
    weights = {name: weight.numpy() for name, weight in model.module.state_dict().items()}
    moments = {"0": {"count": array(np.int32([3])), "mu": {n: array(w) for n, w in weights.items()}}, "1": {}}
    state = {"step": array(np.array(3, np.int32)), "params": {n: array(w) for n, w in weights.items()}}
    attributes = {"registry_": model.registry_, "init_params_": model.init_params_, "is_trained_": False}
    content = {
        "model_state_dict": state | {"opt_state": moments, "state": {}, "pyro_param_store": {}},
        "var_names": {name: np.array(model.adata[name].var_names, dtype=object) for name in ("sc", "sp")},
        "attr_dict": attributes | {"history_": {}, "train_indices_": None, "validation_indices_": None},
    }
    here = f"c{__name__}\n_reconstruct_array\n".encode()
    pickled = pickle.dumps(content, 2)
    assert here in pickled
    folder.mkdir()
    pickled = pickled.replace(here, b"cjax._src.array\n_reconstruct_array\n")
    (folder / "model.pt").write_bytes(torch_zip(pickled))


@pytest.mark.parametrize("density", ["uniform", None])
@pytest.mark.parametrize("mode", [{}, {"constrained": True, "target_count": 9}])
def test_archives_of_jax_are_read(density, mode, tmp_path):
    model = trained(density=density, **mode)
    save_as_jax(model, tmp_path / "jax")
    again = Tangram.load(str(tmp_path / "jax"), model.adata, accelerator="cpu")
    logits = model.module.mapper_unconstrained.detach().double().numpy()
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(again.get_mapper_matrix(), wanted / wanted.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(again.get_cell_filter(), model.get_cell_filter())
    assert again.module({})[2].loss == model.module({})[2].loss
    again.train(**TRAIN)
    again.save(str(tmp_path / "own"))
    own = Tangram.load(str(tmp_path / "own"), model.adata, accelerator="cpu")
    np.testing.assert_array_equal(own.get_mapper_matrix(), again.get_mapper_matrix())


@pytest.mark.parametrize("reason", ["unknown way", "not the five values"])
def test_a_jax_array_is_nothing_else(reason, tmp_path):
    """What stands for the array is neither run nor trusted."""

    def array(numbers):
        function, arguments, state = numbers.__reduce__()
        parts = (print, ("run",), state) if reason == "unknown way" else (function, arguments, (1, 2))
        return Reduced(_reconstruct_array, *parts, {})

    model = trained()
    save_as_jax(model, tmp_path / "jax", array)
    with pytest.raises(ArchiveError, match=reason):
        Tangram.load(str(tmp_path / "jax"), model.adata)


def test_the_learning_rate_is_used():
    """The first step of Adam moves every weight by the learning rate."""
    mdata = together()
    Tangram.setup_mudata(mdata, modalities=WHERE)
    model = Tangram(mdata)
    before = model.module.mapper_unconstrained.detach().clone()
    model.train(**(TRAIN | {"max_epochs": 1}), recipe="classic")
    moved = (model.module.mapper_unconstrained.detach() - before).abs()
    assert float(moved.median()) == pytest.approx(0.1, rel=1e-3)


def test_what_cannot_be_mapped():
    with pytest.raises(NotImplementedError, match="setup_mudata"):
        Tangram.setup_anndata()
    with pytest.raises((ArgumentError, ValueError), match="modalities"):
        Tangram.setup_mudata(together(), modalities={"sp_layer": "sp"})
    cells, spots = tables()
    mdata = together(cells, spots[:, :-2].copy())
    Tangram.setup_mudata(mdata, modalities=WHERE)
    with pytest.raises(ArgumentError, match="The spots lack 2 genes"):
        Tangram(mdata)
    mdata = together()
    mdata.mod["sp"].obs["mass"] = np.linspace(0, 1, 15)
    Tangram.setup_mudata(mdata, density_prior_key="mass", modalities=WHERE)
    with pytest.raises(ArgumentError, match=r"must sum to 1, it sums to 7\.5"):
        Tangram(mdata)
    model = trained()
    for labels, mapper, said in (
        (cells.obs["type"][:-1], model.get_mapper_matrix(), "labels has 23 values, adata_sc 24 cells"),
        (cells.obs["type"], model.get_mapper_matrix().T, r"mapper has shape \(15, 24\)"),
    ):
        with pytest.raises(ArgumentError, match=said):
            model.project_cell_annotations(cells, spots, mapper, labels)


def test_shares_of_real_mixtures(shared_dir):
    """Wells of nine cells of three lines in known numbers; by non-negative least squares the RMSE is 0.173."""
    folder = shared_dir / "data"
    if not (folder / "mixtures_9cells.h5ad").exists():
        pytest.skip("no mixtures_9cells.h5ad in 'shared/data'")
    cells, spots = (ad.read_h5ad(folder / f"mixtures_9cells{end}.h5ad") for end in ("_reference", ""))
    spots.obs_names = "well_" + spots.obs_names
    x, y = (table.X.toarray() / table.X.sum(1).reshape(-1, 1) * 1e4 for table in (cells, spots))
    lines = sorted(cells.obs["cell_line"].unique())
    log_mean = np.log2([np.asarray(x)[cells.obs["cell_line"] == line].mean(0) + 0.5 for line in lines])
    others = [np.delete(log_mean, i, 0).max(0) for i in range(3)]
    markers = np.unique([np.argsort(other - own)[:200] for own, other in zip(log_mean, others, strict=True)])
    names = pd.DataFrame(index=cells.var_names[markers])
    sc = ad.AnnData(np.asarray(x)[:, markers].astype(np.float32), cells.obs[["cell_line"]], names.copy())
    sp = ad.AnnData(np.asarray(y)[:, markers].astype(np.float32), spots.obs[[]], names.copy())
    clusters = by_clusters(sc, "cell_line")
    sizes = clusters.obs["n_cells"].to_numpy()
    model = trained(together(clusters, sp), "uniform", {"max_epochs": 100}, cell_weights=sizes)
    found = model.get_mapper_matrix().T * sizes
    shares, true = found / found.sum(1, keepdims=True), spots.obsm["proportions"][lines].to_numpy()
    assert np.sqrt(((shares - true) ** 2).mean()) < 0.16


def test_places_of_real_types_hang_together(shared_dir):
    """Of the mass of CA1, CA3 and dentate cells on spots with a fifth of the most or more, 0.7 lies in one piece.

    Least squares by types find no CA1 at all.
    """
    folder = shared_dir / "data"
    if not (folder / "spatial_hippocampus_visium.h5ad").exists():
        pytest.skip("no spatial_hippocampus_visium.h5ad in 'shared/data'")
    spots, cells = (ad.read_h5ad(folder / f"spatial_hippocampus_{end}.h5ad") for end in ("visium", "reference"))
    names = pd.DataFrame(index=[gene for gene in spots.var_names if gene in set(cells.var_names)])
    tables = []
    for table in (cells, spots):
        x = table[:, names.index].X.toarray()
        obs = pd.DataFrame(index=[f"{len(table)}_{name}" for name in table.obs_names])
        x = 1e4 * x / np.maximum(x.sum(1, keepdims=True), 1)
        tables.append(ad.AnnData(x.astype(np.float32), obs, names.copy()))
    model = trained(together(*tables), "rna_count_based", {"max_epochs": 100})
    mapper = model.get_mapper_matrix()
    tree = cKDTree(spots.obsm["spatial"])
    pairs = tree.query_pairs(1.3 * np.median(tree.query(spots.obsm["spatial"], 2)[0][:, 1]), output_type="ndarray")
    for name in ("CA1", "CA3", "Denate"):
        mass_s = mapper[(cells.obs["cell_type"] == name).to_numpy()].sum(0)
        near = pairs[(mass_s >= mass_s.max() / 5)[pairs].all(1)]
        graph = coo_matrix((np.ones(len(near)), near.T), (len(mass_s), len(mass_s)))
        on, piece_s = mass_s >= mass_s.max() / 5, connected_components(graph, directed=False)[1]
        assert np.bincount(piece_s[on], mass_s[on]).max() / mass_s[on].sum() >= 0.7, name
