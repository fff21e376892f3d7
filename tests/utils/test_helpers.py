"""The small helpers under scvi-tools' names."""

import pytest

from celbo.utils import (
    dependencies,
    error_on_missing_dependencies,
    is_package_installed,
    track,
    unsupported_if_adata_minified,
)


def test_is_package_installed():
    assert is_package_installed("torch")
    assert is_package_installed("torch.nn")
    assert not is_package_installed("no_such_package_at_all")
    assert not is_package_installed("no_such_package_at_all.inside")


def test_missing_packages_are_named():
    error_on_missing_dependencies("torch", "numpy")
    with pytest.raises(ModuleNotFoundError, match="needs nothing_a, nothing_b: pip install nothing_a nothing_b"):
        error_on_missing_dependencies("torch", "nothing_a", "nothing_b")


def test_dependencies_are_looked_for_at_the_call():
    @dependencies("nothing_a")
    def needs() -> int:
        return 1

    @dependencies("torch")
    def works(x: int) -> int:
        return x + 1

    assert works(1) == 2
    with pytest.raises(ModuleNotFoundError, match="nothing_a"):
        needs()


class Model:
    minified_data_type = None

    @unsupported_if_adata_minified
    def get_elbo(self, x: int) -> int:
        return x


@pytest.mark.parametrize("kind", [None, "latent_posterior_parameters_with_counts"])
def test_methods_run_while_counts_are_there(kind):
    model = Model()
    model.minified_data_type = kind
    assert model.get_elbo(x=3) == 3


def test_methods_refuse_data_without_counts():
    model = Model()
    model.minified_data_type = "latent_posterior_parameters"
    with pytest.raises(ValueError, match=r"get_elbo .* does not support minified data"):
        model.get_elbo(1)


@pytest.mark.parametrize("disable", [True, False])
def test_track_gives_everything_in_order(disable):
    assert list(track(range(5), "counting", disable=disable)) == [0, 1, 2, 3, 4]
    assert list(track((i for i in range(3)), disable=disable, style="tqdm", total=3)) == [0, 1, 2]
