"""Train latent diffusion models and watch them memorize."""

__version__ = "0.3.0"
