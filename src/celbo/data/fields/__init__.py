"""Fields: what a model reads from an AnnData, one kind a file, under scvi-tools' names."""

from ...core.planned import planned_names, public_names
from .arraylike import ArrayLikeField, BaseArrayLikeField, ObsmField, VarmField
from .base import BaseAnnDataField
from .categorical import CategoricalDataFrameField, CategoricalObsField, CategoricalVarField
from .dataframe import BaseDataFrameField, NumericalDataFrameField, NumericalObsField, NumericalVarField
from .joint import (
    BaseJointField,
    CategoricalJointField,
    CategoricalJointObsField,
    CategoricalJointVarField,
    NumericalJointField,
    NumericalJointObsField,
    NumericalJointVarField,
)
from .labels import LabelsWithUnlabeledObsField
from .layer import LayerField
from .mudata import (
    BaseMuDataWrapperClass,
    MuDataCategoricalJointObsField,
    MuDataCategoricalJointVarField,
    MuDataCategoricalObsField,
    MuDataCategoricalVarField,
    MuDataLabelsWithUnlabeledObsField,
    MuDataLayerField,
    MuDataNumericalJointObsField,
    MuDataNumericalJointVarField,
    MuDataNumericalObsField,
    MuDataNumericalVarField,
    MuDataObsmField,
    MuDataProteinLayerField,
    MuDataVarmField,
    MuDataWrapper,
)
from .protein import ProteinLayerField, ProteinObsmField
from .uns import BaseUnsField, StringUnsField

AnnDataField = BaseAnnDataField

__all__ = [
    "AnnDataField",
    "ArrayLikeField",
    "BaseAnnDataField",
    "BaseArrayLikeField",
    "BaseDataFrameField",
    "BaseJointField",
    "BaseMuDataWrapperClass",
    "BaseUnsField",
    "CategoricalDataFrameField",
    "CategoricalJointField",
    "CategoricalJointObsField",
    "CategoricalJointVarField",
    "CategoricalObsField",
    "CategoricalVarField",
    "LabelsWithUnlabeledObsField",
    "LayerField",
    "MuDataCategoricalJointObsField",
    "MuDataCategoricalJointVarField",
    "MuDataCategoricalObsField",
    "MuDataCategoricalVarField",
    "MuDataLabelsWithUnlabeledObsField",
    "MuDataLayerField",
    "MuDataNumericalJointObsField",
    "MuDataNumericalJointVarField",
    "MuDataNumericalObsField",
    "MuDataNumericalVarField",
    "MuDataObsmField",
    "MuDataProteinLayerField",
    "MuDataVarmField",
    "MuDataWrapper",
    "NumericalDataFrameField",
    "NumericalJointField",
    "NumericalJointObsField",
    "NumericalJointVarField",
    "NumericalObsField",
    "NumericalVarField",
    "ObsmField",
    "ProteinLayerField",
    "ProteinObsmField",
    "StringUnsField",
    "VarmField",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
