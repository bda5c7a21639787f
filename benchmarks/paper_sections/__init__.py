"""What ``benchmarks/papers.py`` is made of: one file for each paper, and what they share."""
