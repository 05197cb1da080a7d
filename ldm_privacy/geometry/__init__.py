"""Geometry of the decoder D: influence diag(J^T J), local distortion, and masks. Pure torch; J = dD/dz."""

from ldm_privacy.geometry.distortion import Distortion, exact_distortion, local_distortion, top_singular_values
from ldm_privacy.geometry.estimate import InfluenceEstimate, InfluenceEstimator, SetInfluenceEstimator, mask_overlap
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.gradients import gradients_enabled
from ldm_privacy.geometry.influence_store import InfluenceStore
from ldm_privacy.geometry.jacobian import DecoderJacobian
from ldm_privacy.geometry.keep_all import KeepAll
from ldm_privacy.geometry.keep_deviation import KeepTopDeviation, latent_deviation
from ldm_privacy.geometry.keep_lowest import KeepLowestInfluence
from ldm_privacy.geometry.keep_random import KeepRandom
from ldm_privacy.geometry.keep_top import KeepTopInfluence
from ldm_privacy.geometry.pixels import pixel_influence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.shrunk import ShrunkFit, ShrunkInfluence, dataset_influence, shrink_log_influence
from ldm_privacy.geometry.store import GeometryStore, fingerprint
from ldm_privacy.geometry.stream import stream_distortion, stream_influence

__all__ = [
    "DecoderJacobian",
    "Distortion",
    "ExactInfluence",
    "GeometryStore",
    "InfluenceEstimate",
    "InfluenceEstimator",
    "InfluenceStore",
    "KeepAll",
    "KeepLowestInfluence",
    "KeepRandom",
    "KeepTopDeviation",
    "KeepTopInfluence",
    "ProbeInfluence",
    "SetInfluenceEstimator",
    "ShrunkFit",
    "ShrunkInfluence",
    "dataset_influence",
    "exact_distortion",
    "fingerprint",
    "gradients_enabled",
    "latent_deviation",
    "local_distortion",
    "mask_overlap",
    "pixel_influence",
    "shrink_log_influence",
    "stream_distortion",
    "stream_influence",
    "top_singular_values",
]
