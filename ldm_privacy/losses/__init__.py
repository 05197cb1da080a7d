"""Losses of stage 1, one file each: what the autoencoder is trained to do."""
