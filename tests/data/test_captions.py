"""Captions as a condition: numbers that travel, what the network gets of them, and the same from a checkpoint."""

import copy
import logging

import pytest
import torch

from ldm_privacy.data import captions as room
from ldm_privacy.data.captions import Captions
from ldm_privacy.data.conditions import check_condition
from ldm_privacy.errors import UserError

TEXTS = [["a red cat on a mat", "a cat"], ["dog"], [], ["a cat", "one two three four"], ["dog", "a red cat on a mat"]]
ALL = torch.arange(5)
SORTED = ["", "a cat", "a red cat on a mat", "dog", "one two three four"]


def of(texts):
    return lambda sample_index: [texts[row] for row in sample_index.tolist()]


def condition(texts=TEXTS, **options):
    options = {"member_index": torch.tensor([0, 2, 3]), "heldout_index": torch.tensor([1, 4]), "max_tokens": 12, **options}
    return Captions.build(captions=of(texts), **options)


def test_distinct_captions_are_numbered_and_the_numbers_travel():
    captions = condition()
    check_condition(captions, ALL)
    assert captions.texts == SORTED
    assert captions(ALL)["caption"].tolist() == [2, 3, 0, 1, 3], "the first"
    choices, counts = captions.choices(ALL)
    assert choices["caption"].tolist() == [[2, 1], [3, 0], [0, 0], [1, 4], [3, 2]]
    assert counts.tolist() == [2, 1, 1, 2, 2]
    assert captions.words(ALL) == ["a red cat on a mat", "dog", "", "a cat", "dog"]
    assert captions.network_arguments() == {"cross_attention_dim": 64}
    rows = torch.tensor([4, 2])
    assert torch.equal(captions(rows)["caption"], captions(ALL)["caption"][rows])
    assert copy.deepcopy(captions) is captions, "or averaged weights would hold another copy of all images"


def test_the_network_gets_the_hidden_states_of_the_text_and_the_null_is_the_empty_string():
    captions = condition()
    given = captions.given(captions(ALL))["encoder_hidden_states"]
    texts = [SORTED[number] for number in captions(ALL)["caption"]]
    direct = captions.encoder(texts, torch.device("cpu"))["encoder_hidden_states"]
    assert given.shape == (5, 12, 64)
    torch.testing.assert_close(given, direct)
    assert torch.equal(given[2:3], captions.given(captions.null())["encoder_hidden_states"])
    assert not torch.allclose(given[2], given[1])


def test_a_third_of_the_words_is_removed():
    captions = condition()
    views = captions.reduced(ALL)
    assert list(views) == ["without_1", "without_2", "without_3"]
    words = [[captions.text(number) for number in views[view]["caption"].tolist()] for view in views]
    assert [each[0] for each in words] == ["cat on a mat", "a red a mat", "a red cat on"]
    assert [each[3] for each in words] == ["a cat", "cat", "a"]
    assert [each[2] for each in words] == ["", "", ""], "there is nothing to remove"
    for each, view in zip(words, views.values()):
        given = captions.given(view)["encoder_hidden_states"]
        torch.testing.assert_close(given, captions.encoder(each, torch.device("cpu"))["encoder_hidden_states"])


def test_a_checkpoint_gives_back_the_encoder_that_was_trained_with():
    captions = condition()
    given = captions.given(captions(ALL))["encoder_hidden_states"]
    record = captions.record()
    assert record["class"] == "captions"
    # Whoever evaluates may have other settings and know nothing of the members.
    again = condition(member_index=torch.tensor([1]), heldout_index=torch.tensor([0, 2, 3, 4]), seed=7, stored=record)
    assert torch.equal(again.given(again(ALL))["encoder_hidden_states"], given)
    assert again.record()["captions"] == record["captions"]
    other = condition([["cat" if text == "dog" else text for text in each] for each in TEXTS], stored=record)
    assert other.record()["captions"] != record["captions"], "other words under the same numbers"


def test_a_given_encoder_is_known_by_its_weights_wherever_it_lies(tmp_path):
    from transformers import CLIPTextModel, PreTrainedTokenizerFast

    tiny = condition().encoder
    for name, scale in (("one", 1.0), ("same", 1.0), ("other", 2.0)):
        network = CLIPTextModel(tiny.network.config)
        network.load_state_dict({key: weight * scale for key, weight in tiny.network.state_dict().items()})
        network.save_pretrained(tmp_path / name)
        PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer, eos_token="<|endoftext|>").save_pretrained(tmp_path / name)
    trained = condition(encoder=str(tmp_path / "one"))
    assert torch.equal(
        trained.given(trained(ALL))["encoder_hidden_states"], condition().given(trained(ALL))["encoder_hidden_states"]
    )
    stored = trained.record()
    condition(encoder=str(tmp_path / "same"), stored=stored)
    for encoder in (str(tmp_path / "other"), "tiny"):
        with pytest.raises(UserError, match=r"^encoder: '.*' is not the text encoder that .* with, '.*one': its weights"):
            condition(encoder=encoder, stored=stored)
    with pytest.raises(UserError, match=r"^encoder: '.*one' is not the text encoder .* with, 'tiny'"):
        condition(encoder=str(tmp_path / "one"), stored=condition().record())


