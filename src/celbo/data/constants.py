"""Names that a registry and a registered AnnData carry; scvi-tools' own, so that files travel between the two."""

__all__ = [
    "ATTR_KEY",
    "ATTR_NAME",
    "DATA_REGISTRY",
    "FIELD_REGISTRIES",
    "MANAGER_UUID",
    "MINIFY_TYPE_UNS_KEY",
    "MODEL_NAME",
    "MOD_KEY",
    "PREFIX",
    "RAW",
    "SCVI_VERSION",
    "SETUP_ARGS",
    "SETUP_METHOD_NAME",
    "STATE_REGISTRY",
    "SUMMARY_STATS",
    "UUID",
]

RAW = "raw"
"""Attribute of the AnnData where counts may lie with genes of their own: ``adata.raw.X``."""

PREFIX = "_scvi_"
"""Every column that setup adds to the user's AnnData begins with this."""

UUID = "_scvi_uuid"
"""``adata.uns`` key of the identity that the AnnData keeps for life (a copy carries it too)."""

MANAGER_UUID = "_scvi_manager_uuid"
"""``adata.uns`` key of the manager that wrote the ``_scvi_`` columns last."""

MINIFY_TYPE_UNS_KEY = "_scvi_adata_minify_type"
"""``adata.uns`` key of how the data are minified."""

SCVI_VERSION = "scvi_version"
MODEL_NAME = "model_name"
SETUP_METHOD_NAME = "setup_method_name"
SETUP_ARGS = "setup_args"

FIELD_REGISTRIES = "field_registries"
DATA_REGISTRY = "data_registry"
STATE_REGISTRY = "state_registry"
SUMMARY_STATS = "summary_stats"

ATTR_NAME = "attr_name"
ATTR_KEY = "attr_key"
MOD_KEY = "mod_key"
