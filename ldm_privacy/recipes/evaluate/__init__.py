"""Evaluation of checkpoints of ours and of every other target."""
