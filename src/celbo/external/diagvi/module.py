r"""Two autoencoders, one of each modality, that share a latent space and the vectors of features that go together.

.. math::

    z_n &\sim N(0, I) \text{ or } \sum_m \mathrm{softmax}(w + 100\,e_{y_n})_m\, N(\mu_m, \mathrm{diag}\,\sigma_m^2),
    \qquad v_g \sim N(0, I) \\
    x_{ng} &\sim p_m(\mathrm{softplus}(a_{b_n g})\, z_n^\top v_g + \beta_{b_n g}) \\
    \mathcal{L}_m &= \tfrac1N \sum_n \Bigl[ -\lambda_d \sum_g \log p_m(x_{ng} \mid z_n, v_g)
        + \tfrac{\lambda_k}{G_m} \mathrm{KL}(q(z_n \mid x_n) \,\|\, p(z_n)) \Bigr] \\
    \mathcal{L}_{graph} &= -\tfrac12\,\overline{w_{ij} \log \sigma(\sigma_{ij} v_i^\top v_j)}
        - \tfrac12\,\overline{\log \sigma(-v_i^\top v_j)} + \tfrac{1}{V^2} \sum_i \mathrm{KL}(q(v_i) \,\|\, N(0, I))

for the :math:`G_m` features of modality m; the mean of the graph loss is once over the edges of the guidance graph, and
once over as many pairs of features drawn at random that are no edges.

Dims: n cells, g features of a modality, v features of both, e edges, k latents, b batches, c classes, m components.
References: Cao and Gao, *Multi-omics single-cell data integration and regulatory inference with graph-linked
embedding*, Nature Biotechnology 2022 (GLUE); the model is scvi-tools', of 2026.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torch.distributions import Normal as Posterior

from ...core import REGISTRY_KEYS, checked
from ...module import Classifier
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.base.priors import labelled_mixture, mixture_kl
from ...module.likelihoods import log_likelihood
from ...nn import Encoder
from ...ops.draws import randn, rsample
from ...ops.random import generator_for
from .graph import GuidanceGraph
from .layers import GraphEncoder, decoder_for
from .start import COUNTS, start_of_features, start_of_vectors

__all__ = ["DIAGVAE"]

_LABEL_WEIGHT = 100.0
"""What a cell's label adds to the logit of its component."""

_STANDARD = Posterior(0.0, 1.0)
_KL_DRAWS = 10


