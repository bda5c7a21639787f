"""Training on samples: recovery by distillation, entropy-constrained weights, pruning while training.

One loop (:mod:`edgepress.train.loop`) runs every method; a method (:mod:`edgepress.train.method`) says what its loss
is, what happens between steps, and what model it would hand over now.
"""
