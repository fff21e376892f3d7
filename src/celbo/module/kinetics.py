r"""Transcription, splicing and degradation of a gene's RNA, on while it is induced and off thereafter.

.. math:: \dot u = \alpha - \beta u, \qquad \dot s = \beta u - \gamma s

Dims: n cells, g genes, s samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["STATES", "UNSPLICED_KEY", "Kinetics"]

UNSPLICED_KEY = "U"
"""Registry key of unspliced RNA; spliced RNA is ``X``."""

STATES = ("induction", "induction_steady", "repression", "repression_steady")


def _both_decay(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    r""":math:`(e^{-at} - e^{-bt}) / (b - a)`, also where the rates are equal: what decays at b, made by what does at a.

    Parameters
    ----------
    a, b
        Rates, ``(g,)``.
    t
        Times, ``(..., g)``.
    """
    x = (b - a).abs() * t
    near = x < 1e-4
    share = torch.where(near, 1 - x / 2, -torch.expm1(-x) / torch.where(near, torch.ones_like(x), x))
    return t * torch.exp(-torch.minimum(a, b) * t) * share


@dataclass(frozen=True)
class Kinetics:
    r"""Rates of each gene, and its path.

    Attributes
    ----------
    alpha, beta, gamma
        Rates of transcription, splicing and degradation, ``(g,)``.
    alpha_1, lambda_alpha
        Where transcription ends up and how fast, ``(g,)``, for rates that depend on time.
    switch_time
        When induction ends, ``(g,)``.
    t_max
        When repression ends.
    varies
        Whether transcription depends on time: :math:`\alpha_1 - (\alpha_1 - \alpha) e^{-\lambda t}`.
    pole
        Added to differences of rates, for scvi-tools' figures; 0: none.
    """

    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    alpha_1: Tensor
    lambda_alpha: Tensor
    switch_time: Tensor
    t_max: float
    varies: bool = False
    pole: float = 0.0

    @property
    def transcription_at_last(self) -> Tensor:
        """Rate of transcription that induction tends to, ``(g,)``."""
        return self.alpha_1 if self.varies else self.alpha

    def transcription(self, t: Tensor) -> Tensor:
        """Rate of transcription in induction at times ``(..., g)``."""
        if not self.varies:
            return self.alpha.expand_as(t)
        return self.alpha_1 - (self.alpha_1 - self.alpha) * torch.exp(-self.lambda_alpha * t)

    def _spliced_from(self, t: Tensor) -> Tensor:
        difference = self.gamma - self.beta
        made = _both_decay(self.beta, self.gamma, t)
        return made * (difference / (difference + self.pole)) if self.pole else made

    def induction(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Unspliced and spliced RNA at times ``(..., g)`` of induction."""
        a, b, c = self.transcription_at_last, self.beta, self.gamma
        unspliced = a / b * -torch.expm1(-b * t)
        spliced = a / c * -torch.expm1(-c * t) - a * self._spliced_from(t)
        if self.varies:
            lag, rate = self.alpha_1 - self.alpha, self.lambda_alpha
            unspliced = unspliced - lag * _both_decay(rate, b, t)
            # what decays at rate, then at b, then at c
            twice = (_both_decay(rate, c, t) - _both_decay(b, c, t)) / _apart(b - rate)
            spliced = spliced - lag * b * twice
        return unspliced, spliced

    def repression(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same at times ``(..., g)`` since the end of induction."""
        u_0, s_0 = self.induction(self.switch_time)
        unspliced = u_0 * torch.exp(-self.beta * t)
        return unspliced, s_0 * torch.exp(-self.gamma * t) + self.beta * u_0 * self._spliced_from(t)

    def change_of_spliced(self, rna: tuple[Tensor, Tensor], t: Tensor | None) -> Tensor:
        """What is spliced less what is degraded, of (unspliced, spliced) RNA."""
        return self.beta * rna[0] - self.gamma * rna[1]

    def change_of_unspliced(self, rna: tuple[Tensor, Tensor], t: Tensor | None) -> Tensor:
        """What is transcribed at times ``t`` of induction (None: in repression, nothing) less what is spliced."""
        return (0.0 if t is None else self.transcription(t)) - self.beta * rna[0]

    def times(self, rho: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Time in induction, and in repression since its beginning, from the shares of each, ``(..., g)``."""
        return self.switch_time * rho, (self.t_max - self.switch_time) * tau


def _apart(difference: Tensor) -> Tensor:
    """The difference of two rates, no nearer to 0 than 1e-4."""
    return torch.where(difference.abs() < 1e-4, torch.full_like(difference, 1e-4), difference)
