"""The sampler that shares minibatches out over processes."""

import numpy as np
import pytest

from celbo.data import AnnDataManager, synthetic_iid
from celbo.data.fields import LayerField
from celbo.dataloaders import AnnDataLoader, BatchDistributedSampler

N, SIZE = 23, 3


def samplers(**kwargs):
    return [BatchDistributedSampler(range(N), num_replicas=SIZE, rank=rank, **kwargs) for rank in range(SIZE)]


@pytest.mark.parametrize(("drop_last", "drop_tail"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("batch_size", [2, 4, 5, 7])
def test_every_process_gets_as_much(drop_last, drop_tail, batch_size):
    share = N // SIZE if drop_tail else -(-N // SIZE)
    wanted = [batch_size] * (share // batch_size) + [share % batch_size] * (share % batch_size > 0 and not drop_last)
    for sampler in samplers(batch_size=batch_size, drop_last=drop_last, drop_dataset_tail=drop_tail):
        assert [len(positions) for positions in sampler] == wanted
        assert len(sampler) == len(wanted)


def test_together_they_give_out_everything():
    given = [np.concatenate(list(sampler)) for sampler in samplers(batch_size=4)]
    assert set(np.concatenate(given)) == set(range(N))
    first, second = (list(sampler) for sampler in samplers(batch_size=4, shuffle=False)[:2])
    assert (first[0][:2], second[0][:2]) == ([0, 3], [1, 4])


def test_epochs_have_orders_of_their_own():
    sampler = samplers(batch_size=4)[0]
    before = list(sampler)
    assert list(sampler) == before
    sampler.set_epoch(1)
    assert list(sampler) != before


def test_nothing_left_is_an_error():
    with pytest.raises(ValueError, match="leave none"):
        samplers(batch_size=9, drop_last=True)


def test_a_loader_takes_it():
    adata = synthetic_iid(batch_size=10, n_genes=5, n_batches=2, seed=0)
    manager = AnnDataManager([LayerField("X", None)])
    manager.register_fields(adata)
    sampler = BatchDistributedSampler(
        manager.create_torch_dataset(), batch_size=4, num_replicas=2, rank=1, shuffle=False
    )
    got = np.concatenate([batch["X"] for batch in AnnDataLoader(manager, sampler=sampler)])
    np.testing.assert_array_equal(got, adata.X[1::2])
