"""How a report looks: Markdown, LaTeX, CSV, terminal, figures."""
