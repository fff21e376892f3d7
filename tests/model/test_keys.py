"""``key_added=``: what a verb answers is written into the data too, where it belongs, and nothing else is."""

import inspect
from collections.abc import Mapping

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.train.test_resume_everything import MODELS, untrained

import celbo
from celbo.data import synthetic_iid
from celbo.verbs.keys import keep

ASKED_WITH = {
    "get_elbo": {"return_mean": False},
    "get_marginal_ll": {"return_mean": False, "n_mc_samples": 4, "n_mc_samples_per_pass": 4},
    "get_reconstruction_error": {"return_mean": False},
    "get_composition_error": {"return_mean": False},
    "get_niche_error": {"return_mean": False},
    "get_latent_library_size": {"give_mean": False},
    "get_directional_uncertainty": {"n_samples": 4},
    "get_extrinsic_uncertainty": {"n_samples": 4, "n_neighbors": 10},
    "get_specific_normalized_methylation": {"context": "mCG"},
    "get_specific_normalized_expression": {"expression_type": "salient"},
    "get_scale_for_ct": {"label": "label_0"},
    "get_state_assignment": {"n_samples": 2},
    "get_outlier_cell_sample_pairs": {"subsample_size": 20},
}
"""Verb -> arguments with which it has a row for each cell, soon."""

NAMES = {
    "get_normalized_expression": ["rna", "protein"],
    "get_expression_fit": ["spliced", "unspliced"],
    "get_directional_uncertainty": ["", "cosines"],
    "get_extrinsic_uncertainty": ["", "cosines"],
    "get_state_assignment": [""],
}
"""Verb -> what the parts of its answer are called."""

UNANSWERED = {
    "differential_expression": "MRVI TorchMRVI",  # the samples of the example have no covariates; see TestSamples
    "get_batch_representation": "SCVI DRVI SCVIVA JointEmbeddingSCVI",  # those of the examples embed no batches
    "get_elbo": "CellAssign",
    "get_fine_celltypes": "DestVI",  # those of the example have no fine labels
    "get_latent_library_size": "PEAKVI CYTOVI CellAssign SysVI",
    "get_latent_representation": "DestVI",  # that of the example amortizes nothing
    "get_likelihood_parameters": "SCAR TOTALVI TOTALANVI",
    "get_marginal_ll": "MULTIVI PEAKVI CondSCVI MRVI TorchMRVI RESOLVI VELOVI SysVI",
    "get_tf_activity": "SCBASSET",  # its motifs lie in files
    "posterior_predictive_sample": "SysVI MRVI TorchMRVI CellAssign RESOLVI",
    "predict": "CondSCVI",  # that of the example has no fine labels
}
"""Verb -> models that have the method and no answer."""

NO_ROW_EACH = {
    "compute_dataset_dependent_priors": "numbers for a constructor",
    "compute_decipher_time": "of clusters along a trajectory, without the model",
    "compute_gene_patterns": "of genes",
    "confusion_coarse_celltypes": "of labels",
    "create_doublets": "simulates cells",
    "data_registry": "a registry",
    "decoder_for": "arguments of a module",
    "differential_abundance": "writes into the data by itself, or has a value for each pair of cell and sample",
    "differential_accessibility": "of regions",
    "differential_expression": "of genes",
    "differential_methylation": "of regions",
    "differential_niche_abundance": "of niches",
    "get_alphas_betas": "of genes",
    "get_anndata_manager": "a manager",
    "get_cell_filter": "of single cells, which the MuData of a mapping holds beside the spots",
    "get_embedding": "an AnnData of its own",
    "get_expression_for_ct": "of the spots that have enough of a cell type",
    "get_feature_by_topic": "of genes",
    "get_feature_correlation_matrix": "of genes",
    "get_from_registry": "an array of the data themselves",
    "get_importance_weights": "of draws",
    "get_interpretability_scores": "of latents",
    "get_loadings": "of genes",
    "get_mapper_matrix": "of pairs of cell and spot",
    "get_permutation_scores": "of genes",
    "get_presence_report": "of batches",
    "get_ranked_features": "of genes",
    "get_rates": "of genes",
    "get_region_factors": "of regions",
    "get_setup_arg": "an argument",
    "get_top_genes": "of genes",
    "get_vamp_prior": "of pseudo-inputs",
    "get_var_names": "of genes",
    "impute_categories_from_reference": "by neighbours in another data set",
    "impute_rna_from_reference": "an AnnData of its own",
    "load_registry": "a registry",
    "prepare_query_anndata": "an AnnData",
    "prepare_query_mudata": "a MuData",
    "preprocessing_query_anndata": "an AnnData",
    "project_cell_annotations": "of spots, which the MuData of a mapping holds beside single cells",
    "project_genes": "an AnnData of its own",
    "sample_posterior": "draws",
    "shap_adata_predict": "of genes, for each label",
    "shap_predict": "of genes, for each label",
    "transfer_fields": "an AnnData",
}
"""Verb of arrays -> why it offers no key, in any model."""

