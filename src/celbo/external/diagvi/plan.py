r"""The training plan of two modalities in one latent space.

.. math:: \sum_m \mathcal{L}_m + \lambda_g \mathcal{L}_{graph} + \lambda_s S_\varepsilon(z^{(1)}, z^{(2)})
          + \lambda_c \sum_m \mathrm{CE}_m

with the Sinkhorn divergence :math:`S_\varepsilon` (:mod:`celbo.ops.sinkhorn`) of the latents of a minibatch's cells.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from ...core import REGISTRY_KEYS, checked
from ...core.kinds import Number, OneOf
from ...module.base import LossOutput
from ...ops.draws import rsample
from ...ops.sinkhorn import moving_costs, sinkhorn_divergence
from ...train import TrainingPlan
from .module import DIAGVAE

__all__ = ["DiagTrainingPlan"]

_SHARE = "alignment_share"
_RISES_OVER = 1 / 3

Weight = Annotated[float, Number(0)]
Positive = Annotated[float, Number(0, above=True)]


class DiagTrainingPlan(TrainingPlan):
    r"""Plan whose minibatches have cells of two modalities.

    Parameters
    ----------
    module
        The module.
    lam_graph, lam_kl, lam_data, lam_sinkhorn, lam_class
        Weights of the guidance graph, of the KL divergence of the latents, of the reconstruction, of the alignment by
        optimal transport, and of the classifiers.
    sinkhorn_p
        Order of the cost :math:`\|z - z'\|^p / p`, 1 or 2.
    sinkhorn_blur
        Length below which two cells count as one: the strength of the entropy is its p-th power. None: from the costs
        of the minibatch.
    epsilon_from_cost, epsilon_scale
        The strength is ``epsilon_scale`` times the mean or the standard deviation of the costs.
    sinkhorn_reach
        Length beyond which a cell rather stays without a partner. None: ``reach_scale`` times the blur.
    reach_scale
        See there.
    loss_annealing
        Let the weights of the alignment and of the classifiers rise from 0 over the first third of the epochs.
    **plan_kwargs
        All else of :class:`~celbo.train.TrainingPlan`, with its defaults, but for the KL warm-up: there is none.
    """

    module: DIAGVAE
    _recipe_kwargs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"lam_sinkhorn": 10.0, "lam_class": 1.0, "loss_annealing": True, "batch_norm_momentum": 0.1}
        for name in ("short_cycle", "brief_cycle", "long_cycle", "one_cycle")
    }

    @checked
    def __init__(
        self,
        module: DIAGVAE,
        lam_graph: Weight = 15.0,
        lam_kl: Weight = 1.0,
        lam_data: Weight = 0.1,
        lam_sinkhorn: Weight = 85.0,
        lam_class: Weight = 5.0,
        sinkhorn_p: Annotated[int, OneOf((1, 2))] = 2,
        sinkhorn_blur: Positive | None = None,
        epsilon_from_cost: Literal["mean", "std"] = "mean",
        epsilon_scale: Positive = 0.5,
        sinkhorn_reach: Positive | None = None,
        reach_scale: Positive = 3.0,
        loss_annealing: bool = False,
        *,
        n_epochs_kl_warmup: int | None = None,
        **plan_kwargs: Any,
    ) -> None:
        weights: dict[str, Any] = {"lam_kl": lam_kl, "lam_data": lam_data, "n_epochs_kl_warmup": n_epochs_kl_warmup}
        super().__init__(module, **weights, **plan_kwargs)
        self.lam_graph, self.lam_sinkhorn, self.lam_class = lam_graph, lam_sinkhorn, lam_class
        self.sinkhorn_p, self.sinkhorn_blur, self.sinkhorn_reach = sinkhorn_p, sinkhorn_blur, sinkhorn_reach
        self.epsilon_from_cost, self.epsilon_scale, self.reach_scale = epsilon_from_cost, epsilon_scale, reach_scale
        self.loss_annealing = loss_annealing

    @property
    def alignment_share(self) -> float:
        """Share of the weights of alignment and classifiers that counts in this epoch."""
        if not self.loss_annealing:
            return 1.0
        return min(1.0, self.current_epoch / max(1.0, _RISES_OVER * self.trainer.max_epochs))

    def numbers(self) -> dict[str, float]:
        """That share too."""
        return super().numbers() | {_SHARE: self.alignment_share}

    def forward(self, batch: Sequence[Mapping[str, Tensor]], *, loss_kwargs: Mapping[str, Any], **kwargs: Any) -> Any:
        """Pass the cells of each modality through the module, and join what they cost.

        Parameters
        ----------
        batch
            A minibatch of each modality.
        loss_kwargs, **kwargs
            As for the module.
        """
        q_v = self.module.encode_graph()
        v = rsample(q_v)
        named = dict(zip(self.module.input_names, batch, strict=True))
        passed = {
            name: super(DiagTrainingPlan, self).forward(
                tensors,
                inference_kwargs={"mode": name, "v_all": v},
                generative_kwargs={"mode": name},
                loss_kwargs={**loss_kwargs, "mode": name},
            )
            for name, tensors in named.items()
        }
        z = {name: encoded["z"] for name, (encoded, _, _) in passed.items()}
        records = {name: record for name, (_, _, record) in passed.items()}
        nll_graph, kl_graph = self.module.graph_loss(q_v, v)
        terms = {"nll_graph": nll_graph, "kl_graph": kl_graph, "uot_loss": self.alignment(*z.values())}
        share = self.on_device.get(_SHARE, self.alignment_share)
        loss = self.lam_graph * (nll_graph + kl_graph) + share * self.lam_sinkhorn * terms["uot_loss"]
        if any(self.module.has_labels.values()):
            terms["class_loss"] = self._classification(z, named)
            loss = loss + share * self.lam_class * terms["class_loss"]
        return {"z": torch.cat(list(z.values()))}, {}, _joined(records, loss, terms)

    def alignment(self, z: Tensor, other: Tensor) -> Tensor:
        """Sinkhorn divergence of the latents of two modalities, ``(n, k)`` and ``(m, k)``."""
        p, blur, reach = self.sinkhorn_p, self.sinkhorn_blur, self.sinkhorn_reach
        with torch.no_grad():
            epsilon: Tensor | float
            if blur is None:
                costs_nm = moving_costs(z, other, p)
                spread = costs_nm.mean() if self.epsilon_from_cost == "mean" else costs_nm.std()
                epsilon = (self.epsilon_scale * spread).clamp(min=torch.finfo(z.dtype).eps)
            else:
                epsilon = blur**p
            rho = self.reach_scale**p * epsilon if reach is None else reach**p
        return sinkhorn_divergence(z, other, epsilon, rho, p)

    def _classification(self, z: Mapping[str, Tensor], named: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        labelled = [name for name, has_labels in self.module.has_labels.items() if has_labels]
        return torch.stack(
            [self.module.classification_loss(z[name], named[name][REGISTRY_KEYS.LABELS_KEY], name) for name in labelled]
        ).sum()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of one minibatch; also kept as ``training_loss``, scvi-tools' name of ``train_loss`` here."""
        loss = super().training_step(batch, batch_idx)
        assert self.last_loss_output is not None
        self.log("training_loss", loss.detach(), batch_size=self.last_loss_output.n_obs_minibatch)
        return loss


def _joined(records: Mapping[str, LossOutput], loss: Tensor, terms: Mapping[str, Tensor]) -> LossOutput:
    nll = {name: record.reconstruction_loss["reconstruction_loss"] for name, record in records.items()}
    kl = {name: record.kl_local["kl_local"] for name, record in records.items()}
    of_each = {f"nll_{name}": nll_n.mean() for name, nll_n in nll.items()}
    of_each |= {f"kl_{name}": kl_n.mean() for name, kl_n in kl.items()}
    extra = {name: value.detach() for name, value in (of_each | dict(terms)).items()}
    total = torch.stack([record.loss for record in records.values()]).sum() + loss
    nll_n, kl_n = (torch.cat(list(one.values())) for one in (nll, kl))
    return LossOutput(total, reconstruction_loss=nll_n, kl_local=kl_n, extra_metrics=extra)
