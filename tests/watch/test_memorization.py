"""Audits as a watched quantity: the rise since the untrained denoiser, what processes learn, going on after a stop."""

from dataclasses import replace

import pytest
import torch

import ldm_privacy.watch.memorization
from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit import samples as samples_module
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_difference
from ldm_privacy.models.ideal import IdealDenoiser
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.randomness import normal
from ldm_privacy.registry import CALIBRATIONS, MASK_RULES
from ldm_privacy.runs.history import Provenance, ScoreHistory
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Intervals
from ldm_privacy.watch.memorization import Memorization, News
from ldm_privacy.watch.onset import OnsetDetector, Rise
from ldm_privacy.watch.watcher import Every, Moment
from tests.two_processes import in_two_processes

KEY = AuditKey("sima", "all")
COUNT = 120
INDEX = torch.arange(COUNT)
LATENT = normal("latents", (INDEX,), (1, 4, 4))


def samples(count=COUNT):
    distortion = torch.where(INDEX[:count] % 5 == 0, torch.nan, INDEX[:count].double())
    complexity = 7 + LATENT[:count].flatten(1).std(1).double()
    return AuditedSamples(LATENT[:count], INDEX[:count] % 2 == 0, INDEX[:count], distortion=distortion, complexity=complexity)


def target(num_memorised):
    """A denoiser that knows some of the members by heart, and all the rest of the world only roughly."""
    known = LATENT[::2][:num_memorised]
    return Target(IdentityCodec(image_channels=1), IdealDenoiser(torch.cat([known, 3 * normal("x", (INDEX,), (1, 4, 4))])))


def watcher(count=COUNT, *, calibrations=(), cross_fit=True, **options):
    audit = Audit(
        samples(count),
        {"sima": get_attack("sima"), "loss": get_attack("loss")},
        {"all": MASK_RULES.get("all")(), "random": MASK_RULES.get("random")()},
        [300, 500],
        calibrations={name: CALIBRATIONS.get(name)() for name in calibrations},
        calibrated=[options.get("key", KEY)] if calibrations else (),
        cross_fit=cross_fit,
        intervals=Intervals(num_bootstrap=20),
    )
    return Memorization(audit, **{"key": KEY, "onset": OnsetDetector(2, 0.9), **options})


def looks(it, numbers, *, seen=lambda report: None):
    """Series by epoch; at epoch k the denoiser knows so many members."""
    found = {}
    for epoch, number in enumerate(numbers):
        moment = Moment(epoch, 10 * epoch)
        found[epoch] = it.look(target(number), moment).series
        seen(it.report)
        it.last = moment
    return found


@pytest.mark.parametrize("cross_fit", [False, True])
def test_the_rise_is_paired_with_the_first_audit_and_gives_the_onset(cross_fit):
    reports = []
    it = watcher(cross_fit=cross_fit)
    rows = looks(it, [0, 0, 40, 60], seen=reports.append)
    assert it.onset.onset_epoch == 2
    assert it.sentences() == ["Memorization onset (sima/all): epoch 2."]
    scores, data, level = [each.scores_at(KEY) for each in reports], reports[0].data, OnsetDetector(2, 0.9).confidence_at(2)
    halves = [fold.reports for fold in data.folds]
    parts = [
        auroc_difference(scores[2][half], scores[0][half], data.is_member[half], confidence=level, alternative="greater")
        for half in halves
    ]
    assert rows[2]["memorization/sima/all/rise"] == pytest.approx(sum(each.value for each in parts) / len(parts))
    # Each half's lower bound is so many standard deviations below its value; the mean of two independent ones has the root of
    # the sum of their squares, halved.
    reach = sum((each.value - each.lower) ** 2 for each in parts) ** 0.5 / len(parts)
    rise = rows[2]["memorization/sima/all/rise"], rows[2]["memorization/sima/all/rise_lower"]
    assert rise[0] - rise[1] == pytest.approx(reach)
    assert rows[1]["memorization/sima/all/rise"] == 0.0
    assert "memorization/sima/all/rise" not in rows[0]
    assert {epoch for epoch, row in rows.items() if "memorization/sima/all/onset_epoch" in row} == {3}
    assert rows[3]["memorization/sima/all/auroc"] > 0.9
    for attack in ("sima", "loss"):
        assert {f"memorization/{attack}/all/quartile{number}/auroc" for number in (1, 2, 3, 4)} <= set(rows[0])
    best = {epoch: row["memorization/loss/all/auroc"] for epoch, row in rows.items()}
    assert it.summary()["best/loss/all/auroc"] == max(best.values())
    assert it.summary()["best/loss/all/epoch"] == max(best, key=best.get)
    assert not any("random" in name for name in it.summary()), "a control is watched in metrics.csv"
    assert it.passes() == {"denoiser": 4 * COUNT}


