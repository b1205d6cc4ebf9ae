"""Dual embeddings of a directed co-purchase graph: shrunk z, randomised SVD, linear dual propagation, evaluation."""
