"""Statistics of a run: arms, verdict, success criteria, slices and confusion counts."""
