"""Measurements on labelled data: the tables of the paper and the tasks of e-CLIP."""
