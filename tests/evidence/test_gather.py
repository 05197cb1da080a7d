"""From an audit to its verdict: a leak, a model that knows nothing, one that remembers everything."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import TUNED, Derived
from ldm_privacy.controls.finding import WITHOUT_MODEL, Finding
from ldm_privacy.controls.thumbnails import thumbnail_features
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.verdict import parts_of, verdict_of
from ldm_privacy.geometry.masks import KeepAll, KeepRandom, KeepTopInfluence
from ldm_privacy.metrics import auroc
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import AuditKey, Estimate, Intervals
from tests.evidence.synthetic import QUICK, Pictures, make_samples, make_scores
from tests.reference.predictors import Memoriser

KEY = AuditKey("sima", "all")


def gather(data, *, brighten=0.0, error=None, **options):
    report = report_of(data, intervals=Intervals(num_bootstrap=20))
    return gather_evidence(report, KEY, make_samples(data, error=error), Pictures(data, brighten=brighten), **options)


def classifiers(evidence):
    return [evidence.findings[f"{name} on image features"] for name in ("logistic", "boosting")]


@pytest.fixture(scope="module")
def blind():
    return gather(make_scores(200, 200, fractions=(0.5, 1.0)))


@pytest.fixture(scope="module")
def leaking():
    """Members are brighter by about half the spread of brightness over images; the attack is as blind as before."""
    return gather(make_scores(200, 200), brighten=0.15)


@pytest.fixture(scope="module")
def exposed():
    """An audit of a predictor that knows its members, as it is run."""
    data = make_scores(60, 60)
    samples = make_samples(data)
    masks = {"all": KeepAll(), "top60": KeepTopInfluence(0.6), "random60": KeepRandom(0.6)}
    attacks = {name: ATTACKS.get(name)() for name in ("sima", "loss")}
    audit = Audit(samples, attacks, masks, [0, 50], keep_fractions=(0.5, 1.0), intervals=QUICK)
    report = audit(Memoriser(samples.latent[data.is_member]))
    steps = []
    evidence = gather_evidence(
        report, KEY, samples, Pictures(data), progress=lambda done, total=None: steps.append((done, total))
    )
    assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1))
    return evidence


def test_a_memoriser_is_exposed(exposed):
    verdict = verdict_of(exposed)
    assert verdict.tone == "exposed"
    for mask in ("all", "top60", "random60", TUNED):
        assert exposed.permuted[AuditKey("sima", mask)].band.p_value == 1 / 201
        assert exposed.permuted[AuditKey("sima", mask)].band.upper < 0.8
    assert exposed.exposure.num_above_all == 60
    assert exposed.dataset.test.p_value < 1e-6
    assert exposed.dataset.adjusted[KEY] < 1e-4
    who, sure, meaning = verdict.sentences
    assert "sima/all tells them from held-out images with AUROC 1.000" in who
    assert "p = 0.00498" in sure
    assert "60 of 60 members score above every held-out image of their half" in meaning


def test_a_blind_predictor_is_not_exposed(blind):
    area = blind.report.row(KEY).metrics.auroc
    verdict = verdict_of(blind)
    found = blind.report.row(KEY).carried[0].tpr.upper
    assert verdict.tone == ("safe" if area.upper < 0.6 and area.lower > 0.4 and found < 0.1 else "unclear")
    assert blind.permuted[KEY].band.p_value > 0.01
    assert not any(each.leaks for each in blind.findings.values())
    assert "Under permuted labels" in verdict.sentences[1]
    assert not any("are exposed" in sentence or "leaks" in sentence for sentence in verdict.sentences)


@pytest.mark.parametrize(
    ("lower", "value", "upper", "p_value", "tpr", "tone"),
    [
        (0.47, 0.52, 0.57, 0.3, 0.05, "safe"),
        # A few members that are surely found hardly move an AUROC.
        (0.47, 0.52, 0.57, 0.3, 0.12, "unclear"),
        (0.44, 0.53, 0.62, 0.3, 0.05, "unclear"),
        (0.52, 0.57, 0.62, 0.01, 0.05, "exposed"),
        (0.52, 0.57, 0.62, 0.06, 0.05, "unclear"),
        # An attack that is certain the wrong way round has found the members too.
        (0.05, 0.1, 0.2, 1.0, 0.05, "unclear"),
    ],
)
def test_the_tone_follows_the_interval_and_the_permuted_labels(blind, lower, value, upper, p_value, tpr, tone):
    row, found = blind.report.row(KEY), blind.permuted[KEY]
    area = replace(row.metrics.auroc, value=value, lower=lower, upper=upper)
    rates = replace(row.carried[0], tpr=replace(row.carried[0].tpr, upper=tpr))
    changed = replace(row, metrics=replace(row.metrics, auroc=area), carried=(rates,))
    rows = [changed if each is row else each for each in blind.report.rows]
    permuted = {**blind.permuted, KEY: replace(found, band=replace(found.band, p_value=p_value))}
    evidence = replace(blind, report=replace(blind.report, rows=rows), permuted=permuted)
    verdict = verdict_of(evidence)
    assert verdict.tone == tone
    assert len(verdict.sentences) == 3


@pytest.mark.parametrize("upper", [0.57, 0.66])
@pytest.mark.parametrize("form", ["key", "outsider"])
def test_safe_is_what_the_plain_attack_and_the_outsiders_scores_leave_open_too(blind, form, upper):
    other = next(key for key in blind.permuted if key != KEY)
    bounds = {KEY: 0.57, other: upper}
    rows = []
    for row in blind.report.rows:
        area = replace(row.metrics.auroc, value=0.52, lower=0.47, upper=bounds.get(row.key, 0.9))
        rates = replace(row.carried[0], tpr=replace(row.carried[0].tpr, upper=0.05))
        rows.append(replace(row, metrics=replace(row.metrics, auroc=area), carried=(rates,)))
    permuted = {each: replace(found, band=replace(found.band, p_value=0.3)) for each, found in blind.permuted.items()}
    evidence = replace(blind, report=replace(blind.report, rows=rows), permuted=permuted, **{form: other})
    verdict = verdict_of(evidence)
    assert verdict.tone == ("safe" if upper < 0.6 else "unclear")
    assert f"AUROC {'of' if upper < 0.6 else 'up to'} {upper:.3f}" in verdict.sentences[2]


def test_another_row_that_stands_out_with_all_tested_together_exposes(blind):
    other = next(key for key in blind.permuted if key != KEY)
    row = blind.report.row(other)
    area = replace(row.metrics.auroc, value=0.8, lower=0.7, upper=0.9)
    rows = [replace(row, metrics=replace(row.metrics, auroc=area)) if each is row else each for each in blind.report.rows]
    for p_normal, tone in ((1e-6, "exposed"), (0.04, verdict_of(blind).tone)):
        permuted = {**blind.permuted, other: replace(blind.permuted[other], p_normal=p_normal)}
        verdict = verdict_of(replace(blind, report=replace(blind.report, rows=rows), permuted=permuted))
        assert verdict.tone == tone
        assert (str(other) in verdict.sentences[0]) == (p_normal < 0.001)


OUTSIDER, INSIDER = AuditKey("sima_complexity", "all"), AuditKey("sima_calibrated", "all")


@pytest.fixture(scope="module")
def calibrated():
    """A plain attack that knows nothing, and what its calibrated scores know: the outsider's a little, the insider's much."""
    data = make_scores(80, 80, num_folds=2)
    noise = torch.randn(2, 3, 160, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    scores = {OUTSIDER: noise + 0.7 * data.is_member, INSIDER: noise[:, :1] + 2.0 * data.is_member}
    data = replace(
        data,
        scores=data.scores | scores,
        keep_fraction=data.keep_fraction | dict.fromkeys(scores, 1.0),
        timesteps=data.timesteps | {"sima_complexity": [0, 10, 20], "sima_calibrated": []},
        derived={OUTSIDER: Derived(KEY, False), INSIDER: Derived(KEY, True)},
        num_fitted={INSIDER: 3},
    )
    return gather(data, num_permutations=39)


def test_the_verdict_rests_on_the_insiders_scores_and_says_what_an_outsider_has(calibrated):
    report = calibrated.report
    assert (calibrated.key, calibrated.insider, calibrated.outsider) == (KEY, INSIDER, OUTSIDER)
    verdict, areas = verdict_of(calibrated), {key: report.row(key).metrics.auroc for key in (KEY, INSIDER, OUTSIDER)}
    assert verdict.tone == "exposed"
    who = verdict.sentences[0]
    assert f"sima_calibrated/all tells them from held-out images with AUROC {areas[INSIDER]}" in who
    assert f"takes the run's checkpoints; with the model alone sima_complexity/all reaches {areas[OUTSIDER]}" in who
    assert calibrated.exposure.key == INSIDER
    member = report.data.is_member
    assert calibrated.exposure.score.tolist() == sorted(report.scores_at(INSIDER)[member].tolist(), reverse=True)
    plain = replace(calibrated, insider=KEY, outsider=KEY)
    assert "run's checkpoints" not in verdict_of(plain).sentences[0]
    assert verdict_of(replace(calibrated, insider=KEY)).sentences[0] != who


def test_with_both_halves_a_control_is_turned_round_by_the_half_that_does_not_report(calibrated):
    report, data = calibrated.report, calibrated.report.data
    for name, difference in calibrated.over_controls.items():
        score, parts = calibrated.findings[name].score.double(), []
        for half in (data.is_calibration, ~data.is_calibration):
            sign = 1 if auroc(score[~half], data.is_member[~half]) >= 0.5 else -1
            areas = [auroc(each[half], data.is_member[half]) for each in (report.scores_at(INSIDER), sign * score)]
            parts.append(float(areas[0] - areas[1]))
        assert difference.value == pytest.approx(sum(parts) / 2, abs=1e-9), name


def test_without_calibrated_scores_everyone_has_the_plain_attack(blind):
    assert blind.key == blind.insider == blind.outsider == KEY


def test_fewer_samples_leave_it_undecided():
    evidence = gather(make_scores(24, 24), num_permutations=39)
    assert verdict_of(evidence).tone == "unclear"
    assert "Not enough to tell" in verdict_of(evidence).sentences[2]


def test_image_complexity_is_a_score_and_no_classifier(blind):
    found = Finding("image complexity", WITHOUT_MODEL, estimate=Estimate(0.7, 0.6, 0.8))
    sure = verdict_of(replace(blind, findings=blind.findings | {found.name: found})).sentences[1]
    assert "a score that sees the images and no model reaches 0.700 [0.600, 0.800] (image complexity)" in sure
    assert "a classifier that sees the images and no model reaches" in verdict_of(blind).sentences[1]


def test_brighter_members_are_called_a_leak_whatever_the_attack_says(leaking, blind):
    verdict = verdict_of(leaking)
    assert verdict.tone == "leak"
    assert all(each.leaks for each in classifiers(leaking))
    assert "a classifier that sees the images and no model reaches 0." in verdict.sentences[1]
    assert "The two image sets differ by themselves" in verdict.sentences[2]
    level = max(each.estimate.value for each in classifiers(leaking))
    assert f"attack numbers up to about {level:.3f} measure the split" in verdict.sentences[2]
    # The same scores without the leak, and a strong attack with it.
    assert verdict_of(replace(leaking, findings=blind.findings)).tone != "leak"
    strong = replace(leaking, report=report_of(make_scores(200, 200, strength=2.0), intervals=QUICK))
    assert verdict_of(strong).tone == "leak"


def test_an_autoencoder_that_gives_members_away_is_named():
    data = make_scores(60, 60)
    evidence = gather(data, error=torch.where(data.is_member, 0.1, 0.2), num_permutations=39)
    assert evidence.findings["reconstruction error"].estimate.value == 1.0
    assert "without the denoiser reconstruction error already tells" in verdict_of(evidence).sentences[1]


def test_with_too_few_samples_for_a_classifier_the_rest_is_there():
    evidence = gather(make_scores(12, 8), num_permutations=39)
    assert evidence.findings["model-free control"].is_missing
    assert "too few samples for a classifier" in verdict_of(evidence).sentences[1]
    assert len(evidence.neighbours[0]) == 12


def test_each_exposed_member_stands_beside_the_nearest_held_out_image(blind):
    pictures = Pictures(blind.report.data)
    heldout = blind.report.data.sample_index[~blind.report.data.is_member]
    features = thumbnail_features(pictures(heldout))
    for member, neighbour, similarity in zip(blind.exposure.sample_index, *blind.neighbours):
        likeness = features @ thumbnail_features(pictures(member[None]))[0]
        assert int(neighbour) == int(heldout[likeness.argmax()])
        assert float(similarity) == pytest.approx(float(likeness.max()), abs=1e-5)


def test_copies_across_the_sides_are_counted():
    data = make_scores(30, 30)
    pictures = Pictures(data)
    member, heldout = (int(side.nonzero()[2]) for side in (data.is_member, ~data.is_member))
    pictures.image[heldout] = pictures.image[member]
    report = report_of(data, intervals=QUICK)
    evidence = gather_evidence(report, KEY, make_samples(data), pictures, num_permutations=39)
    pair = (int(data.sample_index[member]), int(data.sample_index[heldout]))
    assert [each[:2] for each in evidence.findings["near-duplicates"].pairs] == [pair]


def test_the_attack_is_paired_with_every_score_on_the_reported_samples(blind):
    report, reporting = blind.report, blind.report.is_reporting
    assert set(blind.over_controls) == {name for name, each in blind.findings.items() if each.score is not None}
    for name, difference in blind.over_controls.items():
        score = blind.findings[name].score
        calibration = auroc(score[~reporting], report.data.is_member[~reporting])
        control = auroc(score[reporting], report.reported_membership)
        turned = control if calibration >= 0.5 else 1 - control
        expected = report.row(KEY).metrics.auroc.value - float(turned)
        assert difference.value == pytest.approx(expected, abs=1e-9), name


def test_the_data_set_verdict_is_welchs_test_of_the_reporting_half(blind):
    report, test = blind.report, blind.dataset.test
    score, is_member = report.reported_scores(KEY).numpy(), report.reported_membership.numpy()
    expected = stats.ttest_ind(score[is_member], score[~is_member], equal_var=False, alternative="greater")
    assert test.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    sizes = [point.size for point in blind.dataset.by_size]
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (2, test.num_suspect)
    assert blind.dataset.by_size[-1].median == pytest.approx(test.p_value, rel=1e-9)
    assert set(blind.dataset.adjusted) == {row.key for row in report.rows}
    assert all(adjusted >= test.p_value - 1e-12 for adjusted in [blind.dataset.adjusted[KEY]])


def test_groups_reach_every_control():
    data = make_scores(96, 96, group_size=4, strength=0.5)
    with_groups, without = (gather(each, num_permutations=99) for each in (data, replace(data, group=None)))
    band, narrow = (each.permuted[KEY].band for each in (with_groups, without))
    assert band.upper - band.lower > 1.5 * (narrow.upper - narrow.lower)
    assert with_groups.dataset.test.num_suspect == without.dataset.test.num_suspect / 4
    for name in ("reconstruction error", "latent norm"):
        assert with_groups.findings[name].estimate != without.findings[name].estimate
    assert "(48 members of 12 groups, 48 held-out of 12 groups; .5 is guessing)" in parts_of(with_groups).found
    assert "groups" not in parts_of(without).found


def test_the_seed_decides_everything():
    first, again = (gather(make_scores(40, 40, fractions=(0.5, 1.0)), num_permutations=39) for _ in range(2))
    assert again.permuted == first.permuted
    estimates = [{name: each.estimate for name, each in evidence.findings.items()} for evidence in (first, again)]
    assert estimates[0] == estimates[1]
    assert again.dataset == first.dataset


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_named_by_attack_and_sample(value):
    data = make_scores(30, 30)
    key = AuditKey("loss", "top60")
    for half in (data.is_calibration, ~data.is_calibration):
        place = int(half.nonzero()[4])
        score = data.scores[key].clone()
        score[:, 1, place] = value
        with pytest.raises(UserError, match=f"loss/top60: .* sample {int(data.sample_index[place])} is not finite"):
            report_of(replace(data, scores={**data.scores, key: score}), intervals=QUICK)


def test_an_attack_that_gives_everyone_the_same_score_ranks_nobody():
    data = make_scores(30, 30)
    for key in (AuditKey("loss", "all"), KEY):
        constant = replace(data, scores={**data.scores, key: torch.full_like(data.scores[key], 2.0)})
        evidence = gather(constant, num_permutations=39)
        assert evidence.report.is_constant(key)
        assert evidence.report.row(key).metrics.auroc.value == 0.5
        assert evidence.permuted[key].band.p_value == 1.0
        assert verdict_of(evidence).tone != "exposed"
        assert evidence.agreement.keys == tuple({KEY, AuditKey("loss", "all")} - {key})
        assert evidence.onsets is None
        assert (evidence.dataset is None) == (key == KEY)
        if evidence.dataset is not None:
            assert set(evidence.dataset.adjusted) == set(data.scores) - {key}


def test_an_audit_names_the_sample_whose_score_is_not_finite():
    data = make_scores(30, 30)
    samples, place = make_samples(data), 7
    latent = samples.latent.clone()
    latent[place, 0, 0, 0] = float("nan")

    class Plain:
        alphas_cumprod = Memoriser.alphas_cumprod

        def __call__(self, noisy_latent, timestep, condition):
            return torch.sin(noisy_latent)

    audit = Audit(replace(samples, latent=latent), {"sima": ATTACKS.get("sima")()}, {"all": KeepAll()}, [50])
    with pytest.raises(UserError, match=rf"sample {int(data.sample_index[place])} .*not finite"):
        audit(Plain())
