"""The synthetic built-in data set: players, drums and rooms."""
