"""Text encoders: what transformers itself computes, brought back exactly, and never with a weight that no file gave."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm_privacy.errors import UserError
from ldm_privacy.models.text.pretrained import CONFIG, WEIGHTS, pretrained_text_encoder
from ldm_privacy.models.text.tiny import tiny_text_encoder

CPU = torch.device("cpu")
TEXTS = ["a cat", "", "dog " * 30, "Grüße, 猫 🐈"]
FOLDERS = {"subfolder": "text_encoder", "tokenizer_subfolder": "tokenizer"}


def states_of(encoder):
    return encoder(TEXTS, CPU)["encoder_hidden_states"]


def direct(model, tokenizer, num_tokens):
    """As diffusers' pipelines compute it, without a line of ours."""
    options = {"padding": "max_length", "truncation": True, "max_length": num_tokens, "return_tensors": "pt"}
    with torch.no_grad():
        return model.eval()(tokenizer(TEXTS, **options).input_ids)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Text model and tokenizer as they lie in Stable Diffusion's repositories."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = [*letters, *(f"{each}</w>" for each in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    path = tmp_path_factory.mktemp("sd")
    (path / "tokenizer").mkdir()
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!", "model_max_length": 12}
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **ends}))
    (path / "tokenizer" / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocab)}))
    (path / "tokenizer" / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": len(vocab) - 2, "eos_token_id": len(vocab) - 1, "pad_token_id": 0}
    torch.manual_seed(0)
    config = CLIPTextConfig(vocab_size=len(vocab), max_position_embeddings=16, **sizes, **ids)
    CLIPTextModel(config).save_pretrained(path / "text_encoder")
    return path


@pytest.fixture
def changed(folder, tmp_path):
    """A function (change of the weights, changes of config.json) -> a copy of it."""

    def make(change=lambda weights: weights, **config):
        shutil.copytree(folder, path := tmp_path / "changed")
        within = path / "text_encoder"
        save_file(change(load_file(within / WEIGHTS)), within / WEIGHTS)
        (within / CONFIG).write_text(json.dumps({**json.loads((within / CONFIG).read_text()), **config}))
        return path

    return make


def test_a_folder_gives_what_transformers_gives(folder):
    from transformers import AutoTokenizer, CLIPTextModel

    before = torch.random.get_rng_state()
    encoder = pretrained_text_encoder(str(folder), **FOLDERS)
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws no random number of a run's"
    assert (encoder.num_tokens, encoder.shapes) == (12, {"encoder_hidden_states": (12, 16)}), (
        "as many tokens as model and tokenizer take"
    )
    ids, num_cut = encoder.token_ids(TEXTS)
    assert num_cut == 2
    assert ids[1].tolist() == [514, 515, *[0] * 10], "the empty string, padded as any other"
    model, tokenizer = (
        kind.from_pretrained(folder / name) for kind, name in ((CLIPTextModel, "text_encoder"), (AutoTokenizer, "tokenizer"))
    )
    assert torch.equal(states_of(encoder), direct(model, tokenizer, 12))
    fewer = pretrained_text_encoder(str(folder), **FOLDERS, num_tokens=5)
    assert torch.equal(states_of(fewer), direct(model, tokenizer, 5))


def test_weights_under_their_old_names_and_in_half_precision_are_read(folder, changed):
    def old(weights):
        named = {f"text_model.{name}": weight.half() for name, weight in weights.items()}
        return {**named, "text_model.embeddings.position_ids": torch.arange(16)[None]}

    encoder = pretrained_text_encoder(str(changed(old, dtype="float16")), **FOLDERS)
    states = states_of(encoder)
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, states_of(pretrained_text_encoder(str(folder), **FOLDERS)), rtol=1e-2, atol=1e-2)


