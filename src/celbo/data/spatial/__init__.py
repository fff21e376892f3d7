"""Cells in tissue: where they lie, which are nearest to each, and what surrounds them. No torch."""

from .coordinates import coordinates_of
from .neighbours import Neighbours, check_neighbours, nearest_cells
from .niches import niche_composition, niche_state
from .two_hops import two_hop_cells

__all__ = [
    "Neighbours",
    "check_neighbours",
    "coordinates_of",
    "nearest_cells",
    "niche_composition",
    "niche_state",
    "two_hop_cells",
]
