"""A reference in an audit: asked once, with the target's noise; what it has stored and found again; what it scores alone."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit import passes
from ldm_privacy.audit import reference as reference_module
from ldm_privacy.audit import samples as samples_module
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.calibrate import level
from ldm_privacy.audit.collected import join
from ldm_privacy.audit.kept import kept_of
from ldm_privacy.audit.oriented import oriented
from ldm_privacy.audit.reference import AskedOnce, referenced
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.calibrations.history import History
from ldm_privacy.calibrations.ratio import Ratio
from ldm_privacy.calibrations.reference import Reference
from ldm_privacy.errors import UserError
from ldm_privacy.geometry import store as store_module
from ldm_privacy.geometry.masks import KeepAll, KeepRandom, KeepTopInfluence
from ldm_privacy.geometry.store import Store
from ldm_privacy.metrics import auroc
from ldm_privacy.types import AuditKey, Intervals, no_progress
from tests.two_processes import in_two_processes

QUICK = Intervals(num_bootstrap=2)
LOSS, RATIO, BEYOND = (AuditKey(attack, "all") for attack in ("loss", "loss_ratio", "loss_reference"))
KEY = {"weights": "a base"}
SHAPE = (1, 8, 8)
COUNT = 120


def samples_of(seed=0):
    """Each sample is told its number, and its neighbour's under the view "null", but for every third."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(COUNT)
    latent = torch.randn(COUNT, *SHAPE, generator=generator)
    is_member = torch.randperm(COUNT, generator=generator) < COUNT // 2
    other = torch.where(index % 3 == 0, index, (index + 1) % COUNT)
    views = {"null": {"c": other}}
    return AuditedSamples(
        latent, is_member, index * 7, is_calibration=index % 2 == 0, condition={"c": index}, views=views, influence=latent.exp()
    )


SAMPLES = samples_of()
DIFFICULTY = torch.randn(COUNT, generator=torch.Generator().manual_seed(1)).mul(0.5).exp()


class Knows:
    """Knows every image, and errs by a share of the noise: the image's difficulty. Rows are counted."""

    def __init__(self, difficulty=DIFFICULTY):
        self.alphas_cumprod = torch.linspace(0.99, 0.05, 200)
        self.difficulty, self.rows = difficulty, 0

    def __call__(self, noisy_latent, timestep, condition):
        self.rows += len(noisy_latent)
        abar, share = (each[:, None, None, None] for each in (self.alphas_cumprod[timestep], self.difficulty[condition["c"]]))
        noise = (noisy_latent - abar.sqrt() * SAMPLES.latent[condition["c"]]) / (1 - abar).sqrt()
        return noise * (1 - share)


def target():
    """As the reference, but members became 5 % easier."""
    return Knows(DIFFICULTY * torch.where(SAMPLES.is_member, 0.95, 1.0))


def an_audit(samples=SAMPLES, *, attacks=("loss", "sima"), calibrated=(LOSS,), **options):
    masks = {"all": KeepAll(), "top60": KeepTopInfluence(0.6), "random": KeepRandom(0.5)}
    given = {"calibrations": {"reference": Reference(), "ratio": Ratio()}, "intervals": QUICK} | options
    named = {name: get_attack(name) for name in attacks}
    return Audit(samples, named, masks, [20, 60, 100], calibrated=calibrated, **given)


def area(report, key):
    return report.row(key).metrics.auroc.value


def test_what_difficulty_hides_the_reference_shows():
    report = an_audit()(target(), Knows())
    assert area(report, LOSS) < 0.6
    assert area(report, BEYOND) == area(report, RATIO) == 1.0
    expected = torch.where(SAMPLES.is_member, -2 * torch.tensor(0.95).log().double(), 0.0)
    torch.testing.assert_close(report.data.scores[RATIO][0, 0], expected, rtol=0, atol=1e-5)


def test_the_noise_is_the_targets_or_the_difference_would_be_the_noises():
    audit, base = an_audit(), Knows()
    mine, theirs = audit.collect(target()), audit.collect_reference(base)
    others = replace(audit, seed=1).collect_reference(base)
    shared, unshared = (audit.report(audit.scores(mine, None, each)) for each in (theirs, others))
    assert area(shared, RATIO) == 1.0
    assert area(unshared, RATIO) < 0.95


