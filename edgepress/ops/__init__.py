"""What an operator means, in one table; the facets live beside it (couple, kernels, roles)."""
