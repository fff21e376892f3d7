"""A trained model can be pickled and copied, and gives the same answers; so can one that trained with callbacks."""

import copy
import pickle

import numpy as np
import pytest

from celbo.data import simulate_counts
from celbo.external import CellAssign
from celbo.model import AUTOZI, SCANVI, SCVI, AmortizedLDA, CondSCVI, LinearSCVI

RUN = {"max_epochs": 1, "seed": 0, "verbose": 0, "accelerator": "cpu"}
KEYS = {"batch_key": "batch", "labels_key": "cell_type"}
MODELS = {
    SCVI: KEYS,
    SCANVI: KEYS | {"unlabeled_category": "none"},
    LinearSCVI: KEYS,
    AUTOZI: KEYS,
    CondSCVI: {"labels_key": "cell_type"},
    AmortizedLDA: {},
}


def trained(cls, setup, **settings):
    adata = simulate_counts(60, 30, n_cell_types=3, seed=0)
    cls.setup_anndata(adata, **setup)
    model = cls(adata, n_hidden=8)
    model.train(**RUN, **settings)
    return model


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("again", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_a_trained_model(cls, again, caplog):
    model = trained(cls, MODELS[cls])
    other = again(model)
    for name, weight in model.module.state_dict().items():
        np.testing.assert_array_equal(other.module.state_dict()[name], weight)
    if cls is not AmortizedLDA:  # whose latents are sampled
        np.testing.assert_array_equal(other.get_latent_representation(), model.get_latent_representation())
    assert other.history.keys() == model.history.keys()
    assert other.trainer.current_epoch == 1
    other.train(**RUN)


def test_one_that_trained_with_what_cannot_be_pickled(tmp_path):
    class Callback:
        def on_train_start(self, trainer, plan):
            self.file = (tmp_path / "open").open("w")

        def teardown(self, trainer, plan, stage):
            self.file.close()

    model = trained(SCVI, KEYS, callbacks=[Callback()], recipe="one_cycle")
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.get_latent_representation(), model.get_latent_representation())


def test_cellassign():
    adata = simulate_counts(60, 30, n_cell_types=2, seed=0)
    adata.obs["size"] = 1.0
    CellAssign.setup_anndata(adata, size_factor_key="size")
    import pandas as pd

    markers = pd.DataFrame({"a": np.arange(30) < 15, "b": np.arange(30) >= 15}, index=adata.var_names).astype(int)
    model = CellAssign(adata, markers)
    model.train(**RUN)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(model)).predict(), model.predict())
