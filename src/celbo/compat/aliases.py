"""Where scvi-tools' names are in celbo: data only.

Private modules are here because code of others imports them; what such code was seen to use decides what is served.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ADDED", "PRIVATE", "Place"]


class Place(NamedTuple):
    """A name in a module of celbo."""

    module: str
    name: str

    def find(self) -> Any:
        """The object."""
        return getattr(importlib.import_module(f"{__name__.partition('.')[0]}.{self.module}"), self.name)


ADDED: Mapping[str, Mapping[str, Place]] = {
    "data": {"AnnTorchDataset": Place("dataloaders", "AnnTorchDataset")},
}
"""Public module -> names that it has in scvi-tools, and that a higher room has in celbo."""

_S = "compat.shims"

PRIVATE: Mapping[str, tuple[str, ...]] = {
    "_constants": ("core.constants",),
    "_settings": (f"{_S}.package",),
    "_types": (f"{_S}.package",),
    "data._anntorchdataset": ("dataloaders.dataset",),
    "data._constants": (f"{_S}.data_constants",),
    "data._datasets": ("data",),
    "data._manager": ("data.manager",),
    "data._preprocessing": ("data",),
    "data._read": ("data",),
    "data._utils": (f"{_S}.data_utils",),
    "data.fields._arraylike_field": ("data.fields",),
    "data.fields._base_field": ("data.fields",),
    "data.fields._dataframe_field": ("data.fields",),
    "data.fields._layer_field": ("data.fields",),
    "data.fields._protein": ("data.fields",),
    "data.fields._scanvi": ("data.fields",),
    "data.fields._uns_field": ("data.fields",),
    "dataloaders._ann_dataloader": ("dataloaders",),
    "dataloaders._data_splitting": (f"{_S}.data_splitting", "dataloaders"),
    "distributions._beta_binomial": ("distributions",),
    "distributions._negative_binomial": ("distributions", f"{_S}.distributions"),
    "distributions._normal": ("distributions",),
    "distributions._utils": (f"{_S}.distributions",),
    "model._linear_scvi": ("model",),
    "model._scvi": ("model", f"{_S}.model_utils"),
    "model._utils": (f"{_S}.model_utils",),
    "model.base._archesmixin": ("model.base", f"{_S}.save_load"),
    "model.base._base_model": ("model.base", f"{_S}.model_class"),
    "model.base._constants": (f"{_S}.save_load",),
    "model.base._de_core": (f"{_S}.differential",),
    "model.base._differential": (f"{_S}.differential",),
    "model.base._embedding_mixin": ("model.base",),
    "model.base._rnamixin": ("model.base",),
    "model.base._save_load": (f"{_S}.save_load",),
    "model.base._training_mixin": ("model.base",),
    "model.base._utils": (f"{_S}.save_load", f"{_S}.differential"),
    "model.base._vaemixin": ("model.base",),
    "module._constants": (f"{_S}.module_utils",),
    "module._utils": (f"{_S}.module_utils",),
    "module._vae": ("module",),
    "module.base._base_module": ("module.base",),
    "module.base._decorators": ("module.base", f"{_S}.module_utils"),
    "module.base._embedding_mixin": ("module.base",),
    "nn._base_components": ("nn", f"{_S}.networks"),
    "nn._embedding": ("nn",),
    "nn._utils": (f"{_S}.networks",),
    "train._callbacks": ("train",),
    "train._config": ("train",),
    "train._constants": ("train",),
    "train._metrics": ("train",),
    "train._trainer": ("train",),
    "train._trainingplans": ("train", f"{_S}.training"),
    "train._trainrunner": ("train",),
    "utils._attrdict": ("utils",),
    "utils._decorators": ("utils",),
    "utils._dependencies": ("utils",),
    "utils._docstrings": ("utils.docstrings",),
    "utils._track": ("utils",),
}
"""Private module of scvi-tools -> modules of celbo in which its names are looked up, in this order."""
