"""The audit on predictors whose answer is known."""

from dataclasses import astuple, fields, replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ldm_privacy.attacks.base import UnmaskableAttack, get_attack
from ldm_privacy.audit import passes as passes_module
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.checks import check_labels
from ldm_privacy.audit.collected import Collected, join
from ldm_privacy.audit.row import named_sigma
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.audit.sweep import sweep_points
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.masks import KeepAll, KeepRandom, KeepTopDeviation, KeepTopInfluence
from ldm_privacy.metrics import auroc_interval, membership_metrics
from ldm_privacy.types import AuditKey, Intervals
from tests.reference.predictors import Memoriser

SHAPE = (4, 4, 4)
FEW = Intervals(num_bootstrap=50)


def samples_of(influence=torch.Tensor.square):
    """120 samples, half of them members, halves by parity of the sample index; `influence` is a function of the latent."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(120, *SHAPE, generator=generator)
    index = torch.randperm(5000, generator=generator)[:120].sort().values
    is_member = torch.randperm(120, generator=generator) < 60
    return AuditedSamples(latent, is_member, index, is_calibration=index % 2 == 0, influence=influence(latent))


@pytest.fixture
def samples():
    return samples_of()


@pytest.fixture
def audit(samples):
    masks = {"all": KeepAll(), "top60": KeepTopInfluence(0.6), "random60": KeepRandom(0.6)}
    attacks = {"sima": get_attack("sima"), "loss": get_attack("loss")}
    return Audit(samples, attacks, masks, [0, 50, 100], intervals=FEW)


def members_of(samples):
    return samples.latent[samples.is_member]


def test_a_memoriser_is_found_by_every_mask(audit, samples):
    report = audit(Memoriser(members_of(samples)))
    for mask in ("all", "top60", "random60"):
        assert report.row(AuditKey("sima", mask)).metrics.auroc.value > 0.999


def test_one_that_knows_the_held_out_ones_scores_below_a_half(audit, samples):
    report = audit(Memoriser(samples.latent[~samples.is_member]))
    assert report.row(AuditKey("sima", "all")).metrics.auroc.value < 0.001


def test_batches_change_nothing(audit, samples, monkeypatch, limit_memory):
    predictor = Memoriser(members_of(samples))
    one = audit(predictor)
    monkeypatch.setattr(passes_module, "SAMPLES_AT_ONCE", 7)
    other, seen = audit.report(audit.scores(audit.collect(predictor, (done := []).append))), done
    assert (len(seen), seen[-1]) == (18, 120)
    limit_memory(1)
    audit.collect(predictor, (done := []).append)
    assert done == [*range(1, 121)]
    assert torch.equal(one.data.sample_index, other.data.sample_index)
    for key in one.data.scores:
        torch.testing.assert_close(one.data.scores[key], other.data.scores[key], rtol=1e-5, atol=0)


@pytest.mark.parametrize("cross_fit", [False, True])
def test_the_timestep_is_chosen_on_the_half_that_does_not_report(audit, samples, cross_fit):
    audit.cross_fit, num_folds = cross_fit, 1 + cross_fit
    report = audit(Memoriser(members_of(samples), only_at=50))
    assert report.row(AuditKey("sima", "all")).timesteps == (50,) * num_folds
    # A predictor that gives away only the reporting half, at 100: a peeking choice would take 100.
    report = audit(Memoriser(samples.latent[samples.is_member & ~samples.is_calibration], only_at=100))
    row = report.row(AuditKey("sima", "all"))
    assert row.oracle_timestep == 100
    assert row.oracle_auroc > (0.7 if cross_fit else 0.999)
    for half, score, timestep in zip(
        (samples.is_calibration, ~samples.is_calibration), report.data.scores[row.key], row.timesteps
    ):
        best = max(range(3), key=lambda place: roc_auc_score(samples.is_member[half], score[place, half]))
        assert timestep == [0, 50, 100][best]


def test_nothing_of_the_calibration_half_is_reported_with_one_fold(audit, samples):
    audit.cross_fit = False
    report = audit(Memoriser(samples.latent[samples.is_member & samples.is_calibration]))
    auroc = report.row(AuditKey("sima", "all")).metrics.auroc
    assert auroc.lower < 0.5 < auroc.upper
    assert torch.equal(report.is_reporting, ~samples.is_calibration)


def test_dime_is_fitted_on_the_calibration_half_with_the_audits_own_sums(samples):
    audit = Audit(samples, {"dime": get_attack("dime", num_draws=2)}, {"all": KeepAll()}, [50], intervals=FEW)
    # On the wrong way round the fixed settings would score below a half: the orientation must be found.
    for known in (samples.is_member, ~samples.is_member):
        row = audit(ScaledNoise(samples.latent[known])).rows[0]
        assert row.metrics.auroc.value > 0.9


class ScaledNoise(Memoriser):
    """Predicts noise of half the size near the latents that it knows."""

    def __call__(self, noisy_latent, timestep, condition):
        nearest = torch.cdist(noisy_latent.flatten(1), self.known * self.alphas_cumprod[50].sqrt()).min(dim=1).values
        return torch.sin(1000 * noisy_latent) * torch.where(nearest < 4, 0.5, 1.0)[:, None, None, None]


@pytest.mark.parametrize("by_coins", [False, True])
def test_scores_remember_coins_and_need_two_groups_of_each_side_in_a_half(audit, samples, by_coins):
    collected = replace(audit, by_coins=by_coins).collect(Memoriser(members_of(samples)))
    assert replace(audit, by_coins=by_coins).scores(collected).by_coins is by_coins
    one = collected.is_member & collected.is_calibration
    with pytest.raises(UserError, match="fewer than two groups of members"):
        audit.scores(replace(collected, group=collected.sample_index.masked_fill(one, 9999)))


def test_groups_go_through_an_audit_of_any_batches_and_shards(samples):
    group = samples.sample_index // 7 * 2 + samples.is_member
    audit = Audit(replace(samples, group=group), {"sima": get_attack("sima")}, {"all": KeepAll()}, [0], intervals=FEW)
    predictor, parts = Memoriser(members_of(samples)), []
    assert torch.equal(audit(predictor).data.group, group)
    for rows in (slice(70, 120), slice(0, 70)):
        audit.samples = replace(samples, group=group).rows(rows)
        parts.append(audit.collect(predictor))
    assert torch.equal(audit.report(audit.scores(join(parts))).data.group, group)


def test_intervals_and_target_rates_are_those_that_were_asked_for(samples):
    given = {"attacks": {"sima": get_attack("sima")}, "masks": {"all": KeepAll()}, "timesteps": [0]}
    predictor, key = Memoriser(members_of(samples)[:30]), AuditKey("sima", "all")
    one = Audit(samples, **given, intervals=Intervals(num_bootstrap=20, seed=3), target_fprs=[0.2], cross_fit=False)(predictor)
    held = ~samples.is_calibration
    score, is_member = one.scores_at(key)[held], samples.is_member[held]
    assert one.row(key).metrics == membership_metrics(score, is_member, target_fprs=[0.2], num_bootstrap=20, seed=3)
    assert Audit(samples, **given, seed=11).intervals == Intervals(seed=11)


def test_only_rules_that_say_so_are_controls(audit, samples):
    assert audit(Memoriser(members_of(samples))).data.controls == {"random60"}

    class Plain:
        keep_fraction = 1.0

        def __call__(self, ranking, sample_index):
            return torch.ones_like(ranking, dtype=torch.bool)

    plain = Audit(samples, {"sima": get_attack("sima")}, {"plain": Plain()}, [0], intervals=FEW)
    assert plain(Memoriser(members_of(samples))).data.controls == frozenset()
    with pytest.raises(UserError, match=r"audit\.masks\.plain: ranks by influence"):
        Audit(replace(samples, influence=None), {"sima": get_attack("sima")}, {"plain": Plain()}, [0])


def test_a_half_without_members_is_named(samples):
    audit = Audit(samples.rows(~samples.is_member), {"sima": get_attack("sima")}, {"all": KeepAll()}, [0])
    with pytest.raises(UserError, match="a half of the audit has fewer than two members"):
        audit(Memoriser(members_of(samples)))


def test_the_condition_of_each_sample_reaches_the_predictor(samples):
    class Told(Memoriser):
        def __call__(self, noisy_latent, timestep, condition):
            return noisy_latent.sin() * condition["class_labels"][:, None, None, None]

    told = replace(samples, condition={"class_labels": torch.where(samples.is_member, 0.1, 1.0)})
    audit = Audit(told, {"sima": get_attack("sima")}, {"all": KeepAll()}, [0], intervals=FEW)
    assert audit(Told(members_of(samples))).rows[0].metrics.auroc.value == 1.0


class Unmaskable(UnmaskableAttack):
    """SimA, as an attack that can't tell its dimensions apart."""

    def statistic(self, query, latent, timesteps, noise):
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).pow(4).sum((2, 3, 4))


