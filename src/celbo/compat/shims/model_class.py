"""``scvi.model.base._base_model``: the metaclass."""

from ...model.base import BaseModelClass

__all__ = ["BaseModelMetaClass"]

BaseModelMetaClass = type(BaseModelClass)
