"""Geometry of the decoder D: influence diag(J^T J), local distortion, and masks. Pure torch; J = dD/dz."""

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

__all__ = [
    "DecoderJacobian",
    "Distortion",
    "ExactInfluence",
    "InfluenceEstimate",
    "InfluenceEstimator",
    "KeepAll",
    "KeepLowestInfluence",
    "KeepRandom",
    "KeepTopDeviation",
    "KeepTopInfluence",
    "ProbeInfluence",
    "SetInfluenceEstimator",
    "ShrunkFit",
    "ShrunkInfluence",
    "Store",
    "dataset_influence",
    "fingerprint",
    "gradients_enabled",
    "keep_ladder",
    "latent_deviation",
    "mask_overlap",
    "num_kept",
    "pixel_influence",
    "shrink_log_influence",
    "stream_distortion",
    "stream_influence",
]