def test_an_attack_without_masks_is_reported_for_the_masks_that_keep_everything(samples):
    masks = {"all": KeepAll(), "random60": KeepRandom(0.6)}
    attacks = {"whole": Unmaskable(), "sima": get_attack("sima")}
    audit = Audit(samples, attacks, masks, [0, 50], intervals=FEW, keep_fractions=[0.5])
    report = audit(Memoriser(members_of(samples)))
    assert [str(row.key) for row in report.rows] == ["whole/all", "sima/all", "sima/random60", "sima/tuned"]
    assert report.row(AuditKey("whole", "all")).metrics.auroc == report.row(AuditKey("sima", "all")).metrics.auroc
    with pytest.raises(UserError, match="attack 'whole' has no mask"):
        Audit(samples, attacks, {"random60": KeepRandom(0.6)}, [0, 50])


def test_an_error_of_an_attack_is_told_to_be_its_own(samples):
    class Broken(Unmaskable):
        def statistic(self, query, latent, timesteps, noise):
            raise ZeroDivisionError

    attack = Broken()
    with pytest.raises(ZeroDivisionError) as caught:
        Audit(samples, {"whole": attack}, {"all": KeepAll()}, [0]).collect(Memoriser(members_of(samples)))
    assert caught.value.blamed_on is attack


