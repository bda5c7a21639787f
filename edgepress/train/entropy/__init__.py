"""Training with the length of the coded weights in the loss (Wiedemann 2018)."""
