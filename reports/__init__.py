"""Records to Markdown, LaTeX, CSV and plots: every output is a pure function of the records."""
