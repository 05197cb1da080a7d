"""Calibrations in an audit: what they are called, what they get of each fold and of history, what is refused."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.calibrate import MOST_EARLIER, Derivation, derivations, level, with_calibrated
from ldm_privacy.audit.kept import KeptScores, Memory, kept_of
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import Derived, forms, informed, is_alike
from ldm_privacy.calibrations.base import MIN_SAMPLES, Calibrated, Calibration
from ldm_privacy.calibrations.combined import Combined
from ldm_privacy.calibrations.history import History
from ldm_privacy.calibrations.reference import Reference
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.masks import KeepAll, KeepRandom
from ldm_privacy.metrics import crossfit_auroc
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores
from tests.reference import crossfit as slow

KEY, LOSS = AuditKey("sima", "all"), AuditKey("loss", "all")
LOG = {"sima": True, "loss": False}


class Seen(Calibration):
    """Remembers what it is shown; its score is the level at the chosen timestep."""

    needs_history = True

    def __init__(self):
        self.known = []

    def __call__(self, known):
        self.known.append(known)
        return Calibrated(known.level[None], {"place": float(known.place)}, num_fitted=len(known.earlier))


class Alike(Calibration):
    """Fits a number that no score depends on."""

    def __call__(self, known):
        return Calibrated(known.now[known.key][:1], {"mean": float(known.level.mean())}, num_fitted=1)


def positive(data):
    """The same with scores as those of a positive statistic: minus it."""
    return replace(data, scores={key: -(-score[:1]).exp().expand(score.shape) for key, score in data.scores.items()})


def fitted(data):
    """The same where the loss was fitted on each half."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, *data.scores[LOSS].shape[1:], generator=generator, dtype=torch.float64)
    return replace(data, scores=data.scores | {LOSS: data.scores[LOSS] + noise}, num_fitted={LOSS: 4})


@pytest.fixture
def data():
    return fitted(positive(make_scores(60, 60, strength=0.5, masks=("all",), num_folds=2)))


def see(data, history, of=KEY):
    seen = Seen()
    made = with_calibrated(data, [Derivation(AuditKey(f"{of.attack}_seen", of.mask), seen, of)], LOG, None, history)
    return seen.known, made


@pytest.mark.parametrize("of", [KEY, LOSS])
def test_each_half_is_shown_its_own_folds_levels_at_the_timestep_that_it_chose(data, of):
    known, made = see(data, {}, of)
    places = slow.crossfit(data.scores[of].numpy(), data.is_member.numpy(), data.is_calibration.numpy())[1]
    key = AuditKey(f"{of.attack}_seen", "all")
    assert len(known) == 2
    for fold, (each, place) in enumerate(zip(known, places)):
        expected = data.scores[of][fold]
        if of == KEY:  # a positive statistic is compared by its logarithm
            expected = -(-expected).log()
        torch.testing.assert_close(each.now[of], expected, rtol=1e-12, atol=0)
        assert (each.key, each.place, each.places[of]) == (of, place, place)
        assert torch.equal(each.chooses, data.is_calibration if fold == 0 else ~data.is_calibration)
        assert torch.equal(made.scores[key][fold, 0], each.level)
        assert made.coefficients[f"calibration/{key}/half{fold + 1}/place"] == place
    assert (made.timesteps[key.attack], made.keep_fraction[key]) == ([], 1.0)
    assert made.derived == {key: Derived(of, True)}
    # What is made of something that is fitted has its numbers beside its own; a timestep that was chosen for it counts as one.
    assert made.num_fitted == {LOSS: 4, key: 5 if of == LOSS else 1}


