"""Shared paragraphs of docstrings, put in where a docstring says ``%(name)s``.

Models written for scvi-tools decorate their methods with these; the texts are celbo's own.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["DocstringParts", "de_dsp", "devices_dsp", "setup_anndata_dsp"]

Documented = TypeVar("Documented", bound=Callable[..., Any] | type)

_PLACE = re.compile(r"^(?P<indent>[ \t]*)(?P<before>.*?)%\((?P<name>\w+)\)s", re.MULTILINE)


class DocstringParts:
    r"""Paragraphs by name.

    Parameters
    ----------
    **params
        Name -> text; its lines are indented like the place they go to.

    Examples
    --------
    >>> parts = DocstringParts(param_layer="layer\n    Layer with the counts.")
    >>> @parts.dedent
    ... def f(layer):
    ...     '''Count.
    ...
    ...     %(param_layer)s
    ...     '''
    >>> print(inspect.getdoc(f))
    Count.
    <BLANKLINE>
    layer
        Layer with the counts.
    """

    def __init__(self, **params: str) -> None:
        self.params: Mapping[str, str] = {name: textwrap.dedent(text).strip() for name, text in params.items()}

    def dedent(self, documented: Documented) -> Documented:
        """Decorator that fills in the docstring; names that are not known stay as they are."""
        documented.__doc__ = self._filled(documented.__doc__)
        return documented

    with_indent = dedents = dedent

    def _filled(self, text: str | None) -> str | None:
        """The docstring; None stays None, as under ``python -OO``."""
        return None if text is None else _PLACE.sub(self._part, inspect.cleandoc(text))

    def _part(self, place: re.Match[str]) -> str:
        part = self.params.get(place["name"])
        if part is None:
            return place[0]
        return place["indent"] + place["before"] + part.replace("\n", "\n" + place["indent"])


def _argument(text: str) -> str:
    """``name: meaning`` in numpydoc's form."""
    name, _, meaning = text.partition(": ")
    return f"{name}\n    {meaning}"


def _arguments(**texts: str) -> dict[str, str]:
    return {name: _argument(text) for name, text in texts.items()}


setup_anndata_dsp = DocstringParts(
    summary="Registers an :class:`~anndata.AnnData` for this model",
    summary_mdata="Registers a :class:`~mudata.MuData` for this model",
    returns="Nothing; the AnnData gets the columns and marks of the registry.",
    **_arguments(
        param_adata="adata: Cells by variables. Not copied.",
        param_mdata="mdata: Cells by variables, of several modalities. Not copied.",
        param_layer="layer: Layer with the counts; None: ``X``.",
        param_batch_key="batch_key: Column of ``obs`` with the batch of each cell; None: all in one.",
        param_sample_key="sample_key: Column of ``obs`` with the sample of each cell.",
        param_labels_key="labels_key: Column of ``obs`` with the label of each cell; None: all the same.",
        param_size_factor_key="size_factor_key: Column of ``obs`` with size factors, in place of the library size.",
        param_cat_cov_keys="categorical_covariate_keys: Columns of ``obs`` with further categories.",
        param_cont_cov_keys="continuous_covariate_keys: Columns of ``obs`` with further numbers.",
        param_unlabeled_category="unlabeled_category: Value of the labels that stands for an unknown one.",
        param_modalities="modalities: Argument -> modality that it is looked up in.",
        param_copy="copy: Work on a copy and return it.",
        idx_layer="idx_layer: Key of the index field.",
    ),
)
"""Arguments of ``setup_anndata`` and ``setup_mudata``."""

de_dsp = DocstringParts(
    **_arguments(
        de_adata="adata: Data set up like the training data; None: those.",
        de_groupby="groupby: Column of ``obs`` with the groups to compare.",
        de_group1="group1: Groups to compare; None: each in turn.",
        de_group2="group2: Group to compare with; None: all other cells.",
        de_idx1="idx1: Cells to compare, in place of ``group1``: mask, indices or a query of ``obs``.",
        de_idx2="idx2: Cells to compare with, in place of ``group2``.",
        de_subset_idx="subset_idx: Cells that take part at all.",
        de_mode="mode: ``'vanilla'`` or ``'change'``.",
        de_delta="delta: Smallest log2 fold change that counts.",
        de_batch_size="batch_size: Cells a minibatch.",
        de_all_stats="all_stats: Add statistics of the counts.",
        de_batch_correction="batch_correction: Compare within the same batches.",
        de_batchid1="batchid1: Batches of the first group.",
        de_batchid2="batchid2: Batches of the second group.",
        de_fdr_target="fdr_target: False discovery rate at which a feature is called.",
        de_silent="silent: Show no progress bar.",
        de_importance_sampling="importance_sampling: Weight posterior samples by importance.",
        de_fn_kwargs="fn_kwargs: Further arguments of the normalized expression.",
    )
)
"""Arguments of ``differential_expression``."""

devices_dsp = DocstringParts(
    **_arguments(
        param_accelerator="accelerator: ``'auto'``, ``'cpu'``, ``'gpu'``, ``'cuda'`` or ``'mps'``.",
        param_devices="devices: ``'auto'``, a number of devices, or a list of their indices.",
        param_device="device: ``'auto'`` or the index of a device.",
        param_return_device="return_device: Return the device as an object too.",
        param_validate_single_device="validate_single_device: Refuse more than one device.",
    )
)
"""Arguments that say where to compute."""
