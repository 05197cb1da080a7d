"""Train an autoencoder and a latent diffusion model, and watch them memorize."""

import sys

from ldm_privacy.recipes.cli import train as main
from ldm_privacy.recipes.terminal import run_program

if __name__ == "__main__":
    run_program(main, sys.argv[1:])
