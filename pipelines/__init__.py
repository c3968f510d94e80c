"""Batch work on Ray and the lake: one room per kind of work, layered as pyproject says."""
