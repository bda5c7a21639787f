"""Activations: what range each has on the samples, and the integer grid that covers it."""
