"""An audit under several conditions, of predictors that listen to them and of one that doesn't."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ldm_privacy.attacks.base import Attack, get_attack
from ldm_privacy.attacks.conditions import on_condition
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.attacks.runner import attack_statistics
from ldm_privacy.audit import views
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.collected import join
from ldm_privacy.audit.passes import collect
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.row import OWN
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.score_file import read_scores, write_scores
from ldm_privacy.audit.views import ViewOf, condition_use, differs, mean_use
from ldm_privacy.data.conditions import shuffled
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.conditions import said_of_conditions
from ldm_privacy.geometry.masks import KeepAll, KeepRandom
from ldm_privacy.metrics import crossfit_auroc
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.randomness import normal
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.types import AuditKey, Intervals
from tests.evidence.synthetic import make_scores

COUNT, SHAPE, FEW = 120, (2, 3, 3), Intervals(num_bootstrap=20)


class Told:
    """epsilon = z scaled by a number that belongs to the condition; counts its rows."""

    alphas_cumprod = linear_alphas_cumprod()

    def __init__(self, of_caption):
        self.of_caption, self.num_rows = of_caption, 0

    def __call__(self, noisy_latent, timestep, condition):
        self.num_rows += len(noisy_latent)
        scale = self.of_caption[condition["caption"]].reshape(-1, 1, 1, 1)
        return noisy_latent * scale.to(noisy_latent)


def samples_of(caption, null=0):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(COUNT, *SHAPE, generator=generator)
    latent /= latent.square().square().flatten(1).mean(1).pow(0.25).reshape(-1, 1, 1, 1)  # all alike for SimA
    index = torch.arange(COUNT) * 3 + 1
    own = {"caption": caption}
    other = {"caption": caption[shuffled(index, own)]}
    views = {"null": {"caption": torch.full((COUNT,), null)}, "shuffled": other}
    return AuditedSamples(latent, torch.arange(COUNT) % 2 == 0, index, condition=own, views=views)


def audit_of(samples, views=("null", "shuffled"), **options):
    attacks = {"sima": get_attack("sima"), "loss": get_attack("loss")}
    masks = {"half": KeepRandom(0.5), "all": KeepAll()}
    return Audit(samples, attacks, masks, [50, 100], views=views, intervals=FEW, **options)


def auroc_of(report, attack):
    return report.row(AuditKey(attack, "all")).metrics.auroc.value


def test_what_hangs_on_the_pairing_is_gone_under_every_other_condition():
    """Members' captions make the predictor answer less; images alone say nothing."""
    samples = samples_of(torch.arange(COUNT) + 1)
    noise = 0.01 * torch.rand(COUNT, generator=torch.Generator().manual_seed(1))
    of_caption = torch.cat([torch.ones(1), torch.where(samples.is_member, 0.5, 1.0) + noise])
    report = audit_of(samples)(Told(of_caption))
    assert auroc_of(report, "sima") > 0.99
    assert abs(auroc_of(report, "sima_null") - 0.5) < 0.16
    others = of_caption[samples.views["shuffled"]["caption"]]
    halves = [fold.reports for fold in report.data.folds]
    expected = sum(roc_auc_score(samples.is_member[half], -others[half]) for half in halves) / 2
    assert auroc_of(report, "sima_shuffled") == pytest.approx(expected, abs=1e-9)
    row = report.row(AuditKey("sima_null", "all"))
    assert row.gains[OWN].value == pytest.approx(auroc_of(report, "sima_null") - auroc_of(report, "sima"))
    assert row.gains[OWN].upper < 0
    said = said_of_conditions(report, AuditKey("sima", "all"))
    assert "it is the pairing of image and condition" in said
    assert "The denoiser listens to its condition" in said


def test_a_predictor_that_does_not_listen_scores_alike_under_every_condition():
    samples = samples_of(torch.arange(COUNT) + 1)
    report = audit_of(samples)(Told(torch.ones(COUNT + 1)))
    for attack in ("sima", "loss"):
        for view in ("null", "shuffled"):
            assert torch.equal(
                report.data.scores[AuditKey(f"{attack}_{view}", "all")], report.data.scores[AuditKey(attack, "all")]
            )
    assert report.condition_use.value == 0
    assert "hardly listens" in said_of_conditions(report, AuditKey("sima", "all"))