def test_earlier_audits_come_oldest_first_at_the_timestep_of_now_in_the_fold_that_is_fitted(data):
    history = Memory()
    for time in (3, 1, 2):
        earlier = fitted(positive(make_scores(60, 60, masks=("all",), num_folds=2, seed=0)))
        scores = {KEY: earlier.scores[KEY][:1].mul(time).expand(2, -1, -1), LOSS: earlier.scores[LOSS] * time}
        history.write(time, kept_of(report_of(replace(earlier, scores=scores), intervals=QUICK)))
    for of in (KEY, LOSS):
        known, made = see(data, history.read(), of)
        for fold, each in enumerate(known):
            assert len(each.earlier) == 3
            for time, levels in zip((1, 2, 3), each.earlier):
                kept = history.read()[time].scores[of]
                assert len(kept) == (1 if of == KEY else 2), "where nothing is fitted, both folds are one"
                row = kept[min(fold, len(kept) - 1), each.place].double()
                torch.testing.assert_close(levels[of], -(-row).log() if of == KEY else row, rtol=1e-6, atol=1e-6)
        assert made.num_fitted[AuditKey(f"{of.attack}_seen", "all")] == (3 if of == KEY else 3 + 4)


def test_the_references_scores_are_shown_to_what_compares_with_them_alone(data):
    told = replace(data, reference={KEY: torch.stack([data.scores[KEY][0], 2 * data.scores[KEY][1]])})
    for needs in (True, False):
        seen = Seen()
        seen.needs_reference = needs
        with_calibrated(told, [Derivation(AuditKey("sima_seen", "all"), seen, KEY)], LOG, None, {})
        for fold, known in enumerate(seen.known):
            assert torch.equal(known.reference[KEY], told.reference[KEY][fold]) if needs else known.reference is None
    (found,) = derivations({"reference": Reference()}, [KEY])
    assert found.derived.reference == "outsider", "unless it is said whose it is"


@pytest.mark.parametrize("num_folds", [1, 2])
def test_what_is_the_same_in_both_folds_is_stored_once(num_folds):
    data = positive(make_scores(60, 60, masks=("all",), num_folds=num_folds))
    found = with_calibrated(data, [Derivation(AuditKey("sima_one", "all"), Alike(), KEY)], LOG, None, {})
    score = found.scores[AuditKey("sima_one", "all")]
    assert score.shape == (num_folds, 1, 120)
    assert is_alike(score)


def test_the_first_audits_history_score_pays_for_the_timestep_that_was_chosen_for_it():
    data = positive(make_scores(60, 60, masks=("all",), num_folds=2))
    found = [Derivation(AuditKey("sima_history", "all"), History(), KEY)]
    for timesteps, is_plain in ((slice(None), False), (slice(1), True)):
        scores = {key: score[:, timesteps] for key, score in data.scores.items()}
        few = replace(data, scores=scores, timesteps={key: each[timesteps] for key, each in data.timesteps.items()})
        made = with_calibrated(few, found, LOG, None, {})
        report = report_of(made, intervals=QUICK)
        alone = crossfit_auroc([replace(half, num_fitted=0) for half in report.halves[found[0].key]], **vars(QUICK))
        area = report.row(found[0].key).metrics.auroc
        assert area.value == alone.value == pytest.approx(report.row(KEY).metrics.auroc.value, abs=1e-12)
        assert (area == alone) is is_plain


def test_samples_of_history_are_matched_by_their_index_and_an_audit_that_lacks_one_is_left_out(data):
    report = report_of(data, intervals=QUICK)
    kept = kept_of(report)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(4))
    shuffled = kept.at(data.sample_index[order])
    more = KeptScores(
        torch.cat([shuffled.sample_index, torch.tensor([10**6])]),
        kept.timesteps,
        {key: torch.cat([score, score[..., :1]], -1) for key, score in shuffled.scores.items()},
        {},
    )
    lacking = kept.at(data.sample_index[1:])
    known, _ = see(data, {1: kept, 2: more, 3: lacking})
    assert len(known[0].earlier) == 2
    assert torch.equal(*(each[KEY] for each in known[0].earlier))


def test_an_audit_that_lacks_a_sample_hides_none_after_it(data):
    kept = kept_of(report_of(data, intervals=QUICK))
    known, _ = see(data, {1: kept, 2: kept.at(data.sample_index[1:]), 3: kept})
    assert len(known[0].earlier) == 2


