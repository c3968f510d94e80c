"""One thin script per command: it parses, calls one pipeline, and reports."""
