"""Controls of membership inference: what tells members from held-out without the model that is audited."""

from ldm_privacy.controls.denoiser_free import (
    denoiser_free_controls,
    denoiser_free_sentence,
    influence_score,
    latent_norm_score,
)
from ldm_privacy.controls.image_features import ImageFeatures, image_features
from ldm_privacy.controls.model_free import ModelFreeControl, model_free_control
from ldm_privacy.controls.near_duplicates import NearDuplicates, near_duplicates, nearest, thumbnail_features

__all__ = [
    "ImageFeatures",
    "ModelFreeControl",
    "NearDuplicates",
    "denoiser_free_controls",
    "denoiser_free_sentence",
    "image_features",
    "influence_score",
    "latent_norm_score",
    "model_free_control",
    "near_duplicates",
    "nearest",
    "thumbnail_features",
]