ABOUT_AN_ARRAY = {"SpatialStereoscope": {"get_scale_for_ct"}}
"""Model -> verbs about an array instead of data."""

OF_OTHER_DATA = {"GIMVI", "DIAGVI", "SOLO"}
"""Models of several data sets, or of copies of cells; see ``TestOtherData``."""


def verbs_of(cls, with_key=True):
    """Methods that take the key, or do not, by their signature."""
    return [
        name
        for name, method in inspect.getmembers(cls, inspect.isroutine)
        if not name.startswith("_") and ("key_added" in inspect.signature(method).parameters) == with_key
    ]


def ask(model, verb, **options):
    method = getattr(model, verb)
    takes = inspect.signature(method).parameters
    more = {"seed": 3} if "seed" in takes or ("kwargs" in takes and verb == "get_normalized_expression") else {}
    return method(**options, **more, **ASKED_WITH.get(verb, {}))


def homes_of(data):
    """Place -> what holds tables there; of a MuData also the layers of each modality."""
    homes = {"obs": data.obs, "obsm": data.obsm, "var": data.var, "varm": data.varm}
    if hasattr(data, "mod"):
        return homes | {f"layers of {name}": one.layers for name, one in data.mod.items()}
    return homes | {"layers": data.layers}


def names_in(data):
    return {(place, key) for place, home in homes_of(data).items() for key in home}


def numbers(value):
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if type(value).__module__.partition(".")[0] == "sparse":
        return value.todense()
    return value.toarray() if sp.issparse(value) else np.asarray(value)


def parts_of(verb, answer):
    """The key of each part of an answer -> the part."""
    if isinstance(answer, Mapping):
        return {f"kept_{name}": one for name, one in answer.items()}
    if isinstance(answer, tuple):
        return {f"kept_{name}".rstrip("_"): one for name, one in zip(NAMES[verb], answer)}
    return {"kept": answer}


def may_lie_in(data, verb, table):
    """Where a table belongs, by its shape and the names of its columns."""
    of_cells = "obs" if table.shape[0] == data.n_obs else "var"
    if table.ndim == 1 or verb == "get_latent_library_size":
        return {of_cells}
    if table.ndim == 3:
        return {f"{of_cells}m"}
    mods = {f"layers of {name}": one for name, one in data.mod.items()} if hasattr(data, "mod") else {"layers": data}
    if isinstance(table, pd.DataFrame):
        return {name for name, one in mods.items() if list(one.var_names) == list(table)} or {f"{of_cells}m"}
    if verb in ("get_likelihood_parameters", "get_denoised_counts", "compute_imputed_gene_expression"):
        return {"layers"}
    if verb == "posterior_predictive_sample":
        return set(mods) | {"obsm"}
    return {f"{of_cells}m"}


