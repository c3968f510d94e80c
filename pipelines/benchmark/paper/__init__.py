"""The paper's tables on any labelled data: systems, suites, runs, reports."""
