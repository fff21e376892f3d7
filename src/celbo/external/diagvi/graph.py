"""The guidance graph: which features of two modalities go together, how surely, and whether as one or against another.

Dims: v features of both modalities, e edges.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...core import ArgumentError, unknown_name

__all__ = ["GuidanceGraph", "graph_of_names", "graph_of_table", "graph_of_tensors"]

logger = logging.getLogger("celbo")

Features = Mapping[str, np.ndarray]
"""Names of the features of each modality."""

_SHOWN = 5


class GuidanceGraph:
    """Features of the modalities, one after the other, and the edges between them.

    Attributes of the form ``NAME_indices`` have the numbers of the features of each modality, as scvi-tools names them.

    Parameters
    ----------
    features
        Names of the features of each modality.
    edge_index
        Numbers of the two features of each edge, ``(2, e)``. A feature without an edge to itself gets one.
    edge_weight
        How sure each is, above 0 and at most 1, ``(e,)``.
    edge_sign
        1 where both features rise together, -1 where one falls, ``(e,)``.

    Attributes
    ----------
    places
        Where the features of each modality are among those of both.

    Raises
    ------
    ArgumentError
        Edges of features that are not there, weights or signs out of range.
    """

    def __init__(self, features: Features, edge_index: Any, edge_weight: Any, edge_sign: Any) -> None:
        self.features = {name: np.asarray(names).astype(str) for name, names in features.items()}
        ends = np.cumsum([len(names) for names in self.features.values()])
        self.n_nodes = int(ends[-1])
        self.places = {
            name: slice(int(stop) - len(names), int(stop))
            for (name, names), stop in zip(self.features.items(), ends, strict=True)
        }
        for name, place in self.places.items():
            setattr(self, f"{name}_indices", np.arange(place.start, place.stop))
        index = _array(edge_index, np.int64)
        if index.ndim != 2 or len(index) != 2 or (index.size and not 0 <= index.min() <= index.max() < self.n_nodes):
            raise ArgumentError(
                f"edge_index of the guidance graph must be 2 rows of numbers below {self.n_nodes}, one for each "
                f"feature of {' and '.join(self.features)}; its shape is {index.shape}."
            )
        weight, sign = (
            _of_each(index, values, name) for name, values in (("weight", edge_weight), ("sign", edge_sign))
        )
        if not ((weight > 0) & (weight <= 1)).all():
            raise ArgumentError("edge_weight of the guidance graph must be above 0 and at most 1.")
        if not np.isin(sign, (-1, 1)).all():
            raise ArgumentError("edge_sign of the guidance graph must be 1 (together) or -1 (against each other).")
        lonely = np.setdiff1d(np.arange(self.n_nodes), index[0][index[0] == index[1]])
        self.edge_index = np.concatenate([index, np.stack([lonely, lonely])], axis=1)
        self.edge_weight, self.edge_sign = (np.r_[v, np.ones(len(lonely), np.float32)] for v in (weight, sign))

    def arguments(self) -> dict[str, Any]:
        """What makes it again, in arrays."""
        edges = {"edge_index": self.edge_index, "edge_weight": self.edge_weight, "edge_sign": self.edge_sign}
        return {"features": dict(self.features), **edges}

    def propagation(self) -> np.ndarray:
        r"""Weight :math:`\sigma_{ij} w_{ij} / \sqrt{d_i d_j}` of each edge, :math:`d_i = \sum_j w_{ij}`, ``(e,)``."""
        source, target = self.edge_index
        degree_v = np.bincount(target, self.edge_weight, self.n_nodes)
        return (self.edge_sign * self.edge_weight / np.sqrt(degree_v[source] * degree_v[target])).astype(np.float32)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(names)}" for name, names in self.features.items())
        n_between = int((self.edge_index[0] != self.edge_index[1]).sum())
        return f"GuidanceGraph({sizes} features; {n_between} edges between them)"


def _array(values: Any, dtype: type) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype)


def _of_each(index: np.ndarray, values: Any, name: str) -> np.ndarray:
    array = _array(values, np.float32)
    if array.shape != index.shape[1:]:
        raise ArgumentError(
            f"edge_{name} of the guidance graph must be a number for each of its {index.shape[1]} edges; its shape is "
            f"{array.shape}."
        )
    return array


def _graph_of_pairs(features: Features, pairs: np.ndarray, weight: float = 1.0, sign: float = 1.0) -> GuidanceGraph:
    """The graph of pairs of features, one of each modality.

    Parameters
    ----------
    features
        Names of the features of both modalities.
    pairs
        Place of a feature in the first and in the second modality, ``(2, pairs)``.
    weight, sign
        Of all these edges.
    """
    first, second = pairs
    second = second + len(next(iter(features.values())))
    edges = np.stack([np.r_[first, second], np.r_[second, first]])
    return GuidanceGraph(features, edges, np.full(edges.shape[1], weight), np.full(edges.shape[1], sign))


def graph_of_tensors(graph: Any, features: Features) -> GuidanceGraph:
    """The graph that a user has: of this module, as an archive keeps it, or an object with the attributes of
    ``torch_geometric.data.Data``, whose features are told by their numbers alone.

    Parameters
    ----------
    graph
        The graph.
    features
        Names of the features that it must be of.

    Raises
    ------
    ArgumentError
        It is of other features.
    """
    if isinstance(graph, Mapping):
        graph = GuidanceGraph(**graph)
    if not isinstance(graph, GuidanceGraph):
        return _of_others(graph, features)
    for name, own in graph.features.items():
        if name not in features:
            raise ArgumentError(unknown_name("modality of the guidance graph", name, features))
        other = np.setdiff1d(features[name], own)
        if len(own) != len(features[name]) or (own != features[name]).any():
            which = f"it lacks {', '.join(other[:_SHOWN])}" if len(other) else "they are in another order or fewer"
            raise ArgumentError(
                f"The guidance graph is of other features of {name!r} ({len(own)}, and the data have "
                f"{len(features[name])}; {which}): make it of these data, "
                "DIAGVI.construct_custom_guidance_graph(adatas, mapping_df)."
            )
    return graph


def _of_others(graph: Any, features: Features) -> GuidanceGraph:
    """A graph of torch_geometric's kind, with its features in the order of the modalities."""
    try:
        indices = [_array(getattr(graph, f"{name}_indices"), np.int64) for name in features]
        index, weight, sign = graph.edge_index, graph.edge_weight, graph.edge_sign
    except AttributeError as error:
        wanted = ", ".join(f"{name}_indices" for name in features)
        raise ArgumentError(
            f"guidance_graph must have the attributes edge_index, edge_weight, edge_sign, {wanted}: {error}."
        ) from None
    for name, numbers in zip(features, indices, strict=True):
        if len(numbers) != len(features[name]):
            raise ArgumentError(
                f"The guidance graph has {len(numbers)} features of {name!r}, and the data have {len(features[name])}: "
                "make it of these data."
            )
    order = np.concatenate(indices)
    if len(np.unique(order)) != len(order) or not np.isin(_array(index, np.int64), order).all():
        raise ArgumentError("The NAME_indices of the guidance graph must give each of its features one modality.")
    place = np.zeros(order.max() + 1, np.int64)
    place[order] = np.arange(len(order))
    return GuidanceGraph(features, place[_array(index, np.int64)], weight, sign)


