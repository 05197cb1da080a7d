"""Watching a training loop that knows nothing of this program."""
