"""Spots as mixtures of cell states: the network, its states, simulated spots."""

__all__: list[str] = []
