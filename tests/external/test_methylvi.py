"""METHYLVI and METHYLANVI: methylated reads of several contexts; scvi-tools' archives and their figures."""

import subprocess

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from celbo.core.rules import SCVI_TOOLS, followed
from celbo.data import simulate_methylation
from celbo.external import METHYLANVI, METHYLVI
from celbo.external.methylvi import METHYLVAE
from celbo.model.base import export_archive
from celbo.ops.random import own_rng

mudata = pytest.importorskip("mudata")

REGIONS = {"mCG": 30, "mCH": 20}
SETUP = {"mc_layer": "mc", "cov_layer": "cov", "methylation_contexts": ["mCG", "mCH"], "batch_key": "batch"}
SMALL = {"n_hidden": 16, "n_latent": 4}
QUIET = {"verbose": 0, "seed": 0, "accelerator": "cpu"}


def cells(n_cells=120, **options):
    mdata = simulate_methylation(n_cells, REGIONS, n_cell_types=3, **({"differing": 0.7, "coverage": 12} | options))
    hidden = np.arange(n_cells) % 4 > 0
    mdata.obs["seen"] = np.where(hidden, "unknown", mdata.obs["cell_type"].astype(str))
    mdata.obs["donor"] = np.array(["d0", "d1", "d2"])[np.arange(n_cells) % 3]
    return mdata


def write(mdata, path):
    with mudata.set_options(pull_on_update=False):
        mdata.write_h5mu(path)


def made(mdata, setup=SETUP, **init):
    METHYLVI.setup_mudata(mdata, **setup)
    return METHYLVI(mdata, **(SMALL | init))


@pytest.fixture(scope="module")
def model():
    model = made(cells())
    model.train(max_epochs=120, batch_size=32, **QUIET)
    return model


def raw(mdata, context):
    reads = mdata[context].layers["cov"].toarray().astype(float)
    return mdata[context].layers["mc"].toarray() / np.where(reads > 0, reads, np.nan), reads > 0


class TestShares:
    def test_nearer_to_the_truth_than_reads(self, model):
        share = model.get_normalized_methylation(return_numpy=True)
        for context in REGIONS:
            of_reads, seen = raw(model.adata, context)
            truth = model.adata[context].layers["share"]
            ours, theirs = (np.corrcoef(x[seen], truth[seen])[0, 1] for x in (share[context], of_reads))
            assert ours > theirs + 0.1

    def test_regions_samples_and_one_context(self, model):
        some = model.get_normalized_methylation(region_list=["mCG_3", "mCG_1", "mCH_0"], indices=[5, 2])
        assert [list(table.columns) for table in some.values()] == [["mCG_1", "mCG_3"], ["mCH_0"]]
        assert list(some["mCG"].index) == ["cell_5", "cell_2"]
        assert list(model.get_normalized_methylation(region_list=["mCH_0"])) == ["mCH"]
        draws = model.get_specific_normalized_methylation(context="mCH", n_samples=3, return_mean=False)
        assert draws.shape == (3, 120, 20)
        assert model.get_normalized_methylation(n_samples_overall=7, context="mCG").shape == (7, 30)
        weighted = model.get_specific_normalized_methylation(
            context="mCG", n_samples_overall=9, weights="importance", n_mc_samples=20, seed=0
        )
        assert weighted.shape == (9, 30)
        with pytest.raises(ValueError, match="'mCG'"):
            model.get_normalized_methylation(context="mCg")
        with pytest.raises(ValueError, match="context= must name one of 'mCG', 'mCH'"):
            model.get_specific_normalized_methylation()

    def test_decoded_as_a_batch(self, model):
        """As if the cells were of it; scvi-tools 1.4.2 passes over the argument."""
        as_first = model.get_normalized_methylation(transform_batch="batch_0", context="mCG", seed=0)
        own = model.get_normalized_methylation(context="mCG", seed=0)
        is_first = (model.adata.obs["batch"] == "batch_0").to_numpy()
        np.testing.assert_allclose(as_first[is_first], own[is_first], rtol=1e-5)
        assert np.abs(as_first[~is_first] - own[~is_first]).to_numpy().max() > 0.01
        both = model.get_normalized_methylation(transform_batch=["batch_0", "batch_1"], context="mCG", seed=0)
        as_second = model.get_normalized_methylation(transform_batch="batch_1", context="mCG", seed=0)
        np.testing.assert_allclose(both, (as_first + as_second) / 2, rtol=1e-5)

    def test_predictive_reads(self, model):
        pytest.importorskip("sparse")
        drawn = model.posterior_predictive_sample(n_samples=2, seed=0)
        for context in REGIONS:
            reads = model.adata[context].layers["cov"].toarray()
            x = drawn[context].todense()
            assert x.shape == (120, REGIONS[context], 2)
            assert (x <= reads[..., None]).all()
            assert (x[reads == 0] == 0).all()


