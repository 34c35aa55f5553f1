"""The report: what a run left on disk, as one table, three pictures, a page and a summary.

    ray_log.py -> trials.py -> findings.py, table.py, arms.py -> plots.py, charts.py, summary.py, page.py -> report.py

It reads; it neither trains nor runs, and needs no Ray cluster.
"""
