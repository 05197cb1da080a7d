"""Geometry of the decoder D: influence diag(J^T J), local distortion, and masks. Pure torch; J = dD/dz.

What its functions share is said once, here.

Args:
    decoder: Latent -> image, samples independent of each other (evaluation mode).
    latent: (batch, channels, height, width); D = channels * height * width where dimensions are counted.
    sample_index: (batch,) int. What is random is a function of (seed, sample index, probe) alone, so that a sample's numbers
        don't depend on its batch, and more probes begin with the same ones. Errors name it.
    num_probes, seed: Of the probes.
    decode_batch_size: Samples that are decoded together (memory: their activations).
    vectors_per_pass, probe_batch_size: Vectors that go through the decoder together (memory: that many times as much).

Returns:
    Numbers on the latent's device, in its precision but at least float32.

Raises:
    UserError: a latent that the decoder can't take, a result that is not finite, a count that is too small.
"""
# ruff: noqa: F401

from ldm_privacy.geometry.deviation import latent_deviation
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import InfluenceEstimate, InfluenceEstimator, SetInfluenceEstimator, mask_overlap
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.jacobian import DecoderJacobian, gradients_enabled
from ldm_privacy.geometry.masks import (
    KeepAll,
    KeepLowestInfluence,
    KeepRandom,
    KeepTopDeviation,
    KeepTopInfluence,
    keep_ladder,
    num_kept,
)
from ldm_privacy.geometry.pixels import pixel_influence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.shrunk import ShrunkFit, ShrunkInfluence, dataset_influence, shrink_log_influence
from ldm_privacy.geometry.store import Store, fingerprint
from ldm_privacy.geometry.stream import stream_distortion, stream_influence
