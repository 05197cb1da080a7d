"""Where the curves of a run go, one logger a file; metrics.csv is the authority."""
