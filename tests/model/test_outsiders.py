"""Models of others: written as scvi-tools has them, and in celbo's shorter way."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl

from celbo import REGISTRY_KEYS
from celbo.data import AnnDataManager
from celbo.data.fields import CategoricalObsField, LayerField, NumericalObsField
from celbo.distributions import NegativeBinomial
from celbo.model.base import BaseModelClass, UnsupervisedTrainingMixin, VAEMixin, setup_method
from celbo.module.base import BaseModuleClass, LossOutput, auto_move_data
from celbo.nn import DecoderSCVI, Encoder
from celbo.testing import check_model
from celbo.train import Plan, TrainingPlan


class PortedModule(BaseModuleClass):
    """As outside packages write modules for scvi-tools: inputs renamed by hand."""

    def __init__(self, n_input, n_batch, n_hidden=16, n_latent=4, scale_kl=1.0):
        super().__init__()
        self.scale_kl = scale_kl
        self.z_encoder = Encoder(n_input, n_latent, n_hidden=n_hidden, return_dist=True)
        self.decoder = DecoderSCVI(n_latent, n_input, n_cat_list=[n_batch], n_hidden=n_hidden)
        self.log_theta = nn.Parameter(torch.zeros(n_input))

    def _get_inference_input(self, tensors):
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    def _get_generative_input(self, tensors, inference_outputs):
        return {
            "latent": inference_outputs["z"],
            "log_total": inference_outputs["log_total"],
            "batch_code": tensors[REGISTRY_KEYS.BATCH_KEY],
        }

    @auto_move_data
    def inference(self, x):
        qz, z = self.z_encoder(torch.log1p(x))
        return {"qz": qz, "z": z, "log_total": torch.log(x.sum(1, keepdim=True))}

    @auto_move_data
    def generative(self, latent, log_total, batch_code):
        _, _, rate, _ = self.decoder("gene", latent, log_total, batch_code)
        return {"px": NegativeBinomial(mu=rate, theta=self.log_theta.exp())}

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight=1.0):
        reconst = -generative_outputs["px"].log_prob(tensors[REGISTRY_KEYS.X_KEY]).sum(-1)
        kl_div = self.scale_kl * kl(inference_outputs["qz"], Normal(0, 1)).sum(-1)
        return LossOutput(loss=torch.mean(reconst + kl_weight * kl_div), reconstruction_loss=reconst, kl_local=kl_div)


class Ported(VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    """Every ritual of scvi-tools' developer documentation, in its place."""

    def __init__(self, adata, n_latent=4, **model_kwargs):
        super().__init__(adata)
        self.module = PortedModule(
            n_input=self.summary_stats["n_vars"],
            n_batch=self.summary_stats["n_batch"],
            n_latent=n_latent,
            **model_kwargs,
        )
        self._model_summary_string = f"Ported model with n_latent: {n_latent}"
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(cls, adata, layer=None, batch_key=None, **kwargs):
        setup_method_args = cls._get_setup_method_args(**locals())
        anndata_fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        ]
        adata_manager = AnnDataManager(fields=anndata_fields, setup_method_args=setup_method_args)
        adata_manager.register_fields(adata, **kwargs)
        cls.register_manager(adata_manager)


class Short(VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    """No constructor of its own."""

    _module_cls = PortedModule

    @classmethod
    @setup_method
    def setup_anndata(cls, adata, layer=None, batch_key=None, depth_key=None):
        depth = NumericalObsField("depth", depth_key, required=False)
        return [LayerField(REGISTRY_KEYS.X_KEY, layer), CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key), depth]


def small(sparse_format=None):
    from celbo.data import synthetic_iid

    return synthetic_iid(batch_size=20, n_genes=30, sparse_format=sparse_format, seed=0)


@pytest.mark.parametrize("cls", [Ported, Short])
def test_keeps_the_contract(cls):
    check_model(cls, small, setup={"batch_key": "batch"}, init={"n_hidden": 5})