class TestDifferences:
    def test_regions_that_differ_are_found(self, model):
        found = model.differential_methylation(groupby="cell_type", group1="type_0", mode="change", delta=0.1, seed=0)
        is_first = (model.adata.obs["cell_type"] == "type_0").to_numpy()
        for context, table in found.items():
            truth = model.adata[context].layers["share"]
            gap = truth[is_first].mean(0) - truth[~is_first].mean(0)
            table = table.loc[model.adata[context].var_names]
            assert np.corrcoef(table["effect_mean"], gap)[0, 1] > 0.9
            assert table["proba_de"][np.abs(gap) > 0.2].median() > 3 * table["proba_de"][np.abs(gap) < 0.03].median()

    def test_what_reads_say(self, model):
        """Mean share over the cells of a group that have reads, group by group."""
        found = model.differential_methylation(groupby="cell_type", group1=["type_0", "type_1"], seed=0)
        for context, table in found.items():
            of_reads, _ = raw(model.adata, context)
            for kind in ("type_0", "type_1"):
                rows = table[table["group1"] == kind].loc[model.adata[context].var_names]
                is_first = (model.adata.obs["cell_type"] == kind).to_numpy()
                means = [np.nanmean(of_reads[part], 0) for part in (is_first, ~is_first)]
                np.testing.assert_allclose(rows["emp_mean1"], means[0])
                np.testing.assert_allclose(rows["emp_effect"], means[0] - means[1])
        bare = model.differential_methylation(idx1=range(20), all_stats=False, context="mCG", n_samples_overall=50)
        assert "emp_mean1" not in bare
        assert len(bare) == 30

    def test_one_sided_and_corrected(self, model):
        who = {"groupby": "cell_type", "group1": "type_0", "mode": "change", "context": "mCG", "seed": 0}
        two, one = (model.differential_methylation(two_sided=side, **who) for side in (True, False))
        assert (one["proba_de"] <= two.loc[one.index, "proba_de"] + 1e-12).all()
        assert (one["proba_de"][one["effect_mean"] < -0.3] < 0.5).all()
        table = model.differential_methylation(batch_correction=True, groupby="cell_type", group1="type_0")["mCH"]
        as_first = model.get_normalized_methylation(transform_batch=["batch_0", "batch_1"], context="mCH", n_samples=20)
        is_first = (model.adata.obs["cell_type"] == "type_0").to_numpy()
        np.testing.assert_allclose(table["scale1"], as_first[is_first].mean()[table.index], atol=0.03)


