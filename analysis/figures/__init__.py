"""One module for each kind of figure: each works its numbers out once and draws them twice, as a PNG and as a chart."""
