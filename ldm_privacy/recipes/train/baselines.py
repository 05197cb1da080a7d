"""What is there before the first denoiser step: the codec's leak, its reconstructions, the geometry."""

from typing import TYPE_CHECKING

import torch

from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.pictures import image_grid
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import console
from ldm_privacy.recipes.train.fitting import Fitting
from ldm_privacy.report.geometry_report import geometry_figures, geometry_series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_RECONSTRUCTIONS = 16


def log_baselines(setup: RunSetup, fitting: Fitting, measuring: Measuring, whole: AuditedSamples) -> "dict[str, Figure] | None":
    """What is there before the first step: the codec's leak, its reconstructions, the geometry; the main process's part.

    Returns the figures of the geometry, where they are drawn.
    """
    config, codec = setup.config, measuring.codec
    if codec.network is None or whole.reconstruction_error is None:
        return None
    error, is_member = whole.reconstruction_error, whole.is_member
    leak = auroc_interval(-error, is_member, confidence=config.audit.confidence, group=whole.group)
    series = {
        "baseline/reconstruction/members": float(error[is_member].mean()),
        "baseline/reconstruction/heldout": float(error[~is_member].mean()),
        **leak.series("baseline/reconstruction/auroc"),
        **geometry_series(whole),
    }
    fitting.log(series)
    console.print(f"Autoencoder alone (reconstruction error): AUROC {leak}.", highlight=False)
    if not config.trainer.figures:
        return None
    image = setup.data.images(whole.sample_index[:NUM_RECONSTRUCTIONS])
    both = torch.stack([image, measuring.decoded(whole.latent[:NUM_RECONSTRUCTIONS])], 1).flatten(0, 1)
    fitting.show("reconstructions", image_grid(both, columns=8))
    figures = geometry_figures(whole, setup.masks, codec.decode, setup.data.images, seed=config.seed)
    for name, figure in figures.items():
        fitting.show(name, figure)
    return figures