@pytest.mark.parametrize("name", sorted(MODELS.keys() - OF_OTHER_DATA))
def test_every_verb_writes_what_it_returns(name):
    model, given, named = untrained(MODELS[name])
    model.train(*given, **named)
    for verb in verbs_of(MODELS[name]):
        if name in UNANSWERED.get(verb, "").split():
            continue
        before = names_in(model.adata)
        silent = parts_of(verb, ask(model, verb))
        assert names_in(model.adata) == before
        returned = parts_of(verb, ask(model, verb, key_added="kept"))
        added = names_in(model.adata) - before
        assert sorted(key for _, key in added) == sorted(returned), verb
        for place, key in added:
            home = homes_of(model.adata)[place]
            assert place in may_lie_in(model.adata, verb, returned[key]), verb
            for answer in (returned[key], silent[key]):
                assert np.array_equal(numbers(home[key]).ravel(), numbers(answer).ravel()), verb
            assert model.adata.uns["celbo"][key]["by"] == verb
            assert model.adata.uns["celbo"][key]["model"] == name
            del home[key]


@pytest.mark.parametrize("name", MODELS)
def test_every_verb_of_rows_offers_a_key(name):
    gives = ("ndarray", "DataFrame", "Series", "Tensor", "Any", "AnnData")
    methods = {verb: getattr(MODELS[name], verb) for verb in verbs_of(MODELS[name], with_key=False)}
    without = {
        verb
        for verb, method in methods.items()
        if any(kind in str(inspect.signature(method).return_annotation) for kind in gives)
        and "raises a ``NotImplementedError``" not in (inspect.getdoc(method) or "")
    }
    assert without - NO_ROW_EACH.keys() == ABOUT_AN_ARRAY.get(name, set())


def test_the_argument_is_the_last_one_and_by_keyword():
    for cls in MODELS.values():
        for verb in verbs_of(cls):
            takes = inspect.signature(getattr(cls, verb)).parameters.values()
            own = [one for one in takes if one.kind != one.VAR_KEYWORD]
            assert own[-1].name == "key_added", f"{cls.__name__}.{verb}"
            assert own[-1].kind == own[-1].KEYWORD_ONLY
            assert own[-1].default is None


@pytest.fixture(scope="module")
def fitted():
    adata = synthetic_iid(batch_size=30, n_genes=20, n_proteins=0, n_regions=0, seed=0)
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = celbo.model.SCVI(adata, n_hidden=8, n_latent=3)
    model.train(max_epochs=2, seed=0, verbose=0)
    return model


@pytest.fixture
def adata(fitted):
    """Cells like those of the training, which nothing was written to."""
    return synthetic_iid(batch_size=30, n_genes=20, n_proteins=0, n_regions=0, seed=1)