def test_a_keep_fraction_is_of_all_dimensions_of_a_latent(samples):
    given = {"attacks": {"sima": get_attack("sima")}, "masks": {"all": KeepAll()}, "timesteps": [0]}
    Audit(samples, **given, keep_fractions=[0.01])  # rounds to one of 64, and to none of the 16 of a channel
    with pytest.raises(UserError, match=r"^audit\.keep_fractions: 0\.005 keeps none of 64 dimensions"):
        Audit(samples, **given, keep_fractions=[0.5, 0.005])


def test_what_each_half_fits_is_counted(samples):
    attacks = {"sima": get_attack("sima"), "dime": get_attack("dime", num_draws=2)}
    audit = Audit(samples, attacks, {"all": KeepAll(), "random60": KeepRandom(0.6)}, [50])
    data = audit.scores(audit.collect(ScaledNoise(members_of(samples))))
    assert data.num_fitted == {AuditKey("dime", mask): attacks["dime"].num_fitted for mask in ("all", "random60")}


def test_without_influence_there_are_the_other_masks_and_no_sweep(samples):
    pixels = replace(samples, influence=None)
    attacks, masks = {"sima": get_attack("sima")}, {"all": KeepAll(), "random": KeepRandom(0.6), "std": KeepTopDeviation(0.6)}
    audit = Audit(pixels, attacks, masks, [0], keep_fractions=[0.5], intervals=FEW)
    report = audit(Memoriser(members_of(samples)))
    assert [row.key for row in report.rows] == audit.keys == [AuditKey("sima", mask) for mask in masks]
    with pytest.raises(UserError, match=r"^audit\.masks\..*: ranks by influence, but there is none"):
        Audit(pixels, attacks, {"top60": KeepTopInfluence(0.6)}, [0])


