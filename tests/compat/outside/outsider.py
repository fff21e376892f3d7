"""A model that somebody wrote for scvi-tools 1.x, as such code looks; it is run under `python -m celbo.compat`."""

import logging
import sys
import tempfile

import numpy as np
import scvi
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data._constants import _SETUP_ARGS_KEY, ADATA_MINIFY_TYPE
from scvi.data._utils import _get_adata_minify_type
from scvi.data.fields import CategoricalJointObsField, CategoricalObsField, LayerField, NumericalJointObsField
from scvi.dataloaders import AnnDataLoader, DataSplitter
from scvi.distributions import NegativeBinomial
from scvi.model._utils import _init_library_size, get_max_epochs_heuristic, parse_device_args
from scvi.model.base import BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, VAEMixin
from scvi.module._constants import MODULE_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from scvi.nn import DecoderSCVI, Encoder
from scvi.train import TrainingPlan, TrainRunner
from scvi.train._metrics import ElboMetric
from scvi.utils import setup_anndata_dsp
from scvi.utils._docstrings import devices_dsp
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl
from torch.optim.lr_scheduler import ReduceLROnPlateau

logger = logging.getLogger(__name__)


class TinyVAE(BaseModuleClass):
    def __init__(
        self,
        n_input: int,
        library_log_means: np.ndarray,
        library_log_vars: np.ndarray,
        n_batch: int = 0,
        n_hidden: int = 16,
        n_latent: int = 4,
    ):
        super().__init__()
        self.n_latent = n_latent
        self.n_batch = n_batch
        self.latent_distribution = "normal"
        self.register_buffer("library_log_means", torch.from_numpy(library_log_means).float())
        self.register_buffer("library_log_vars", torch.from_numpy(library_log_vars).float())
        self.px_r = nn.Parameter(torch.randn(n_input))
        self.z_encoder = Encoder(n_input, n_latent, n_layers=1, n_hidden=n_hidden, dropout_rate=0.1)
        self.l_encoder = Encoder(n_input, 1, n_layers=1, n_hidden=n_hidden, dropout_rate=0.1)
        self.decoder = DecoderSCVI(n_latent, n_input, n_cat_list=[n_batch], n_layers=1, n_hidden=n_hidden)

    def _get_inference_input(self, tensors):
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    def _get_generative_input(self, tensors, inference_outputs):
        return {
            "z": inference_outputs["z"],
            "library": inference_outputs["library"],
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
        }

    @auto_move_data
    def inference(self, x, n_samples=1):
        x_ = torch.log(1 + x)
        qz_m, qz_v, z = self.z_encoder(x_)
        ql_m, ql_v, library = self.l_encoder(x_)
        if n_samples > 1:
            z = Normal(qz_m, qz_v.sqrt()).sample((n_samples,))
            library = library.unsqueeze(0).expand((n_samples, library.size(0), library.size(1)))
        return {
            "z": z,
            "qz_m": qz_m,
            "qz_v": qz_v,
            "ql_m": ql_m,
            "ql_v": ql_v,
            "library": library,
            MODULE_KEYS.QZ_KEY: Normal(qz_m, qz_v.sqrt()),
        }

    @auto_move_data
    def generative(self, z, library, batch_index, transform_batch=None):
        if transform_batch is not None:
            batch_index = torch.ones_like(batch_index) * transform_batch
        px_scale, _, px_rate, _px_dropout = self.decoder("gene", z, library, batch_index)
        px = NegativeBinomial(mu=px_rate, theta=torch.exp(self.px_r), scale=px_scale)
        return {"px": px, "px_scale": px_scale, "px_rate": px_rate}

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight: float = 1.0, n_obs: int = 1):
        x = tensors[REGISTRY_KEYS.X_KEY]
        batch = tensors[REGISTRY_KEYS.BATCH_KEY]
        qz = Normal(inference_outputs["qz_m"], torch.sqrt(inference_outputs["qz_v"]))
        kl_z = kl(qz, Normal(torch.zeros_like(qz.loc), torch.ones_like(qz.scale))).sum(dim=1)
        local_mean = torch.nn.functional.linear(
            torch.nn.functional.one_hot(batch.squeeze(-1), self.n_batch).float(), self.library_log_means
        )
        kl_l = kl(
            Normal(inference_outputs["ql_m"], torch.sqrt(inference_outputs["ql_v"])),
            Normal(local_mean, torch.ones_like(local_mean)),
        ).sum(dim=1)
        reconst_loss = -generative_outputs["px"].log_prob(x).sum(-1)
        loss = torch.mean(reconst_loss + kl_weight * kl_z + kl_l)
        return LossOutput(
            loss=loss,
            reconstruction_loss=reconst_loss,
            kl_local={"kl_l": kl_l, "kl_z": kl_z},
            extra_metrics={"norm_of_z": inference_outputs["z"].pow(2).mean()},
        )

    @torch.inference_mode()
    def sample(self, tensors, n_samples=1):
        _, generative_outputs = self.forward(tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False)
        return generative_outputs["px"].sample().cpu()