class TestWhere:
    def test_arguments_are_noted(self, fitted, adata):
        how = {"transform_batch": "batch_0", "library_size": 1e4, "seed": 0}
        fitted.get_normalized_expression(adata, **how, key_added="denoised")
        notes = adata.uns["celbo"]["denoised"]
        assert (how | {"by": "get_normalized_expression"}).items() <= notes.items()
        assert notes["epochs"] == 2
        assert notes["elbo_validation"] == fitted.history["elbo_validation"].to_numpy().min()
        assert "adata" not in notes

    def test_an_array_goes_where_the_frame_goes(self, fitted, adata):
        given = fitted.get_normalized_expression(adata, return_numpy=True, seed=0, key_added="denoised")
        assert type(given) is np.ndarray
        assert np.array_equal(given, fitted.get_normalized_expression(adata, return_numpy=True, seed=0))
        assert np.array_equal(adata.layers["denoised"], given)

    def test_some_genes_are_a_table_with_their_names(self, fitted, adata):
        given = fitted.get_normalized_expression(adata, gene_list=["gene_7", "gene_2"], seed=0, key_added="two")
        pd.testing.assert_frame_equal(adata.obsm["two"], given)
        assert "two" not in adata.layers

    def test_genes_in_another_order(self, fitted, adata):
        turned = adata[:, ::-1].copy()
        given = fitted.get_normalized_expression(turned, seed=0, key_added="denoised")
        assert list(given.columns) == list(adata.var_names)
        assert np.array_equal(turned.layers["denoised"][:, ::-1], given)

    def test_mean_and_variance(self, fitted, adata):
        mean, variance = fitted.get_latent_representation(adata, return_dist=True, key_added="X_z")
        assert np.array_equal(adata.obsm["X_z_mean"], mean)
        assert np.array_equal(adata.obsm["X_z_variance"], variance)
        assert "X_z" not in adata.obsm

    def test_a_view_becomes_an_object_of_its_own(self, fitted, adata):
        view = adata[5:25]
        with pytest.warns(UserWarning, match="Received a view"):
            given = fitted.get_latent_representation(view, key_added="X_z")
        assert not view.is_view
        assert np.array_equal(view.obsm["X_z"], given)
        assert given.shape == (20, 3)
        assert "X_z" not in adata.obsm

    @pytest.mark.parametrize("opened", ["backed", "streamed"])
    def test_cells_on_disk(self, fitted, adata, tmp_path, opened):
        path = tmp_path / "cells.h5ad"
        adata.X = sp.csr_matrix(adata.X)
        adata.write_h5ad(path)
        held = path.read_bytes()
        if opened == "backed":
            there = anndata.read_h5ad(path, backed="r")
        else:
            there = celbo.data.open(path, stream=True)
        latent = fitted.get_latent_representation(there, key_added="X_z")
        denoised = fitted.get_normalized_expression(there, seed=0, key_added="denoised")
        size = fitted.get_latent_library_size(there, give_mean=False, key_added="depth")
        assert np.array_equal(there.obsm["X_z"], latent)
        assert np.array_equal(there.layers["denoised"], denoised)
        assert np.array_equal(there.obs["depth"], size.ravel())
        assert np.allclose(latent, fitted.get_latent_representation(adata), atol=1e-5)
        if opened == "backed":
            there.file.close()
        assert path.read_bytes() == held

    def test_written_and_read(self, fitted, adata, tmp_path):
        fitted.get_latent_representation(adata, key_added="X_z")
        both = ["batch_0", "batch_1"]
        fitted.get_normalized_expression(adata, gene_list=["gene_3"], transform_batch=both, key_added="one")
        adata.write_h5ad(tmp_path / "cells.h5ad")
        back = anndata.read_h5ad(tmp_path / "cells.h5ad")
        assert np.array_equal(back.obsm["X_z"], adata.obsm["X_z"])
        assert list(back.obsm["one"].columns) == ["gene_3"]
        assert list(back.uns["celbo"]["one"]["transform_batch"]) == both

    def test_draws_lie_behind_the_genes_of_each_cell(self, fitted, adata, tmp_path):
        sixty = {"n_samples": 60, "seed": 0}  # as many as cells: no shape tells which is which
        given = fitted.get_normalized_expression(adata, return_mean=False, key_added="draws", **sixty)
        sampled = fitted.posterior_predictive_sample(adata, n_samples=2, seed=0, key_added="counts")
        assert given.shape == (60, 60, 20)
        adata.write_h5ad(tmp_path / "cells.h5ad")
        for back in (anndata.read_h5ad(tmp_path / "cells.h5ad"), anndata.read_h5ad(tmp_path / "cells.h5ad", "r")):
            assert np.array_equal(back.obsm["draws"], given.transpose(1, 2, 0))
            assert np.array_equal(back.obsm["counts"], sampled.todense())
            assert np.array_equal(back[5:7].to_memory().obsm["draws"], given[:, 5:7].transpose(1, 2, 0))

    def test_drawn_counts_are_a_layer(self, fitted, adata):
        drawn = fitted.posterior_predictive_sample(adata, seed=0, key_added="drawn")
        assert sp.issparse(adata.layers["drawn"])
        assert np.array_equal(adata.layers["drawn"].toarray(), drawn.todense())

    def test_drawn_counts_of_all_genes_in_another_order(self, fitted, adata):
        backwards = list(adata.var_names[::-1])
        drawn = fitted.posterior_predictive_sample(adata, gene_list=backwards, seed=0, key_added="drawn")
        assert "drawn" not in adata.layers
        assert np.array_equal(adata.obsm["drawn"].toarray(), drawn.todense())


