"""e-CLIP's five downstream tasks."""
