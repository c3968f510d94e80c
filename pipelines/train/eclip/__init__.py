"""Pre-training e-CLIP."""
