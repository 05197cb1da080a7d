"""Many trainings: cells, workers, trials."""
