"""Is the map any good: one file for each metric."""
