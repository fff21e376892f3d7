"""What a trained module says about cells: pure functions of a module and minibatches, arrays on the CPU out."""

from ..core.planned import public_names
from .abundance import sample_densities, sample_log_densities
from .accessibility import (
    accessibility_table,
    cell_factors,
    encoded_column,
    open_probability,
    probability_difference,
    sparse_rows,
    with_shares_of_cells,
)
from .comparisons import Comparison, comparisons
from .correlation import feature_correlation
from .denoised import denoised_counts
from .differential import (
    Hypothesis,
    Pairs,
    differential_effects,
    estimate_delta,
    estimate_pseudocount,
    expected_fdr,
)
from .differential_table import Counts, Sampling, differential_expression, split_options
from .embedding import aggregated_posterior, batch_representation, latent_representation
from .importance import importance_weights, some_cells
from .likelihood import (
    elbo,
    latent_library_size,
    likelihood_parameters,
    marginal_ll,
    reconstruction_error,
)
from .names import batch_codes, gene_columns
from .normalized import Weighting, normalized, normalized_blocks, sampled
from .output import EXPRESSION, Output
from .passes import evaluating
from .predictive import joint_predictive_sample, posterior_predictive_sample
from .raw_counts import GroupMeans, group_means

__all__ = [
    "EXPRESSION",
    "Comparison",
    "Counts",
    "GroupMeans",
    "Hypothesis",
    "Output",
    "Pairs",
    "Sampling",
    "Weighting",
    "accessibility_table",
    "aggregated_posterior",
    "batch_codes",
    "batch_representation",
    "cell_factors",
    "comparisons",
    "denoised_counts",
    "differential_effects",
    "differential_expression",
    "elbo",
    "encoded_column",
    "estimate_delta",
    "estimate_pseudocount",
    "evaluating",
    "expected_fdr",
    "feature_correlation",
    "gene_columns",
    "group_means",
    "importance_weights",
    "joint_predictive_sample",
    "latent_library_size",
    "latent_representation",
    "likelihood_parameters",
    "marginal_ll",
    "normalized",
    "normalized_blocks",
    "open_probability",
    "posterior_predictive_sample",
    "probability_difference",
    "reconstruction_error",
    "sample_densities",
    "sample_log_densities",
    "sampled",
    "some_cells",
    "sparse_rows",
    "split_options",
    "with_shares_of_cells",
]

__dir__ = public_names(__name__)