class NoisyPlan(TrainingPlan):
    """Overrides what outsiders override."""

    def __init__(self, module, *, weight_of_nothing: float = 0.0, **kwargs):
        super().__init__(module, **kwargs)
        self.weight_of_nothing = weight_of_nothing
        self.n_hooks = 0

    def training_step(self, batch, batch_idx):
        if "kl_weight" in self.loss_kwargs:
            self.loss_kwargs.update({"kl_weight": self.kl_weight})
        assert self.loss_kwargs["n_obs"] == self.n_obs_training == 96
        assert self.loss_kwargs["kl_weight"] == self.current_epoch / 400
        _, _, scvi_loss = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self.log("train_loss", scvi_loss.loss, on_epoch=True, prog_bar=True, batch_size=scvi_loss.n_obs_minibatch)
        self.log("my_own_number", float(batch_idx), on_step=False, on_epoch=True)
        self.compute_and_log_metrics(scvi_loss, self.train_metrics, "train")
        return scvi_loss.loss + self.weight_of_nothing

    def on_train_epoch_end(self):
        self.n_hooks += 1

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.module.parameters(), lr=self.lr, eps=self.eps)
        scheduler = ReduceLROnPlateau(optimizer, patience=2, factor=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "reconstruction_loss_validation", "interval": "epoch"},
        }


class CountingLoader(AnnDataLoader):
    """A loader of one's own."""

    n_made = 0

    def __init__(self, adata_manager, shuffle=False, indices=None, batch_size=64, drop_last=False, **kwargs):
        type(self).n_made += 1
        super().__init__(
            adata_manager, shuffle=shuffle, indices=indices, batch_size=batch_size, drop_last=drop_last, **kwargs
        )


class CountingSplitter(DataSplitter):
    data_loader_cls = CountingLoader