def test_calibrations_look_at_the_own_condition_alone():
    samples = samples_of(torch.arange(COUNT) + 1).with_columns(complexity=torch.rand(COUNT, dtype=torch.float64))
    predictor = Told(1 + torch.rand(COUNT + 1, generator=torch.Generator().manual_seed(1)))
    calibrations = {"combined": CALIBRATIONS.get("combined")()}
    audits = [audit_of(samples, views, calibrations=calibrations) for views in (("null",), ())]
    with_views, without = (each.report(each.scores(each.collect(predictor), {})) for each in audits)
    (key,) = without.data.derived
    assert torch.equal(with_views.data.scores[key], without.data.scores[key])
    assert with_views.data.coefficients == without.data.coefficients


def test_a_view_is_the_audit_of_samples_that_are_told_that():
    samples = samples_of(torch.arange(COUNT) % 7)
    of_caption = 1 + torch.rand(8, generator=torch.Generator().manual_seed(1))
    report = audit_of(samples)(Told(of_caption))
    for view in ("null", "shuffled"):
        alone = audit_of(replace(samples, condition=samples.views[view], views={}), views=())(Told(of_caption))
        for attack in ("sima", "loss"):
            there, here = alone.data.scores[AuditKey(attack, "all")], report.data.scores[AuditKey(f"{attack}_{view}", "all")]
            assert torch.equal(there, here)


def test_queries_that_coincide_are_made_once():
    samples = samples_of(torch.arange(COUNT) % 4)  # a quarter of them has the null caption
    predictor, audit = Told(torch.ones(COUNT)), audit_of(samples)
    audit.collect(predictor)
    own = 2 * COUNT * 2
    assert predictor.num_rows == audit.num_passes == own + own * 3 // 4 + own + 2 * COUNT
    nothing = samples_of(torch.zeros(COUNT, dtype=torch.int64))
    predictor, audit = Told(torch.ones(COUNT)), audit_of(nothing)
    report = audit(predictor)
    assert predictor.num_rows == own + 2 * COUNT
    assert report.condition_use is None
    assert torch.equal(report.data.scores[AuditKey("sima_null", "all")], report.data.scores[AuditKey("sima", "all")])


def test_batches_and_shares_change_nothing(limit_memory):
    samples = samples_of(torch.arange(COUNT) % 7)
    predictor = Told(1 + torch.rand(8, generator=torch.Generator().manual_seed(1)))
    whole = audit_of(samples).collect(predictor)
    limit_memory(10_000)
    small = audit_of(samples).collect(predictor, (done := []).append)
    assert len(done) > 3
    parts = join([audit_of(samples.rows(rows)).collect(predictor) for rows in (slice(50, None), slice(0, 50))])
    for other in (small, parts):
        assert torch.equal(whole.condition_use, other.condition_use)
        for name, sums in whole.sums.items():
            for one, two in zip(sums, other.sums[name]):
                torch.testing.assert_close(one, two, rtol=1e-6, atol=0)


def test_the_use_of_the_condition_is_how_far_predictions_move():
    samples = samples_of(torch.arange(COUNT) % 2 + 1)
    of_caption = torch.tensor([1.0, 1.0, 1.25])
    use = condition_use(Told(of_caption), samples)
    expected = torch.where(samples.condition["caption"] == 1, 0.25, 0.2)
    torch.testing.assert_close(use.float(), expected)


class Curved(Told):
    """An answer that is no multiple of its state."""

    def __call__(self, noisy_latent, timestep, condition):
        self.timesteps = timestep
        return (super().__call__(noisy_latent, timestep, condition)).sin()