class TestSamples:
    @pytest.fixture
    def model(self):
        pytest.importorskip("xarray")
        adata = synthetic_iid(batch_size=30, n_genes=20, n_proteins=0, n_regions=0, seed=0)
        adata.obs["sample"] = [f"sample_{n % 4}" for n in range(60)]
        adata.obs["treated"] = [f"{n % 2}" for n in range(60)]
        celbo.external.MRVI.setup_anndata(adata, sample_key="sample")
        model = celbo.external.MRVI(adata, n_latent=4, n_latent_u=3)
        model.train(max_epochs=1, seed=0, verbose=0)
        model.update_sample_info(adata)
        return model

    def test_each_cell_in_each_sample(self, model, tmp_path):
        z = model.get_local_sample_representation(key_added="X_z")
        apart = model.get_local_sample_distances(groupby="treated", key_added="apart")
        model.adata.write_h5ad(tmp_path / "cells.h5ad")
        back = anndata.read_h5ad(tmp_path / "cells.h5ad")
        assert np.array_equal(back.obsm["X_z"], z.values)
        assert np.array_equal(back.obsm["apart_cell"], apart["cell"].values)
        assert not any("treated" in key for key in back.obsm)
        assert list(back.uns["celbo"]["X_z"]["sample"]) == [f"sample_{n}" for n in range(4)]
        assert list(back.uns["celbo"]["apart_cell"]["sample_y"]) == [f"sample_{n}" for n in range(4)]

    def test_effects_of_covariates(self, model):
        found = model.differential_expression(sample_cov_keys=["treated"], mc_samples=2, key_added="de")
        assert np.array_equal(model.adata.obsm["de_beta"], found["beta"].values)
        assert model.adata.obsm["de_beta"].shape == (60, 1, 4)
        assert list(model.adata.uns["celbo"]["de_pvalue"]["covariate"]) == list(found["covariate"].values)

    def test_nothing_of_cells_was_asked(self, model):
        with pytest.raises(ValueError, match="a row for each cell: cell, which was not asked"):
            model.get_local_sample_distances(groupby="treated", keep_cell=False, key_added="apart")


class TestLabels:
    @pytest.fixture
    def model(self):
        adata = synthetic_iid(batch_size=30, n_genes=20, n_proteins=0, n_regions=0, seed=0)
        celbo.model.SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="label_0", batch_key="batch")
        model = celbo.model.SCANVI(adata, n_hidden=8, n_latent=3)
        model.train(max_epochs=2, seed=0, verbose=0)
        return model

    def test_labels_are_categories(self, model):
        given = model.predict(key_added="found")
        assert isinstance(model.adata.obs["found"].dtype, pd.CategoricalDtype)
        assert list(model.adata.obs["found"]) == list(given)

    def test_probabilities_have_the_names_of_labels(self, model, tmp_path):
        given = model.predict(soft=True, key_added="sure")
        pd.testing.assert_frame_equal(model.adata.obsm["sure"], given)
        model.adata.write_h5ad(tmp_path / "cells.h5ad")

    def test_what_the_model_reads_is_not_written_over(self, model):
        before = model.adata.obs["labels"].copy()
        with pytest.raises(ValueError, match="key_added='labels' is what the model reads"):
            model.predict(key_added="labels")
        pd.testing.assert_series_equal(model.adata.obs["labels"], before)


class TestRefused:
    @pytest.mark.parametrize("some", [{"indices": [3, 1]}, {"dataloader": []}])
    def test_some_of_the_cells(self, fitted, adata, some):
        with pytest.raises(ValueError, match=f"{next(iter(some))}= asks about some: leave"):
            fitted.get_latent_representation(key_added="X_z", **some)

    def test_draws_from_all_cells_together(self, fitted):
        with pytest.raises(ValueError, match="n_samples_overall= asks about some"):
            fitted.get_normalized_expression(n_samples_overall=60, key_added="denoised")

    def test_a_number_for_all_cells(self, fitted, adata):
        with pytest.raises(ValueError, match="a row for each of 60 cells, and this answer is one number"):
            fitted.get_elbo(adata, key_added="fit")

    @pytest.mark.parametrize("wrong", [3, ["X_z"]])
    def test_no_name(self, fitted, wrong):
        with pytest.raises(ValueError, match="key_added must be text"):
            fitted.get_latent_representation(key_added=wrong)

    def test_a_model_without_data(self, fitted, tmp_path):
        fitted.save(tmp_path / "model")
        alone = celbo.model.SCVI.load(tmp_path / "model", adata=False)
        with pytest.raises(ValueError, match="loaded without data: pass adata="):
            alone.get_latent_representation(key_added="X_z")

    def test_the_nearest_name(self, fitted):
        with pytest.raises(TypeError, match="Did you mean 'key_added'"):
            fitted.get_marginal_ll(key_addet="fit")


