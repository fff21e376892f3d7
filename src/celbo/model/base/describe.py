"""Models and registries in words."""

from collections.abc import Mapping
from typing import Any, Protocol

from ...core import Summary, number_of
from ...core.kinds import described
from ...data import state_registry_of, summary_stats_of
from ...data.registry_view import sizes_text
from ...verbs.keys import trained_for
from .made_with import flat

__all__ = ["registry_text", "setup_call_text", "summary_of", "summary_text"]

_ASKED = ("get_", "predict", "differential_", "compute_", "impute_", "project_")


class _Described(Protocol):
    """What of a model is described."""

    module: Any
    history_: dict[str, Any] | None
    kept_epoch_: int | None
    init_params_: dict[str, dict[str, Any]]
    is_trained_: bool
    minified_data_type: str | None
    _model_summary_string: str


def summary_text(model: _Described) -> str:
    """Class, arguments and state of a model."""
    head = model._model_summary_string
    if not head:
        arguments = flat(model.init_params_)
        listed = ", ".join(
            f"{name}: {value if isinstance(value, str) else described(value)}" for name, value in arguments.items()
        )
        name = type(model).__name__
        head = f"{name} model with the following parameters: \n{listed}." if listed else f"{name} model."
    status = "Trained" if model.is_trained_ else "Not Trained"
    return f"{head}\nTraining status: {status}"


def summary_of(model: _Described, registries: Mapping[str, Mapping[str, Any]], common: type) -> Summary:
    """What a model is, what it was made of and with, and what it may be asked.

    Parameters
    ----------
    model
        The model.
    registries
        What setup found out about its data, by their name.
    common
        The class that all models derive from: what is asked of all alike is left out.
    """
    rows = {"state": _state(model)}
    for name, registry in registries.items():
        rows[name] = sizes_text(summary_stats_of(registry)) or "none yet"
        if registry["setup_args"] and "model_name" in registry:
            given = {key: value for key, value in registry["setup_args"].items() if value is not None}
            rows[f"setup of {name}"] = setup_call_text({**registry, "setup_args": given})
    if model.minified_data_type:
        rows["minified"] = model.minified_data_type
    rows["arguments"] = ", ".join(_named(flat(model.init_params_))) or "none"
    if model.module is not None:
        n_weights = sum(weight.numel() for weight in model.module.parameters())
        rows["module"] = f"{type(model.module).__name__}, {n_weights:,} weights on {model.module.device}"
    if answers := _answers(type(model), common):
        rows["ask it"] = ", ".join(answers)
    return Summary(type(model).__name__, rows)


def _state(model: _Described) -> str:
    if not model.is_trained_:
        return "not trained: call train()"
    epochs, elbo = trained_for(model.history_, model.kept_epoch_)
    text = f"trained, {number_of(epochs, 'epoch')}"
    return text if elbo is None else f"{text}; validation ELBO {elbo.value:.6g} ({elbo.where})"


def _named(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{name}={described(value)}" for name, value in arguments.items()]


def _answers(cls: type, common: type) -> list[str]:
    """Methods that answer about data, those apart that every model has or that only say that there is none."""
    methods = {name: getattr(cls, name) for name in dir(cls) if name.startswith(_ASKED)}
    return [
        name
        for name, method in methods.items()
        if callable(method) and method != getattr(common, name, None)
        if not (method.__doc__ or "").startswith("Not of this model")
    ]


def setup_call_text(registry: Mapping[str, Any]) -> str:
    """The call that set the data up."""
    arguments = ", ".join(["adata", *_named(registry.get("setup_args") or {})])
    return f"{registry['model_name']}.{registry.get('setup_method_name', 'setup_anndata')}({arguments})"


def registry_text(registry: Mapping[str, Any], hide_state_registries: bool = False) -> str:
    """Call, sizes and, unless hidden, what each field learnt."""
    lines = [setup_call_text(registry), *(f"  {name}: {value}" for name, value in summary_stats_of(registry).items())]
    if not hide_state_registries:
        for key in registry["field_registries"]:
            lines += [f"  {key}: {dict(state_registry_of(registry, key))}"]
    return "\n".join(lines)
