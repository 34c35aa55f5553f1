"""What may be said of it: arms, statistics, verdict, criteria, slices."""