def graph_of_names(features: Features) -> GuidanceGraph:
    """The graph of features of the same name; an ``ArgumentError`` where there are none."""
    first, second = map(pd.Index, features.values())
    for name, names in zip(features, (first, second), strict=True):
        if not names.is_unique:
            raise ArgumentError(
                f"{name!r} has {names[names.duplicated()][0]!r} more than once: var_names_make_unique()."
            )
    place = second.get_indexer(first)
    if not (place >= 0).any():
        one, other = (", ".join(map(str, names[:_SHOWN])) for names in (first, second))
        a, b = features
        raise ArgumentError(
            f"No feature of {a!r} ({one}, ...) has the name of one of {b!r} ({other}, ...): spell them alike, or say "
            f"which go together, mapping_df=pandas.DataFrame({{{a!r}: [...], {b!r}: [...]}})."
        )
    return _graph_of_pairs(features, np.stack([np.flatnonzero(place >= 0), place[place >= 0]]))


def graph_of_table(features: Features, table: pd.DataFrame, weight: float = 1.0, sign: float = 1.0) -> GuidanceGraph:
    """The graph of a table of pairs.

    Parameters
    ----------
    features
        Names of the features of both modalities.
    table
        A column for each modality, by its name; a row for each pair of features. Rows with a feature that the data
        lack are left out, which is logged.
    weight, sign
        Of all its edges.

    Raises
    ------
    ArgumentError
        A column is missing, or no row has features of both modalities.
    """
    for name in features:
        if name not in table.columns:
            raise ArgumentError(
                f"mapping_df has no column {name!r}: it needs one for each modality ({', '.join(features)}), and has "
                f"{', '.join(map(repr, table.columns))}."
            )
    asked = {name: pd.Index(table[name].astype(str)) for name in features}
    pairs = np.stack([pd.Index(names).get_indexer(asked[name]) for name, names in features.items()])
    known: np.ndarray = np.all(pairs >= 0, axis=0)
    if not known.any():
        missing = {name: str(table[name].iloc[0]) for name in features} if len(table) else {}
        raise ArgumentError(
            f"None of the {len(table)} rows of mapping_df has a feature of each modality: the data have no such names "
            f"as {missing}."
        )
    if not known.all():
        logger.info(f"{(~known).sum()} of {len(known)} rows of mapping_df name features that the data lack: left out.")
    return _graph_of_pairs(features, np.unique(pairs[:, known], axis=1), weight, sign)
