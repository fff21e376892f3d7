"""Classifier: from a latent variable to a class.

Dims: n cells, k inputs, c classes.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import checked
from ..core.kinds import Whole
from ..nn import FCLayers

__all__ = ["Classifier"]


class Classifier(nn.Module):
    r"""Fully connected layers with one output a class; without hidden layers a linear (softmax) regression.

    .. math:: q(y_n = c \mid z_n) = \mathrm{softmax}(W h(z_n) + b)_c

    Parameters
    ----------
    n_input
        Size of the input.
    n_hidden, n_layers
        Size and number of hidden layers; 0 for either: none.
    n_labels
        Number of classes.
    dropout_rate
        Dropout of the hidden layers.
    logits
        Whether :meth:`forward` gives logits, or probabilities.
    use_batch_norm, use_layer_norm, activation_fn, **kwargs
        Of the hidden layers, see :class:`~celbo.nn.FCLayers`.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_hidden: Annotated[int, Whole(0)] = 128,
        n_labels: int = 5,
        n_layers: Annotated[int, Whole(0)] = 1,  # 0 of both: a linear one
        dropout_rate: float = 0.1,
        logits: bool = False,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        activation_fn: type[nn.Module] | Callable[[], nn.Module] = nn.ReLU,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if n_hidden > 0 and n_layers > 0:
            hidden = FCLayers(
                n_in=n_input,
                n_out=n_hidden,
                n_layers=n_layers,
                n_hidden=n_hidden,
                dropout_rate=dropout_rate,
                use_batch_norm=use_batch_norm,
                use_layer_norm=use_layer_norm,
                activation_fn=activation_fn,
                **kwargs,
            )
            layers.append(hidden)
        layers.append(nn.Linear(n_hidden if layers else n_input, n_labels))
        self.classifier = nn.Sequential(*layers)
        self.logits = True
        if not logits:
            self.append_softmax()

    def append_softmax(self) -> None:
        """Let :meth:`forward` give probabilities from now on; the weights stay what they are."""
        if self.logits:
            self.classifier.append(nn.Softmax(dim=-1))
            self.logits = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits or probabilities, ``(n, c)``, of inputs ``(n, k)``."""
        return self.classifier(x)

    def log_probs(self, x: Tensor) -> Tensor:
        """Log-probabilities of the classes, ``(n, c)``, whatever :meth:`forward` gives."""
        return self.log_probs_of(self(x))

    def log_probs_of(self, output: Tensor) -> Tensor:
        """Log-probabilities from what :meth:`forward` gave; a probability of 0 counts as the smallest positive one."""
        if self.logits:
            return F.log_softmax(output, dim=-1)
        return output.clamp(min=torch.finfo(output.dtype).tiny).log()
