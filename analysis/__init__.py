"""The report: what a run left on disk, as tables, figures, a verdict, a page and a summary.

    load/              what is on disk, put together: Ray's log, trials, predictions
    run_summary.py     a run as its report sees it
    stats/             what may be said of it: statistics, verdict, criteria, arms, slices
    figures/           what there is to see; write/audio_clips.py: to hear
    sections.py        what is said in which order; write/: how, as Markdown, HTML, tables, files
    report.py          all of it; compare/: against another run

It reads; it neither trains nor runs, and needs no Ray cluster.
"""
