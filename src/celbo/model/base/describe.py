"""Models and registries in words."""

from collections.abc import Mapping
from typing import Any, Protocol

from ...data import state_registry_of, summary_stats_of
from .made_with import flat

__all__ = ["registry_text", "setup_call_text", "summary_text"]


class _Described(Protocol):
    """What of a model is described."""

    init_params_: dict[str, dict[str, Any]]
    is_trained_: bool
    _model_summary_string: str


def summary_text(model: _Described) -> str:
    """Class, arguments and state of a model."""
    head = model._model_summary_string
    if not head:
        arguments = flat(model.init_params_)
        listed = ", ".join(f"{name}: {value}" for name, value in arguments.items())
        name = type(model).__name__
        head = f"{name} model with the following parameters: \n{listed}." if listed else f"{name} model."
    status = "Trained" if model.is_trained_ else "Not Trained"
    return f"{head}\nTraining status: {status}"


def setup_call_text(registry: Mapping[str, Any]) -> str:
    """The call that set the data up."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in (registry.get("setup_args") or {}).items())
    return f"{registry['model_name']}.{registry.get('setup_method_name', 'setup_anndata')}(adata, {arguments})"


def registry_text(registry: Mapping[str, Any], hide_state_registries: bool = False) -> str:
    """Call, sizes and, unless hidden, what each field learnt."""
    lines = [setup_call_text(registry), *(f"  {name}: {value}" for name, value in summary_stats_of(registry).items())]
    if not hide_state_registries:
        for key in registry["field_registries"]:
            lines += [f"  {key}: {dict(state_registry_of(registry, key))}"]
    return "\n".join(lines)
