"""Formulas as MathML, which browsers draw by themselves: a page needs no script of anybody else and no network."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

__all__ = ["markup", "setup"]

_BETTER = (
    (r"\\_", "_"),
    ("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"),
    (r"(?<=</mi>)(<mi>(?:log|exp|tanh|max)</mi>)", r"<mspace width='0.17em'/>\1"),
    (r"<mi>(log|exp|tanh|max)</mi>(?!<mo[^>]*>&#x00028;)", r"<mi>\1</mi><mspace width='0.17em'/>"),
)
"""What latex2mathml could write better: underscores within text, the tilde of distributions, space after functions."""


def markup(formula: str, *, block: bool = False) -> str:
    r"""MathML of a formula in LaTeX; lines of a display are aligned at their ``&``."""
    if block and r"\\" in formula and r"\begin{" not in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    written = convert(formula.replace("{aligned}", "{align*}"), display="block" if block else "inline")
    for pattern, better in _BETTER:
        written = re.sub(pattern, better, written)
    return written


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{markup(node.astext())}</span>')
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{markup(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Add the renderer ``"mathml"``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
