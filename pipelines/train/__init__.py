"""One shared way to train on a Ray cluster: runs, ranks, their log and their state."""