@pytest.mark.parametrize(
    ("alphas_cumprod", "place"),
    [([0.99, 0.7, 0.5, 0.2], 2), ([0.99, 0.51, 0.49, 0.2], 2), ([0.99, 0.9, 0.8], 2), ([0.4, 0.1], 0)],
)
def test_the_use_is_looked_at_where_noise_outweighs_the_latent_with_the_noise_of_each_sample(alphas_cumprod, place):
    samples = samples_of(torch.arange(COUNT) % 5)
    # Every eighth sample has its own condition there: nobody knows how much it would matter.
    kept = torch.arange(COUNT) % 8 == 0
    other = torch.where(kept, samples.condition["caption"], samples.views["shuffled"]["caption"])
    samples = replace(samples, views={"shuffled": {"caption": other}})
    predictor = Curved(0.5 + torch.rand(5, generator=torch.Generator().manual_seed(1)))
    predictor.alphas_cumprod = torch.tensor(alphas_cumprod, dtype=torch.float64)
    use = condition_use(predictor, samples, seed=4)
    assert predictor.timesteps.tolist() == [place] * COUNT
    abar, noise = predictor.alphas_cumprod[place], normal("condition-use", (4, samples.sample_index), SHAPE)
    state = abar.sqrt() * samples.latent + (1 - abar).sqrt() * noise
    own, exchanged = (
        (state * predictor.of_caption[each][:, None, None, None]).sin() for each in (samples.condition["caption"], other)
    )
    expected = (own - exchanged).abs().flatten(1).sum(1) / own.abs().flatten(1).sum(1)
    torch.testing.assert_close(use, expected.double().masked_fill(kept, torch.nan), rtol=1e-4, atol=1e-5, equal_nan=True)
    if place == 2 and len(alphas_cumprod) == 4:
        audit = Audit(
            samples, {"sima": get_attack("sima")}, {"all": KeepAll()}, [0], views=("shuffled",), seed=4, intervals=FEW
        )
        assert audit(predictor).condition_use == mean_use(use, 0.95)


def test_the_use_of_an_audit_is_a_mean_with_its_normal_interval_over_those_that_have_one():
    use = torch.tensor([0.1, torch.nan, 0.4, 0.2, torch.nan, 0.5], dtype=torch.float64)
    known = use[use.isfinite()].numpy()
    reach = norm.isf(0.05) * known.std(ddof=1) / 2
    found = mean_use(use, 0.9)
    expected = (known.mean() - reach, known.mean(), known.mean() + reach)
    assert (found.lower, found.value, found.upper) == pytest.approx(expected, rel=1e-12), "in double precision"
    assert found.lower > mean_use(use, 0.95).lower
    # One alone has no spread.
    data = make_scores(20, 20, masks=("all",))
    for known, expected in ((0, None), (1, None), (2, mean_use(torch.arange(2.0).double(), 0.8))):
        use = torch.arange(40.0, dtype=torch.float64).where(torch.arange(40) < known, torch.nan)
        assert report_of(replace(data, condition_use=use), intervals=Intervals(0.8, 2)).condition_use == expected


