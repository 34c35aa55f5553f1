"""The built-in data set: players, drums and rooms, rendered."""