@pytest.mark.parametrize("samples_at_once", [512, 50])
def test_a_target_that_is_its_own_reference_has_ratios_of_exactly_0(samples_at_once, monkeypatch):
    """Also where a sweep adds masks to the target's products."""
    monkeypatch.setattr(passes, "SAMPLES_AT_ONCE", samples_at_once)
    audit = an_audit(keep_fractions=(0.5, 1.0), calibrated=[LOSS, AuditKey("sima", "top60")])
    report = audit(target(), target())
    for key in (RATIO, BEYOND, AuditKey("sima_ratio", "top60"), AuditKey("sima_reference", "top60")):
        assert (report.data.scores[key] == 0).all(), key
        assert area(report, key) == 0.5
        assert report.is_constant(key)


@pytest.mark.parametrize(
    ("calibrated", "asked", "queries"),
    [
        ([LOSS], ["loss"], 3 * COUNT),
        ([LOSS, AuditKey("sima", "random")], ["loss", "sima"], 6 * COUNT),
        # Of a view alone everyone is asked; beside its own attack those whose condition is another one.
        ([AuditKey("loss_null", "all")], ["loss_null"], 3 * COUNT),
        ([LOSS, AuditKey("loss_null", "all")], ["loss", "loss_null"], 3 * COUNT + 3 * (COUNT - COUNT // 3)),
    ],
)
def test_no_more_is_asked_than_is_compared(calibrated, asked, queries):
    audit, base = an_audit(calibrated=calibrated, views=["null"]), Knows()
    collected = audit.collect_reference(base)
    assert audit.compared == asked == list(collected.sums)
    assert base.rows == audit.num_reference_passes == queries
    assert collected.sweeps == {}
    own = audit.collect(base)
    for label in asked:
        for mine, theirs in zip(own.sums[label], collected.sums[label]):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-9)


def test_where_everything_is_compared_the_passes_are_twice_those_without():
    keys = [AuditKey(attack, "all") for attack in ("loss", "sima", "loss_null", "sima_null")]
    audit, model = an_audit(calibrated=keys, views=["null"]), target()
    audit(model, model)
    assert model.rows == 2 * audit.num_passes == audit.num_passes + audit.num_reference_passes
    model.rows = 0
    an_audit(calibrations={})(model, model)
    assert model.rows == 6 * COUNT, "where nothing is compared a reference is not asked"


def test_without_a_reference_what_needs_one_is_left_out_and_the_rest_is_as_it_was():
    audit = an_audit(calibrations={"history": History(), "ratio": Ratio()})
    collected, base = audit.collect(target()), audit.collect_reference(Knows())
    with_it, without = (audit.report(audit.scores(collected, {}, each)) for each in (base, None))
    assert without.data.reference == {}
    assert [row.key for row in without.rows] == [row.key for row in with_it.rows if row.key != RATIO]
    assert area(without, AuditKey("loss_history", "all")) == area(with_it, AuditKey("loss_history", "all"))
    none = replace(audit, whose_reference="")
    assert (RATIO in audit.keys, RATIO in none.keys, none.compared, none.num_reference_passes) == (True, False, [], 0)
    assert none.forms(LOSS) == [LOSS, AuditKey("loss_history", "all")]
    assert RATIO not in kept_of(with_it).scores, "a later audit makes it anew"


def test_whose_the_reference_is_says_who_is_informed():
    calibrations = {"history": History(), "ratio": Ratio(), "reference": Reference()}
    outsiders, insiders = (an_audit(calibrations=calibrations, whose_reference=whose) for whose in ("outsider", "insider"))
    assert outsiders.forms(LOSS) == [LOSS, BEYOND, AuditKey("loss_history", "all")]
    assert insiders.forms(LOSS) == [LOSS, BEYOND], "an earlier checkpoint is the trainer's"
    turned = an_audit(calibrations=dict(reversed(calibrations.items())))
    assert turned.forms(LOSS)[1] == RATIO, "the last of the config"


def test_nothing_is_fitted_so_both_halves_have_the_same_and_no_choice_is_paid_for():
    report = an_audit()(target(), Knows())
    for key in (RATIO, BEYOND):
        assert report.data.scores[key].stride(0) == 0
        assert key not in report.data.num_fitted
    assert report.row(RATIO).timesteps == (None, None)
    assert set(report.row(BEYOND).timesteps) <= {20, 60, 100}


def test_what_an_attack_fits_is_fitted_to_the_target():
    audit = an_audit(attacks=("dime",), calibrated=[AuditKey("dime", "all")])
    collected, base = audit.collect(target()), audit.collect_reference(Knows())
    data = audit.scores(collected, None, base)
    halves = [collected.is_calibration, ~collected.is_calibration]
    mine, theirs = ([term[0] for term in each.sums["dime"]] for each in (collected, base))
    expected = oriented(audit.attacks["dime"], mine, SAMPLES.is_member, halves) - oriented(
        audit.attacks["dime"], theirs, SAMPLES.is_member, halves, fitted_to=mine
    )
    assert torch.equal(data.scores[AuditKey("dime_reference", "all")], expected)
    assert data.num_fitted[AuditKey("dime_ratio", "all")] == data.num_fitted[AuditKey("dime", "all")]


def test_what_the_reference_scores_alone_is_at_the_targets_timesteps():
    base = Knows(DIFFICULTY * torch.where(SAMPLES.is_member, 0.4, 1.0))
    audit = an_audit(calibrated=[LOSS, AuditKey("loss", "top60")])
    report = audit(target(), base)
    assert list(report.reference_alone) == [f"loss{mask}" for mask in ("", " (top60)", " over all t", " over all t (top60)")]
    sums = audit.collect_reference(base).sums["loss"][0][0]
    folds = {True: report.row(LOSS).timesteps[1], False: report.row(LOSS).timesteps[0]}
    for half, timestep in folds.items():
        rows = SAMPLES.is_calibration == half
        at_choice = -sums[[20, 60, 100].index(timestep), rows]
        everywhere = level(-sums[:, rows], True).mean(0)
        for name, score in (("loss", at_choice), ("loss over all t", everywhere)):
            found = report.reference_alone[name][rows]
            assert float(auroc(found, SAMPLES.is_member[rows])) == float(auroc(score, SAMPLES.is_member[rows])) > 0.85
    assert an_audit()(target()).reference_alone == {}


def test_a_reference_that_was_asked_of_other_samples_is_no_reference():
    audit = an_audit()
    fewer = an_audit(SAMPLES.rows(torch.arange(COUNT) > 0)).collect_reference(Knows())
    with pytest.raises(ValueError, match="other samples"):
        audit.report(audit.scores(audit.collect(target()), None, fewer))


def test_over_the_looks_of_a_training_the_reference_is_asked_once():
    audit, base, asked = an_audit(), Knows(), AskedOnce()
    first = asked(audit, base, no_progress)
    for again in (SAMPLES, samples_of()):  # a watcher brings them to a device: equal
        audit.samples = again
        assert asked(audit, base, no_progress) is first
    assert base.rows == audit.num_reference_passes
    assert asked(an_audit(calibrations={}), None, no_progress) is None
    with pytest.raises(
        UserError, match=r"^audit\.calibrations\.reference: it compares with a reference, and this target has none"
    ):
        asked(audit, None, no_progress)


@pytest.mark.parametrize(
    "changed",
    [
        {"sample_index": SAMPLES.sample_index + 1},
        {"latent": SAMPLES.latent + 1},
        {"deviation": SAMPLES.deviation + 1},
        {"influence": -SAMPLES.influence},
        {"influence": None},
        {"condition": {"c": torch.arange(COUNT).flip(0)}},
        {"views": {"null": {"c": torch.zeros(COUNT, dtype=torch.int64)}}},
        {"views": {}},
    ],
)
def test_where_one_thing_of_the_samples_changes_the_reference_is_asked_again(changed):
    audit, base, asked = replace(an_audit(), masks={"all": KeepAll()}), Knows(), AskedOnce()
    # The last is a copy of what was asked before it.
    for samples, looks in ((SAMPLES, 1), (replace(SAMPLES, **changed), 2), (SAMPLES, 3), (samples_of(), 3)):
        audit.samples = samples
        asked(audit, base, no_progress)
        assert base.rows == looks * audit.num_reference_passes


def test_of_samples_without_influence_the_reference_is_asked_once_too():
    audit, base, asked = replace(an_audit(), masks={"all": KeepAll()}), Knows(), AskedOnce()
    for _ in range(2):
        audit.samples = replace(SAMPLES, influence=None)
        asked(audit, base, no_progress)
    assert base.rows == audit.num_reference_passes


def test_whoever_waits_for_the_reference_is_told_how_many_samples_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "SAMPLES_AT_ONCE", 50)
    audit, totals, done = an_audit(), [], []

    def progress(description, total):
        totals.append(total)
        return nullcontext(done.append)

    AskedOnce()(audit, Knows(), progress)
    assert (totals, done[-1]) == ([COUNT], COUNT)
    assert done == sorted(set(done)) != [COUNT]
    for store in (None, Store(tmp_path, "x")):
        referenced(audit, Knows(), store, KEY, (again := []).append)
        assert again == done
    referenced(audit, Knows(), store, KEY, (again := []).append)
    assert again == [], "what is stored needs no passes"