def test_the_number_of_passes_is_what_is_said(audit, samples):
    class Counting(Memoriser):
        count = 0

        def __call__(self, noisy_latent, timestep, condition):
            Counting.count += len(noisy_latent)
            return super().__call__(noisy_latent, timestep, condition)

    audit(Counting(samples.latent[:60]))
    assert Counting.count == audit.num_passes


class SomeDimensions(Memoriser):
    """Gives its members away in some dimensions only; in all others it predicts strong noise."""

    def __init__(self, known, telling):
        super().__init__(known)
        self.telling = telling

    def __call__(self, noisy_latent, timestep, condition):
        told = super().__call__(noisy_latent, timestep, condition)
        loud = 3 * torch.sin(777 * noisy_latent.flip(1) + timestep[:, None, None, None])
        return torch.where(self.telling, told, loud)


@pytest.fixture
def told_by_influence():
    """Samples whose upper 40 % of influence are the dimensions that give members away, and such a predictor."""
    influence = torch.linspace(0, 1, 64).reshape(SHAPE)
    samples = samples_of(lambda latent: influence.expand(latent.shape))
    return samples, SomeDimensions(members_of(samples), influence >= influence.flatten().sort().values[-26])


def sweeping(samples, masks=None):
    masks = {"all": KeepAll()} if masks is None else masks
    fractions = [0.1, 0.2, 0.4, 0.7, 1.0]
    return Audit(samples, {"sima": get_attack("sima")}, masks, [0, 50], keep_fractions=fractions, intervals=FEW)


def test_the_calibration_half_finds_the_keep_fraction_that_tells_most(told_by_influence):
    samples, predictor = told_by_influence
    report = sweeping(samples)(predictor)
    tuned = report.row(AuditKey("sima", TUNED))
    assert tuned.keep_fraction <= 0.4
    assert tuned.metrics.auroc.value > 0.99
    assert tuned.metrics.auroc.value > report.row(AuditKey("sima", "all")).metrics.auroc.value + 0.05
    assert tuned.gains["all"].lower > 0
    assert tuned.gains["random"].lower > 0
    assert tuned.gains["deviation"].lower > 0


def test_each_point_of_the_sweep_is_the_mask_of_that_size(told_by_influence):
    samples, predictor = told_by_influence
    masks = {"all": KeepAll(), "top40": KeepTopInfluence(0.4), "random40": KeepRandom(0.4), "std40": KeepTopDeviation(0.4)}
    report = sweeping(samples, masks)(predictor)
    points = {(point.ranking, point.keep_fraction): point for point in report.sweep["sima"]}
    assert len(points) == 3 * 5
    for ranking, label in (("influence", "top40"), ("random", "random40"), ("deviation", "std40")):
        row = report.row(AuditKey("sima", label))
        assert points[ranking, 0.4].auroc == row.metrics.auroc
        assert points[ranking, 0.4].timesteps == row.timesteps
        assert points[ranking, 1.0].auroc == report.row(AuditKey("sima", "all")).metrics.auroc


def test_points_of_the_sweep_have_intervals_over_groups_at_the_confidence_asked_for(told_by_influence):
    samples, predictor = told_by_influence
    group = samples.sample_index % 23 * 2 + samples.is_member
    audit = sweeping(replace(samples, group=group))
    audit.intervals, audit.cross_fit = Intervals(num_bootstrap=50, confidence=0.8), False
    report = audit(predictor)
    held = ~report.data.is_calibration
    for point in report.sweep["sima"]:
        scores = report.data.sweeps["sima"][point.ranking, point.keep_fraction][0, [0, 50].index(*point.timesteps)]
        given = {"confidence": 0.8, "num_bootstrap": 50, "group": report.data.group[held]}
        expected = auroc_interval(scores[held], report.data.is_member[held], **given)
        assert astuple(point.auroc) == pytest.approx(astuple(expected), abs=1e-12)