def test_the_use_is_looked_at_with_seed_0_in_passes_of_as_many_rows_as_the_predictor_says(limit_memory):
    class Large(Curved):
        bytes_per_number = 2**20
        largest = 0

        def __call__(self, noisy_latent, timestep, condition):
            self.largest = max(self.largest, len(noisy_latent))
            return super().__call__(noisy_latent, timestep, condition)

    samples, predictor = samples_of(torch.arange(COUNT) % 5), Large(torch.linspace(0.5, 1.5, 5))
    limit_memory(2 * 7 * 18 * 2**20)  # half of it is seven latents of 18 numbers
    use = condition_use(predictor, samples)
    assert predictor.largest == 7
    torch.testing.assert_close(use, condition_use(predictor, samples, seed=0), rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(use, condition_use(predictor, samples, seed=1))


def test_a_condition_of_several_parts_differs_where_any_number_of_any_part_does():
    count = torch.arange(4)
    own = {"label": count, "states": torch.zeros(4, 2, 3)}
    other = {"label": torch.tensor([0, 5, 2, 3]), "states": torch.zeros(4, 2, 3)}
    other["states"][2, 1, 0] = 1
    samples = AuditedSamples(torch.zeros(4, *SHAPE), count > 1, condition=own, views={"null": other})
    assert differs(samples, "null").tolist() == [False, True, True, False]
    turned = replace(samples, condition=dict(reversed(own.items())), views={"null": dict(reversed(other.items()))})
    assert differs(turned, "null").tolist() == [False, True, True, False]
    assert not differs(samples, "own").any()


@pytest.mark.parametrize("num_repeated", [1, 2, 3])
def test_a_group_of_repeated_members_needs_two_on_each_half(num_repeated):
    data = make_scores(40, 40, masks=("all",), num_folds=2)
    repeats, key = torch.ones(80, dtype=torch.int64), AuditKey("sima", "all")
    for fold in data.folds:
        repeats[(fold.reports & data.is_member).nonzero()[:num_repeated, 0]] = 2
    intervals = Intervals(confidence=0.8, num_bootstrap=7, seed=3)
    report = report_of(replace(data, repeats=repeats), intervals=intervals)
    found = report.row(key).by_repeats
    assert list(found) == (["single"] if num_repeated == 1 else ["repeated", "single"])
    for group, rows in (("repeated", repeats == 2), ("single", repeats == 1)):
        if group in found:
            halves = report.halves[key]
            some = [half.among((rows | ~data.is_member)[fold.reports]) for half, fold in zip(halves, data.folds)]
            assert found[group] == crossfit_auroc(some, confidence=0.8, num_bootstrap=7, seed=3)
    assert report_of(data, intervals=intervals).row(key).by_repeats == {}
    turned = torch.where(data.is_member, 3 - repeats, 1)  # the few are the single ones
    found = report_of(replace(data, repeats=turned), intervals=intervals).row(key).by_repeats
    assert list(found) == (["repeated"] if num_repeated == 1 else ["repeated", "single"])


class Pairing(Attack):
    """How far the answer moves where the condition is taken away."""

    views = ("null",)
    higher_means_member = True

    def contributions(self, query, latent, timesteps, noise):
        own, null = (each(latent.expand(len(timesteps), *latent.shape), timesteps) for each in (query, query.under("null")))
        return (own - null).square()


@pytest.mark.parametrize("budget", [None, 1])
def test_an_attack_that_compares_conditions_is_told_each_samples_and_stands_under_no_other_view(budget, limit_memory):
    samples = samples_of(torch.arange(COUNT) % 7 + 1, null=3)
    samples.views["null"]["caption"][::2] = 5
    if budget:
        limit_memory(budget)
    predictor = Told(1 + torch.rand(8, generator=torch.Generator().manual_seed(1)))
    attacks = {"pairing": Pairing(), "sima": get_attack("sima")}
    audit = Audit(samples, attacks, {"all": KeepAll()}, [50], views=("null",), intervals=FEW)
    assert list(audit.asked) == ["pairing", "sima", "sima_null"]
    scale = [predictor.of_caption[each["caption"]] for each in (samples.condition, samples.views["null"])]
    expected = (scale[0] - scale[1]).square() * samples.latent.square().flatten(1).sum(1)
    found = audit.scores(audit.collect(predictor)).scores[AuditKey("pairing", "all")][0, 0]
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-5)


def test_a_view_is_asked_for_once_under_its_own_mask_without_a_sweep():
    samples = samples_of(torch.arange(COUNT) % 7)
    samples = samples.with_columns(influence=samples.latent.square())
    report = audit_of(samples, views=("null",), keep_fractions=(0.5,))(Told(torch.linspace(1, 2, 8)))
    under = {"sima_null/all", "loss_null/all"}
    assert {str(key) for key in report.data.scores if key.attack.endswith("_null")} == under
    assert {str(row.key) for row in report.rows if row.key.attack.endswith("_null")} == under
    assert set(report.data.sweeps) == {"sima", "loss"}
    with pytest.raises(UserError, match="'sima_null' is what 'sima' is called"):
        audit_of(samples, views=("null", "null"))


def test_a_condition_that_is_not_there_and_one_of_another_length_are_refused():
    samples = samples_of(torch.arange(COUNT) % 7)
    query = DenoiserQuery(Told(torch.ones(8)), samples.sample_index, condition=samples.condition, rows_per_call=9)
    assert query.under("own") is query
    for told in (samples.told, query.under):
        with pytest.raises(UserError, match=r"^there is no 'other' condition of these samples"):
            told("other")
    short = {"null": {"caption": torch.zeros(3)}}
    with pytest.raises(ValueError, match="3 rows of caption for 120 latents"):
        replace(samples, views=short)
    keep = torch.ones(1, *samples.latent.shape, dtype=torch.bool)
    with pytest.raises(ValueError, match="3 entries of caption for 120 latents"):
        attack_statistics(get_attack("sima"), Told(torch.ones(8)), samples.latent, [0], keep, views=short)