class DIAGVAE(BaseModuleClass):
    """Networks and losses of DIAGVI. Each method is told the name of the modality (``mode``) of the cells it gets.

    Parameters
    ----------
    n_inputs, n_batches, n_labels
        Numbers of features, batches and labels of each modality by its name.
    modality_likelihoods
        ``"nb"``, ``"zinb"``, ``"nbmixture"``, ``"normal"``, ``"log1pnormal"``, ``"ziln"`` or ``"zig"`` of each.
    normalize_lib
        Whether a normal likelihood is of shares of the cell's total; counts always are.
    guidance_graph
        Which features go together.
    use_gmm_prior
        Whether the prior of each modality's cells is a mixture.
    semi_supervised
        Whether cells of each have labels that a classifier learns.
    n_mixture_components
        Number of components of the mixture; with labels it is theirs.
    n_latent
        Size of the latent space.
    n_hidden, n_layers, dropout_rate
        Of the encoders.
    """

    edge_codes: Tensor
    edge_index: Tensor
    edge_weight: Tensor
    edge_sign: Tensor

    @checked
    def __init__(
        self,
        n_inputs: Mapping[str, int],
        n_batches: Mapping[str, int],
        n_labels: Mapping[str, int],
        modality_likelihoods: Mapping[str, Any],
        normalize_lib: Mapping[str, bool],
        guidance_graph: GuidanceGraph,
        use_gmm_prior: Mapping[str, bool],
        semi_supervised: Mapping[str, bool],
        n_mixture_components: Mapping[str, int],
        n_latent: int = 50,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.input_names, self.n_latent = list(n_inputs), n_latent
        self.likelihoods, self.n_labels = dict(modality_likelihoods), dict(n_labels)
        self.has_mixture, self.has_labels = dict(use_gmm_prior), dict(semi_supervised)
        self.gmm_logits, self.gmm_means, self.gmm_scales = (nn.ParameterDict() for _ in range(3))
        layers: dict[str, Any] = {"n_hidden": n_hidden, "n_layers": n_layers, "dropout_rate": dropout_rate}
        for place, name in enumerate(self.input_names):
            self.add_module(f"encoder_{place}", Encoder(n_inputs[name], n_latent, return_dist=True, **layers))
            likelihood = modality_likelihoods[name]
            decoder = decoder_for(n_inputs[name], n_batches[name], likelihood, normalize_lib[name])
            self.add_module(f"decoder_{place}", decoder)
            if semi_supervised[name]:
                classifier = Classifier(n_latent, n_labels=n_labels[name], n_layers=0, logits=True)
                self.add_module(f"classifier_{place}", classifier)
            if use_gmm_prior[name]:
                self._put_mixture(name, n_labels[name] if semi_supervised[name] else n_mixture_components[name])
        self.graph_encoder = GraphEncoder(guidance_graph, n_latent)
        self._keep_edges(guidance_graph)

    def _put_mixture(self, name: str, m: int) -> None:
        self.gmm_logits[name] = nn.Parameter(torch.zeros(m))
        self.gmm_means[name] = nn.Parameter(randn(m, self.n_latent))
        self.gmm_scales[name] = nn.Parameter(torch.zeros(m, self.n_latent))

    def _keep_edges(self, graph: GuidanceGraph) -> None:
        """The edges follow from the data: none is saved. Codes of pairs tell whether one is an edge."""
        index, n = torch.as_tensor(graph.edge_index), graph.n_nodes
        self.register_buffer("edge_index", index, persistent=False)
        self.register_buffer("edge_codes", (index[0] * n + index[1]).sort().values, persistent=False)
        self.register_buffer("edge_weight", torch.as_tensor(graph.edge_weight), persistent=False)
        self.register_buffer("edge_sign", torch.as_tensor(graph.edge_sign), persistent=False)
        self._features = graph.places

    def start_from(self, x: Mapping[str, np.ndarray], graph: GuidanceGraph) -> None:
        """Begin with what some cells say of features and of their links, see :mod:`celbo.external.diagvi.start`.

        Parameters
        ----------
        x
            Data of cells of each modality, ``(n, g)``.
        graph
            The guidance graph.
        """
        starts = {
            name: start_of_features(x[name], self.likelihoods[name], self.reads_library(name))
            for name in self.input_names
        }
        for name, start in starts.items():
            self._part("decoder", name).start_from(start)
        values = {name: start.values for name, start in starts.items()}
        self.graph_encoder.start_from(start_of_vectors(graph, values, self.n_latent))

    def _part(self, kind: str, mode: str) -> Any:
        """Encoder, decoder or classifier of a modality."""
        return self.get_submodule(f"{kind}_{self.input_names.index(mode)}")

    def reads_library(self, mode: str) -> bool:
        """Whether the data of a modality are shares of a cell's total."""
        return bool(self._part("decoder", mode).has_library)

    @auto_move_data
    def encode_graph(self) -> Posterior:
        """Posterior of the vectors of all features, ``(v, k)``."""
        q_v: Posterior = self.graph_encoder()
        return q_v

    @auto_move_data
    def inference(
        self, x: Tensor, mode: str | None = None, v_all: Tensor | None = None, deterministic: bool = False
    ) -> dict[str, Any]:
        """Encode cells of one modality.

        Parameters
        ----------
        x
            Data of its features, ``(n, g)``.
        mode
            Its name; None: the first.
        v_all
            Vectors of all features, ``(v, k)``; None: from the graph, the mean where ``deterministic``, else a draw.
        deterministic
            Whether ``z`` is the mean of the posterior, or a draw.

        Returns
        -------
        Posterior ``qz``, ``z`` ``(n, k)``, ``library`` ``(n, 1)``, the natural log of the total (0 where the
        likelihood has none), and ``v_all``.
        """
        mode = self.input_names[0] if mode is None else mode
        is_counts = self.likelihoods[mode] in COUNTS
        qz, z = self._part("encoder", mode)(x.log1p() if is_counts else x)
        if v_all is None:
            q_v = self.encode_graph()
            v_all = q_v.loc if deterministic else rsample(q_v)
        total_n1 = x.sum(-1, keepdim=True)
        library = total_n1.log() if self.reads_library(mode) else torch.zeros_like(total_n1)
        return {"qz": qz, "z": qz.loc if deterministic else z, "library": library, "v_all": v_all}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        v_all: Tensor,
        batch_index: Tensor | None = None,
        y: Tensor | None = None,
        mode: str | None = None,
    ) -> dict[str, Distribution]:
        """Distribution ``px`` of the data of one modality, and the prior ``pz``.

        Parameters
        ----------
        z
            Latents, ``(n, k)``.
        library
            Natural log of the totals, ``(n, 1)``.
        v_all
            Vectors of the features of both modalities, ``(v, k)``.
        batch_index, y
            Batch and label of each cell among those of its modality, ``(n, 1)``; None: the first batch, no label.
        mode
            Name of the modality; None: the first.
        """
        mode = self.input_names[0] if mode is None else mode
        batch_n1 = torch.zeros_like(library, dtype=torch.long) if batch_index is None else batch_index
        px = self._part("decoder", mode)(z, v_all[self._features[mode]], library, batch_n1)
        return {"px": px, "pz": self._prior(mode, y)}

    def _prior(self, mode: str, y: Tensor | None) -> Distribution:
        if not self.has_mixture[mode]:
            return _STANDARD
        scales, labels = self.gmm_scales[mode].exp() + 1e-4, y if self.has_labels[mode] else None
        return labelled_mixture(self.gmm_logits[mode], self.gmm_means[mode], scales, labels, _LABEL_WEIGHT)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        lam_kl: float = 1.0,
        lam_data: float = 0.1,
        mode: str | None = None,
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Loss of cells of one modality, see the head of this file.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            As everywhere.
        lam_kl, lam_data
            Weights of the KL divergence and of the reconstruction.
        mode
            Name of the modality; None: the first.
        kl_weight
            Share of ``lam_kl`` that counts by now.
        """
        x_ng, qz, pz = tensors[REGISTRY_KEYS.X_KEY], inference_outputs["qz"], generative_outputs["pz"]
        nll_n = -log_likelihood(generative_outputs["px"], x_ng)
        if self.has_mixture[self.input_names[0] if mode is None else mode]:
            kl_n = mixture_kl(qz, pz, 1 if self.training else _KL_DRAWS)
        else:
            kl_n = kl_divergence(qz, pz).sum(-1)
        loss = lam_data * nll_n.mean() + lam_kl * kl_weight * kl_n.mean() / x_ng.shape[1]
        return LossOutput(loss, reconstruction_loss=nll_n, kl_local=kl_n)

    def graph_loss(self, q_v: Posterior, v: Tensor) -> tuple[Tensor, Tensor]:
        """How badly the vectors tell edges of the graph from other pairs, and their KL divergence, as numbers.

        Parameters
        ----------
        q_v
            Posterior of the vectors of all features, ``(v, k)``.
        v
            A draw.
        """
        source, target = self.edge_index
        linked = (v[source] * v[target]).sum(1)
        together = -(self.edge_weight * F.logsigmoid(self.edge_sign * linked)).mean()
        one, other, is_free = self._pairs_at_random(len(v))
        apart = -(is_free * F.logsigmoid(-(v[one] * v[other]).sum(1))).sum() / is_free.sum().clamp(min=1)
        return 0.5 * (together + apart), kl_divergence(q_v, _STANDARD).sum() / len(v) ** 2

    def _pairs_at_random(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """As many pairs of features as there are edges, and 1 where a pair is none of them, else 0."""
        device = self.edge_codes.device
        size = (2, len(self.edge_codes))
        one, other = torch.randint(n, size, device=device, generator=generator_for(device))
        codes = one * n + other
        place = torch.searchsorted(self.edge_codes, codes).clamp(max=len(self.edge_codes) - 1)
        return one, other, (self.edge_codes[place] != codes).float()

    def classification_loss(self, z: Tensor, y: Tensor, mode: str) -> Tensor:
        """Mean cross-entropy of the labels of the cells that have one, 0 where none has.

        Parameters
        ----------
        z
            Latents, ``(n, k)``.
        y
            Codes, ``(n, 1)``; one beyond the labels means that there is none.
        mode
            Name of the modality.
        """
        y_n = y.reshape(-1).long()
        is_known = y_n < self.n_labels[mode]
        nll_n = F.cross_entropy(self.label_logits(z, mode), torch.where(is_known, y_n, 0), reduction="none")
        return (nll_n * is_known).sum() / is_known.sum().clamp(min=1)

    def label_logits(self, z: Tensor, mode: str) -> Tensor:
        """Logits ``(n, c)`` of the labels of a modality, of cells of any."""
        logits_nc: Tensor = self._part("classifier", mode)(z)
        return logits_nc
