"""Whether a folder of images was in the training data."""
