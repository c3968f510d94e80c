"""The tables of the paper: systems, suites, runs, reports."""
