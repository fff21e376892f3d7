"""What a verb asks of its model: the types of the mixins, without the class that has them all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from anndata import AnnData

from ..posterior import Output

__all__ = ["Answering"]

if TYPE_CHECKING:
    import numpy as np
    import torch

    class Answering:
        """A model, as far as the mixins of verbs go; :class:`~celbo.model.base.BaseModelClass` has all of it."""

        module: Any
        _outputs: ClassVar[Sequence[Output]]
        summary_stats: Any
        init_params_: dict[str, dict[str, Any]]
        registry_: Any

        @property
        def device(self) -> torch.device:
            """Where the module is."""

        def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray:
            """Names of the features."""

        def _check_if_trained(self, warn: bool = True, message: str | None = None) -> None: ...

        def get_anndata_manager(self, adata: AnnData, required: bool = False) -> Any:
            """Manager that the model has for data."""

        def _validate_anndata(
            self, adata: AnnData | None = None, copy_if_view: bool = True, extend_categories: bool = False
        ) -> AnnData: ...

else:
    Answering = object
