"""Training: both stages, what they begin from, and what a run leaves."""
