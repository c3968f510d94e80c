"""e-CLIP on a cluster: clean pairs, pre-training, five tasks, embeddings in the lake."""
