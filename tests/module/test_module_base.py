"""BaseModuleClass and the binding of arguments to minibatch keys, on a module small enough to check by hand."""

import pytest
import torch
from torch import Tensor, nn

from celbo.core import REGISTRY_KEYS
from celbo.module.base import BaseModuleClass, LossOutput, auto_move_data
from celbo.module.base.module import ARGUMENT_KEYS, Binding, accepts


class Doubling(BaseModuleClass):
    """z = w x + b, reconstruction z again; loss is the squared error per observation."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    @auto_move_data
    def inference(self, x: Tensor, batch_index: Tensor, cont_covs: Tensor | None = None, n_samples: int = 1) -> dict:
        return {"z": self.w * x + batch_index, "covs": cont_covs, "n_samples": n_samples}

    @auto_move_data
    def generative(self, z: Tensor, batch_index: Tensor, y: Tensor | None = None) -> dict:
        return {"px": z + 10 * batch_index, "y": y}

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight: float = 1.0) -> LossOutput:
        se_n = ((generative_outputs["px"] - tensors[REGISTRY_KEYS.X_KEY]) ** 2).sum(-1)
        return LossOutput(kl_weight * se_n.mean(), se_n)


@pytest.fixture
def minibatch() -> dict[str, Tensor]:
    return {"X": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "batch": torch.tensor([[0], [1]])}


class TestForward:
    def test_encode_decode_loss(self, minibatch):
        inference, generative, out = Doubling()(minibatch)
        assert inference["z"].tolist() == [[2.0, 4.0], [7.0, 9.0]]
        assert generative["px"].tolist() == [[2.0, 4.0], [17.0, 19.0]]
        assert out.reconstruction_loss["reconstruction_loss"].tolist() == [5.0, 421.0]
        assert out.loss.item() == 213.0

    def test_without_loss(self, minibatch):
        assert len(Doubling()(minibatch, compute_loss=False)) == 2

    def test_loss_kwargs(self, minibatch):
        assert Doubling()(minibatch, loss_kwargs={"kl_weight": 0.5})[2].loss.item() == 106.5

    def test_given_arguments_win(self, minibatch):
        inference, generative = Doubling()(
            minibatch,
            inference_kwargs={"n_samples": 7, "batch_index": torch.zeros(2, 1)},
            generative_kwargs={"batch_index": torch.ones(2, 1)},
            compute_loss=False,
        )
        assert inference["n_samples"] == 7
        assert inference["z"].tolist() == [[2.0, 4.0], [6.0, 8.0]]
        assert generative["px"].tolist() == [[12.0, 14.0], [16.0, 18.0]]

    def test_optional_arguments_are_bound_when_present(self, minibatch):
        covs, labels = torch.ones(2, 3), torch.tensor([[1], [0]])
        inference, generative = Doubling()(
            {**minibatch, "extra_continuous_covs": covs, "labels": labels}, compute_loss=False
        )
        assert inference["covs"] is covs
        assert generative["y"] is labels

    def test_optional_arguments_keep_their_default_when_absent(self, minibatch):
        inference, generative = Doubling()(minibatch, compute_loss=False)
        assert inference["covs"] is None
        assert generative["y"] is None

    def test_missing_key_is_named_with_what_there_is(self):
        with pytest.raises(KeyError, match=r"Doubling\.inference needs 'batch_index'.*X"):
            Doubling()({"X": torch.ones(1, 2)})

    def test_scvi_tools_style_input_methods(self, minibatch):
        class Overriding(Doubling):
            def _get_inference_input(self, tensors, shift=0.0):
                return {"x": tensors["X"] + shift, "batch_index": tensors["batch"]}

            def _get_generative_input(self, tensors, inference_outputs, scale=1.0):
                return {"z": scale * inference_outputs["z"], "batch_index": 0 * tensors["batch"]}

        inference, generative = Overriding()(
            minibatch,
            get_inference_input_kwargs={"shift": 1.0},
            get_generative_input_kwargs={"scale": 3.0},
            compute_loss=False,
        )
        assert inference["z"].tolist() == [[4.0, 6.0], [9.0, 11.0]]
        assert generative["px"].tolist() == [[12.0, 18.0], [27.0, 33.0]]

    def test_a_subclass_with_another_signature_is_bound_anew(self, minibatch):
        class Narrow(Doubling):
            def inference(self, x):
                return {"z": x}

        inference, _ = Narrow()({**minibatch}, compute_loss=False)
        assert inference["z"] is minibatch["X"]

    @pytest.mark.parametrize("method", ["inference", "generative", "loss"])
    def test_the_three_methods_must_be_defined(self, method):
        class Empty(BaseModuleClass):
            pass

        with pytest.raises(NotImplementedError, match=rf"Empty must define {method}\(\)"):
            getattr(Empty(), method)()


class TestDevice:
    def test_without_parameters(self):
        assert BaseModuleClass().device == torch.device("cpu")

    def test_of_parameters(self):
        assert Doubling().to("meta").device.type == "meta"

    def test_several_devices_are_named(self):
        module = Doubling()
        module.other = nn.Parameter(torch.empty(1, device="meta"))
        with pytest.raises(RuntimeError, match=r"several devices.*cpu.*meta"):
            _ = module.device

    def test_arguments_are_moved_also_inside_containers(self):
        class Moving(Doubling):
            @auto_move_data
            def where(self, *args, **kwargs):
                return args, kwargs

        x = torch.ones(2)
        args, kwargs = Moving().to("meta").where(x, [x, (x, "text")], covs={"a": x}, n=3)
        assert args[0].device.type == args[1][0].device.type == args[1][1][0].device.type == "meta"
        assert args[1][1][1] == "text"
        assert kwargs["covs"]["a"].device.type == "meta"
        assert kwargs["n"] == 3

    def test_nothing_is_copied_on_the_same_device(self):
        class Moving(Doubling):
            @auto_move_data
            def same(self, x):
                return x

        x = torch.ones(2)
        assert Moving().same(x) is x

    def test_the_decorated_method_keeps_its_name_and_signature(self):
        assert Doubling.inference.__name__ == "inference"
        assert accepts(Doubling().inference, "n_samples")


class TestBinding:
    def test_reads_required_and_optional_names(self):
        def method(self, x, z=1, *args, key, other=None, **kwargs):
            raise AssertionError("never called")

        binding = Binding.of(method)
        assert binding.required == ("x", "key")
        assert binding.optional == ("z", "other")

    def test_earlier_sources_win(self):
        binding = Binding("m", required=("x",), optional=())
        assert binding.collect({"x": 1}, {"X": 2}) == {"x": 1}
        assert binding.collect({}, {"X": 2}) == {"x": 2}

    def test_the_whole_minibatch(self):
        batch = {"X": 1}
        assert Binding("m", required=("tensors",), optional=()).collect({"z": 0}, batch)["tensors"] is batch

    def test_none_counts_as_absent(self):
        binding = Binding("m", required=(), optional=("z",))
        assert binding.collect({"z": None}) == {}

    def test_argument_names_point_to_registry_keys(self):
        assert ARGUMENT_KEYS["y"] == "labels"
        assert set(ARGUMENT_KEYS.values()) <= set(REGISTRY_KEYS)

    def test_accepts_does_not_count_kwargs(self):
        def loss(tensors, **kwargs):
            raise AssertionError("never called")

        assert accepts(loss, "tensors")
        assert not accepts(loss, "kl_weight")
