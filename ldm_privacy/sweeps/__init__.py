"""Sweeps: a grid of trainings with their evaluations, over seeds, by any number of workers that share a disk."""