class TestData:
    @pytest.mark.parametrize(
        "stored", [np.asarray, sp.csc_matrix, sp.csr_array, lambda x: sp.csr_matrix(x, dtype="u1")]
    )
    def test_any_storage_gives_the_same(self, model, stored):
        mdata = cells()
        for adata in mdata.mod.values():
            for name in ("mc", "cov"):
                adata.layers[name] = stored(adata.layers[name].toarray())
        kind = type(mdata["mCG"].layers["cov"])
        z = model.get_latent_representation(mdata)
        np.testing.assert_allclose(z, model.get_latent_representation(), atol=1e-6)
        assert type(mdata["mCG"].layers["cov"]) is kind
        table = model.differential_methylation(mdata, idx1=range(20), context="mCG", n_samples_overall=50, seed=0)
        ours = model.differential_methylation(idx1=range(20), context="mCG", n_samples_overall=50, seed=0)
        np.testing.assert_allclose(table["emp_mean1"], ours["emp_mean1"])

    @pytest.mark.parametrize("names", [["m.CG"], ["keys", "pop_"], ["mC.A", "mC_A", "mC_A_"], [""]])
    def test_any_names_and_numbers_of_contexts(self, names, tmp_path):
        """Also what torch takes for an attribute of its own, or does not take."""
        adata, modalities = cells(40)["mCG"], {}
        for i, name in enumerate(names):
            modalities[name] = adata.copy()
            modalities[name].var_names = [f"{i}_{region}" for region in adata.var_names]
        with mudata.set_options(pull_on_update=False):
            mdata = mudata.MuData(modalities)
        model = made(mdata, SETUP | {"methylation_contexts": names, "batch_key": None})
        model.train(max_epochs=1, **QUIET)
        model.save(tmp_path / "m")
        shares = METHYLVI.load(tmp_path / "m", mdata).get_normalized_methylation(return_numpy=True, seed=0)
        again = model.get_normalized_methylation(return_numpy=True, seed=0)
        assert list(shares) == names
        assert all(np.allclose(shares[name], again[name]) for name in names)

    def test_covariates_of_modalities(self):
        mdata = cells(60)
        mdata["mCH"].obs["donor_of_mch"] = mdata.obs["donor"].to_numpy()
        more = {"categorical_covariate_keys": ["donor_of_mch"], "modalities": {"categorical_covariate_keys": "mCH"}}
        model = made(mdata, SETUP | more)
        first = model.module.z_encoder.encoder.fc_layers[0][0]
        assert first.weight.shape[1] == 2 * 50 + 2 + 3
        model.train(max_epochs=1, **QUIET)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m["mCG"].layers.update(mc=m["mCG"].layers["cov"] * 2), "more methylated reads than there are"),
            (lambda m: m["mCG"].layers.update(mc=m["mCG"].layers["mc"] * 0.5), "fractions.*numbers of reads"),
            (lambda m: m["mCH"].layers.pop("cov"), r"layer of mdata.mod\['mCH'\] \(cov_layer\)"),
            (lambda m: m["mCH"].layers.pop("mc"), r"layer of mdata.mod\['mCH'\] \(mc_layer\)"),
        ],
        ids=["coverage", "fractions", "no cov", "no mc"],
    )
    def test_bad_reads(self, change, message):
        mdata = cells(30)
        change(mdata)
        with pytest.raises((ValueError, KeyError), match=message):
            METHYLVI.setup_mudata(mdata, **SETUP)

    def test_the_entry_is_named(self):
        mdata = cells(30)
        mdata["mCH"].layers["mc"] = mdata["mCH"].layers["mc"].toarray().astype(int)
        mdata["mCH"].layers["cov"] = sp.csr_matrix(mdata["mCH"].layers["cov"].toarray().astype(int))
        mdata["mCH"].layers["mc"][7, 3] = 99
        covered = mdata["mCH"].layers["cov"][7, 3]
        said = rf"in 1 entries, the first with 99 of {covered} reads in cell 'cell_7', region 'mCH_3'"
        with pytest.raises(ValueError, match=said):
            METHYLVI.setup_mudata(mdata, **SETUP)

    def test_fractions_are_told_where_scvi_tools_rules_hold(self):
        mdata = cells(30)
        mdata["mCG"].layers["mc"] = mdata["mCG"].layers["mc"] * 0.5
        with followed(SCVI_TOOLS), pytest.warns(UserWarning, match="does not contain unnormalized count data"):
            METHYLVI.setup_mudata(mdata, **SETUP, modalities={"batch_key": None})

    @pytest.mark.parametrize(
        ("contexts", "message"),
        [(["mCG", "mCh"], r"methylation_contexts.*'mCH'"), ([], "not empty"), (["mCG", "mCG"], "each once")],
    )
    def test_bad_contexts(self, contexts, message):
        with pytest.raises(ValueError, match=message):
            METHYLVI.setup_mudata(cells(30), **(SETUP | {"methylation_contexts": contexts}))

    def test_no_anndata(self):
        with pytest.raises(NotImplementedError, match="setup_mudata"):
            METHYLVI.setup_anndata(cells(30)["mCG"])

    def test_queries_are_checked_too(self, model):
        mdata = cells(20)
        mdata["mCG"].layers["cov"] = mdata["mCG"].layers["cov"] * 0
        with pytest.raises(ValueError, match="more methylated reads"):
            model.get_latent_representation(mdata)


