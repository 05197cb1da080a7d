"""Membership-inference attacks on a denoiser: one file per published method, one function that runs, masks and sums them."""
# ruff: noqa: F401

from ldm_privacy.attacks.base import Attack, UnmaskableAttack, get_attack, membership_scores
from ldm_privacy.attacks.combined import CombinedAttack
from ldm_privacy.attacks.dime import Dime, DimeFit, fit_dime
from ldm_privacy.attacks.loss import Loss
from ldm_privacy.attacks.pfami import PFAMI
from ldm_privacy.attacks.pia import PIA
from ldm_privacy.attacks.pian import PIAN
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.attacks.runner import attack_statistics, draw_noise, mask_and_sum, masked_sums
from ldm_privacy.attacks.secmi import SecMI
from ldm_privacy.attacks.sima import SimA
from ldm_privacy.attacks.sima_mc import SimAMC, SimAMCOfMean
