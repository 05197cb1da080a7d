"""What the denoiser is told: views of it, and what a source must answer."""

import pytest
import torch

from ldm_privacy.data.conditions import ClassLabels, Unconditional, check_condition, shuffled


def told(number):
    return {"caption": torch.tensor(number)}


@pytest.mark.parametrize("count", [2, 3, 11, 200])
def test_shuffled_conditions_are_a_derangement_that_belongs_to_the_samples(count):
    index = torch.arange(count) * 7 + 3
    places = shuffled(index, told(list(range(count))))
    assert sorted(places.tolist()) == list(range(count))
    assert not (places == torch.arange(count)).any()
    assert torch.equal(places, shuffled(index, told(list(range(count)))))
    if count > 11:
        assert not torch.equal(places, shuffled(index, told(list(range(count))), seed=1))


@pytest.mark.parametrize("sizes", [(20, 20), (3, 3, 3), (10, 6, 4), (50, 30, 15, 5), (1, 1)])
def test_nobody_is_told_the_own_condition_where_that_can_be(sizes):
    number = torch.cat([torch.full((size,), place) for place, size in enumerate(sizes)])
    number = number[torch.randperm(len(number), generator=torch.Generator().manual_seed(0))]
    places = shuffled(torch.arange(len(number)), told(number.tolist()))
    assert sorted(places.tolist()) == list(range(len(number)))
    assert not (number[places] == number).any()


def test_one_condition_for_all_is_shuffled_among_them():
    places = shuffled(torch.arange(9), told([4] * 9))
    assert sorted(places.tolist()) == list(range(9))
    assert not (places == torch.arange(9)).any()


def test_labels_in_words_and_as_the_network_gets_them():
    label = torch.tensor([1, 0, -1, 2])
    condition = ClassLabels(labels=lambda index: label[index], num_classes=3, class_names=["cat", "dog", "owl"])
    index = torch.tensor([0, 2, 3])
    check_condition(condition, index)
    assert condition.words(index) == ["dog", "", "owl"]
    choices, counts = condition.choices(index)
    assert choices["class_labels"].tolist() == [[1], [3], [2]]
    assert counts.tolist() == [1, 1, 1]
    own = condition(index)
    assert condition.given(own) is own
    assert Unconditional().words(index) is None


def test_a_condition_whose_network_arguments_lack_a_row_is_refused():
    class Short(Unconditional):
        def __call__(self, sample_index):
            return {"caption": sample_index}

        def null(self):
            return {"caption": torch.zeros(1, dtype=torch.int64)}

        def given(self, condition):
            return {"encoder_hidden_states": torch.zeros(1, 4, 8)}

    with pytest.raises(Exception, match="given 'encoder_hidden_states'"):
        check_condition(Short(), torch.arange(3))


def test_noise_exchanges_that_share_of_labels_for_classes_drawn_alike_and_leaves_audits_and_the_null_class():
    count, noise = 20_000, 0.3
    condition = ClassLabels(labels=lambda index: torch.where(index < 1000, -1, 2), num_classes=4, noise=noise)
    index = torch.arange(count)
    own = condition(index)
    torch.manual_seed(0)
    told = condition.given_in_training(own, count, lambda whole: whole)["class_labels"]
    assert bool((told[:1000] == 4).all()), "who is told nothing is told nothing"
    counts = told[1000:].bincount(minlength=5)
    expected = 19_000 * torch.tensor([noise / 4, noise / 4, 1 - 0.75 * noise, noise / 4, 0])
    spread = (expected * (1 - expected / 19_000)).sqrt()
    assert bool(((counts - expected).abs() <= 5 * spread).all())
    assert condition.given(own) is own
    assert "a share of 0.3" in condition.note


def test_without_noise_nothing_is_drawn_and_with_it_two_processes_are_told_what_one_is():
    plain = ClassLabels(labels=lambda index: index % 3, num_classes=3)
    own = plain(torch.arange(9))
    state = torch.get_rng_state()
    assert plain.given_in_training(own, 9, lambda whole: whole) is own
    assert torch.equal(torch.get_rng_state(), state)
    noisy = ClassLabels(labels=lambda index: index % 3, num_classes=3, noise=0.9)
    torch.manual_seed(5)
    whole = noisy.given_in_training(own, 9, lambda whole: whole)["class_labels"]
    parts = []
    for rows in (slice(4), slice(4, 9)):
        torch.manual_seed(5)
        mine = {"class_labels": own["class_labels"][rows]}
        parts.append(noisy.given_in_training(mine, 9, lambda drawn, rows=rows: drawn[rows])["class_labels"])
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, own["class_labels"])
