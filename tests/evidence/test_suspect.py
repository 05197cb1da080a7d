"""The verdict on a suspect set from scores and features that are made up: false alarms, power, what else could explain it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.own_generations import OwnGenerations
from ldm_privacy.evidence.suspect import SuspectImages, answer_of, permuted_p_value, suspect_verdict
from ldm_privacy.evidence.suspect_copies import MIN_IMAGES, Copies, Looks, check_enough, copies_of
from ldm_privacy.evidence.suspect_score import Levels, choose_score, joined, scores_under
from ldm_privacy.evidence.suspect_words import said_of_suspects
from ldm_privacy.metrics import p_value_by_set_size
from ldm_privacy.types import AuditKey, Estimate

WEAK, STRONG = AuditKey("loss", "all"), AuditKey("sima", "all")
TIMESTEPS = {"loss": [10, 100], "sima": [10, 100]}
PARTS = {"member": 120, "heldout": 120, "suspect": 60, "generated": 80}
NO_COPIES = Copies(0, 0, 0, 0.0, 1.0, torch.tensor([]), torch.tensor([]))


def made_up(like: str, *, seed=0, shift=1.0, num_features=6):
    """Levels and images whose suspects are like one of the other parts; "differs": held-out in other colours."""
    generator = torch.Generator().manual_seed(seed)
    part = [name for name, count in PARTS.items() for _ in range(count)]
    kind = [like if name == "suspect" else name for name in part]
    high = torch.tensor([shift * (each in ("member", "generated")) for each in kind]).double()

    def noise():
        return torch.randn(len(part), generator=generator, dtype=torch.float64)

    levels = Levels(
        {WEAK: torch.stack([noise(), noise()]), STRONG: torch.stack([noise(), noise() + high])}, TIMESTEPS, complexity=noise()
    )
    smooth = torch.tensor([4.0 * (each == "generated") for each in kind])
    colour = torch.tensor([4.0 * (each == "differs") for each in kind])
    features = {f"f{place}": noise() for place in range(num_features)}
    features |= {"smoothness": noise() + smooth, "colour": noise() + colour}
    is_part = {f"is_{name}": torch.tensor([each == name for each in part]) for name in PARTS}
    real = is_part["is_member"] | is_part["is_heldout"]
    chooses = real & (torch.rand(len(part), generator=generator) < 0.5)
    images = SuspectImages(**is_part, chooses=chooses, group=None, features=features, seen={"level": levels.now[STRONG][1]})
    return levels, images


@cache
def verdict_of(like):
    levels, images = made_up(like)
    real = images.is_member | images.is_heldout
    of_run = Levels({key: level[:, real] for key, level in levels.now.items()}, TIMESTEPS, levels.complexity[real])
    choice = choose_score(of_run, images.is_member[real], images.chooses[real])
    return suspect_verdict(levels, choice, images, NO_COPIES)


@pytest.mark.parametrize(
    ("like", "answer", "begins"),
    [
        ("member", "yes", "Yes: photos was trained on"),
        ("heldout", "no", "No sign that photos was trained on"),
        ("differs", "differs", "Can't say: the images of photos differ from the held-out images without any model"),
        ("generated", "generated", "Can't say: the images of photos look like what the model itself generates"),
    ],
)
def test_one_of_four_sentences(like, answer, begins):
    verdict = verdict_of(like)
    assert verdict.answer == answer
    assert verdict.choice.key == STRONG
    assert verdict.choice.timestep == 100
    sentences = said_of_suspects(verdict, "photos").sentences
    assert sentences[0].startswith(begins)
    assert (verdict.p_value <= 0.05) == (like in ("member", "generated"))  # which is why generations are looked for


def test_what_is_compared_chose_nothing_and_the_suspects_choose_nothing():
    levels, images = made_up("member")
    real = images.is_member | images.is_heldout
    verdict = verdict_of("member")
    assert verdict.test.num_heldout == int((images.is_heldout & ~images.chooses).sum())
    # The choice is that of the run's images alone, whatever the suspects score.
    of_run = Levels({key: level[:, real] for key, level in levels.now.items()}, TIMESTEPS, levels.complexity[real])
    others = {key: torch.where(images.chooses[real], level, -level) for key, level in of_run.now.items()}
    again = choose_score(Levels(others, TIMESTEPS, of_run.complexity), images.is_member[real], images.chooses[real])
    assert again == verdict.choice


def test_calibration_by_complexity_is_fitted_to_held_out_images_that_choose():
    complexity, noise = torch.randn(2, 200, generator=torch.Generator().manual_seed(0)).double()
    is_member, chooses = torch.arange(200) < 100, torch.arange(200) % 2 == 0
    level = 0.1 * noise + 3 * complexity + is_member
    choice = choose_score(Levels({STRONG: level[None]}, {"sima": [10]}, complexity), is_member, chooses)
    assert choice.calibration == "complexity"
    whole = joined([Levels({STRONG: each[None]}, {"sima": [10]}, complexity) for each in (level, level + 5)])
    both = scores_under(choice, whole, torch.cat([is_member, is_member & False]), torch.cat([chooses, chooses & False]))
    slope = np.polyfit(complexity[chooses & ~is_member], level[chooses & ~is_member], 1)[0]
    centred = complexity - complexity[chooses & ~is_member].mean()
    torch.testing.assert_close(both, torch.cat([level - slope * centred, level + 5 - slope * centred]))


def test_a_reference_takes_away_what_every_model_says_of_an_image():
    common, noise = torch.randn(2, 200, generator=torch.Generator().manual_seed(1)).double()
    is_member, chooses = torch.arange(200) < 100, torch.arange(200) % 2 == 0
    mine, theirs = {STRONG: (3 * common + is_member + 0.1 * noise)[None]}, {STRONG: 3 * common[None]}
    levels = Levels(mine, {"sima": [10]}, reference=theirs)
    choice = choose_score(levels, is_member, chooses)
    assert (choice.calibration, choice.auroc) == ("reference", 1.0)
    torch.testing.assert_close(scores_under(choice, levels, is_member, chooses), mine[STRONG][0] - theirs[STRONG][0])


def test_sets_of_held_out_images_raise_false_alarms_at_their_rate_at_most():
    """Skewed scores, small sets: the permuted p-value is uniform on its grid, Welch's is not; the larger one decides."""
    generator, num_trials, alarms = torch.Generator().manual_seed(3), 400, 0
    for trial in range(num_trials):
        score = torch.randn(70, generator=generator, dtype=torch.float64).mul(1.5).exp()
        alarms += permuted_p_value(score[:10], score[10:], num_permutations=99, seed=trial) <= 0.05
    # Exactly 5 of 100 equally likely ranks: a binomial count.
    assert stats.binom.ppf(0.0005, num_trials, 0.05) <= alarms <= stats.binom.isf(0.0005, num_trials, 0.05)


