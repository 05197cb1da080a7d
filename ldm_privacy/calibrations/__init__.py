"""Calibrated scores: what an attack says of an image beyond how difficult the image is."""
