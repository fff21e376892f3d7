"""Shared paragraphs go where a docstring names them."""

from celbo.utils import DocstringParts, de_dsp, setup_anndata_dsp
from celbo.utils.docstrings import devices_dsp

PARTS = DocstringParts(summary="Sets up", param_layer="\n    layer\n        Layer with\n        the counts.\n    ")


def test_paragraphs_are_indented_like_their_place():
    @PARTS.dedent
    def f():
        """%(summary)s.

        Parameters
        ----------
        %(param_layer)s
        """

    assert f.__doc__ == "Sets up.\n\nParameters\n----------\nlayer\n    Layer with\n    the counts."


def test_unknown_names_stay():
    @PARTS.dedent
    def f():
        """%(nobody)s and 100% sure."""

    assert f.__doc__ == "%(nobody)s and 100% sure."


def test_no_docstring_and_classes():
    @PARTS.dedent
    def f():
        pass

    @PARTS.dedent
    class C:
        """%(summary)s"""

    assert f.__doc__ is None
    assert C.__doc__ == "Sets up"


def test_parts_of_scvi_tools_are_there():
    assert {"summary", "param_adata", "param_layer", "param_batch_key", "returns"} <= setup_anndata_dsp.params.keys()
    assert {"de_adata", "de_groupby", "de_mode"} <= de_dsp.params.keys()
    assert {"param_accelerator", "param_devices", "param_device"} <= devices_dsp.params.keys()
