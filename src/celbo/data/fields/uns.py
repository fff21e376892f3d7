"""A word in ``adata.uns``."""

from typing import TYPE_CHECKING, Any

from anndata import AnnData

from ..access import require_key
from .base import BaseAnnDataField
from .dataframe import require_one_name

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["BaseUnsField", "StringUnsField"]


class BaseUnsField(BaseAnnDataField):
    """An entry of ``adata.uns``.

    Parameters
    ----------
    registry_key
        Name under which models know it.
    uns_key
        Key of ``adata.uns``; None leaves the field empty.
    required
        Whether None is an error.

    Raises
    ------
    ValueError
        A required field has no ``uns_key``.
    TypeError
        ``uns_key`` is a list.
    """

    def __init__(self, registry_key: str, uns_key: str | None, required: bool = True) -> None:
        if required and uns_key is None:
            raise ValueError(
                f"`uns_key` cannot be `None` if `required=True`. Please provide an `uns_key` for {registry_key!r}."
            )
        require_one_name(registry_key, uns_key)
        super().__init__(registry_key, "uns", uns_key, is_empty=uns_key is None)


class StringUnsField(BaseUnsField):
    """A word in ``adata.uns[uns_key]``. See :class:`BaseUnsField`."""

    def validate_field(self, adata: AnnData) -> None:
        """Raise when the entry does not exist."""
        if self.attr_key is not None:
            require_key(adata, self.attr_name, self.attr_key)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Check that it exists; there is nothing to remember."""
        self.validate_field(adata)
        return {}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """As :meth:`register_field`."""
        return self.register_field(adata_target)

    def get_summary_stats(self, _state_registry: dict[str, Any]) -> dict[str, int]:
        """No sizes."""
        return {}

    def view_state_registry(self, _state_registry: dict[str, Any]) -> "Table | None":
        """Nothing to show."""
        return None
