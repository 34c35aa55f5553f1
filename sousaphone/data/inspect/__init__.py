"""Description and validation of a data set, and its shortcuts."""
