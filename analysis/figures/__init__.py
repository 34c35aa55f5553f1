"""One module for each kind of figure; each computes its numbers once and draws them as a PNG and as a chart."""
