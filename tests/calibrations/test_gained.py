"""Gained: what was there before the first step is taken away, what was learned since is not."""

import math
from dataclasses import replace

import pytest
import torch

from ldm_privacy.calibrations.calibrated import HistoryAndComplexity
from ldm_privacy.calibrations.gained import Gained
from tests.calibrations.synthetic import area, make_known

TOLERANCE = 4 * (2 / 12 / 4000) ** 0.5
"""Four standard deviations, at most, of an AUROC of 4,000 a side."""


def leaking(known, leak):
    """The same with members that lie higher at every audit, the first one too."""

    def raised(levels):
        return {key: level + leak * known.is_member for key, level in levels.items()}

    return replace(known, now=raised(known.now), earlier=[raised(each) for each in known.earlier])


def test_a_constant_leak_is_nothing_learned_though_a_history_makes_more_and_more_of_it():
    for audits in (1, 6):
        known = leaking(make_known(16_000, signal=0.0, noise=2.0, audits=audits), 0.5)
        averaged = 0.5 / math.sqrt(1 + 4 / (1 + audits))  # leak over the spread of difficulty and of the mean noise
        history = float(torch.special.ndtr(torch.tensor(averaged / math.sqrt(2))))
        assert area(HistoryAndComplexity()(known).score[0], known) == pytest.approx(history, abs=TOLERANCE)
        assert area(Gained()(known).score[0], known) == pytest.approx(0.5, abs=TOLERANCE)


def test_a_leak_before_the_first_step_changes_nothing_of_what_is_learned_later():
    known = make_known(2000, signal=0.5, audits=4)
    before, after = Gained()(known), Gained()(leaking(known, 3.0))
    torch.testing.assert_close(after.score, before.score, rtol=1e-6, atol=1e-6)
    assert area(before.score[0], known) > 0.7
    assert set(before.coefficients) == {"now", "audit-1", "audit-2", "audit-3"}, "the first is what the others are held against"


def test_at_the_first_audit_it_ranks_nobody():
    score = Gained()(make_known(400, audits=0)).score
    assert (score == 0).all()
