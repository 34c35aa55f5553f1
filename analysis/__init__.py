"""The report: what a run left on disk, as tables, figures, a verdict, a page and a summary.

    ray_log.py, trials.py, predictions.py    what is on disk, put together
    findings.py                              a run as its report sees it
    statistics.py -> verdict.py, criteria.py what may be said of it
    figures/ -> pictures.py, listening.py    what there is to see and to hear
    content.py -> markdown.py, page.py       what is said in which order, and how it is written
    table.py, exports.py                     files for other programs
    report.py                                all of it; compare.py: against another run

It reads; it neither trains nor runs, and needs no Ray cluster.
"""