def test_an_onset_is_counted_from_what_an_attack_gains_on_its_reference():
    calibrations = {"history": History(), "ratio": Ratio(), "reference": Reference()}
    audit = an_audit(calibrations=calibrations, calibrated=[LOSS, AuditKey("sima", "all")])
    for key in audit.calibrated:
        assert audit.counting_onset(key) == [AuditKey(f"{key.attack}_{label}", "all") for label in ("ratio", "reference")]
    assert audit.counting_onset(AuditKey("loss", "top60")) == []


def same(one, other):
    assert one.sums.keys() == other.sums.keys()
    for label, terms in one.sums.items():
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(terms, other.sums[label], strict=True))
    for column in ("sample_index", "is_member", "is_calibration"):
        assert torch.equal(getattr(one, column), getattr(other, column))


def test_what_was_stored_is_found_again_to_the_last_bit_without_a_pass(tmp_path):
    audit, base, store = (
        an_audit(attacks=("loss", "dime"), calibrated=[LOSS, AuditKey("dime", "all")]),
        Knows(),
        Store(tmp_path, "x"),
    )
    direct = audit.collect_reference(base)
    base.rows = 0
    for _ in range(2):
        same(referenced(audit, base, store, KEY), direct)
        assert base.rows == audit.num_reference_passes
    half = replace(audit, cross_fit=False, intervals=Intervals(confidence=0.9))
    same(referenced(half, base, store, KEY), direct)
    assert base.rows == audit.num_reference_passes, "what is made of the sums changes none of them"
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    same(referenced(audit, base, None, KEY), direct)
    assert base.rows == 2 * audit.num_reference_passes


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"timesteps": [20, 60, 101]},
        {"attacks": {"loss": get_attack("loss", power=4)}},
        {"masks": {"all": KeepAll(), "top60": KeepTopInfluence(0.5)}},
        {"samples": replace(SAMPLES, latent=SAMPLES.latent * 1.001)},
        {"samples": replace(SAMPLES, influence=-SAMPLES.influence)},
        {"samples": replace(SAMPLES, condition={"c": torch.arange(COUNT).flip(0)})},
        {"samples": SAMPLES.rows(torch.arange(COUNT) > 0)},
        {},
    ],
)
def test_of_anything_else_the_reference_is_asked_anew(tmp_path, changed):
    audit, base, store = an_audit(attacks=("loss",)), Knows(), Store(tmp_path, "x")
    referenced(audit, base, store, KEY)
    other = replace(audit, **changed)
    base.rows = 0
    found = referenced(other, base, store, KEY if changed else {"weights": "another base"})
    assert base.rows == other.num_reference_passes > 0
    same(found, other.collect_reference(base))


