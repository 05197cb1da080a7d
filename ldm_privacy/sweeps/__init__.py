"""Sweeps: cells x seeds, each one training in a process of its own, whoever is killed on the way."""
