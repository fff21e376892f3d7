"""AnnData and fields whose registries are compared with scvi-tools', written for either library.

A module ``fields`` is either library's ``data.fields``. No random numbers: both libraries see the same data.
"""

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp


def build_adata(n: int = 24, g: int = 6, sparse: bool = False) -> anndata.AnnData:
    rows, cols = np.indices((n, g))
    x_ng = ((rows * 7 + cols * 3) % 5).astype(np.float32)
    i = np.arange(n)
    obs = pd.DataFrame(
        {
            "batch": np.array(["b", "a"])[i % 2],
            "batch_cat": pd.Categorical(np.array(["z", "m", "a"])[i % 3], categories=["z", "m", "a"]),
            "batch_int": np.array([30, 4, 100])[i % 3],
            "batch_u8": np.array([3, 1], dtype=np.uint8)[i % 2],
            "batch_float": np.array([1.5, 0.5])[i % 2],
            "batch_bool": i % 2 == 0,
            "batch_bool_cat": pd.Categorical(i % 2 == 0),
            "batch_string": pd.array(np.array(["s", "r"])[i % 2], dtype="string"),
            "labels": np.array(["Unknown", "B", "T", "NK"])[i % 4],
            "label_int": np.array([5, 2, 9])[i % 3],
            "donor": np.array(["d1", "d2", "d3"])[i % 3],
            "score": i / 10.0,
            "age": i + 20,
            "size": x_ng.sum(1) + 1,
        },
        index=[f"cell{k}" for k in i],
    )
    var = pd.DataFrame(
        {"chromosome": np.array(["chr2", "chr1"])[np.arange(g) % 2], "length": np.arange(g) * 100.0},
        index=[f"gene{k}" for k in range(g)],
    )
    adata = anndata.AnnData(sp.csr_matrix(x_ng) if sparse else x_ng, obs=obs, var=var)
    adata.layers["counts"] = adata.X.copy()
    protein_np = np.arange(n * 3).reshape(n, 3) % 7 + 1
    protein_np[i % 2 == 0, 1] = 0
    adata.obsm["protein"] = protein_np
    adata.obsm["protein_frame"] = pd.DataFrame(protein_np + 1, index=obs.index, columns=["CD3", "CD4", "CD8"])
    adata.uns["protein_names"] = np.array(["CD3", "CD4", "CD8"])
    adata.uns["note"] = "a word"
    adata.varm["embedding"] = np.arange(g * 2.0).reshape(g, 2)
    return adata


def _proteins(fields, key, batch_key, **kwargs):
    batch = fields.CategoricalObsField("batch", batch_key)
    return [batch, fields.ProteinObsmField("proteins", key, batch_field=batch, is_count_data=True, **kwargs)]


def _scvi(fields, layer=None, batch="batch", labels="labels", categorical=("donor",), continuous=("score", "age")):
    return [
        fields.LayerField("X", layer, is_count_data=True),
        fields.CategoricalObsField("batch", batch),
        fields.CategoricalObsField("labels", labels),
        fields.NumericalObsField("size_factor", "size", required=False),
        fields.CategoricalJointObsField("extra_categorical_covs", list(categorical) if categorical else None),
        fields.NumericalJointObsField("extra_continuous_covs", list(continuous) if continuous else None),
    ]


_BATCHES = [
    "batch",
    "batch_cat",
    "batch_int",
    "batch_u8",
    "batch_float",
    "batch_bool",
    "batch_bool_cat",
    "batch_string",
]