class TestSparse:
    def test_probabilities_above_a_threshold(self):
        adata = synthetic_iid(batch_size=30, n_genes=20, n_proteins=0, n_regions=0, seed=0)
        celbo.model.PEAKVI.setup_anndata(adata)
        model = celbo.model.PEAKVI(adata, n_hidden=8, n_latent=3)
        model.train(max_epochs=2, seed=0, verbose=0)
        given = model.get_normalized_accessibility(threshold=0.6, key_added="open")
        as_array = model.get_normalized_accessibility(threshold=0.6, return_numpy=True, key_added="again")
        plain = model.get_normalized_accessibility(threshold=0.6, return_numpy=True)
        assert sp.issparse(as_array)
        assert as_array.dtype == plain.dtype
        for kept in (adata.layers["open"], adata.layers["again"], as_array):
            assert sp.issparse(kept)
            assert np.array_equal(kept.toarray(), plain.toarray())
        assert np.array_equal(given.to_numpy(), plain.toarray())
        model.get_normalized_accessibility(threshold=0.6, region_list=["gene_3"], key_added="one")
        assert np.array_equal(adata.obsm["one"]["gene_3"], plain.toarray()[:, 3])


class TestMuData:
    @pytest.fixture
    def model(self, mudata_pulls_nothing):
        mudata = pytest.importorskip("mudata")
        both = synthetic_iid(batch_size=30, n_genes=20, n_proteins=6, n_regions=0, seed=0)
        names = [f"protein_{p}" for p in range(6)]
        protein = anndata.AnnData(
            np.asarray(both.obsm["protein_expression"], np.float32), both.obs[[]], pd.DataFrame(index=names)
        )
        mdata = mudata.MuData({"rna": both, "protein": protein})
        mdata.obs["batch"] = both.obs["batch"]
        celbo.model.TOTALVI.setup_mudata(
            mdata, batch_key="batch", modalities={"rna_layer": "rna", "protein_layer": "protein"}
        )
        model = celbo.model.TOTALVI(mdata, n_latent=3)
        model.train(max_epochs=2, seed=0, verbose=0)
        return model

    def test_each_modality_gets_its_own(self, model):
        rna, protein = model.get_normalized_expression(seed=0, key_added="denoised")
        assert np.array_equal(model.adata["rna"].layers["denoised_rna"], rna)
        assert np.array_equal(model.adata["protein"].layers["denoised_protein"], protein)

    def test_all_cells_share_what_is_of_cells(self, model):
        latent = model.get_latent_representation(key_added="X_z")
        size = model.get_latent_library_size(give_mean=False, key_added="depth")
        assert np.array_equal(model.adata.obsm["X_z"], latent)
        assert np.array_equal(model.adata.obs["depth"], size.ravel())
        assert model.adata.uns["celbo"]["X_z"]["model"] == "TOTALVI"

    def test_a_modality_with_its_cells_in_another_order(self, model):
        mdata = model.adata.copy()
        mdata.mod["protein"] = mdata["protein"][::-1].copy()
        foreground = pd.DataFrame(np.arange(360).reshape(60, 6), mdata.obs_names, mdata["protein"].var_names)
        keep(mdata, "foreground", foreground, "features")
        assert np.array_equal(mdata["protein"].layers["foreground"], foreground[::-1])

    def test_a_modality_that_lacks_cells_stays_as_it_is(self, model):
        mdata = model.adata.copy()
        mdata.mod["protein"] = mdata["protein"][:40].copy()
        mdata.update()
        names = list(mdata["protein"].var_names)
        keep(mdata, "foreground", pd.DataFrame(np.ones((60, 6)), mdata.obs_names, names), "features")
        assert list(mdata.obsm["foreground"].columns) == names
        assert "foreground" not in mdata["protein"].layers

    def test_a_view(self, model):
        with pytest.raises(ValueError, match=r"take mdata\[...\].copy\(\) of it"):
            model.get_latent_representation(model.adata[:20], key_added="X_z")


