"""How it is written: blocks, Markdown, HTML, tables, files for other programs."""