def test_what_is_known_of_a_sweeps_areas_spares_work_and_changes_nothing(told_by_influence):
    samples, predictor = told_by_influence
    report = sweeping(samples)(predictor)
    assert sweep_points(report.data, "sima", FEW) == report.sweep["sima"]


def test_the_series_of_a_row_are_its_numbers_under_its_key(told_by_influence):
    samples, predictor = told_by_influence
    report = sweeping(samples, {"all": KeepAll(), "top40": KeepTopInfluence(0.4)})(predictor)
    for mask in ("all", "top40", TUNED):
        row = report.row(AuditKey("sima", mask))
        expected = {"oracle_auroc": row.oracle_auroc, "timestep": sum(row.timesteps) / 2}
        if mask == TUNED:
            expected["keep_fraction"] = sum(row.keep_fractions) / 2
        estimates = {"auroc": row.metrics.auroc, "asr": row.metrics.asr}
        estimates |= dict(zip(("tpr_at_1fpr", "tpr_at_0.1fpr"), row.metrics.tpr_at_fpr))
        estimates |= {f"gain_over_{other}": gain for other, gain in row.gains.items()}
        for name, each in estimates.items():
            expected |= {name: each.value, f"{name}_lower": each.lower, f"{name}_upper": each.upper}
        assert row.series() == {f"memorization/sima/{mask}/{name}": value for name, value in expected.items()}
    assert replace(row, timesteps=(50, 100)).series()[f"memorization/{row.key}/timestep"] == 75
    single = Audit(samples, {"pfami": get_attack("pfami")}, {"all": KeepAll()}, [0], intervals=FEW)(predictor).rows[0]
    assert (single.timesteps, single.timestep, single.sigma) == ((None, None), "-", "")
    assert "memorization/pfami/all/timestep" not in single.series()


def test_of_a_flow_a_row_names_the_sigmas_of_its_timesteps(told_by_influence):
    samples, predictor = told_by_influence
    sigmas = {0: 1 / 1001, 50: 51 / 1001}
    row = replace(sweeping(samples), sigmas=sigmas)(predictor).rows[0]
    assert row.sigma == {0: ".001", 50: ".051"}[row.timesteps[0]]
    assert replace(row, timesteps=(50, 0)).sigma == ".051 and .001"
    assert replace(row, timesteps=(None, None)).sigma == "-"
    assert (named_sigma(300 / 1001), named_sigma(0.5)) == (".3", ".5")


def test_the_sweep_costs_no_further_pass(told_by_influence):
    samples, predictor = told_by_influence
    counted = []
    forward = predictor.__call__

    class Counting:
        alphas_cumprod = predictor.alphas_cumprod

        def __call__(self, noisy_latent, timestep, condition):
            counted.append(len(noisy_latent))
            return forward(noisy_latent, timestep, condition)

    sweeping(samples)(Counting())
    assert sum(counted) == 2 * 120