def test_claims_are_on_charts_those_of_the_primary_attack_apart_and_with_their_tpr():
    charts = watcher().look(target(0), Moment(0, 0)).shown()
    assert charts == {
        "auroc/sima/all": "memorization/sima/all/auroc",
        "tpr/sima/all": "memorization/sima/all/tpr_at_1fpr",
        "auroc_other/loss/all": "memorization/loss/all/auroc",
    }
    by_coins = watcher()
    by_coins.audit.by_coins = True
    look = by_coins.look(target(0), Moment(0, 0))
    assert look.shown() == charts | {"epsilon/sima/all": "memorization/sima/all/epsilon_lower"}
    assert {"memorization/loss/random/epsilon_lower", *look.shown().values()} <= {*look.series}
    primary = watcher(key=AuditKey("loss", "random")).look(target(0), Moment(0, 0)).shown()
    assert [name for name in primary if name.startswith("auroc/")] == ["auroc/loss/all", "auroc/loss/random"]


def test_a_cadence_of_steps_counts_steps():
    it = watcher(every=Every(steps=10))
    rows = looks(it, [0, 40, 60])
    assert it.onset.onset_epoch == 10
    assert rows[2]["memorization/sima/all/onset_epoch"] == 10.0
    assert it.sentences() == ["Memorization onset (sima/all): step 10."]


def test_a_line_a_look_with_its_legend_before_the_first():
    it = watcher()
    first = it.look(target(0), Moment(0, 0))
    it.last = Moment(0, 0)
    second = it.look(target(0), Moment(10, 40))
    assert first.lines[0].startswith("AUROC with the masks all")
    assert first.lines[1].startswith("epoch    0  sima .")
    assert len(second.lines) == 1
    assert second.lines[0].startswith("epoch   10  sima .")


def test_it_goes_on_as_if_it_had_not_stopped_with_fewer_samples_too():
    straight, stopped = watcher(), watcher()
    numbers = [0, 10, 40, 60]
    rows = looks(straight, numbers)
    for epoch, number in enumerate(numbers):
        again = watcher()
        again.load_full_state(stopped.full_state())
        moment = Moment(epoch, 10 * epoch)
        assert again.look(target(number), moment).series == rows[epoch]
        again.last = moment
        stopped = again
    assert stopped.summary() == straight.summary()
    fewer = watcher(count=80)
    looks(stopped := watcher(), [0])
    fewer.load_full_state(stopped.full_state())
    series = fewer.look(target(60), Moment(1, 10)).series
    assert series["memorization/sima/all/rise"] > 0


BOTH = ("complexity", "gained", "calibrated")
COUNTING = [AuditKey(f"sima_{name}", "all") for name in BOTH[:2]]


def test_what_counts_an_onset_beside_the_primary_attack_has_one_of_its_own():
    it = watcher(calibrations=BOTH)
    assert list(it.onsets) == [KEY, *COUNTING]
    rows = looks(it, [0, 0, 40, 60])
    for key in it.onsets:
        assert f"memorization/{key}/rise" not in rows[0]
        assert rows[3][f"memorization/{key}/onset_epoch"] == 2.0
    assert not any(name.startswith("memorization/sima_calibrated/all/rise") for name in rows[3])
    assert it.sentences() == [f"Memorization onset ({key}): epoch 2." for key in it.onsets]
    summary = it.summary()
    assert [summary["onset_epoch"], *(summary[f"onset_epoch/{key}"] for key in COUNTING)] == [2, 2, 2]
    # What was fitted is logged, of each half.
    assert {f"calibration/sima_calibrated/all/half{number}/now" for number in (1, 2)} <= set(rows[3])
    alone = watcher(calibrations=("complexity",))
    assert list(alone.onsets) == [KEY, COUNTING[0]]
    assert list(watcher().onsets) == [KEY]


def test_the_onsets_of_calibrated_scores_go_on_as_if_they_had_not_stopped(tmp_path):
    numbers, straight = [0, 10, 60], watcher(calibrations=BOTH)
    audit = straight.audit
    provenance = Provenance.of("ab" * 32, 0, audit.attacks, audit.masks, audit.timesteps)
    on_disk = watcher(calibrations=BOTH, history=ScoreHistory(tmp_path / "scores", provenance))
    rows = looks(straight, numbers)
    assert looks(on_disk, numbers) == rows, "wherever the history is kept"
    assert on_disk.state_dict()["history"] is None
    stopped = watcher(calibrations=BOTH)
    for epoch, number in enumerate(numbers):
        torch.save(stopped.full_state(), tmp_path / "state")
        again = watcher(calibrations=BOTH)
        again.load_full_state(torch.load(tmp_path / "state", weights_only=True))
        moment = Moment(epoch, 10 * epoch)
        assert again.look(target(number), moment).series == rows[epoch]
        again.last = moment
        stopped = again
    assert stopped.summary() == straight.summary()


