"""Weights: scales, levels and rounding, one layer at a time or jointly with what was rounded before."""
