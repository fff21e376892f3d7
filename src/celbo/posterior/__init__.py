"""What a trained module says about cells: pure functions of a module and minibatches, arrays on the CPU out."""

from ..core.planned import public_names
from .abundance import sample_log_densities
from .accessibility import (
    accessibility_table,
    cell_factors,
    normalized_accessibility,
    probability_difference,
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
from .expression import Weighting, normalized_expression, sampled_expression
from .importance import importance_weights, some_cells
from .likelihood import (
    elbo,
    latent_library_size,
    likelihood_parameters,
    marginal_ll,
    reconstruction_error,
)
from .names import batch_codes, gene_columns
from .passes import evaluating
from .predictive import posterior_predictive_sample
from .raw_counts import GroupMeans, group_means

__all__ = [
    "Comparison",
    "Counts",
    "GroupMeans",
    "Hypothesis",
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
    "estimate_delta",
    "estimate_pseudocount",
    "evaluating",
    "expected_fdr",
    "feature_correlation",
    "gene_columns",
    "group_means",
    "importance_weights",
    "latent_library_size",
    "latent_representation",
    "likelihood_parameters",
    "marginal_ll",
    "normalized_accessibility",
    "normalized_expression",
    "posterior_predictive_sample",
    "probability_difference",
    "reconstruction_error",
    "sample_log_densities",
    "sampled_expression",
    "some_cells",
    "split_options",
    "with_shares_of_cells",
]

__dir__ = public_names(__name__)