class TestOtherData:
    def test_each_of_two_data_sets_gets_its_own(self):
        model, given, named = untrained(celbo.external.GIMVI)
        model.train(*given, **named)
        latents = model.get_latent_representation(key_added="X_z")
        imputed = model.get_imputed_values(seed=0, key_added="imputed")
        for adata, latent, values in zip(model.adatas, latents, imputed, strict=True):
            assert np.array_equal(adata.obsm["X_z"], latent)
            assert np.array_equal(adata.obsm["imputed"], values)
            assert adata.uns["celbo"]["X_z"]["model"] == "GIMVI"
        (alone,) = model.get_latent_representation([model.adatas[1]], key_added="X_again")
        assert np.array_equal(model.adatas[1].obsm["X_again"], alone)
        assert "X_again" not in model.adatas[0].obsm
        spatial = model.get_normalized_expression(model.adatas[1], seed=0, key_added="denoised")
        assert np.array_equal(model.adatas[1].layers["denoised"], spatial)
        assert "denoised" not in model.adatas[0].layers

    def test_modalities_by_name(self):
        model, given, named = untrained(celbo.external.DIAGVI)
        model.train(*given, **named)
        latents = model.get_latent_representation(key_added="X_z")
        assert all(np.array_equal(model.adatas[name].obsm["X_z"], latent) for name, latent in latents.items())
        first, second = model.set_names
        copied = model.adatas[second].copy()
        found = model.get_latent_representation({second: copied}, key_added="X_copied")
        assert np.array_equal(copied.obsm["X_copied"], found[second])
        imputed = model.get_imputed_values(first, seed=0, key_added="imputed")
        assert np.array_equal(model.adatas[first].obsm["imputed"], imputed)
        labelled = next(name for name, has in model.module.has_labels.items() if has)
        other = next(name for name in model.set_names if name != labelled)
        labels = model.predict_celltype(labelled, seed=0, key_added="label")
        adata = model.adatas[other]
        assert list(adata.obs["label_predictions"]) == list(labels["predictions"])
        assert np.array_equal(adata.obsm["label_probabilities"], labels["probabilities"])
        assert np.array_equal(adata.obs["label_confidence"], labels["confidence"])
        with pytest.raises(ValueError, match="indices= asks about some"):
            model.get_latent_representation(indices={first: [0]}, key_added="X_z")

    def test_doublets_of_each_batch_side_by_side(self, fitted):
        adata = fitted.adata.copy()
        quick = {"max_epochs": 1, "seed": 0, "verbose": 0}
        soft, hard = [], []
        for n_done, batch in enumerate(("batch_0", "batch_1"), start=1):
            solo = celbo.external.SOLO.from_scvi_model(fitted, restrict_to_batch=batch)
            solo.train(**quick)
            soft.append(solo.predict(into=adata, key_added="doublet"))
            hard.append(solo.predict(soft=False, into=adata, key_added="kind"))
            assert adata.obsm["doublet"]["doublet"].notna().sum() == 30 * n_done
            assert adata.obs["kind"].notna().sum() == 30 * n_done
        pd.testing.assert_frame_equal(adata.obsm["doublet"], pd.concat(soft).loc[adata.obs_names])
        assert list(adata.obs["kind"]) == list(pd.concat(hard).loc[adata.obs_names])
        with pytest.raises(ValueError, match="no cell 'sim_doublet_"):
            solo.predict(include_simulated_doublets=True, into=adata, key_added="all")
        with pytest.raises(ValueError, match="pass into="):
            solo.predict(key_added="doublet")
