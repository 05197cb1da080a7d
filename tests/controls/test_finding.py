"""What controls find: scores of the sides, intervals that hold together, words for what they mean, one file for a new one."""

import math
from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.controls.finding import WITHOUT_DENOISER, WITHOUT_MODEL, Case, Finding, hold_together, run_controls
from ldm_privacy.controls.image_features import image_features
from ldm_privacy.controls.influence import influence
from ldm_privacy.controls.latent_norm import latent_norm
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.registry import CONTROLS
from ldm_privacy.types import Intervals

NAMES = ("reconstruction error", "influence", "latent norm", "colour")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(count=80, **columns):
    """Half of the samples are members, whose images are of noise as all others."""
    columns = {"latent": normal(count, 2, 3, 3), "is_member": torch.arange(count) < count // 2} | columns
    return Case(AuditedSamples(**columns), lambda index: 0.3 * normal(count, 1, 4, 4)[index].float())


def scored(*scores, looks_at=WITHOUT_DENOISER):
    return [Finding(name, looks_at, meaning=f"{name} is it", score=score) for name, score in zip(NAMES, scores)]


@pytest.fixture
def registered(monkeypatch):
    """Registers controls of a test, which are gone after it."""
    monkeypatch.setattr(CONTROLS, "_components", dict(CONTROLS._components))
    return CONTROLS.register


def test_influence_score_is_half_the_log_of_the_product():
    value = normal(6, 2, 3, 3).square() + 0.1
    score, fourfold, nothing = (influence(case(6, influence=each)).score for each in (value, 4 * value, 0 * value))
    torch.testing.assert_close(score, value.flatten(1).prod(dim=1).log() / 2)
    torch.testing.assert_close(fourfold - score, torch.full_like(score, 18 * math.log(2)))
    assert nothing.isfinite().all()


def test_latent_norm_score_is_the_norm_of_all_dimensions():
    latent = torch.zeros(2, 2, 2, 2)
    latent[0, 0, 0, 0], latent[0, 1, 1, 1] = 3.0, -4.0
    assert latent_norm(case(2, latent=latent)).score.tolist() == [5.0, 0.0]


@pytest.mark.parametrize("group", [None, torch.arange(80) // 4])
def test_intervals_of_scores_that_look_at_the_same_hold_together(group):
    audited = case(group=group)
    scores = [normal(80), normal(80, seed=1)]
    other = Finding("file size", WITHOUT_MODEL, score=normal(80, seed=2))
    found = hold_together([*scored(*scores), other], audited)
    options = replace(audited.intervals, confidence=0.975).options(group)
    assert [each.estimate for each in found[:2]] == [
        auroc_interval(score, audited.samples.is_member, **options) for score in scores
    ]
    alone = auroc_interval(other.score, audited.samples.is_member, **Intervals().options(group))
    assert found[2].estimate == alone, "one that looks at something else is of another family"


def test_what_brings_its_estimate_keeps_it():
    given = Finding(
        "mine", WITHOUT_DENOISER, "Mine.", score=normal(80), estimate=auroc_interval(normal(80), torch.arange(80) < 9)
    )
    assert hold_together([given], case()) == [given]


def test_a_score_below_one_half_is_named_as_much_as_one_above():
    audited = case(400)
    difference = audited.samples.is_member.double() * 2
    error, nothing = normal(400) - difference, torch.arange(400) % 7
    found = hold_together(scored(error, nothing, normal(400, seed=2) + difference, normal(400, seed=3) + difference), audited)
    assert [each.is_telling for each in found] == [True, False, True, True]
    assert found[0].estimate.upper < 0.5
    sentence = found[0].sentence
    assert all(each.sentence == sentence for each in found)
    assert sentence.startswith("Members can be told from held-out without the denoiser: ")
    assert f"reconstruction error has AUROC {found[0].estimate}: reconstruction error is it" in sentence
    assert "latent norm has AUROC" in sentence
    assert "colour has AUROC" in sentence
    assert "influence has AUROC" not in sentence


def test_the_sentence_when_nothing_tells():
    found = hold_together(scored(normal(80), normal(80, seed=1), normal(80, seed=2)), case())
    reached = max(max(each.estimate.upper, 1 - each.estimate.lower) for each in found)
    expected = "the intervals of reconstruction error, influence and latent norm include 0.5; up to "
    assert f"Without the denoiser no difference was found: {expected}{reached:.3f} can't" in found[0].sentence
    alone = hold_together(scored(normal(80), looks_at=WITHOUT_MODEL), case())[0].sentence
    assert "Without any model no difference was found: the intervals of reconstruction error include" in alone


def test_a_score_that_is_not_finite_is_named():
    score = normal(80)
    score[3] = float("nan")
    with pytest.raises(UserError, match="sample 3"):
        hold_together(scored(score), case())


def test_images_are_read_once_in_chunks_and_in_order(monkeypatch):
    monkeypatch.setattr("ldm_privacy.controls.finding._IMAGES_AT_ONCE", 32)
    read = []
    audited = case()

    def images(index):
        read.append(index)
        return audited.images(index)

    counted = Case(audited.samples, images)
    assert torch.equal(counted.thumbnails, audited.thumbnails)
    assert all(torch.equal(counted.features[name], value) for name, value in audited.features.items())
    assert [len(index) for index in read] == [32, 32, 16]
    assert torch.equal(torch.cat(read), torch.arange(80))


def test_an_image_that_is_not_finite_is_named():
    audited = case()
    index = audited.samples.sample_index + 100
    samples = replace(audited.samples, sample_index=index)

    def images(index):
        return audited.images(index - 100).where(index[:, None, None, None] != 107, torch.inf)

    with pytest.raises(UserError, match="sample 107 is not finite"):
        run_controls(Case(samples, images))


def test_all_controls_are_run_and_what_cannot_be_computed_is_left_out():
    done = []
    error = normal(80).abs()
    found = run_controls(case(influence=normal(80, 2, 3, 3).square(), reconstruction_error=error), done.append)
    assert set(found) == {
        *("reconstruction error", "influence", "latent norm", "near-duplicates"),
        *("logistic on image features", "boosting on image features"),
    }
    assert done == list(range(1, len(list(CONTROLS)) + 1))
    assert torch.equal(found["reconstruction error"].score, -error)
    few = run_controls(case(12))
    assert set(few) == {"latent norm", "near-duplicates", "model-free control"}
    assert few["model-free control"].is_missing
    assert "too few samples" in few["model-free control"].sentence


def test_a_control_of_a_users_own_is_run_with_the_others(registered):
    @registered("brightness")
    def brightness(case):
        return Finding("brightness", WITHOUT_DENOISER, meaning="it is darker", score=case.features["mean of grey"])

    found = run_controls(case())
    options = replace(Intervals(), confidence=0.975).options()
    is_member = case().samples.is_member
    assert found["brightness"].estimate == auroc_interval(case().features["mean of grey"], is_member, **options)
    assert "the intervals of brightness and latent norm include 0.5" in found["latent norm"].sentence


def test_two_findings_of_one_name_are_refused(registered):
    registered("another")(lambda case: [Finding("latent norm", WITHOUT_MODEL)])
    with pytest.raises(ValueError, match="same name"):
        run_controls(case())


def test_features_of_all_images_lie_in_one_tensor_and_are_those_of_each_image():
    mine = case(70)
    alone = image_features(mine.images(mine.samples.sample_index))
    assert list(mine.features) == list(alone)
    assert all(torch.equal(value, alone[name]) for name, value in mine.features.items())
    assert len({value.untyped_storage().data_ptr() for value in mine.features.values()}) == 1
