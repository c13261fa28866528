"""Records to Markdown, LaTeX, CSV and plots: every output is a pure function of the records.

``reports.report`` writes and checks whole reports, ``reports.block`` the tables inside a Markdown file,
``reports.rendering.terminal`` makes what the command line prints.
"""
