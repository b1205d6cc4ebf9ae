"""What Thalweg keeps: hashes, the state store, the co-purchase adjacency, embeddings and their index."""
