"""Networks of totalVI: what the outputs mean, and scvi-tools' names of weights."""

import pytest
import torch

from celbo.nn import DecoderTOTALVI, EncoderTOTALVI

CODES = torch.arange(6)[:, None] % 3


@pytest.fixture
def z(torch_rng):
    return torch.randn(6, 5, generator=torch_rng)


class TestEncoder:
    @pytest.mark.parametrize("distribution", ["ln", "normal"])
    def test_draws_and_posteriors(self, torch_rng, distribution):
        net = EncoderTOTALVI(12, 5, n_cat_list=[3], n_hidden=8, distribution=distribution).eval()
        x = torch.randn(6, 12, generator=torch_rng)
        qz, ql, latent, untransformed = net(x, CODES)
        assert (qz.loc.shape, ql.loc.shape) == ((6, 5), (6, 1))
        torch.testing.assert_close(latent["l"], untransformed["l"].exp())
        drawn = untransformed["z"]
        torch.testing.assert_close(latent["z"], drawn.softmax(-1) if distribution == "ln" else drawn)
        hidden = net.encoder(x, CODES)
        torch.testing.assert_close(qz.scale.square(), net.z_var_encoder(hidden).exp() + 1e-4)

    def test_refuses(self):
        with pytest.raises(ValueError, match="'ln', 'normal'"):
            EncoderTOTALVI(12, 5, distribution="log")

    def test_names_of_weights(self):
        names = list(EncoderTOTALVI(12, 5, n_cat_list=[3], n_hidden=8).state_dict())
        assert names[0] == "encoder.fc_layers.Layer 0.0.weight"
        assert {"z_mean_encoder.weight", "l_gene_encoder.fc_layers.Layer 0.0.weight", "l_gene_var_encoder.bias"} < {
            *names
        }


class TestDecoder:
    def decoded(self, z, **options):
        net = DecoderTOTALVI(5, 7, 4, n_cat_list=[3], n_hidden=8, **options).eval()
        return net(z, torch.full((6, 1), 100.0), CODES)

    def test_genes(self, z):
        px, _, _ = self.decoded(z)
        torch.testing.assert_close(px["rate"], 100 * px["scale"])
        torch.testing.assert_close(px["rate"].sum(-1), torch.full((6,), 100.0))
        assert px["dropout"].shape == (6, 7)

    def test_foreground_is_above_background(self, z):
        _, py, log_background = self.decoded(z)
        torch.testing.assert_close(py["rate_back"], log_background.exp())
        torch.testing.assert_close(py["rate_fore"], py["rate_back"] * py["fore_scale"])
        assert (py["fore_scale"] >= 1).all()
        assert (py["back_beta"] > 0).all()
        expected = py["rate_fore"] * torch.sigmoid(-py["mixing"])
        torch.testing.assert_close(py["scale"], expected / expected.sum(-1, keepdim=True))

    def test_samples(self, z):
        px, py, log_background = self.decoded(torch.stack([z, z, -z]))
        assert px["scale"].shape == (3, 6, 7)
        assert py["mixing"].shape == log_background.shape == (3, 6, 4)

    def test_activations(self, z):
        px, py, _ = self.decoded(z, scale_activation="softplus", activation_function_bg="exp")
        assert (px["scale"].sum(-1) - 1).abs().max() > 1e-3
        assert (py["back_beta"] > 0).all()
        with pytest.raises(ValueError, match="'softplus', 'softmax'"):
            self.decoded(z, scale_activation="relu")
        with pytest.raises(ValueError, match="'softplus'"):
            self.decoded(z, activation_function_bg="relu")
