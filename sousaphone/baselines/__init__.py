"""What trials are held against: simple classifiers, and the time that a clip takes on a CPU."""