def test_what_does_not_ask_for_history_is_shown_none(data):
    class Blind(Seen):
        needs_history = False

    blind, kept = Blind(), kept_of(report_of(data, intervals=QUICK))
    with_calibrated(data, [Derivation(AuditKey("sima_blind", "all"), blind, KEY)], LOG, None, {1: kept})
    assert [known.earlier for known in blind.known] == [[], []]


def test_an_error_of_a_calibration_is_told_to_be_its_own(data):
    class Broken(Calibration):
        def __call__(self, known):
            raise ZeroDivisionError

    broken = Broken()
    with pytest.raises(ZeroDivisionError) as caught:
        with_calibrated(data, [Derivation(AuditKey("sima_broken", "all"), broken, KEY)], LOG, None, {})
    assert caught.value.blamed_on is broken


def test_what_is_fitted_is_counted_as_in_the_half_that_fitted_more_and_a_choice_of_two_timesteps_as_one(data):
    class Some(Calibration):
        def __init__(self, *counts):
            self.counts = list(counts)

        def __call__(self, known):
            return Calibrated(known.level[None], {}, num_fitted=self.counts.pop(0))

    key = AuditKey("sima_some", "all")
    for num_timesteps, counts, expected in ((3, (7, 2), 7), (3, (2, 7), 7), (3, (0, 0), 1), (2, (0, 0), 1), (1, (0, 0), 0)):
        few = {each: score[:, :num_timesteps] for each, score in data.scores.items()}
        timesteps = {attack: each[:num_timesteps] for attack, each in data.timesteps.items()}
        some = replace(data, scores=few, timesteps=timesteps)
        made = with_calibrated(some, [Derivation(key, Some(*counts), KEY)], LOG, None, {})
        assert made.num_fitted.get(key, 0) == expected


def test_scores_at_other_timesteps_or_without_the_attack_are_no_history(data):
    kept = kept_of(report_of(data, intervals=QUICK))
    other = replace(kept, timesteps={"sima": [0, 10, 30], "loss": [0, 10, 20]})
    without = replace(kept, scores={LOSS: kept.scores[LOSS]})
    known, _ = see(data, {1: other, 2: without, 3: kept})
    assert len(known[0].earlier) == 1
    known, _ = see(data, {1: other, 2: without, 3: kept}, LOSS)
    assert len(known[0].earlier) == 3


def test_without_an_earlier_audit_history_ranks_as_the_plain_attack(data):
    made = with_calibrated(data, derivations({"history": History()}, [KEY]), LOG, None, {})
    report = report_of(made, intervals=QUICK)
    row, plain = report.row(AuditKey("sima_history", "all")), report.row(KEY)
    assert row.metrics.auroc.value == plain.metrics.auroc.value
    assert (row.gains["plain"].value, row.gains["plain"].p_value) == (0, 1)


def test_a_level_is_minus_the_logarithm_of_a_positive_statistic_and_any_other_score_as_it_is():
    score = torch.tensor([-4.0, -1.0, -0.0, -1e-320], dtype=torch.float64)
    found = level(score, True)
    assert found[:2].tolist() == pytest.approx([-torch.log(torch.tensor(4.0)).item(), 0])
    assert found.isfinite().all()
    assert (found.diff() >= 0).all(), "as the scores are ordered"
    assert torch.equal(level(score[:2].neg(), True), -found[:2]), "larger = more member-like"
    assert level(score[2:3].neg(), True).item() == pytest.approx(-found[2].item()), "a statistic of 0"
    assert level(score, False) is score


def test_what_they_are_called_and_made_of():
    found = derivations({"history": History(), "combined": Combined(), "short": History(inverse_penalty=0.1)}, [KEY, LOSS])
    assert [(str(each.key), str(each.of)) for each in found] == [
        ("sima_history/all", "sima/all"),
        ("loss_history/all", "loss/all"),
        ("combined/all", "sima/all"),
        ("sima_short/all", "sima/all"),
        ("loss_short/all", "loss/all"),
    ]
    assert found[0].derived == Derived(KEY, True)


