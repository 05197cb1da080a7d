"""Memorization onset: from which epoch on a quantity shows that the denoiser treats members differently."""

from ldm_privacy.onset.detector import OnsetDetector, Rise
from ldm_privacy.onset.loss_gap import loss_gap_rise

__all__ = ["OnsetDetector", "Rise", "loss_gap_rise"]
