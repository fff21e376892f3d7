"""Names that saved models and other people's code contain."""

from celbo.core import REGISTRY_KEYS, SCVI_TOOLS_VERSION, __version__


def test_registry_keys_are_scvi_tools_own():
    assert REGISTRY_KEYS._asdict() == {
        "X_KEY": "X",
        "ATAC_X_KEY": "atac",
        "BATCH_KEY": "batch",
        "SAMPLE_KEY": "sample",
        "LABELS_KEY": "labels",
        "PROTEIN_EXP_KEY": "proteins",
        "CAT_COVS_KEY": "extra_categorical_covs",
        "CONT_COVS_KEY": "extra_continuous_covs",
        "INDICES_KEY": "ind_x",
        "SIZE_FACTOR_KEY": "size_factor",
        "MINIFY_TYPE_KEY": "minify_type",
        "LATENT_QZM_KEY": "latent_qzm",
        "LATENT_QZV_KEY": "latent_qzv",
        "OBSERVED_LIB_SIZE": "observed_lib_size",
    }


def test_versions():
    assert SCVI_TOOLS_VERSION == "1.4.2"
    assert __version__.count(".") == 2