CASES = {
    "scvi": _scvi,
    "scvi_layer": lambda f: _scvi(f, layer="counts"),
    "scvi_nothing": lambda f: _scvi(f, batch=None, labels=None, categorical=None, continuous=None),
    "many_covariates": lambda f: _scvi(f, categorical=["donor", "batch_int", "batch_bool"], continuous=["age"]),
    **{f"categorical_{key}": lambda f, key=key: [f.CategoricalObsField("batch", key)] for key in _BATCHES},
    "unlabeled_first": lambda f: [f.LabelsWithUnlabeledObsField("labels", "labels", "Unknown")],
    "unlabeled_middle": lambda f: [f.LabelsWithUnlabeledObsField("labels", "labels", "NK")],
    "unlabeled_absent": lambda f: [f.LabelsWithUnlabeledObsField("labels", "labels", "nobody")],
    "unlabeled_int": lambda f: [f.LabelsWithUnlabeledObsField("labels", "label_int", 2)],
    "unlabeled_int_absent": lambda f: [f.LabelsWithUnlabeledObsField("labels", "label_int", 77)],
    "obsm": lambda f: [f.ObsmField("proteins", "protein"), f.ObsmField("other", "protein_frame")],
    "obsm_names": lambda f: [f.ObsmField("proteins", "protein", colnames_uns_key="protein_names")],
    "protein_missing": lambda f: _proteins(f, "protein", "batch", colnames_uns_key="protein_names"),
    "protein_complete": lambda f: _proteins(f, "protein_frame", "batch"),
    "protein_no_mask": lambda f: _proteins(f, "protein", "batch", use_batch_mask=False),
    "var": lambda f: [
        f.CategoricalVarField("chromosome", "chromosome"),
        f.CategoricalVarField("one", None),
        f.NumericalVarField("length", "length"),
        f.VarmField("embedding", "embedding"),
        f.CategoricalJointVarField("cats", ["chromosome"]),
        f.NumericalJointVarField("nums", ["length"]),
    ],
    "uns": lambda f: [f.StringUnsField("note", "note"), f.StringUnsField("nothing", None, required=False)],
    "other_matrix": lambda f: [f.LayerField("atac", "counts", is_count_data=False), f.LayerField("X", None)],
}


def fewer(adata):
    """Half of the cells; batches and donors are all still there."""
    return adata[:12].copy()


def new_batches(adata):
    adata.obs["batch"] = np.array(["zz", "a", "aa"])[np.arange(adata.n_obs) % 3]
    return adata


def new_donors(adata):
    adata.obs["donor"] = pd.Categorical(
        np.array(["y", "d1", "x"])[np.arange(adata.n_obs) % 3], categories=["y", "x", "d1"]
    )
    return adata


def without_labels(adata):
    del adata.obs["labels"]
    return adata


TRANSFERS = {
    "fewer": ("scvi", fewer, {}),
    "new_batches": ("scvi", new_batches, {"extend_categories": True}),
    "new_donors": ("scvi", new_donors, {"extend_categories": True}),
    "without_labels": ("unlabeled_first", without_labels, {"allow_missing_labels": True}),
    "labels": ("unlabeled_first", fewer, {}),
    "protein": ("protein_missing", fewer, {}),
}

SETUP_METHOD_ARGS = {"model_name": "SCVI", "setup_method_name": "setup_anndata", "setup_args": {"batch_key": "batch"}}


def describe(value):
    """Registry value as JSON: arrays with their dtype, uuids left out."""
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items() if key != "_scvi_uuid"}
    if isinstance(value, np.ndarray):
        kind = "text" if value.dtype.kind == "U" else str(value.dtype)
        return {"dtype": kind, "values": [describe(item) for item in value.tolist()]}
    return [describe(item) for item in value] if isinstance(value, (list, tuple)) else value


def columns_added(adata) -> dict:
    """What setup wrote: codes with their dtype."""
    added = {}
    for name in ("obs", "var"):
        frame = getattr(adata, name)
        added |= {f"{name}/{key}": describe(np.asarray(frame[key])) for key in frame if key.startswith("_scvi_")}
    for name in ("obsm", "varm"):
        for key, frame in getattr(adata, name).items():
            if key.startswith("_scvi_"):
                added |= {f"{name}/{key}/{column}": describe(np.asarray(frame[column])) for column in frame}
    return added


def run_all(manager_class, fields) -> dict:
    """Registry and added columns of every case."""
    results = {}
    for name, make in CASES.items():
        adata = build_adata()
        manager = manager_class(fields=make(fields), setup_method_args=SETUP_METHOD_ARGS)
        manager.register_fields(adata)
        results[name] = {"registry": describe(manager.registry), "added": columns_added(adata)}
    for name, (case, change, kwargs) in TRANSFERS.items():
        manager = manager_class(fields=CASES[case](fields), setup_method_args=SETUP_METHOD_ARGS)
        manager.register_fields(build_adata())
        target = change(build_adata())
        other = manager.transfer_fields(target, **kwargs)
        results[f"transfer_{name}"] = {"registry": describe(other.registry), "added": columns_added(target)}
    return results