class TestModule:
    def test_regions_without_reads_add_nothing(self):
        """The loss of cells is that of the regions that were read, whatever the decoder says of others."""
        module = METHYLVAE(4, ["a"], [4], **SMALL)
        tensors = {
            "a_mc": torch.tensor([[1.0, 0, 0, 2]]),
            "a_cov": torch.tensor([[2.0, 0, 0, 5]]),
            "batch": torch.zeros(1, 1, dtype=torch.int64),
        }
        module.eval()
        torch.manual_seed(0)
        before = module(tensors)[2]
        with torch.no_grad():
            module.decoders["a"].px_mu_decoder[0].bias[1:3] += 100
            module.px_gamma["a"][1:3] = 50
        torch.manual_seed(0)
        after = module(tensors)[2]
        torch.testing.assert_close(before.loss, after.loss)
        after.loss.backward()
        assert (module.decoders["a"].px_mu_decoder[0].bias.grad[1:3] == 0).all()
        assert (module.px_gamma["a"].grad[1:3] == 0).all()

    @pytest.mark.parametrize("dispersion", ["region", "region-cell"])
    def test_begins_with_what_reads_say(self, dispersion):
        """Shares of the regions, and a dispersion near the one that the reads were drawn with."""
        mdata = simulate_methylation(400, {"mCG": 30}, 1, 1, batch_strength=0, dispersion=0.2, coverage=20)
        y, total = (torch.from_numpy(mdata["mCG"].layers[name].toarray().astype("f4")) for name in ("mc", "cov"))
        module = METHYLVAE(30, ["mCG"], [30], dispersion=dispersion, **SMALL)
        assert list(module.counts_to_start_from) == ["mCG_mc", "mCG_cov"]
        assert module.start_from_counts(torch.cat([y, total], 1))
        decoder = module.decoders["mCG"]
        share = decoder.px_mu_decoder[0].bias.detach().sigmoid()
        torch.testing.assert_close(share, y.sum(0) / total.sum(0), rtol=0.05, atol=0.01)
        gamma = module.px_gamma["mCG"] if dispersion == "region" else decoder.px_gamma_decoder[0].bias
        assert 0.15 < float(gamma.detach().sigmoid().median()) < 0.25
        assert not module.start_from_counts(torch.zeros(3, 60))

    def test_few_cells_are_trained_from_there(self):
        model = made(cells(40))
        model.train(batch_size=32, **QUIET)
        assert model.recipe_ == "brief_cycle"

    def test_marginal_likelihood_is_above_the_bound(self, model):
        marginal = model.get_marginal_ll(n_mc_samples=200, return_mean=False, seed=0)
        bound = torch.stack([model.get_elbo(return_mean=False, seed=seed) for seed in range(20)]).mean(0)
        assert (marginal > bound - 0.5).all()
        assert marginal.mean() > bound.mean()

    def test_sizes_must_add_up(self):
        with pytest.raises(ValueError, match="add up to n_input=5"):
            METHYLVAE(5, ["a", "b"], [2, 2])