def test_the_use_is_looked_at_in_the_precision_that_was_asked_for(monkeypatch):
    class Asked(Exception):
        pass

    def query(*given, autocast, **options):
        raise Asked(autocast)

    monkeypatch.setattr(views, "DenoiserQuery", query)
    with pytest.raises(Asked) as caught:
        condition_use(Told(torch.ones(8)), samples_of(torch.arange(COUNT) % 7), autocast=torch.bfloat16)
    assert caught.value.args == (torch.bfloat16,)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_an_audit_looks_at_the_use_in_the_precision_of_its_passes(autocast):
    class Autocasting(Told):
        def __call__(self, noisy_latent, timestep, condition):
            seen.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return super().__call__(noisy_latent, timestep, condition)

    seen, audit = set(), audit_of(samples_of(torch.arange(COUNT) % 7), autocast=autocast)
    found = collect(audit, Autocasting(torch.linspace(1, 2, 7)), [], lambda done: None)
    assert seen == {autocast}
    assert len(found.condition_use) == COUNT


def test_planted_duplicates_are_a_group_of_their_own():
    samples = samples_of(torch.arange(COUNT) + 1)
    repeats = torch.where(torch.arange(COUNT) % 6 == 0, 9, 1)
    samples = samples.with_columns(repeats=repeats)
    generator = torch.Generator().manual_seed(2)
    of_caption = torch.cat([torch.ones(1), 1 - 0.1 * (repeats > 1) + 0.05 * torch.randn(COUNT, generator=generator)])
    report = audit_of(samples, views=())(Told(of_caption))
    row, data = report.row(AuditKey("sima", "all")), report.data
    for group, rows in (("repeated", repeats > 1), ("single", repeats == 1)):
        known = (rows | ~samples.is_member)[:, None]
        score = data.scores[row.key][0, 0]
        halves = [fold.reports & known[:, 0] for fold in data.folds]
        expected = sum(roc_auc_score(samples.is_member[half], score[half]) for half in halves) / 2
        assert row.by_repeats[group].value == pytest.approx(expected, abs=1e-9)
        assert f"memorization/sima/all/auroc_{group}_lower" in row.series()
    assert row.by_repeats["repeated"].lower > row.by_repeats["single"].upper


def test_views_and_repeats_come_back_from_the_score_file(tmp_path):
    samples = samples_of(torch.arange(COUNT) + 1).with_columns(repeats=torch.arange(COUNT) % 3 // 2 * 4 + 1)
    report = audit_of(samples)(Told(torch.rand(COUNT + 1, generator=torch.Generator().manual_seed(3)) + 0.5))
    write_scores(report, tmp_path / "scores.parquet", split_hash="x")
    data = read_scores(tmp_path / "scores.parquet").data
    assert data.views == {f"{name}_{view}": ViewOf(name, view) for name in ("sima", "loss") for view in ("null", "shuffled")}
    assert torch.equal(data.repeats, samples.repeats)
    again = report_of(data, intervals=FEW)
    for row in report.rows:
        assert again.row(row.key).metrics.auroc == row.metrics.auroc
        assert again.row(row.key).gains.keys() == row.gains.keys()
        assert again.row(row.key).by_repeats == row.by_repeats


@pytest.mark.parametrize(
    ("views", "attacks", "said"),
    [
        (("null",), {}, r"audit.views: there is no 'null' condition .* set denoiser.condition"),
        ((), {"pairing": "null"}, r"audit.attacks.pairing: it asks for the condition 'null'"),
    ],
)
def test_views_of_an_unconditional_denoiser_are_refused(views, attacks, said):
    samples = replace(samples_of(torch.zeros(COUNT, dtype=torch.int64)), condition={}, views={})
    named = {"sima": get_attack("sima")}
    for label, view in attacks.items():
        named[label] = get_attack("sima")
        named[label].views = (view,)
    with pytest.raises(UserError, match=said):
        Audit(samples, named, {"all": KeepAll()}, [50], views=views)


def test_labels_that_views_take_and_attacks_that_choose_conditions_themselves():
    samples = samples_of(torch.zeros(COUNT, dtype=torch.int64))
    attacks = {"sima": get_attack("sima"), "sima_null": get_attack("loss")}
    with pytest.raises(UserError, match="'sima_null' is what 'sima' is called"):
        Audit(samples, attacks, {"all": KeepAll()}, [50], views=("null",))
    with pytest.raises(UserError, match="chooses its conditions itself"):
        on_condition(on_condition(get_attack("sima"), "null"), "shuffled")
    with pytest.raises(UserError, match="has no mask: add one that keeps everything"):
        Audit(samples, {"sima": get_attack("sima")}, {"half": KeepRandom(0.5)}, [50], views=("null",))