def test_what_is_not_read_is_counted_in_one_line(caplog):
    with caplog.at_level(logging.WARNING, "ldm_privacy"):
        condition(memory_mib=0.01)
        assert [record.getMessage() for record in caplog.records] == [
            "1 of 5 images have no caption: the denoiser is told the empty one of them."
        ]
        caplog.clear()
        condition([[" ".join("abcdefghijklmnopq")], ["a"] * 1, ["b"], ["c"], ["d"]])
        assert [record.getMessage() for record in caplog.records] == [
            "1 of 5 captions are longer than 12 tokens: what is beyond is not read."
        ]
        caplog.clear()
        many = condition([[f"{row} {number}" for number in range(5)] for row in range(5)], memory_mib=0.01)
        assert not many.embeddings.fits
        assert (
            "25 captions don't fit into denoiser.condition.memory_mib (0.01 MiB; all take " in caplog.records[-1].getMessage()
        )


def test_encoders_that_the_same_captions_go_through_share_one_budget(caplog):
    texts = [[f"{row} {number}" for number in range(20)] for row in range(5)]
    chunk = condition(texts).embeddings.chunk_bytes / 2**20
    with caplog.at_level(logging.WARNING, "ldm_privacy"):
        own = condition(texts, memory_mib=8 * chunk)  # 100 captions and the empty one lie in 7 chunks
        before = own.given({"caption": torch.arange(40)})
        assert not caplog.records
        other = own.through(own.encoder)
    assert [each.embeddings.max_chunks for each in (own, other)] == [4, 4]
    assert "100 captions don't fit into denoiser.condition.memory_mib" in caplog.records[-1].getMessage()
    for each in (own, other):
        found = each.given({"caption": torch.arange(40)})
        assert all(torch.equal(value, before[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, r"^'captions' needs captions; name their column with data\.source\.caption_column\.$"),
        ([[]] * 5, r"^'captions' needs captions, and all are empty; name their column with data\.source\.caption_column\.$"),
    ],
)
def test_data_without_captions_are_refused(texts, message):
    with pytest.raises(UserError, match=message):
        Captions.build(
            captions=(lambda rows: None) if texts is None else of(texts), member_index=ALL[:3], heldout_index=ALL[3:]
        )


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == "transformers" else object())
    with pytest.raises(UserError, match=r"^'captions' needs transformers: pip install 'ldm-privacy\[captions\]'\.$"):
        condition()


def test_noise_on_the_embeddings_is_of_their_size_and_of_the_training_alone():
    captions, plain = condition(noise=0.5), condition()
    own = {"caption": torch.tensor([2, 0, 3] * 40)}
    state = torch.get_rng_state()
    assert torch.equal(
        plain.given_in_training(own, 120, lambda whole: whole)["encoder_hidden_states"],
        plain.given(own)["encoder_hidden_states"],
    )
    assert torch.equal(torch.get_rng_state(), state), "without noise nothing is drawn"
    clean = captions.given(own)["encoder_hidden_states"]
    assert torch.equal(clean, plain.given(own)["encoder_hidden_states"])
    torch.manual_seed(0)
    noisy = captions.given_in_training(own, 120, lambda whole: whole)["encoder_hidden_states"]
    noise = noisy - clean
    assert not noise[1::3].any(), "nothing told, nothing to disturb"
    for place in (0, 2):
        mine = noise[place::3] / clean[place].square().mean().sqrt()
        count = mine.numel()
        assert abs(float(mine.mean())) < 5 * 0.5 / count**0.5
        assert float(mine.square().mean()) == pytest.approx(0.25, rel=5 * (2 / count) ** 0.5)
    torch.manual_seed(0)
    mine = captions.given_in_training({"caption": own["caption"][50:]}, 120, lambda whole: whole[50:])
    torch.testing.assert_close(mine["encoder_hidden_states"], noisy[50:])
    assert "noise of 0.5 of their size" in captions.note
    assert captions.members_part == "what the tokenizer has of the members' captions"
