"""Training that removes units on the way: for real (flat, anneal), or by masks (mint)."""
