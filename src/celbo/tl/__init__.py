"""Models in scanpy's manner: one call each, which trains a model and writes what it says into the AnnData.

What is trained comes back, for everything else that it can be asked. Where results lie is named by ``key_added``, and
with what they were made stands in ``adata.uns["celbo"][key_added]``.
"""

from ..core.planned import public_names
from .doublets import doublets
from .expression import denoise
from .genes import rank_genes
from .labels import annotate
from .latent import integrate
from .query import map_query

__all__ = ["annotate", "denoise", "doublets", "integrate", "map_query", "rank_genes"]

__dir__ = public_names(__name__)
