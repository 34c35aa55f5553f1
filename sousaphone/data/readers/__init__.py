"""Every form of a data set, read into one table; `sousa` is the door to all of them."""
