"""One minibatch's way: modes, randomness, buffers, parts."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch

from celbo.core import settings
from celbo.ops.draws import randn
from celbo.posterior import latent_representation, passes
from celbo.posterior.passes import Rows, decode, encode, evaluating, sample_passes


class TestRows:
    @pytest.mark.parametrize("n_rows", [None, 3, 11, 40])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_gives_what_was_appended(self, n_rows, axis):
        blocks = [np.random.default_rng(i).normal(size=(2, 5, 3)).swapaxes(0, axis) for i in range(4)]
        blocks = [block.astype(np.float32) for block in blocks]
        rows = Rows(n_rows, axis)
        for block in blocks:
            rows.append(torch.from_numpy(block))
        np.testing.assert_array_equal(rows.array(), np.concatenate(blocks, axis))
        assert rows.array().dtype == np.float32

    def test_allocates_once_when_the_number_is_known(self):
        rows = Rows(6)
        rows.append(np.ones((2, 3)))
        array = rows._array
        rows.append(np.ones((4, 3)))
        assert rows._array is array
        assert rows.array().shape == (6, 3)

    def test_says_when_there_was_nothing(self):
        with pytest.raises(ValueError, match="no cells"):
            Rows(None).array()


class TestEvaluating:
    def test_puts_every_mode_back(self, vae):
        vae.train()
        vae.l_encoder.eval()
        with evaluating(vae):
            assert not any(part.training for part in vae.modules())
            assert torch.is_inference_mode_enabled()
        assert vae.training
        assert vae.z_encoder.training
        assert not vae.l_encoder.training
        assert not torch.is_inference_mode_enabled()

    def test_puts_modes_back_after_an_error(self, vae):
        vae.train()
        with pytest.raises(KeyError), evaluating(vae):
            raise KeyError
        assert vae.training

    def test_seed_decides(self, vae, global_rng_untouched):
        def draws(seed):
            with evaluating(vae, seed) as rng:
                return randn(3).tolist(), rng.random()

        assert draws(1) == draws(1)
        assert draws(1) != draws(2)
        assert draws(None) != draws(None)

    def test_settings_seed_is_the_default(self, vae, monkeypatch):
        monkeypatch.setattr(settings, "_seed", 5)
        with evaluating(vae) as rng:
            first = rng.random()
        with evaluating(vae, 5) as rng:
            assert rng.random() == first


class TestSamplePasses:
    def test_parts_make_up_the_whole(self, vae, loader, monkeypatch):
        tensors = next(iter(loader))
        n_numbers = sum(t.numel() for t in tensors.values())
        with evaluating(vae, 0):
            encoded = encode(vae, tensors, n_samples=10)
            whole = decode(vae, tensors, encoded)["px"].mu
            monkeypatch.setattr(passes, "MAX_DECODED", 3 * n_numbers)
            parts = list(sample_passes(encoded, 10, tensors))
            decoded = [decode(vae, tensors, part)["px"].mu for part in parts]
        assert [len(part["z"]) for part in parts] == [3, 3, 3, 1]
        torch.testing.assert_close(torch.cat(decoded), whole)


class TestDecode:
    def test_batch_of_all_cells_and_of_each(self, vae, loader):
        tensors = next(iter(loader))
        with evaluating(vae, 0):
            encoded = encode(vae, tensors)
            own = decode(vae, tensors, encoded)["px"].scale
            each = decode(vae, tensors, encoded, tensors["batch"])["px"].scale
            second = decode(vae, tensors, encoded, 1)["px"].scale
        torch.testing.assert_close(each, own)
        same = (tensors["batch"] == 1).squeeze(1)
        torch.testing.assert_close(second[same], own[same])
        assert not torch.allclose(second[~same], own[~same])


def test_a_wrapped_module_answers_too(vae, loader):
    """What tests of others do: an object that hands everything on to a module, and a posterior in parts."""
    wrapped = Mock(wraps=vae)

    def in_parts(*args, **kwargs):
        encoded = vae.inference(*args, **kwargs)
        qz = encoded.pop("qz")
        return encoded | {"qzm": qz.loc, "qzv": qz.scale**2}

    wrapped.inference.side_effect = in_parts
    np.testing.assert_array_equal(latent_representation(wrapped, loader), latent_representation(vae, loader))