class TestArchivesAndQueries:
    @pytest.mark.parametrize("verb", ["get_normalized_methylation", "get_specific_normalized_methylation"])
    def test_a_key_goes_to_the_query(self, model, verb):
        query, context = cells(40), {} if verb == "get_normalized_methylation" else {"context": "mCG"}
        given = getattr(model, verb)(mdata=query, key_added="answer", seed=0, **context)
        for name, table in (given if isinstance(given, dict) else {"mCG": given}).items():
            key = "answer" if context else f"answer_{name}"
            assert np.array_equal(query[name].layers[key], table)
            assert "mdata" not in query.uns["celbo"][key]
        assert not any("answer" in key for name in REGIONS for key in model.adata[name].layers)
        assert not any("answer" in key for key in (*model.adata.obsm, *model.adata.uns.get("celbo", {})))

    def test_query_of_a_new_batch(self, model, tmp_path):
        model.save(tmp_path / "m")
        mdata = cells(40, seed=3)
        mdata.obs["batch"] = "new"
        query = METHYLVI.load_query_data(mdata, tmp_path / "m")
        query.train(max_epochs=2, plan_kwargs={"weight_decay": 0.0}, **QUIET)
        assert query.get_latent_representation().shape == (40, 4)
        ours, theirs = (one.module.state_dict() for one in (model, query))
        name = "decoders.mCG.px_mu_decoder.0.weight"
        assert torch.equal(ours[name], theirs[name])

    def test_minified_data_are_refused(self, model):
        with pytest.raises(AttributeError, match="minify_adata"):
            model.minify_adata()

    def test_scvi_tools_reads_what_is_exported(self, model, tmp_path, peer_python):
        model.save(tmp_path / "own")
        export_archive(tmp_path / "own", tmp_path / "theirs")
        write(cells(), tmp_path / "a.h5mu")
        ask = (
            "import sys, mudata, numpy as np, scvi; f = sys.argv[1]; a = mudata.read_h5mu(f + '/a.h5mu');"
            "m = scvi.external.METHYLVI.load(f + '/theirs', adata=a, accelerator='cpu');"
            "np.save(f + '/z.npy', m.get_latent_representation(a))"
        )
        subprocess.run([peer_python, "-W", "ignore", "-c", ask, str(tmp_path)], check=True, capture_output=True)
        np.testing.assert_allclose(np.load(tmp_path / "z.npy"), model.get_latent_representation(), atol=1e-5)


