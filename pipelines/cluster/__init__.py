"""Joining Ray and fanning work out on it."""