class TinyModel(VAEMixin, RNASeqMixin, UnsupervisedTrainingMixin, BaseModelClass):
    _training_plan_cls = NoisyPlan
    _data_splitter_cls = CountingSplitter

    def __init__(self, adata: AnnData, n_hidden: int = 16, n_latent: int = 4, **model_kwargs):
        super().__init__(adata)
        assert _get_adata_minify_type(adata) is None
        assert ADATA_MINIFY_TYPE.LATENT_POSTERIOR
        library_log_means, library_log_vars = _init_library_size(self.adata_manager, self.summary_stats.n_batch)
        self.module = TinyVAE(
            n_input=self.summary_stats.n_vars,
            n_batch=self.summary_stats.n_batch,
            library_log_means=library_log_means,
            library_log_vars=library_log_vars,
            n_hidden=n_hidden,
            n_latent=n_latent,
            **model_kwargs,
        )
        self._model_summary_string = f"TinyModel with n_latent: {n_latent}"
        self.n_latent = n_latent
        self.init_params_ = self._get_init_params(locals())
        logger.info("The model has been initialized")

    @classmethod
    @setup_anndata_dsp.dedent
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        layer: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        **kwargs,
    ) -> AnnData | None:
        """%(summary)s.

        Parameters
        ----------
        %(param_adata)s
        %(param_batch_key)s
        %(param_layer)s
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        anndata_fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
        ]
        adata_manager = AnnDataManager(fields=anndata_fields, setup_method_args=setup_method_args)
        adata_manager.register_fields(adata, **kwargs)
        cls.register_manager(adata_manager)


class OwnTrain(TinyModel):
    """With a `train` of its own, put together from the parts."""

    @devices_dsp.dedent
    def train(
        self,
        max_epochs: int | None = None,
        accelerator="auto",
        devices="auto",
        train_size=0.8,
        batch_size: int = 64,
        early_stopping: bool = True,
        plan_kwargs: dict | None = None,
        **trainer_kwargs,
    ):
        """Train.

        Parameters
        ----------
        %(param_accelerator)s
        %(param_devices)s
        """
        max_epochs = max_epochs or get_max_epochs_heuristic(self.adata.n_obs)
        data_splitter = CountingSplitter(self.adata_manager, train_size=train_size, batch_size=batch_size)
        training_plan = NoisyPlan(self.module, **(plan_kwargs or {}))
        trainer_kwargs["early_stopping"] = early_stopping
        runner = TrainRunner(
            self,
            training_plan=training_plan,
            data_splitter=data_splitter,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        return runner()

    @torch.inference_mode()
    def get_something(self, adata=None, indices=None, batch_size=None):
        self._check_if_trained(warn=False)
        adata = self._validate_anndata(adata)
        post = self._make_data_loader(adata=adata, indices=indices, batch_size=batch_size)
        found = []
        for tensors in post:
            inputs = self.module._get_inference_input(tensors)
            outputs = self.module.inference(**inputs)
            found.append(outputs["qz_m"].cpu())
        return torch.cat(found).numpy()


def main():
    settings.seed = 0
    adata = scvi.data.synthetic_iid(batch_size=60, n_genes=40)
    for cls in (TinyModel, OwnTrain):
        cls.setup_anndata(adata, batch_key="batch")
        assert cls.setup_anndata.__doc__.count("%(") == 0
        model = cls(adata, n_latent=3)
        model.train(max_epochs=4, check_val_every_n_epoch=1, train_size=0.8, plan_kwargs={"lr": 1e-2}, batch_size=32)
        history = model.history
        assert len(history["elbo_train"]) == 4, history.keys()
        assert {"elbo_validation", "reconstruction_loss_train", "norm_of_z_train", "my_own_number"} <= set(history)
        assert abs(history["my_own_number"].iloc[0, 0] - 1.0) < 1e-6  # mean of 0, 1, 2
        assert model.is_trained
        latent = model.get_latent_representation()
        assert latent.shape == (120, 3)
        assert np.isfinite(float(model.get_elbo()))
        assert model.get_normalized_expression(n_samples=2).shape == (120, 40)
        assert set(model.get_reconstruction_error()) == {"reconstruction_loss"}
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder, overwrite=True)
            again = cls.load(folder, adata=adata)
        np.testing.assert_array_equal(again.get_latent_representation(), latent)
        assert again.init_params_["non_kwargs"]["n_latent"] == 3
        assert model.registry[_SETUP_ARGS_KEY]["batch_key"] == "batch"
    np.testing.assert_allclose(model.get_something(indices=[5, 2]), latent[[5, 2]], rtol=1e-5, atol=1e-6)
    assert CountingLoader.n_made >= 4
    metric = ElboMetric("reconstruction_loss", "train", "obs")
    metric.update(reconstruction_loss=torch.tensor(6.0), n_obs_minibatch=3)
    assert float(metric.compute()) == 2.0
    assert parse_device_args("cpu", "auto", return_device="torch")[2] == torch.device("cpu")
    print("done", scvi.__version__)


if __name__ == "__main__":
    sys.exit(main())
