"""A run on disk: its folder, checkpoints, series and what is kept of its audits."""
