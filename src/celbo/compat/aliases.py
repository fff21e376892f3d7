"""Where scvi-tools' names are in celbo: data only.

Private modules are here because code of others imports them; what such code was seen to use decides what is served.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ADDED", "ATTRIBUTES", "PRIVATE", "Place"]


class Place(NamedTuple):
    """A name in a module of celbo."""

    module: str
    name: str

    def find(self) -> Any:
        """The object."""
        return getattr(importlib.import_module(f"{__name__.partition('.')[0]}.{self.module}"), self.name)


ADDED: Mapping[str, Mapping[str, Place]] = {
    "data": {
        "AnnTorchDataset": Place("dataloaders", "AnnTorchDataset"),
        "add_dna_sequence": Place("external.scbasset", "add_dna_sequence"),
    },
}
"""Public module -> names that it has in scvi-tools, and that a higher room has in celbo."""

ATTRIBUTES: Mapping[str, Place] = {
    "model": Place("compat.shims.attributes", "COMPUTED"),
    "external.contrastivevi": Place("compat.shims.contrastive", "COMPUTED"),
}
"""Public module -> table of private attributes that classes get with it: class -> name -> descriptor."""

_ROOMS = {
    "criticism": "_ppc",
    "data": "_anntorchdataset _datasets _manager _preprocessing _read",
    "data.fields": "_arraylike_field _base_field _dataframe_field _layer_field _mudata _protein _scanvi _uns_field",
    "dataloaders": """
        _ann_dataloader _anncollection _concat_dataloader _custom_dataloaders _data_splitting _samplers
        _semi_dataloader""",
    "distributions": "_beta_binomial _negative_binomial _normal",
    "external.cellassign": "_model _module",
    "external.contrastivevi": "_contrastive_data_splitting _contrastive_dataloader _model _module",
    "external.decipher": "_model _module",
    "external.cytovi": "_constants _model _module _plotting _preprocessing _read_write",
    "external.gimvi": "_model _module",
    "external.methylvi": "_base_components _methylanvi_model _methylanvi_module _methylvi_model _methylvi_module",
    "external.mrvi": "_model",
    "external.mrvi_torch": "_model _module",
    "external.poissonvi": "_model",
    "external.resolvi": "_model _module",
    "external.scar": "_model _module",
    "external.scviva": "_components _constants _model _module",
    "external.scbasset": "_model _module",
    "external.solo": "_model",
    "external.stereoscope": "_model _module",
    "external.sysvi": "_model _module",
    "external.tangram": "_model _module",
    "external.velovi": "_model _module",
    "model": """
        _amortizedlda _autozi _condscvi _destvi _jaxscvi _linear_scvi _multivi _peakvi _scanvi _scvi _totalvi""",
    "model.base": """
        _archesmixin _base_model _differential _embedding_mixin _pyromixin _rnamixin _training_mixin _vaemixin""",
    "module": """
        _amortizedlda _autozivae _classifier _mrdeconv _multivae _peakvae _scanvae _totalvae _vae _vaec""",
    "module.base": "_base_module _decorators _embedding_mixin _priors _pyro",
    "nn": "_base_components _embedding",
    "train": "_callbacks _config _constants _metrics _trainer _trainingplans _trainrunner",
    "utils": "_attrdict _decorators _dependencies _jax _track",
}
"""Room -> private files of scvi-tools in which its public names are written."""

_SHIMS = {
    "_constants": ("core.constants",),
    "_settings": ("compat.shims.package",),
    "_types": ("compat.shims.package",),
    "criticism._constants": ("criticism.keys",),
    "criticism._ppc": ("criticism.keys",),
    "data._compat": ("compat.shims.data_compat",),
    "data._constants": ("compat.shims.data_constants",),
    "data._download": ("compat.shims.data_download",),
    "data._utils": ("compat.shims.data_utils",),
    "dataloaders._data_splitting": ("compat.shims.data_splitting",),
    "distributions._constraints": ("compat.shims.constraints",),
    "distributions._negative_binomial": ("compat.shims.distributions",),
    "distributions._utils": ("compat.shims.distributions",),
    "external.mrvi_torch._components": ("compat.shims.mrvi_layers",),
    "model._scvi": ("compat.shims.model_utils",),
    "model._utils": ("compat.shims.model_utils",),
    "model.base._archesmixin": ("compat.shims.save_load",),
    "model.base._base_model": ("compat.shims.model_class",),
    "model.base._constants": ("compat.shims.save_load",),
    "model.base._de_core": ("compat.shims.differential",),
    "model.base._differential": ("compat.shims.differential",),
    "model.base._save_load": ("compat.shims.save_load",),
    "model.base._utils": ("compat.shims.save_load", "compat.shims.differential"),
    "module._constants": ("compat.shims.module_utils",),
    "module._utils": ("compat.shims.module_utils",),
    "module.base._decorators": ("compat.shims.module_utils",),
    "nn._base_components": ("compat.shims.networks",),
    "nn._utils": ("compat.shims.networks",),
    "train._callbacks": ("compat.shims.callbacks",),
    "train._logger": ("compat.shims.loggers",),
    "train._progress": ("compat.shims.callbacks",),
    "train._trainingplans": ("compat.shims.training",),
    "utils._docstrings": ("utils.docstrings",),
}
"""Private module of scvi-tools -> modules of celbo that have its private names."""


def _private() -> dict[str, tuple[str, ...]]:
    of_rooms = {f"{room}.{file}": (room,) for room, files in _ROOMS.items() for file in files.split()}
    return {path: of_rooms.get(path, ()) + _SHIMS.get(path, ()) for path in sorted({*of_rooms, *_SHIMS})}


PRIVATE: Mapping[str, tuple[str, ...]] = _private()
"""Private module of scvi-tools -> modules of celbo in which its names are looked up, in this order."""
