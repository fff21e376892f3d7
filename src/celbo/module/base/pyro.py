"""Modules of others that are written in Pyro: the class that packages for scvi-tools derive theirs from.

Nothing of celbo's own is of it. Pyro is an extra: ``pip install 'celbo[pyro]'``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...core import optional

__all__ = ["PyroBaseModuleClass", "pyro_for", "tell_n_obs"]


def pyro_for(purpose: str, part: str = "pyro") -> Any:
    """Pyro, or a part of it by its dotted name; an error that says how to get it."""
    return optional(part, extra="pyro", purpose=purpose)


def tell_n_obs(model: Any, n_obs: int, only_if_unknown: bool = False) -> None:
    """Tell a model in Pyro how many cells there are, by its attribute ``n_obs``, where it has one."""
    if hasattr(model, "n_obs") and not (only_if_unknown and model.n_obs is not None):
        model.n_obs = n_obs


class PyroBaseModuleClass(nn.Module):
    """Abstract module of a model and a guide in Pyro.

    A subclass has the properties ``model`` and ``guide`` and the static method ``_get_fn_args_from_batch(tensors)``,
    which gives the positional and the keyword arguments of both for a minibatch.

    Parameters
    ----------
    on_load_kwargs
        Accepted for compatibility with scvi-tools: no training is needed to load a model.
    """

    def __init__(self, on_load_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.on_load_kwargs = on_load_kwargs or {}

    @staticmethod
    def _get_fn_args_from_batch(tensor_dict: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        raise NotImplementedError("A module in Pyro must define _get_fn_args_from_batch(tensors).")

    @property
    def model(self) -> Callable[..., Any]:
        """The generative model."""
        raise NotImplementedError(f"{type(self).__name__} must define the property `model`.")

    @property
    def guide(self) -> Callable[..., Any]:
        """The posterior."""
        raise NotImplementedError(f"{type(self).__name__} must define the property `guide`.")

    @property
    def list_obs_plate_vars(self) -> dict[str, Any]:
        """Sites of single cells: ``name`` of their plate, ``sites`` (name -> size), ``input`` (arguments to encode)."""
        return {"name": "", "input": [], "sites": {}}

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Let the guide make its parameters, from a minibatch of the data, before weights are put in.

        Parameters
        ----------
        model
            The model that is loaded.
        **kwargs
            What the archive tells of itself; without effect.
        """
        if model.adata is None:
            return
        tell_n_obs(self.model, model.adata.n_obs, only_if_unknown=True)
        with torch.no_grad():
            args, fn_kwargs = self._get_fn_args_from_batch(next(iter(model._make_data_loader(adata=model.adata))))
            self.guide(*args, **fn_kwargs)

    def create_predictive(
        self,
        model: Callable[..., Any] | None = None,
        posterior_samples: dict[str, Tensor] | None = None,
        guide: Callable[..., Any] | None = None,
        num_samples: int | None = None,
        return_sites: tuple[str, ...] = (),
        parallel: bool = False,
    ) -> Any:
        """A ``pyro.infer.Predictive`` of this module.

        Parameters
        ----------
        model, guide
            None: the module's own; a guide only where no samples are given.
        posterior_samples, num_samples, return_sites, parallel
            As in Pyro.
        """
        infer = pyro_for("create_predictive", "pyro.infer")
        own_guide = None if posterior_samples is not None else self.guide
        return infer.Predictive(
            model=self.model if model is None else model,
            posterior_samples=posterior_samples,
            guide=own_guide if guide is None else guide,
            num_samples=num_samples,
            return_sites=return_sites,
            parallel=parallel,
        ).eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self.model(*args, **kwargs)
