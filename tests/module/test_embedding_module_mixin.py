import pytest
import torch
from torch import nn

from celbo.module.base import EmbeddingModuleMixin
from celbo.nn import Embedding


@pytest.fixture
def module():
    class Module(EmbeddingModuleMixin, nn.Module):
        pass

    return Module()


def test_embeddings_are_kept_by_name(module):
    assert list(module.state_dict()) == []
    module.init_embedding("batch", num_embeddings=3)
    module.init_embedding("donor", num_embeddings=4, embedding_dim=2, padding_idx=0)
    assert list(module.state_dict()) == ["_embeddings_dict.batch.weight", "_embeddings_dict.donor.weight"]
    assert isinstance(module.get_embedding("batch"), Embedding)
    assert module.get_embedding("batch").weight.shape == (3, 5)
    assert module.get_embedding("donor").padding_idx == 0
    module.remove_embedding("batch")
    assert list(module.embeddings_dict) == ["donor"]


def test_a_name_is_taken_unless_told_otherwise(module):
    module.init_embedding("batch", num_embeddings=3)
    with pytest.raises(KeyError, match="'batch' already exists"):
        module.init_embedding("batch", num_embeddings=3)
    longer = Embedding.extend(module.get_embedding("batch"), 1)
    module.add_embedding("batch", longer, overwrite=True)
    assert module.get_embedding("batch") is longer


@pytest.mark.parametrize("verb", ["get_embedding", "remove_embedding"])
def test_an_unknown_name_is_named(module, verb):
    module.init_embedding("batch", num_embeddings=3)
    with pytest.raises(KeyError, match="Did you mean 'batch'"):
        getattr(module, verb)("bach")


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 6, 1)])
def test_rows_of_the_codes(module, shape):
    module.init_embedding("batch", num_embeddings=3)
    codes = torch.arange(6).remainder(3).expand(2, 6)[0 if len(shape) < 3 else slice(None)].reshape(shape)
    rows = module.compute_embedding("batch", codes)
    assert rows.shape == (*(shape[:-1] if len(shape) > 1 else shape), 5)
    torch.testing.assert_close(rows[..., 4, :], module.get_embedding("batch").weight[1].expand(rows[..., 4, :].shape))