def test_who_is_informed():
    def of(label, needs_history, plain=KEY):
        return {AuditKey(label, "all"): Derived(plain, needs_history)}

    both = of("sima_complexity", False) | of("sima_history", True) | of("combined", True) | of("loss_history", True, LOSS)
    assert informed(both, KEY, with_history=False) == AuditKey("sima_complexity", "all")
    assert informed(both, KEY, with_history=True) == AuditKey("sima_history", "all")
    assert informed(of("sima_complexity", False), KEY, with_history=True) == AuditKey("sima_complexity", "all")
    assert informed(of("combined", True), KEY, with_history=True) == KEY
    assert informed(both, LOSS, with_history=False) == LOSS
    turned = of("sima_history", True) | of("sima_complexity", False)
    assert informed(turned, KEY, with_history=True) == AuditKey("sima_history", "all"), "whatever their order"
    # What an outsider makes of it, then what an insider does, each once.
    assert forms(both, KEY) == [KEY, AuditKey("sima_complexity", "all"), AuditKey("sima_history", "all")]
    assert forms(both, LOSS) == [LOSS, AuditKey("loss_history", "all")]
    assert forms(of("sima_complexity", False), KEY) == [KEY, AuditKey("sima_complexity", "all")]
    assert forms({}, KEY) == [KEY]


INDEX = torch.arange(200)


def samples(count=200, *, complexity=True):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(count, 1, 2, 2, generator=generator)
    of_all = latent.flatten(1).std(1).double() if complexity else None
    is_member = torch.randperm(count, generator=generator) < count // 2
    return AuditedSamples(latent, is_member, INDEX[:count], is_calibration=INDEX[:count] % 2 == 0, complexity=of_all)


def an_audit(names=tuple(CALIBRATIONS), calibrated=(), *, of=None, **options):
    attacks = {"sima": get_attack("sima"), "loss": get_attack("loss")}
    masks = {"all": KeepAll(), "random": KeepRandom(0.5)}
    calibrations = {name: CALIBRATIONS.get(name)() for name in names}
    given = {"calibrations": calibrations, "calibrated": calibrated, "intervals": QUICK} | options
    return Audit(of or samples(), given.pop("attacks", attacks), masks, [0, 50], **given)


def test_their_keys_stand_at_the_end_of_the_audits_and_of_the_reports():
    audit = an_audit(calibrated=[KEY, AuditKey("loss", "random")])
    assert audit.keys[:4] == [AuditKey(attack, mask) for attack in ("sima", "loss") for mask in ("all", "random")]
    expected = {f"{attack}_{name}" for attack in ("sima/all", "loss/random") for name in CALIBRATIONS} - {None}
    found = {
        f"{key.attack.partition('_')[0]}/{key.mask}_{key.attack.partition('_')[2]}"
        for key in audit.keys[4:]
        if "_" in key.attack
    }
    assert found == {each for each in expected if not each.endswith("combined")}
    assert AuditKey("combined", "all") in audit.keys
    assert an_audit(("complexity",)).calibrated == (KEY,), "the first one, where none is named"
    assert an_audit(("complexity",)).looks_back_at == set()
    assert an_audit(("history",)).looks_back_at == {KEY}
    assert an_audit(("combined",)).looks_back_at == {KEY, LOSS}