def test_what_was_asked_under_a_view_with_a_slash_is_found_again(tmp_path):
    samples = replace(SAMPLES, views={"a/b": SAMPLES.views["null"]})
    audit = an_audit(samples, views=["a/b"], calibrated=[AuditKey("loss_a/b", "all")])
    base, store = Knows(), Store(tmp_path, "x")
    direct = audit.collect_reference(base)
    assert len(direct.sums["loss_a/b"]) == 1
    for _ in range(2):
        same(referenced(audit, base, store, KEY), direct)
    assert base.rows == 2 * audit.num_reference_passes


def test_what_was_stored_in_one_precision_is_not_found_in_another(tmp_path):
    """It is asked anew, which a CPU refuses."""
    audit, base, store = an_audit(), Knows(), Store(tmp_path, "x")
    referenced(audit, base, store, KEY)
    with pytest.raises(UserError, match="autocast"):
        referenced(replace(audit, autocast=torch.bfloat16), base, store, KEY)


@pytest.mark.parametrize("stored", [False, True])
def test_two_processes_ask_what_one_does(monkeypatch, tmp_path, stored):
    audit = an_audit(views=["null"], calibrated=[LOSS, AuditKey("sima_null", "all")])
    alone, store = audit.collect_reference(Knows()), Store(tmp_path, "x") if stored else None

    def half(rank):
        base = Knows()
        mine = an_audit(SAMPLES.share(), views=["null"], calibrated=audit.calibrated)
        return referenced(mine, base, store, KEY), base.rows

    for is_found in (False, stored):
        shards = in_two_processes(monkeypatch, half, samples_module, reference_module, store_module)
        assert (sum(rows for _, rows in shards) == 0) is is_found
        together = join([found for found, _ in shards])
        for label, terms in alone.sums.items():
            for mine, theirs in zip(terms, together.sums[label]):
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-9)
    if stored:
        monkeypatch.undo()
        base = Knows()
        same(referenced(audit, base, store, KEY), together)
        assert base.rows == 0, "one process finds what two stored"
