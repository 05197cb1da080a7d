"""How good generated images are: distances between sets of images, on features that are named."""
