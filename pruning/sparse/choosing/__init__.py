"""Which way of computing is fastest here: timings, comparisons, choices."""