def test_an_audit_that_is_repeated_looks_back_at_the_same_ones():
    it = watcher(calibrations=("history",))
    rows = looks(it, [0, 20, 40])
    assert it.look(target(40), Moment(2, 20)).series == rows[2]
    assert list(it.history.read()) == [0, 1, 2]


def test_the_primary_attack_cannot_change_half_way():
    it = watcher()
    looks(it, [0])
    with pytest.raises(UserError, match=r"counts its onset by sima/all since its first audit; it can't be changed to loss/all"):
        watcher(key=AuditKey("loss", "all")).load_full_state(it.full_state())


def test_another_process_learns_the_news_and_holds_no_report(monkeypatch):
    news = iter(
        [
            News(()),
            News((Rise(1, 1, 0.97, 0.2, -0.1, None), Rise(1, 1, 0.97, 0.2, 0.1, None))),
            News((Rise(2, 2, 0.99, 0.2, -0.1, 1), Rise(2, 2, 0.99, 0.2, -0.1, None))),
        ]
    )
    monkeypatch.setattr(ldm_privacy.watch.memorization, "gather_on_main", lambda shard: [shard])
    monkeypatch.setattr(ldm_privacy.watch.memorization, "on_main", lambda function: (None, next(news)))
    it = watcher()
    before_onset = []
    for epoch in range(3):
        it.look(target(0), Moment(epoch, epoch))
        assert it.report is None
        before_onset.append(it.is_before_onset())
    # A rise that is certain now, or one that was and gave the onset, though this audit's lower bound is below 0 again.
    assert before_onset == [True, False, False]


class Counted:
    """A denoiser whose passes are counted, one sample each."""

    def __init__(self, predictor):
        self.predictor, self.alphas_cumprod, self.rows = predictor, predictor.alphas_cumprod, 0

    def __call__(self, noisy_latent, timestep, condition):
        self.rows += len(noisy_latent)
        return self.predictor(noisy_latent, timestep, condition)


def beside(reference, number):
    return replace(target(number), reference=reference)


def test_the_reference_is_asked_at_the_first_look_and_of_other_samples_again():
    it, reference = watcher(calibrations=("ratio",)), Counted(target(0).predictor)
    ratio = AuditKey("sima_ratio", "all")
    for epoch, number in enumerate([0, 40, 60]):
        series = it.look(beside(reference, number), Moment(epoch, 10 * epoch)).series
        assert reference.rows == it.audit.num_reference_passes == 2 * COUNT
        area = it.report.row(ratio).metrics.auroc
        assert series["memorization/sima_ratio/all/auroc"] == (0.5 if number == 0 else pytest.approx(area.value))
        direct = it.audit(target(number).predictor, target(0).predictor)
        assert direct.row(ratio).metrics.auroc == area
    assert area.value > 0.8
    it.samples = replace(samples(), latent=LATENT + 0.1)
    it.look(beside(reference, 60), Moment(3, 30))
    assert reference.rows == 2 * it.audit.num_reference_passes


def test_an_onset_is_counted_of_what_is_beyond_the_reference():
    it = watcher(calibrations=("ratio",))
    for epoch, number in enumerate([0, 0, 40, 60]):
        it.look(beside(target(0).predictor, number), Moment(epoch, 10 * epoch))
    assert it.sentences() == [f"Memorization onset ({key}): epoch 2." for key in (KEY, AuditKey("sima_ratio", "all"))]


def test_a_target_without_a_reference_that_a_calibration_needs_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^audit\.calibrations\.ratio: it compares with a reference, and this target has none"):
        watcher(calibrations=("ratio",)).look(target(0), Moment(0, 0))


def test_two_processes_ask_the_reference_for_their_shares(monkeypatch):
    alone = watcher(calibrations=("ratio",))
    alone.look(beside(target(0).predictor, 40), Moment(0, 0))

    def half(rank):
        it, reference = watcher(calibrations=("ratio",)), Counted(target(0).predictor)
        it.samples = it.samples.share()
        for epoch in range(2):
            it.look(beside(reference, 40), Moment(epoch, 10 * epoch))
        return it, reference.rows

    (main, first), (other, second) = in_two_processes(monkeypatch, half, samples_module, ldm_privacy.watch.memorization)
    assert first == second == COUNT
    assert other.report is None
    assert main.news == other.news
    mine, theirs = (each.report.data.scores[AuditKey("sima_ratio", "all")] for each in (main, alone))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