def test_ritual_records_the_same_as_none(adata):
    Ported.setup_anndata(adata, batch_key="batch")
    ported = Ported(adata, 3, n_hidden=5)
    assert ported.registry["model_name"] == "Ported"
    assert ported.registry["setup_method_name"] == "setup_anndata"
    assert ported.registry["setup_args"] == {"layer": None, "batch_key": "batch"}
    assert ported.init_params_ == {"non_kwargs": {"n_latent": 3}, "kwargs": {"model_kwargs": {"n_hidden": 5}}}
    assert repr(ported).startswith("Ported model with n_latent: 3")
    Short.setup_anndata(adata, batch_key="batch")
    short = Short(adata, n_latent=3)
    assert short.init_params_ == {"non_kwargs": {}, "kwargs": {"module_kwargs": {"n_latent": 3}}}
    assert "n_latent: 3" in repr(short)


def test_arguments_come_back_from_an_archive(adata, quick, tmp_path):
    Ported.setup_anndata(adata, layer="counts", batch_key="batch")
    model = quick(Ported(adata, 3, n_hidden=5, scale_kl=0.5))
    model.save(tmp_path / "m")
    loaded = Ported.load(tmp_path / "m", adata)
    assert loaded.module.scale_kl == 0.5
    assert loaded.get_setup_arg("layer") == "counts"
    assert loaded.init_params_ == model.init_params_


def test_sizes_and_arguments_unknown_to_the_module(adata):
    Short.setup_anndata(adata)
    assert Short(adata).module.decoder.px_decoder.n_cat_list in ([1], [0])
    with pytest.raises(TypeError, match="n_latents"):
        Short(adata, n_latents=3)


class OwnPlan(TrainingPlan):
    """Overrides the step and logs for itself."""

    def __init__(self, module, *, bonus=0.0, **kwargs):
        super().__init__(module, **kwargs)
        self.bonus = bonus

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("bonus", self.bonus, on_epoch=True)
        return loss + self.bonus


class ClassicPlan(Plan):
    """Knows nothing of recipes."""

    def __init__(self, module, lr=1e-2):
        super().__init__()
        self.module, self.lr = module, lr

    def training_step(self, batch, batch_idx):
        record = self.module(batch)[2]
        self.log("own_loss", record.loss, batch_size=record.n_obs_minibatch)
        return record.loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.module.parameters(), lr=self.lr)


def test_plan_of_ones_own(adata, quick, monkeypatch):
    Short.setup_anndata(adata, batch_key="batch")
    monkeypatch.setattr(Short, "_training_plan_cls", OwnPlan)
    model = quick(Short(adata), plan_kwargs={"bonus": 2.0})
    assert model.history["bonus"]["bonus"].tolist() == [2.0, 2.0]
    assert model.recipe_ == "one_cycle"


def test_plan_without_recipe_settings_trains_classically(adata, quick, monkeypatch, said):
    Short.setup_anndata(adata, batch_key="batch")
    monkeypatch.setattr(Short, "_training_plan_cls", ClassicPlan)
    model = quick(Short(adata), verbose=1)
    assert list(model.history) == ["own_loss"]
    assert model.recipe_ == "classic"
    assert any("ClassicPlan has no 'lr_schedule'" in message for message in said(20))


class NoTrain(BaseModelClass):
    _module_cls = PortedModule


def test_what_a_model_must_define(adata):
    with pytest.raises(NotImplementedError, match=r"NoTrain must define setup_anndata"):
        NoTrain.setup_anndata(adata)
    Short.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"NoTrain\.setup_anndata"):
        NoTrain(adata)


def test_data_that_come_later(adata, quick, tmp_path):
    """Also a class whose constructor cannot do without an AnnData is loaded without one."""
    Ported.setup_anndata(adata, batch_key="batch")
    model = quick(Ported(adata))
    model.save(tmp_path / "m")
    bare = Ported.load(tmp_path / "m", adata=False)
    np.testing.assert_array_equal(bare.get_latent_representation(adata), model.get_latent_representation())


def test_on_load_hook(adata, quick, tmp_path, monkeypatch):
    Short.setup_anndata(adata, batch_key="batch")
    quick(Short(adata)).save(tmp_path / "m")
    seen = []
    hook = functools.partial(lambda self, model, **kwargs: seen.append(type(model).__name__))
    monkeypatch.setattr(PortedModule, "on_load", lambda self, model, **kwargs: hook(self, model))
    Short.load(tmp_path / "m", adata)
    assert seen == ["Short"]
