"""What the quality of 1,000 generations costs beside their sampling, and what one look of a digits run costs with it.

    OMP_NUM_THREADS=1 python -m benchmarks.quality [--images 1000]

Times are this process's CPU seconds, so that what else runs on the machine does not count.
"""

import argparse
from time import process_time

import torch
from rich.console import Console
from rich.table import Table

from ldm_privacy.config import compose
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.quality.distance import gap
from ldm_privacy.quality.measure import IMAGES_AT_ONCE, described, distances
from ldm_privacy.quality.random_features import RandomFeatures
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.train.denoiser_network import build_denoiser
from ldm_privacy.targets.target import Target
from ldm_privacy.types import no_progress
from ldm_privacy.watch.watcher import Moment

SHAPES = {"8x8 grey": (1, 8, 8), "32x32 colour": (3, 32, 32)}


def seconds_of(call):
    """What a call returns, and its CPU seconds."""
    start = process_time()
    found = call()
    return found, process_time() - start


def described_seconds(shape, count):
    """Of describing one set, of all distances to two sets with their gaps, and of the row of reconstructions."""
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = RandomFeatures()
    features(images[:1])
    set_of, describing = seconds_of(lambda: described(images.split(IMAGES_AT_ONCE), features))

    def compared():
        to_heldout, to_members = distances(set_of, set_of), distances(set_of, set_of)
        return [gap(to_members[name], to_heldout[name]) for name in to_heldout]

    def reconstructed():
        first, second = (described(each.split(IMAGES_AT_ONCE), features) for each in images.tensor_split(2))
        return distances(first, second)

    return describing, seconds_of(compared)[1], seconds_of(reconstructed)[1]


def digits_looks():
    """The first and the second look of digits.yaml, with untrained networks, which cost what trained ones do."""
    setup = RunSetup(compose("digits.yaml", []).config, no_progress)
    network, denoiser = build_denoiser(setup, setup.latent_shape(setup.codec))
    network.eval()
    target = Target(setup.codec, NetworkPredictor(network, denoiser.alphas_cumprod, denoiser.prediction_type))
    quality = setup.watchers(setup.blank_samples(setup.codec), no_progress)["quality"]
    with torch.no_grad():
        return [seconds_of(lambda step=step: quality.look(target, Moment(step, step)))[1] for step in (1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    count = parser.parse_args().images
    table = Table("what", "seconds", title=f"Quality, {count} generations, {count} held-out images, {count} members")
    for name, shape in SHAPES.items():
        describing, comparing, ceiling = described_seconds(shape, count)
        table.add_row(f"{name}: features and patches of one set", f"{describing:.1f}")
        table.add_row(f"{name}: distances to both sets", f"{comparing:.1f}")
        table.add_row(f"{name}: a first look, beside its sampling", f"{3 * describing + comparing + ceiling:.1f}")
        table.add_row(f"{name}: a later look, beside its sampling", f"{describing + comparing:.1f}")
    first, later = digits_looks()
    table.add_row("digits.yaml: its first look, 256 images with their sampling", f"{first:.1f}")
    table.add_row("digits.yaml: a later look", f"{later:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
