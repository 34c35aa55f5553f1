"""Output of the report: blocks, Markdown, HTML, tables, files for other programs."""
