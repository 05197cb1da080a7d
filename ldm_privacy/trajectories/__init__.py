"""How guided sampling memorizes: a trajectory between its noise and a training image (Kim, Kim, Lee 2025, 2509.25705).

Functions of tensors; nothing here is random or calls a network. Rows are captions (with their seeds); times are the states of a
trajectory, the first one after the first update, the last one the generated latent.
"""
# ruff: noqa: F401

from ldm_privacy.trajectories.branch_gap import branch_gap
from ldm_privacy.trajectories.claims import Claim, claims_of
from ldm_privacy.trajectories.decompose import Coefficients, Decomposition, decompose
from ldm_privacy.trajectories.deviation import Deviation, deviation, memoriser_coefficients
from ldm_privacy.trajectories.guided import Guided
from ldm_privacy.trajectories.overestimation import Overestimation, overestimation
from ldm_privacy.trajectories.record import Shown, TrajectoryReport
from ldm_privacy.trajectories.replication import nearest_of, similarity
