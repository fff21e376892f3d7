"""What code for scvi-tools asks of a ContrastiveVAE: cells of one kind, moments, parameters; and that it goes again."""

import torch
from torch.distributions import Normal, kl_divergence

from celbo.compat import install_as_scvi, uninstall
from celbo.data import synthetic_iid
from celbo.external import ContrastiveVI

KIND = "target"


def test_one_kind_of_cells():
    adata = synthetic_iid(batch_size=40, seed=0)
    ContrastiveVI.setup_anndata(adata, batch_key="batch")
    module = ContrastiveVI(adata, n_hidden=8, n_background_latent=3, n_salient_latent=2).module.eval()
    assert not hasattr(module, "_generic_inference")
    install_as_scvi()
    try:
        import scvi.external.contrastivevi as contrastive

        loader = contrastive.ContrastiveDataLoader(_manager(adata), range(40), range(40, 80), batch_size=16)
        pair = next(iter(loader))
        encoded = module.inference(**module._get_inference_input(pair))
        decoded = module.generative(**module._get_generative_input(pair, encoded))[KIND]
        of_one = encoded[KIND]
        torch.testing.assert_close(of_one["qz_v"], of_one["qz"].variance)
        kl_n = module.latent_kl_divergence(of_one["qz_m"], of_one["qz_v"], torch.zeros(3), torch.ones(3))
        torch.testing.assert_close(kl_n, kl_divergence(of_one["qz"], Normal(0.0, 1.0)).sum(-1))
        loss_n = module.reconstruction_loss(pair[KIND]["X"], *(decoded[f"px_{p}"] for p in ("rate", "r", "dropout")))
        torch.testing.assert_close(loss_n, -decoded["px"].log_prob(pair[KIND]["X"]).sum(-1), rtol=1e-4, atol=1e-3)
    finally:
        uninstall()
    assert not hasattr(module, "_generic_inference")
    assert "qz_m" not in module.inference(**module._get_inference_input(pair))[KIND]


def _manager(adata):
    return ContrastiveVI._get_most_recent_anndata_manager(adata, required=True)