def test_power_in_closed_form_is_that_of_simulated_sets():
    scores = torch.randn(2, 2000, generator=torch.Generator().manual_seed(5)).double()
    members, heldout = 1.5 * scores[0] + 0.6, scores[1, :100]
    verdict = replace(verdict_of("heldout"), scores={"members": members, "heldout": heldout})
    verdict = replace(verdict, test=replace(verdict.test, num_heldout=100))
    for point in p_value_by_set_size(members, heldout, [16, 32, 64], num_draws=2000):
        # Four standard errors of the draws, and what Student's law at 15 degrees or more does to a quantile of the normal one.
        assert abs(point.power - verdict.power_at(point.size)) < 4 * 0.5 / 2000**0.5 + 0.4 * (stats.t.isf(0.05, 15) - 1.645)
    size = verdict.size_found(0.9)
    assert verdict.power_at(size) >= 0.9 > verdict.power_at(size - 1)
    assert replace(verdict, scores={"members": -members, "heldout": heldout}).size_found(0.9) is None
    assert replace(verdict, scores={"members": members + 9, "heldout": heldout}).size_found(0.9) == MIN_IMAGES


def test_held_out_images_of_a_group_count_once():
    levels, images = made_up("member")
    group = torch.where(images.is_heldout, torch.arange(len(images.chooses)) // 4, -1 - torch.arange(len(images.chooses)))
    chooses = images.is_member & images.chooses | images.is_heldout & (group % 2 == 0)
    images = replace(images, group=group, chooses=chooses)
    choice = choose_score(levels, images.is_member, chooses)
    verdict = suspect_verdict(levels, choice, images, NO_COPIES)
    assert verdict.test.num_heldout == len(group[images.is_heldout & ~chooses].unique()) == 15
    assert verdict.p_permuted is None
    assert verdict.answer == "yes"


def test_what_could_explain_a_high_score_comes_before_it():
    surely, chance = Estimate(0.9, 0.8, 0.95), Estimate(0.52, 0.4, 0.6)
    share = Estimate(0.05, 0.01, 0.1)
    near = replace(NO_COPIES, p_value=0.01)
    for likely, blind, p_value, copies, answer in (
        (True, surely, 0.0, NO_COPIES, "generated"),
        (False, surely, 0.0, NO_COPIES, "differs"),
        (False, chance, 0.04, NO_COPIES, "yes"),
        (False, chance, 0.06, NO_COPIES, "no"),
        (True, surely, 1.0, near, "generated"),
        (False, surely, 1.0, near, "yes"),
        (True, surely, 1.0, replace(near, of_members=1), "yes"),
    ):
        made = OwnGenerations(share, share, share, share, 0.5, chance, likely)
        assert answer_of(p_value, blind, made, copies, level=0.05) == answer


def test_what_the_record_says_is_said_first_and_of_generations_only_what_an_answer_hangs_on():
    near = replace(verdict_of("differs"), answer="yes", copies=replace(NO_COPIES, near_members=60, expected=9.4, p_value=1e-20))
    told = said_of_suspects(near, "photos").sentences
    assert told[0].startswith(
        "Yes: 60 of 60 images of photos are near-duplicates of images that it was trained on (of as many held-out images 9.4, "
        "p = 1e-20), whatever the model shows of them"
    )
    same = replace(near, copies=replace(near.copies, of_members=10, near_members=12, p_value=0.3))
    assert (
        said_of_suspects(same, "photos")
        .sentences[0]
        .startswith("Yes: 10 of 60 images of photos are images that it was trained on, pixel by pixel, whatever")
    )
    made = replace(verdict_of("generated"), copies=near.copies)
    assert "And 60 of 60 images of photos are near-duplicates" in said_of_suspects(made, "photos").sentences[0]
    for verdict in (near, verdict_of("heldout"), verdict_of("differs")):
        assert not any("generations" in each for each in said_of_suspects(verdict, "photos").sentences[1:])
    for like, begins in (("member", "They do not look like the model's own"), ("generated", "They look like the model's own")):
        assert said_of_suspects(verdict_of(like), "photos").sentences[3].startswith(begins)


def test_near_duplicates_of_members_are_counted_against_those_of_held_out_images_whatever_the_suspects_are():
    """Members and held-out images of two kinds, one of which all look alike: a folder of these is near to both sides."""
    generator = torch.Generator().manual_seed(0)
    alike = torch.randint(0, 256, (1, 1, 8, 8), generator=generator)
    kinds = torch.randint(0, 256, (80, 1, 8, 8), generator=generator)
    kinds[::2] = (alike + torch.randint(-9, 10, (40, 1, 8, 8), generator=generator)).clamp(0, 255)
    pixels, is_member = kinds.to(torch.uint8), torch.arange(80) % 4 < 2
    run = Looks.of([pixels])
    more = (alike + torch.randint(-9, 10, (30, 1, 8, 8), generator=generator)).clamp(0, 255).to(torch.uint8)
    common = copies_of(Looks.of([more]), run, torch.arange(80), is_member)
    assert (common.near_members, common.expected) == (30, 15.0)  # twice as many as of held-out images, and no sign
    assert common.p_value > 0.5
    blurred = pixels[is_member][1::2][:12] // 2 + 60  # of those that look like no other one
    found = copies_of(Looks.of([blurred]), run, torch.arange(80), is_member)
    assert found.near_members == 12
    # Of 80 images 12 have a near-duplicate in the folder: that all are members is one draw of 40 from 80.
    assert found.p_value == pytest.approx(np.prod([(40 - k) / (80 - k) for k in range(12)]))
    group = torch.where(is_member, 0, torch.arange(80))  # all members are one patient
    assert copies_of(Looks.of([blurred]), run, torch.arange(80), is_member, group=group).p_value == pytest.approx(1 / 41)


def test_images_of_the_run_among_the_suspects_are_found_pixel_by_pixel_and_nearly():
    run = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    is_member = torch.arange(40) < 20
    suspects = torch.cat([run[:5], run[20:22], run[6:8] // 2 + 60])  # copies, and two darker ones
    found = copies_of(Looks.of([suspects]), Looks.of(run.split(7)), 100 + torch.arange(40), is_member)
    assert (found.of_members, found.of_heldout, found.near_members) == (5, 2, 7)
    assert found.member_index.tolist() == [100, 101, 102, 103, 104]
    assert found.heldout_index.tolist() == [120, 121]


@pytest.mark.parametrize(("gone", "words"), [(30, "photos: is the held-out folder itself: all 30"), (23, "photos: 7 of 30")])
def test_the_held_out_folder_itself_is_refused_in_one_line(gone, words):
    left = torch.cat([torch.ones(30), torch.zeros(30 - gone)]).bool()
    chooses = torch.arange(len(left)) % 2 == 0
    copies = Copies(0, gone, 0, 0.0, 1.0, torch.tensor([]), torch.arange(gone))
    with pytest.raises(UserError, match=words) as caught:
        check_enough("photos", copies, left, chooses, num_members=30, num_heldout=30)
    assert "\n" not in str(caught.value)
