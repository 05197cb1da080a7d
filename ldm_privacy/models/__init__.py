"""Networks and how they are seen from above: autoencoders, latent spaces, denoisers, noise predictors."""

from ldm_privacy.models.autoencoder import kl_autoencoder, pretrained_autoencoder, save_autoencoder
from ldm_privacy.models.denoiser import DenoiserNetwork, NetworkPredictor, unet
from ldm_privacy.models.latent_space import LatentNormalisation, LatentSpace, fit_normalisation

__all__ = [
    "DenoiserNetwork",
    "LatentNormalisation",
    "LatentSpace",
    "NetworkPredictor",
    "fit_normalisation",
    "kl_autoencoder",
    "pretrained_autoencoder",
    "save_autoencoder",
    "unet",
]