def test_a_folder_names_no_code_and_not_how_its_network_answers(folder, changed):
    kernel = dict.fromkeys(("attn_implementation", "_attn_implementation"), "kernels-community/flash-attn")
    encoder = pretrained_text_encoder(str(changed(**kernel, return_dict=False, use_kernels=True)), **FOLDERS)
    assert encoder.network.config._attn_implementation in ("sdpa", "eager")
    assert torch.equal(states_of(encoder), states_of(pretrained_text_encoder(str(folder), **FOLDERS)))


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda weights: {name: w for name, w in weights.items() if "layers.1" not in name}, {}, r"16 weights are missing"),
        (lambda weights: {**weights, "text_projection.weight": torch.zeros(2)}, {}, r"1 weights are unknown, .*projection"),
        (lambda weights: weights, {"hidden_size": 32}, r"don't match"),
        (lambda weights: weights, {"model_type": "t5"}, r"describes a t5, and a clip_text_model is needed"),
    ],
    ids=["missing", "unknown", "other shapes", "another model"],
)
def test_a_text_model_is_taken_whole_or_not_at_all(changed, change, config, message):
    with pytest.raises(UserError, match=rf"^encoder: .*{message}") as caught:
        pretrained_text_encoder(str(changed(change, **config)), **FOLDERS)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^encoder: no text encoder could be loaded from .* \(there is no .*/config\.json\)\. Name tiny"),
        ({"subfolder": "text_encoder"}, r"^tokenizer_subfolder: no tokenizer could be loaded from .*, text_encoder \("),
        ({**FOLDERS, "num_tokens": 13}, r"^max_tokens: 13, but the text encoder '.*' takes 12\.$"),
    ],
)
def test_what_is_not_in_a_folder_is_told_in_one_line(folder, options, message):
    with pytest.raises(UserError, match=message) as caught:
        pretrained_text_encoder(str(folder), **options)
    assert len(str(caught.value).splitlines()) == 1


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(changed):
    path = changed(lambda weights: {name: w[:500] if "token_emb" in name else w for name, w in weights.items()}, vocab_size=500)
    with pytest.raises(
        UserError, match=r"^tokenizer_subfolder: a tokenizer of 516 tokens, and the text model of .* has 500\.$"
    ):
        pretrained_text_encoder(str(path), **FOLDERS)


def test_tiny_is_what_transformers_computes_from_its_record():
    from tokenizers import Tokenizer
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    encoder = tiny_text_encoder(["a cat", "a cat", "two dogs"], num_tokens=9)
    stored = Tokenizer.from_str(encoder.record["tokenizer"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=stored, pad_token="<|endoftext|>")
    ends = {name: stored.token_to_id(f"<|{token}|>") for name, token in (("bos", "startoftext"), ("eos", "endoftext"))}
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": ends["bos"], "eos_token_id": ends["eos"], "pad_token_id": ends["eos"]}
    assert {name: getattr(encoder.network.config, name) for name in ids} == ids, "the tokenizer's, not Stable Diffusion's"
    model = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=9, **sizes, **ids))
    model.load_state_dict(encoder.record["weights"])
    assert torch.equal(states_of(encoder), direct(model, tokenizer, 9))
    assert encoder.token_ids(["a cat"])[0].ne(ends["eos"]).sum() == 3, "a word that members have often is one token"


def test_tiny_depends_on_the_members_captions_and_the_seed_alone():
    captions = [f"{number} {what}s on a {where}" for number in range(9) for what in ("cat", "owl") for where in ("mat", "tree")]
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    encoder = tiny_text_encoder(captions, num_tokens=16)
    assert torch.equal(torch.random.get_rng_state(), before)
    states = states_of(encoder)
    assert torch.equal(states_of(tiny_text_encoder(captions[::-1], num_tokens=16)), states)
    assert not torch.equal(states_of(tiny_text_encoder(captions, num_tokens=16, seed=1)), states)
    assert tiny_text_encoder(["xyz"], num_tokens=16).record["tokenizer"] != encoder.record["tokenizer"]
    assert torch.equal(states_of(tiny_text_encoder(["xyz"], num_tokens=16, seed=9, stored=encoder.record)), states)


def test_a_tiny_encoder_that_a_checkpoint_gives_back_damaged_is_refused():
    record = tiny_text_encoder(["a cat"], num_tokens=5).record
    fewer = {name: weight for name, weight in record["weights"].items() if "layers.1" not in name}
    for damage, message in (
        ({"weights": fewer}, "16 weights are missing"),
        ({"weights": None}, "its text encoder are missing"),
        ({"tokenizer": "{}"}, "the tokenizer of its text encoder is missing or damaged"),
        ({"tokenizer": 3}, "the tokenizer of its text encoder is missing or damaged"),
    ):
        with pytest.raises(UserError, match=message):
            tiny_text_encoder([], num_tokens=5, stored={**record, **damage})


@pytest.mark.parametrize(
    "context", [torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)], ids=["inference", "autocast"]
)
def test_the_states_are_the_same_wherever_they_are_asked_for_and_a_step_can_use_them(context):
    encoder = tiny_text_encoder(["a cat"], num_tokens=5)
    with context:
        states = states_of(encoder)
    assert torch.equal(states, states_of(encoder))
    weight = torch.ones(64, requires_grad=True)
    (states * weight).sum().backward()
    assert torch.equal(weight.grad, states.sum((0, 1)))
