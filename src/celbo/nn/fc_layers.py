r"""Fully connected layers, the layers they are made of, and how covariates enter them: the one place.

A linear layer that sees one-hot covariates computes

.. math:: y = W\,[x,\, u,\, e_{c_1},\, e_{c_2},\, \dots]^\top + b
            = W_{xu}\,[x, u]^\top + W_{:, c_1} + W_{:, c_2} + \dots + b,

since a product with a one-hot vector is a column. Here the columns are gathered: no matrix of zeros is built and
multiplied, and the weight (so the ``state_dict``) is that of the one-hot layer.

Dims: n cells, i inputs, h outputs, c categories, s samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.linear import linear
from ..ops.random import generator_for

__all__ = [
    "Dropout",
    "FCLayers",
    "Linear",
    "append_columns",
    "codes_of",
    "covariate_widths",
    "decoded_as",
    "linear_with_covariates",
    "with_covariates",
]


class Linear(nn.Linear):
    """``torch.nn.Linear`` with a faster product on the CPU; same arguments, initialisation and ``state_dict``."""

    def reset_parameters(self) -> None:
        """Draw initial weights; a layer without outputs, of a modality that is not there, has none."""
        if self.out_features:
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to ``(..., i)``."""
        return linear(input, self.weight, self.bias)


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` that draws from the generator of the running training; torch's own draws elsewhere.

    Torch's function takes no generator, so the mask is drawn here by the same operator: on the CPU the numbers are
    those of torch for the same seed.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``, each entry dropped with probability ``p`` and the others divided by ``1 - p``; in training only."""
        generator = generator_for(x.device) if self.training and 0 < self.p < 1 else None
        if generator is None:
            return super().forward(x)
        kept = 1 - self.p
        mask = torch.empty_like(x).bernoulli_(kept, generator=generator).div_(kept)
        return x.mul_(mask) if self.inplace else x * mask


class FCLayers(nn.Module):
    r"""Stack of fully connected layers that see covariates beside their input.

    .. math:: h_{i+1} = \mathrm{dropout}(\phi(\mathrm{norm}(W_i\,[h_i,\, u,\, e_{c_1},\, e_{c_2}, \dots]^\top + b_i)))

    with continuous covariates :math:`u` and one-hot covariates :math:`e_c` in the first layer only, or in each.

    Parameters
    ----------
    n_in, n_out
        Size of input and output.
    n_cat_list
        Number of categories of each categorical covariate. One of a single category takes no column.
    n_cont
        Number of continuous covariates (``cont`` of :meth:`forward`).
    n_layers
        Number of layers.
    n_hidden
        Size of the layers between the first and the last.
    dropout_rate
        Probability with which an output is dropped in training; 0 leaves the dropout out.
    use_batch_norm
        Batch normalization with momentum 0.01 and eps 0.001.
    use_layer_norm
        Layer normalization without learned scale and shift.
    use_activation
        Whether to apply ``activation_fn``.
    bias
        Whether the linear layers have a bias.
    inject_covariates
        Covariates enter each layer (True) or the first only.
    activation_fn
        Class of the activation, called without arguments.

    Notes
    -----
    The columns of a layer's weight are ``[input | continuous | categorical 0 | categorical 1 | ...]``. The children of
    each layer are called 0 (linear), 1 (batch norm), 2 (layer norm), 3 (activation), 4 (dropout), None where absent, so
    that the ``state_dict`` is scvi-tools'.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_cat_list: Iterable[int] | None = None,
        n_cont: int = 0,
        n_layers: int = 1,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        use_activation: bool = True,
        bias: bool = True,
        inject_covariates: bool = True,
        activation_fn: type[nn.Module] | Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.inject_covariates = inject_covariates
        self.n_cat_list = covariate_widths(n_cat_list)
        self.n_cov = n_cont + sum(self.n_cat_list)
        self.fc_layers = nn.Sequential()
        sizes = [n_in, *[n_hidden] * (n_layers - 1), n_out]
        for i in range(n_layers):
            block = (
                Linear(sizes[i] + self.n_cov * self.inject_into_layer(i), sizes[i + 1], bias=bias),
                nn.BatchNorm1d(sizes[i + 1], momentum=0.01, eps=0.001) if use_batch_norm else None,
                nn.LayerNorm(sizes[i + 1], elementwise_affine=False) if use_layer_norm else None,
                activation_fn() if use_activation else None,
                Dropout(p=dropout_rate) if dropout_rate > 0 else None,
            )
            self.fc_layers.add_module(f"Layer {i}", nn.Sequential(*block))  # type: ignore[arg-type]

    def inject_into_layer(self, layer_num: int) -> bool:
        """Whether covariates enter the layer of that number."""
        return layer_num == 0 or self.inject_covariates

    @property
    def last_bias(self) -> nn.Parameter | None:
        """What is added to the last layer's output: the batch normalization's bias, else the linear one, or None."""
        *_, (layer, batch_norm, *_) = self._blocks()
        return layer.bias if batch_norm is None else batch_norm.bias

    def forward(self, x: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None) -> Tensor:
        """Run the layers.

        Parameters
        ----------
        x
            ``(n, n_in)`` or ``(s, n, n_in)``.
        *cat_list
            One a categorical covariate: codes ``(n, 1)``, or rows of weights ``(n, n_cat)``. More than the layers were
            built for are not looked at.
        cont
            Continuous covariates, ``(n, n_cont)``.

        Returns
        -------
        ``(n, n_out)`` or ``(s, n, n_out)``.

        Raises
        ------
        ValueError, IndexError
            See :func:`~celbo.nn.fc_layers.linear_with_covariates`.
        """
        columns = () if cont is None else (cont,)
        for i, (layer, batch_norm, *rest) in enumerate(self._blocks()):
            if self.inject_into_layer(i):
                dense = append_columns(x, *columns)
                x = linear_with_covariates(dense, layer.weight, layer.bias, self.n_cat_list, cat_list)
            else:
                x = layer(x)
            if batch_norm is not None:
                x = _batch_normalized(x, batch_norm)
            for step in rest:
                if step is not None:
                    x = step(x)
        return x

    def set_online_update_hooks(self, hook_first_layer: bool = True) -> None:
        """Let training move nothing but the weights of covariates.

        Gradients of the other columns of the linear weights, and of the biases, become zero; normalization layers are
        left alone.

        Parameters
        ----------
        hook_first_layer
            Whether this holds for the first layer too.
        """
        self.hooks = []
        for i, (layer, *_) in enumerate(self._blocks()):
            if i == 0 and not hook_first_layer:
                continue
            n_free = self.n_cov if self.inject_into_layer(i) else 0
            self.hooks.append(layer.weight.register_hook(_keep_last_columns(n_free)))
            if layer.bias is not None:
                self.hooks.append(layer.bias.register_hook(torch.zeros_like))

    def _blocks(self) -> Iterator[Any]:
        """The layers, each an iterable of linear, batch norm, layer norm, activation, dropout (None where absent)."""
        return iter(self.fc_layers)


def _keep_last_columns(n_columns: int) -> Callable[[Tensor], Tensor]:
    """Hook that sets a gradient ``(h, i)`` to zero but for its last columns."""

    def hook(grad: Tensor) -> Tensor:
        kept = torch.zeros_like(grad)
        start = grad.shape[1] - n_columns
        kept[:, start:] = grad[:, start:]
        return kept

    return hook


def _batch_normalized(x: Tensor, batch_norm: nn.Module) -> Tensor:
    """Batch normalization over cells; in training each sample of ``(s, n, h)`` has statistics of its own."""
    if batch_norm.training and x.shape[-2] == 1:
        raise ValueError(
            "One cell of a minibatch comes to a layer with batch normalisation, which needs two at least: take another "
            "batch_size or more cells of each kind (set, modality), or build the model without it: "
            "use_batch_norm='none'; for an adversary, adversarial_classifier=False in train()."
        )
    if x.dim() == 2:
        return batch_norm(x)
    if batch_norm.training:
        return torch.stack([batch_norm(slice_nh) for slice_nh in x])
    return batch_norm(x.flatten(0, -2)).view_as(x)


def covariate_widths(n_cat_list: Iterable[int] | None) -> list[int]:
    """Columns that each categorical covariate takes: its number of categories, 0 where there is only one."""
    return [n_cat if n_cat > 1 else 0 for n_cat in n_cat_list or []]


def append_columns(x: Tensor, *columns: Tensor) -> Tensor:
    """Concatenate along the last dimension, repeating each of ``columns`` over the leading dimensions of ``x``.

    Parameters
    ----------
    x
        ``(n, i)`` or ``(s, n, i)``.
    *columns
        ``(n, k)``, or with the leading dimensions of ``x``.

    Returns
    -------
    ``(..., n, i + k + ...)``; ``x`` itself where there is nothing to append.
    """
    if not columns:
        return x
    return torch.cat([x, *(block.expand(*x.shape[:-1], block.shape[-1]) for block in columns)], dim=-1)


def codes_of(batch_index: Tensor, cat_covs: Tensor | None = None) -> list[Tensor]:
    """Codes that layers gather, ``(n, 1)`` each: those of the batch, then those of each categorical covariate.

    Parameters
    ----------
    batch_index, cat_covs
        Codes, ``(n, 1)`` and ``(n, k)``.
    """
    return [batch_index, *(() if cat_covs is None else cat_covs.split(1, dim=-1))]


def decoded_as(batch_index: Tensor, transform_batch: Tensor | int | None) -> Tensor:
    """Batch that each cell is decoded as.

    Parameters
    ----------
    batch_index
        Codes of the cells' own batches, ``(n, 1)``.
    transform_batch
        Code of the batch that all cells take instead; None: each keeps its own.
    """
    return batch_index if transform_batch is None else torch.ones_like(batch_index) * transform_batch


def with_covariates(
    x: Tensor, batch_index: Tensor, cont_covs: Tensor | None = None, cat_covs: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """What a network sees: continuous covariates as columns of its input, the batch and categories as codes.

    Parameters
    ----------
    x
        Input, ``(n, i)`` or ``(s, n, i)``; a CSR tensor stays one where there is nothing to append.
    batch_index
        Codes, ``(n, 1)``.
    cont_covs, cat_covs
        Continuous covariates and codes of the categorical ones, ``(n, k)`` each.

    Returns
    -------
    Input with its columns, and codes ``(n, 1)`` of the batch and of each category.
    """
    codes = codes_of(batch_index, cat_covs)
    return (x, codes) if cont_covs is None else (append_columns(x.to_dense(), cont_covs), codes)


def linear_with_covariates(
    x: Tensor, weight: Tensor, bias: Tensor | None, widths: Sequence[int], cat_list: Sequence[Tensor | None]
) -> Tensor:
    """Linear layer of ``x`` and one-hot covariates.

    Parameters
    ----------
    x
        Dense input, ``(n, i)`` or ``(s, n, i)``, continuous covariates included.
    weight
        ``(h, i + sum(widths))``: columns of ``x``, then those of each covariate.
    bias
        ``(h,)`` or None.
    widths
        Columns of each covariate, see :func:`covariate_widths`. 0: it is not looked at.
    cat_list
        For each covariate its codes, ``(n, 1)`` or ``(n,)`` integers below its width, or one row of weights a cell,
        ``(n, width)`` (a soft assignment; one-hot rows are a special case).

    Returns
    -------
    ``(n, h)`` or ``(s, n, h)``.

    Raises
    ------
    ValueError
        Fewer covariates than widths, or None where one is needed.
    IndexError
        A code that is not below the width (on a GPU this is a device-side assertion).
    """
    if len(cat_list) < len(widths):
        raise ValueError(
            f"This layer was built for {len(widths)} categorical covariates and got {len(cat_list)}: "
            "give the codes of each, in the order of n_cat_list."
        )
    needed = [position for position, width in enumerate(widths) if width]
    if not needed:
        return linear(x, weight, bias)
    dense, *blocks = weight.split([weight.shape[1] - sum(widths), *(widths[position] for position in needed)], dim=1)
    y = linear(x, dense, bias)
    for position, block in zip(needed, blocks, strict=True):
        y = y + _columns_of(block, cat_list[position], position)
    return y


def _columns_of(block: Tensor, codes: Tensor | None, position: int) -> Tensor:
    """Columns of ``block`` ``(h, c)`` that the cells' codes name, as rows, ``(n, h)``."""
    if codes is None:
        raise ValueError(
            f"Categorical covariate {position} has {block.shape[1]} categories, but None was given for it."
        )
    if codes.dim() > 1 and codes.shape[-1] == block.shape[1]:
        return F.linear(codes.to(block.dtype), block)
    try:
        codes = codes.squeeze(-1) if codes.dim() > 1 else codes
        if block.device.type == "cpu" and codes.dim() == 1:  # embedding's way back sorts the codes
            return block.t().index_select(0, codes)
        return F.embedding(codes, block.t())
    except IndexError as error:
        raise IndexError(
            f"Categorical covariate {position} has codes from {int(codes.min())} to {int(codes.max())}; "
            f"this layer was built for {block.shape[1]} categories, codes 0 to {block.shape[1] - 1}."
        ) from error