def refused(message, *args, **options):
    with pytest.raises(UserError, match=message) as caught:
        an_audit(*args, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_two_calibrations_whose_scores_would_have_one_name_are_told_by_their_labels():
    refused(
        r"^audit\.calibrations: 'history' and 'sima_history' would both be called 'sima_history/all'",
        calibrations={"history": History(), "sima_history": Combined()},
    )


def test_a_score_of_all_attacks_is_not_called_like_one_of_a_single_attack():
    refused(r"^audit\.calibrations: 'sima_all' wraps no attack", calibrations={"sima_all": Combined()})


@pytest.mark.parametrize("name", list(CALIBRATIONS))
def test_what_cannot_be_calibrated_is_refused_before_any_pass(name):
    refused(r"^audit\.calibrated: there is no 'pia/all'; name some of: sima/all, ", (name,), [AuditKey("pia", "all")])
    refused(r"^audit\.calibrated: there is no 'sima/tuned'", (name,), [AuditKey("sima", "tuned")])
    if CALIBRATIONS.get(name).wraps:
        refused(r"^audit\.calibrated: 'sima/all' stands there twice", (name,), [KEY, LOSS, KEY])
        already = AuditKey(f"sima_{name}", "all")
        refused(rf"^audit\.calibrated: '{already}' is calibrated already", (name,), [KEY, already])
    if CALIBRATIONS.get(name).needs_complexity:
        refused(rf"^audit\.calibrations\.{name}: the samples have no complexity", (name,), of=samples(complexity=False))
    else:
        an_audit((name,), of=samples(complexity=False))
    label = f"sima_{name}" if CALIBRATIONS.get(name).wraps else name
    attacks = {"sima": get_attack("sima"), label: get_attack("loss")}
    refused(rf"^audit\.attacks: the label '{label}' is taken by a calibrated score", (name,), attacks=attacks)


def test_of_a_history_no_more_is_read_than_calibrations_look_at():
    class Asked(Memory):
        def read(self, **what):
            self.keys = what["keys"]
            return super().read(**what)

    history = Asked()
    for time in range(0, 100, 2):
        history.write(time, KeptScores(INDEX, {}, {}, {}))
    found = an_audit(("history", "complexity")).look_back(history, until=81)
    assert len(found) == MOST_EARLIER
    assert (min(found), max(found)) == (0, 80)
    assert history.keys == {KEY}
    an_audit(("combined",)).look_back(history, until=81)
    assert history.keys == {KEY, LOSS}
    an_audit(("complexity",)).look_back(history, until=81)
    assert history.keys == set()


class Sine:
    """A denoiser that knows nothing."""

    alphas_cumprod = torch.linspace(0.99, 0.01, 100)

    def __call__(self, noisy_latent, timestep, condition):
        return torch.sin(3 * noisy_latent)


@pytest.mark.parametrize("cross_fit", [False, True])
@pytest.mark.parametrize("side", ["members", "held-out samples"])
def test_a_half_that_is_too_small_to_fit_on_is_named(cross_fit, side):
    everyone = samples()
    of_side = everyone.is_member if side == "members" else ~everyone.is_member
    for half, refuses in ((everyone.is_calibration, True), (~everyone.is_calibration, cross_fit)):
        for left, message in (
            (MIN_SAMPLES - 1, rf"a half of the audit has {MIN_SAMPLES - 1} {side}, {MIN_SAMPLES} are needed"),
            (MIN_SAMPLES, None),
        ):
            rare = (half & of_side).nonzero()[left:, 0]
            stays = ~torch.isin(torch.arange(200), rare)
            audit = an_audit(("complexity",), of=everyone.rows(stays), cross_fit=cross_fit)
            if refuses and message:
                with pytest.raises(UserError, match=rf"^audit\.calibrations: {message}") as caught:
                    audit(Sine())
                assert len(str(caught.value).splitlines()) == 1
            else:
                audit.scores(audit.collect(Sine()), {})


def test_where_history_is_not_known_what_needs_it_is_not_there():
    audit = an_audit()
    collected = audit.collect(Sine())
    alone, first = audit.scores(collected), audit.scores(collected, {})
    assert {key.attack for key in alone.derived} == {"sima_complexity"}
    everything = audit.scores(collected, {}, audit.collect_reference(Sine()))
    assert list(everything.derived) == audit.keys[4:]
    with_reference = {key for key, of in everything.derived.items() if of.reference}
    assert list(first.derived) == [key for key in audit.keys[4:] if key not in with_reference]
    assert an_audit(()).scores(collected, {}).derived == {}


def test_a_score_of_another_shape_is_not_taken():
    class Short(Calibration):
        def __call__(self, known):
            return Calibrated(known.level, {})

    audit = an_audit((), calibrations={"short": Short()})
    with pytest.raises(ValueError, match=r"score: it returns torch.float64 \(200,\), not a tensor of shape \(1, 200\)"):
        audit.scores(audit.collect(Sine()), {})