class TestLabels:
    LABELS = SETUP | {"labels_key": "seen", "unlabeled_category": "unknown"}

    def test_hidden_labels_are_found(self, tmp_path):
        mdata = cells(200)
        METHYLANVI.setup_mudata(mdata, **self.LABELS, categorical_covariate_keys=["donor"])
        model = METHYLANVI(mdata, **SMALL)
        model.train(max_epochs=40, batch_size=32, **QUIET)
        hidden = (mdata.obs["seen"] == "unknown").to_numpy()
        assert (model.predict() == mdata.obs["cell_type"])[hidden].mean() > 0.9
        np.testing.assert_allclose(model.predict(soft=True).sum(1), 1, rtol=1e-5)
        assert {"train_accuracy", "elbo_validation"} <= set(model.history)
        assert set(model.get_normalized_methylation()) == set(REGIONS)
        model.save(tmp_path / "m")
        np.testing.assert_array_equal(METHYLANVI.load(tmp_path / "m", mdata).predict(), model.predict())
        self.attributions_add_up(model)

    def attributions_add_up(self, model):
        """Those of all regions sum to the change of the output from no read at all; reads of a region count once."""
        some = np.arange(5)
        soft, table = model.predict(indices=some, soft=True, ig_interpretability=True, ig_args={"n_steps": 200})
        assert table.groupby("modality").size().to_dict() == REGIONS
        assert set(table["feature"][table["modality"] == "mCH"]) == set(model.adata["mCH"].var_names)
        tensors = next(iter(model._make_data_loader(model.adata, indices=some)))
        given = model.module._get_inference_input(tensors)
        none = given | {name: torch.zeros_like(given[name]) for name in ("mc", "cov")}
        with torch.no_grad(), own_rng(0):  # the latents are drawn, and not looked at
            at_x, at_0 = (model.module.eval().classify(**one) for one in (given, none))
        gain_n = (at_x - at_0).numpy()[some, soft.to_numpy().argmax(1)]
        assert table["attribution_mean"].sum() == pytest.approx(gain_n.mean(), rel=1e-2)

    def test_from_methylvi(self, model):
        labels = {"unlabeled_category": "unknown", "labels_key": "seen"}
        labelled = METHYLANVI.from_methylvi_model(model, **labels, linear_classifier=True)
        assert labelled.was_pretrained
        own = labelled.module.state_dict()
        assert all(torch.equal(own[name], weight) for name, weight in model.module.state_dict().items())
        labelled.train(max_epochs=1, **QUIET)
        assert set(labelled.predict()) <= {"type_0", "type_1", "type_2"}

    def test_labels_are_wanted(self):
        mdata = cells(30)
        mdata.obs["seen"] = "unknown"
        METHYLANVI.setup_mudata(mdata, **self.LABELS)
        with pytest.raises(ValueError, match="METHYLVI for data without labels"):
            METHYLANVI(mdata)

    def test_scvi_tools_reads_what_is_exported(self, tmp_path, peer_python):
        mdata = cells(100)
        METHYLANVI.setup_mudata(mdata, **self.LABELS)
        model = METHYLANVI(mdata, **SMALL)
        model.train(max_epochs=1, **QUIET)
        model.save(tmp_path / "own")
        export_archive(tmp_path / "own", tmp_path / "theirs")
        write(cells(100), tmp_path / "a.h5mu")
        ask = (
            "import sys, mudata, numpy as np, scvi; f = sys.argv[1]; a = mudata.read_h5mu(f + '/a.h5mu');"
            "m = scvi.external.METHYLANVI.load(f + '/theirs', adata=a, accelerator='cpu');"
            "np.save(f + '/y.npy', m.predict(a, soft=True).to_numpy())"
        )
        subprocess.run([peer_python, "-W", "ignore", "-c", ask, str(tmp_path)], check=True, capture_output=True)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model.predict(soft=True), atol=1e-5)


@pytest.mark.parametrize("case", ["methylvi", "methylvi_binomial", "methylvi_region_cell", "methylanvi"])
def test_figures_of_scvi_tools(check_case, case):
    _, compared, faults = check_case(case)
    assert faults == []
    assert compared > 30


@pytest.mark.filterwarnings("ignore:From 0.4", "ignore:Cannot join columns")  # mudata's: contexts have the same windows
def test_shares_of_real_cells_are_those_of_their_reads(shared_dir):
    path = shared_dir / "data" / "methylation_mcg_mch_8cells.h5mu"
    if not path.exists():
        pytest.skip("no methylation_mcg_mch_8cells.h5mu in 'shared/data'")
    mdata = mudata.read_h5mu(path)
    METHYLVI.setup_mudata(mdata, "mc", "cov", ["mCG", "mCH"])
    model = METHYLVI(mdata, n_hidden=16)
    model.train(40, **QUIET)
    share = model.get_normalized_methylation(return_numpy=True)
    for context, tolerance in (("mCG", 0.04), ("mCH", 0.003)):  # 0.730 and 0.0086 of the reads
        mc, cov = (mdata[context].layers[name] for name in ("mc", "cov"))
        assert abs(cov.multiply(share[context]).sum() - mc.sum()) < tolerance * cov.sum()
