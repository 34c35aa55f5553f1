"""Compare a run with another run, or with the JSON files of an earlier sweep."""
