"""The audit on predictors whose answer is known."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ldm_privacy.attacks import get_attack
from ldm_privacy.audit import Audit, SampleTable
from ldm_privacy.errors import UserError
from ldm_privacy.geometry import KeepAll, KeepRandom, KeepTopInfluence
from ldm_privacy.types import AuditBatch, AuditKey

SHAPE = (4, 4, 4)


class Memoriser:
    """Predicts no noise on the latents that it knows, and plain noise of the latent's own on all others."""

    alphas_cumprod = torch.linspace(0.9999, 0.01, 1000)

    def __init__(self, known, only_at=None):
        self.known = known.flatten(1)
        self.only_at = only_at

    def __call__(self, noisy_latent, timestep, condition):
        distance = torch.cdist(noisy_latent.flatten(1), self.known, compute_mode="donot_use_mm_for_euclid_dist")
        is_known = distance.min(dim=1).values < 1e-3
        if self.only_at is not None:
            is_known &= timestep == self.only_at
        noise = torch.sin(1000 * noisy_latent + timestep[:, None, None, None])
        return noise * torch.where(is_known, 0.5, 1.0)[:, None, None, None]


def parity(sample_index):
    return sample_index % 2 == 0


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(120, *SHAPE, generator=generator)
    index = torch.randperm(5000, generator=generator)[:120]
    return AuditBatch(latent, torch.arange(120) < 60, index)


@pytest.fixture
def audit(samples):
    influence = SampleTable(samples.sample_index, samples.latent.square())
    masks = {"all": KeepAll(), "top60": KeepTopInfluence(0.6), "random60": KeepRandom(0.6)}
    attacks = {"sima": get_attack("sima"), "loss": get_attack("loss")}
    return Audit(attacks, masks, influence, [0, 50, 100], parity, num_bootstrap=50)


def run(audit, predictor, samples, batch_size=50, order=None):
    audit.reset()
    order = torch.arange(len(samples.sample_index)) if order is None else order
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        audit.update(predictor, AuditBatch(samples.latent[rows], samples.is_member[rows], samples.sample_index[rows]))
    return audit.compute()


def test_a_memoriser_is_found_by_every_mask(audit, samples):
    report = run(audit, Memoriser(samples.latent[samples.is_member]), samples)
    for mask in ("all", "top60", "random60"):
        assert report.row(AuditKey("sima", mask)).metrics.auroc.value > 0.999


def test_one_that_knows_the_held_out_ones_scores_below_a_half(audit, samples):
    report = run(audit, Memoriser(samples.latent[~samples.is_member]), samples)
    assert report.row(AuditKey("sima", "all")).metrics.auroc.value < 0.001


def test_batches_and_order_change_nothing(audit, samples):
    predictor = Memoriser(samples.latent[samples.is_member])
    one = run(audit, predictor, samples, batch_size=120)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(5))
    other = run(audit, predictor, samples, batch_size=7, order=order)
    assert torch.equal(one.sample_index, other.sample_index)
    for key in one.scores:
        torch.testing.assert_close(one.scores[key], other.scores[key], rtol=1e-5, atol=0)


def test_the_timestep_is_chosen_on_the_calibration_half_alone(audit, samples):
    report = run(audit, Memoriser(samples.latent[samples.is_member], only_at=50), samples)
    assert report.row(AuditKey("sima", "all")).timestep == 50
    # A predictor that gives away only the reporting half, at 100: a peeking choice would take 100.
    reporting = samples.latent[samples.is_member & ~parity(samples.sample_index)]
    row = run(audit, Memoriser(reporting, only_at=100), samples).row(AuditKey("sima", "all"))
    assert row.oracle_timestep == 100
    assert row.oracle_auroc > 0.999
    report = run(audit, Memoriser(reporting, only_at=100), samples)
    scores = report.scores[AuditKey("sima", "all")][:, report.is_calibration]
    membership = report.is_member[report.is_calibration]
    best = max(range(3), key=lambda place: roc_auc_score(membership, scores[place]))
    assert row.timestep == [0, 50, 100][best]


def test_nothing_of_the_calibration_half_is_reported(audit, samples):
    predictor = Memoriser(samples.latent[samples.is_member & parity(samples.sample_index)])
    report = run(audit, predictor, samples)
    auroc = report.row(AuditKey("sima", "all")).metrics.auroc
    assert auroc.lower < 0.5 < auroc.upper


def test_dime_is_fitted_on_the_calibration_half_with_the_audits_own_sums(samples):
    influence = SampleTable(samples.sample_index, samples.latent.square())
    audit = Audit({"dime": get_attack("dime", num_draws=2)}, {"all": KeepAll()}, influence, [50], parity, num_bootstrap=50)
    # On the wrong way round the fixed settings would score below a half: the orientation must be found.
    for known in (samples.is_member, ~samples.is_member):
        row = run(audit, ScaledNoise(samples.latent[known]), samples).rows[0]
        assert row.metrics.auroc.value > 0.9


class ScaledNoise(Memoriser):
    """Predicts noise of half the size near the latents that it knows."""

    def __call__(self, noisy_latent, timestep, condition):
        nearest = torch.cdist(noisy_latent.flatten(1), self.known * self.alphas_cumprod[50].sqrt()).min(dim=1).values
        return torch.sin(1000 * noisy_latent) * torch.where(nearest < 4, 0.5, 1.0)[:, None, None, None]


def test_the_combined_attack_is_reported_beside_the_others(samples):
    influence = SampleTable(samples.sample_index, samples.latent.square())
    attacks = {"sima": get_attack("sima"), "loss": get_attack("loss")}
    audit = Audit(attacks, {"all": KeepAll()}, influence, [0, 50], parity, num_bootstrap=50, combine=True)
    report = run(audit, Memoriser(samples.latent[samples.is_member]), samples)
    assert audit.keys[-1] == report.rows[-1].key == AuditKey("combined", "all")
    assert report.rows[-1].metrics.auroc.value > 0.99
    assert len(report.coefficients) == 4


def test_reset_forgets(audit, samples):
    predictor = Memoriser(samples.latent[samples.is_member])
    assert len(run(audit, predictor, samples).sample_index) == len(run(audit, predictor, samples).sample_index) == 120


def test_a_half_without_members_is_named(audit, samples):
    only = AuditBatch(samples.latent[60:], samples.is_member[60:], samples.sample_index[60:])
    with pytest.raises(UserError, match="the calibration half of the audit has fewer than two members"):
        run(audit, Memoriser(samples.latent[:60]), only)


def test_a_sample_without_influence_is_named(audit, samples):
    stranger = AuditBatch(samples.latent, samples.is_member, samples.sample_index + 5000)
    with pytest.raises(UserError, match=r"sample \d+ is not in the table"):
        run(audit, Memoriser(samples.latent[:60]), stranger)


def test_the_number_of_passes_is_what_is_said(audit, samples):
    class Counting(Memoriser):
        count = 0

        def __call__(self, noisy_latent, timestep, condition):
            Counting.count += len(noisy_latent)
            return super().__call__(noisy_latent, timestep, condition)

    run(audit, Counting(samples.latent[:60]), samples)
    assert Counting.count == audit.num_passes * 120
