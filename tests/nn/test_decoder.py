import pytest
import torch
import torch.nn.functional as F

from celbo.nn import Decoder, DecoderSCVI, LinearDecoderSCVI


@pytest.fixture
def z(torch_rng):
    return torch.randn(8, 4, generator=torch_rng)


@pytest.fixture
def library(torch_rng):
    return torch.rand(8, 1, generator=torch_rng) + 2


CODES = torch.arange(8)[:, None] % 2


def decoder(**options):
    return DecoderSCVI(4, 7, n_cat_list=[2], n_hidden=5, **options).eval()


def test_normal_decoder(z):
    net = Decoder(4, 7, n_cat_list=[2], n_hidden=5).eval()
    mean, variance = net(z, CODES)
    hidden = net.decoder(z, CODES)
    torch.testing.assert_close(mean, net.mean_decoder(hidden))
    torch.testing.assert_close(variance, net.var_decoder(hidden).exp())


@pytest.mark.parametrize("dispersion", ["gene", "gene-cell"])
def test_forward_returns_scale_dispersion_rate_dropout(z, library, dispersion):
    net = decoder()
    scale, r, rate, dropout = net(dispersion, z, library, CODES)
    hidden = net.px_decoder(z, CODES)
    torch.testing.assert_close(scale, net.px_scale_decoder[0](hidden).softmax(-1))
    torch.testing.assert_close(rate, library.exp() * scale)
    torch.testing.assert_close(dropout, net.px_dropout_decoder(hidden))
    if dispersion == "gene":
        assert r is None
    else:
        torch.testing.assert_close(r, net.px_r_decoder(hidden))


def test_softplus_scale(z, library):
    net = decoder(scale_activation="softplus")
    scale, _, rate, _ = net("gene", z, library, CODES)
    torch.testing.assert_close(scale, F.softplus(net.px_scale_decoder[0](net.px_decoder(z, CODES))))
    torch.testing.assert_close(rate, library.exp() * scale)
    assert not net.is_softmax
    assert decoder().is_softmax


def test_an_unknown_scale_activation_is_named():
    with pytest.raises(ValueError, match=r"'softmx'.*Did you mean 'softmax'"):
        decoder(scale_activation="softmx")


@pytest.mark.parametrize(("dispersion", "use_dropout"), [("gene", False), ("gene", True), ("gene-cell", False)])
def test_logits_run_only_the_heads_that_are_asked_for(z, dispersion, use_dropout):
    net, ran = decoder(), []
    for name in ("px_r_decoder", "px_dropout_decoder"):
        getattr(net, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    scale_logits, log_theta, dropout_logits = net.logits(dispersion, z, CODES, use_dropout=use_dropout)
    assert ran == ["px_r_decoder"] * (dispersion == "gene-cell") + ["px_dropout_decoder"] * use_dropout
    assert (log_theta is None, dropout_logits is None) == (dispersion != "gene-cell", not use_dropout)
    scale, *_ = net("gene", z, torch.zeros(8, 1), CODES)
    torch.testing.assert_close(net.scale(scale_logits), scale)


def test_decoder_state_dict():
    assert [name for name in decoder().state_dict() if "px_decoder" not in name] == [
        f"{head}.{kind}"
        for head in ("px_scale_decoder.0", "px_r_decoder", "px_dropout_decoder")
        for kind in ("weight", "bias")
    ]


@pytest.mark.parametrize("options", [{}, {"bias": True, "use_batch_norm": True}])
def test_linear_decoder(z, library, options):
    net = LinearDecoderSCVI(4, 7, n_cat_list=[2], **options).eval()
    scale, r, rate, dropout = net("gene-cell", z, library, CODES)
    torch.testing.assert_close(scale, net.factor_regressor(z, CODES).softmax(-1))
    torch.testing.assert_close(rate, library.exp() * scale)
    torch.testing.assert_close(dropout, net.px_dropout_decoder(z, CODES))
    assert r is None
    assert net.logits("gene", z, CODES, use_dropout=False)[1:] == (None, None)
    block = net.factor_regressor.fc_layers[0]
    assert (block[0].bias is not None) == options.get("bias", False)
    assert [step is None for step in block[2:]] == [True] * 3


def test_samples_in_front(z, library):
    for net in (decoder(), LinearDecoderSCVI(4, 7, n_cat_list=[2]).eval()):
        _, _, rate, _ = net("gene", torch.stack([z, -z]), library, CODES)
        torch.testing.assert_close(rate[1], net("gene", -z, library, CODES)[2])