def test_a_claim_is_compared_with_the_unmasked_attack_and_with_every_control_of_its_size(told_by_influence):
    samples, predictor = told_by_influence
    masks = {
        "all": KeepAll(),
        "top40": KeepTopInfluence(0.4),
        "random40": KeepRandom(0.4),
        "std40": KeepTopDeviation(0.4),
        "random70": KeepRandom(0.7),
    }
    report = sweeping(samples, masks)(predictor)
    assert set(report.row(AuditKey("sima", "top40")).gains) == {"all", "random40", "std40"}
    assert set(report.row(AuditKey("sima", "random40")).gains) == {"all"}
    assert report.row(AuditKey("sima", "all")).gains == {}
    gain = report.row(AuditKey("sima", "top40")).gains["random40"]
    areas = [report.row(AuditKey("sima", label)).metrics.auroc.value for label in ("top40", "random40")]
    assert gain.value == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_with_one_fold_the_carried_threshold_is_the_calibration_halfs(audit, samples):
    audit.cross_fit = False
    report = audit(Memoriser(members_of(samples)[:20]))
    key = AuditKey("sima", "all")
    data, row = report.data, report.row(key)
    score = data.scores[key][0, [0, 50, 100].index(*row.timesteps)]
    heldout = score[data.is_calibration & ~data.is_member]
    carried = row.carried[0]
    assert carried.thresholds == (float(heldout.max()),)  # 1 % of 30 held-out samples: none may lie above
    flagged = score[~data.is_calibration] > heldout.max()
    is_member = data.is_member[~data.is_calibration]
    assert carried.tpr.value == pytest.approx(float(flagged[is_member].double().mean()))
    assert carried.fpr.value == pytest.approx(float(flagged[~is_member].double().mean()))


def test_shards_joined_in_any_order_with_a_sample_twice_or_none_give_the_report_of_one_process(audit, samples):
    predictor = Memoriser(members_of(samples))
    whole, parts = audit(predictor), []
    for rows in (slice(80, 120), slice(0, 0), slice(0, 45), slice(40, 80)):
        audit.samples = samples.rows(rows)
        parts.append(audit.collect(predictor))
    together = audit.report(audit.scores(join(parts)))
    assert torch.equal(together.data.sample_index, whole.data.sample_index)
    for key, score in whole.data.scores.items():
        torch.testing.assert_close(together.data.scores[key], score, rtol=1e-5, atol=0)
    assert set(together.series()) == set(whole.series())


def some(rows):
    """What 20 samples left behind, but for those that are not in `rows`: two attacks, three masks, a sweep of four."""
    index = torch.arange(20)
    columns = [index * 3, index % 2 == 0, index % 3 == 0, index // 2, index / 7, index % 5, index.sin()]
    sums, sweeps = (
        {
            "loss": [torch.randn(num_masks, 2, 20, generator=torch.Generator().manual_seed(num_masks))],
            "dime": [torch.full((num_masks, 2, 1), place) + index for place in (0.25, 0.5)],
        }
        for num_masks in (3, 4)
    )
    cut = [{name: [term[..., rows] for term in terms] for name, terms in each.items()} for each in (sums, sweeps)]
    return Collected(*(column[rows] for column in columns), *cut)


def test_shards_joined_have_every_column_and_sum_of_the_whole():
    whole, parts = some(slice(None)), [some(rows) for rows in (slice(12, 20), slice(0, 0), slice(0, 8), slice(6, 12))]
    together = join(parts)
    assert parts == [], "what was joined makes room"
    for each in fields(Collected):
        mine, expected = getattr(together, each.name), getattr(whole, each.name)
        if isinstance(expected, torch.Tensor):
            assert torch.equal(mine, expected), each.name
        else:
            assert list(mine) == list(expected)
            for name, terms in expected.items():
                assert all(torch.equal(one, other) for one, other in zip(mine[name], terms, strict=True)), each.name


def test_a_single_shard_is_the_record_itself():
    assert join([whole := some(slice(None))]) is whole
    assert join([some(slice(0, 0)), whole]) is whole
    with pytest.raises(ValueError, match="no samples"):
        join([])


def test_a_label_that_is_taken_is_named(samples):
    with pytest.raises(UserError, match="'tuned' is taken"):
        sweeping(samples, {"tuned": KeepAll()})


def test_a_label_that_can_name_no_file_is_named():
    with pytest.raises(UserError, match=r"audit.masks: the label 'a/b' names files and curves"):
        check_labels(["sima"], ["all", "a/b"], [])
    with pytest.raises(UserError, match=r"audit.attacks: the label '/' names"):
        check_labels(["/"], ["all"], [])
    with pytest.raises(UserError, match=r"audit.calibrations: the label 'my history' names"):
        check_labels(["sima"], ["all"], ["complexity", "my history"])
