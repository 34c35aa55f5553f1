"""The report of a run: tables, figures, a verdict, an HTML page and a summary.

    load/              read a run from disk: Ray's log, trial records, predictions
    run_summary.py     everything that was read, and what follows from it
    stats/             statistics, verdict and its wording, power, criteria, classes, arms, slices, confusion counts
    figures/, write/   charts; Markdown, HTML, CSV, JSON, Parquet and audio
    sections.py        the sections of the report, in order
    report.py          write all files of the report; compare/: compare two runs

The package only reads runs: it trains nothing and needs no Ray cluster.
"""
