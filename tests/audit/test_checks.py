"""What an audit is asked for, checked before any pass."""

import pytest

from ldm_privacy.audit.checks import audited_timesteps
from ldm_privacy.errors import UserError


def test_sigmas_are_taken_to_the_nearest_timestep():
    """Timestep t of n is sigma (t + 1) / (n + 1)."""
    assert audited_timesteps(None, [0.3, 0.7, 0.0004, 0.9999], "flow", 1000) == [299, 700, 0, 999]
    assert audited_timesteps(None, [0.5, 0.1], "flow", 9) == [4, 0]


def test_two_sigmas_of_one_timestep_count_once():
    assert audited_timesteps(None, [0.1, 0.3, 0.3001], "flow", 1000) == [99, 299]


def test_a_flow_may_be_given_timesteps_too():
    assert audited_timesteps([5, 7], None, "flow", 1000) == audited_timesteps([5, 7], None, "epsilon", 8) == [5, 7]


@pytest.mark.parametrize(
    ("timesteps", "sigmas", "kind", "message"),
    [
        ([5], [0.3], "flow", "audit.sigmas: audit.timesteps is given too"),
        (None, [0.3], "v_prediction", "audit.sigmas: they are of flows; this denoiser predicts v_prediction"),
        (None, None, "flow", "audit.timesteps: empty"),
        ([], None, "epsilon", "audit.timesteps: empty"),
        (None, [], "flow", "audit.timesteps: empty"),
        ([5, 100], None, "flow", "audit.timesteps: 100 is outside the noise schedule, 0 to 99."),
    ],
)
def test_what_names_no_timesteps_is_refused(timesteps, sigmas, kind, message):
    with pytest.raises(UserError, match=f"^{message}"):
        audited_timesteps(timesteps, sigmas, kind, 100)
