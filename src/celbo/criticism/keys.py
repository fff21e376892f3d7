"""Names of what a check finds, as scvi-tools has them."""

__all__ = [
    "DATA_VAR_RAW",
    "METRIC_CALIBRATION",
    "METRIC_CV_CELL",
    "METRIC_CV_GENE",
    "METRIC_DIFF_EXP",
    "METRIC_ZERO_FRACTION",
]

METRIC_CV_CELL = "cv_cell"
METRIC_CV_GENE = "cv_gene"
METRIC_DIFF_EXP = "diff_exp"
METRIC_CALIBRATION = "calibration"
METRIC_ZERO_FRACTION = "zero_fraction"
DATA_VAR_RAW = "Raw"
