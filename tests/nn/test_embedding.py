import pytest
import torch

from celbo.nn import Embedding


@pytest.fixture
def embedding():
    return Embedding(3, 4, padding_idx=1)


def test_extend_by_a_number_keeps_the_old_rows(embedding):
    longer = Embedding.extend(embedding, 2)
    assert isinstance(longer, Embedding)
    assert longer.weight.shape == (5, 4)
    assert longer.padding_idx == 1
    torch.testing.assert_close(longer.weight[:3], embedding.weight)
    assert (longer.weight[3] != longer.weight[4]).any()


def test_extend_by_rows_copies_them(embedding):
    longer = Embedding.extend(embedding, [2, 0])
    torch.testing.assert_close(longer.weight[3:], embedding.weight[[2, 0]])
    with torch.no_grad():
        longer.weight[:] = 0
    assert (embedding.weight[0] != 0).any(), "the old embedding shares no memory with the new one"


@pytest.mark.parametrize("freeze_prev", [True, False])
def test_old_rows_are_frozen_unless_told_otherwise(freeze_prev):
    longer = Embedding.extend(Embedding(3, 4), 2, freeze_prev=freeze_prev)
    longer(torch.arange(5)).sum().backward()
    assert longer.weight.grad[:, 0].tolist() == [0.0 if freeze_prev else 1.0] * 3 + [1.0] * 2


@pytest.mark.parametrize(("init", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ([5], IndexError)])
def test_extend_by_nonsense(embedding, init, error):
    with pytest.raises(error):
        Embedding.extend(embedding, init)


@pytest.mark.parametrize("n_saved", [2, 5])
def test_a_table_of_other_length_loads(n_saved):
    embedding, saved = Embedding(3, 4), Embedding(n_saved, 4)
    embedding.weight.requires_grad_(False)
    embedding.load_state_dict(saved.state_dict())
    torch.testing.assert_close(embedding.weight, saved.weight, check_stride=True)
    assert embedding.num_embeddings == n_saved
    assert not embedding.weight.requires_grad
    with torch.no_grad():
        embedding.weight[:] = 0
    assert (saved.weight != 0).any(), "what was loaded is a copy"


def test_a_table_of_other_width_does_not_load():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Embedding(3, 4).load_state_dict(Embedding(3, 5).state_dict())
