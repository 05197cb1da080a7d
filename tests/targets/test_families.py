"""Families: what a target answers is what the pipeline's own call of its own network answers, however it is told."""

import importlib.util
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import attack_statistics
from ldm_privacy.data.captions import Captions
from ldm_privacy.data.conditions import ClassLabels, views_of
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.models.predictor import bytes_per_number
from ldm_privacy.randomness import normal
from ldm_privacy.registry import ATTACKS
from ldm_privacy.targets.adapters.switch import Adapted, Adapter
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.script import Called
from tests.reference.geometry import dense_jacobian
from tests.targets import more_pipelines

TEXTS = ["a cat", "", "cat cat, " * 12]
BATCH = len(TEXTS)
FAMILIES = {
    "sdxl": {},
    "sdxl_null": {"family": "sdxl", "force_zeros": False},
    "sd3": {},
    "sd3_clip": {"family": "sd3", "has_t5": False},
    "flux": {},
    "flux_schnell": {"family": "flux", "guidance_embeds": False},
    "dit": {},
    "ldm": {},
    "ldm_kl": {"family": "ldm", "is_vq": False},
    "ddpm": {},
    "ddpm_v": {"family": "ddpm", "prediction_type": "v_prediction"},
    "ddpm_variance": {"family": "ddpm", "out_channels": 6},
}
FLOWS = {"sd3": 1000.0, "flux": 1.0}
"""Family -> number that the network is given as its timestep at sigma 1."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Name -> folder of its pipeline, written when it is first asked for; not to be changed."""
    place, written = tmp_path_factory.mktemp("families"), {}

    def folder(name):
        if name not in written:
            how = dict(FAMILIES[name])
            written[name] = getattr(more_pipelines, how.pop("family", name))(place / name, **how)
        return written[name]

    return folder


@pytest.fixture(scope="session")
def pipelines(folders):
    """Name -> pipeline as diffusers loads it."""
    import diffusers

    loaded = {}

    def pipeline(name):
        if name not in loaded:
            kind = json.loads((folders(name) / "model_index.json").read_text())["_class_name"]
            absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3_clip" else {}
            loaded[name] = getattr(diffusers, kind).from_pretrained(folders(name), use_safetensors=True, **absent)
            loaded[name].set_progress_bar_config(disable=True)
        return loaded[name]

    return pipeline


@pytest.fixture
def copy_of(folders, tmp_path):
    """Name -> a copy of its folder that may be damaged."""
    return lambda name: shutil.copytree(folders(name), tmp_path / name, copy_function=shutil.copyfile)


def family_of(name):
    return FAMILIES[name].get("family", name)


def first_call(pipeline, network, **how):
    """Positional and keyword arguments with which a pipeline first calls its network."""
    calls = []
    hook = network.register_forward_pre_hook(lambda _, *call: calls.append(call), with_kwargs=True)
    try:
        pipeline(num_inference_steps=2, **how)
    finally:
        hook.remove()
    return calls[0]


class Own:
    """A pipeline's own call of its own network, with another state and time in it."""

    def __init__(self, name, pipeline):
        family = self.family = family_of(name)
        self.pipeline, self.network = pipeline, getattr(pipeline, "transformer", None) or pipeline.unet
        how = {"batch_size": BATCH}
        if hasattr(pipeline, "encode_prompt"):
            how = {"prompt": TEXTS, "height": 16, "width": 16, "output_type": "latent", "guidance_scale": 1.0}
        elif family == "dit":
            how = {"class_labels": [5, 0, 3], "guidance_scale": 1.0}
        self.call = first_call(pipeline, self.network, **how)
        if name == "sdxl":  # a prompt '' would be encoded: no prompt is zeros
            told = self.call[1]
            for each in (told["encoder_hidden_states"], told["added_cond_kwargs"]["text_embeds"]):
                each[TEXTS.index("")] = 0

    @torch.no_grad()
    def __call__(self, state, time):
        """The output at (state, (batch,) time); of packed latents as an image again."""
        given, named = list(self.call[0]), dict(self.call[1])
        if self.family == "flux":
            state = self.pipeline._pack_latents(state, *state.shape)
        if given:
            given[0] = state
        else:
            named["hidden_states"] = state
        if len(given) > 1:
            given[1] = time
        else:
            named["timestep"] = time
        found = self.network(*given, **named)
        found = found[0] if isinstance(found, tuple) else found.sample
        return self.pipeline._unpack_latents(found, 16, 16, 2) if self.family == "flux" else found

    def epsilon(self, latent, noise, timestep):
        """What the state of that latent and noise is, variance preserving, and the noise that the network sees in it."""
        column = timestep[:, None, None, None]
        if self.family in FLOWS:
            sigma = (column + 1.0) / 1001
            state = (1 - sigma) * latent + sigma * noise
            velocity = self(state, FLOWS[self.family] * sigma.flatten())
            return state / ((1 - sigma) ** 2 + sigma**2).sqrt(), state + (1 - sigma) * velocity
        abar = self.pipeline.scheduler.alphas_cumprod[column]
        state = abar.sqrt() * latent + (1 - abar).sqrt() * noise
        output = self(state, timestep)[:, : state.shape[1]]
        if self.pipeline.scheduler.config.get("prediction_type") == "v_prediction":
            output = abar.sqrt() * output + (1 - abar).sqrt() * state
        return state, output


@pytest.fixture(scope="session")
def opened(folders):
    """Name -> target."""
    found = {}
    return lambda name: found.setdefault(name, None) or found.__setitem__(name, open_target(folders(name))) or found[name]


def told(target):
    """The target told each of `TEXTS`, or a class, by sample number; and the conditions of the samples."""
    index = torch.arange(BATCH)
    if target.encoder is not None:
        texts = Captions(
            captions=lambda indices: [[TEXTS[number]] for number in indices.tolist()],
            member_index=index[:2],
            heldout_index=index[2:],
            encoder=target.encoder,
        )
    elif target.num_classes is not None:
        texts = ClassLabels(labels=lambda indices: torch.tensor([5, 0, 3])[indices], num_classes=target.num_classes)
    else:
        return target, {}, {"null": {}}
    views = views_of(["null", "shuffled"], index, own := texts(index), texts.null())
    return target.told_by(texts), own, views


@pytest.mark.parametrize("name", FAMILIES)
def test_epsilon_is_that_of_the_pipelines_own_call_of_its_network(name, pipelines, opened):
    own, (target, condition, _) = Own(name, pipelines(name)), told(opened(name))
    shape = target.codec.latent_shape(target.image_channels, target.resolution if family_of(name) != "flux" else 16)
    latent, noise = (normal(which, (torch.arange(BATCH),), tuple(shape)) for which in ("latent", "noise"))
    timestep = torch.tensor([20, 420, 930])
    state, expected = own.epsilon(latent, noise, timestep)
    found = target.predictor(state, timestep, condition)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    others = target.predictor(state, timestep.flip(0), condition)
    assert (others - expected).abs().max() > 1e-3, "the time is told"


@pytest.mark.parametrize("name", FLOWS)
def test_the_pipeline_of_a_flow_itself_has_that_number_and_that_sign(name, pipelines):
    scheduler, call = pipelines(name).scheduler, Own(name, pipelines(name)).call[1]
    scheduler.set_timesteps(4, **({"mu": 0.7} if name == "flux" else {}))
    first, second = scheduler.sigmas[:2].tolist()
    assert call["timestep"].tolist() == [FLOWS[name] * first] * BATCH
    latent, noise = (normal(which, (torch.arange(1),), (16, 8, 8)) for which in ("latent", "noise"))
    found = scheduler.step(noise - latent, scheduler.timesteps[0], (1 - first) * latent + first * noise).prev_sample
    torch.testing.assert_close(found, (1 - second) * latent + second * noise)


@pytest.mark.parametrize("name", ["sdxl", "sdxl_null", "sd3", "sd3_clip"])
def test_the_null_caption_is_what_the_pipeline_takes_for_none(name, pipelines, opened):
    target, pipeline = opened(name), pipelines(name)
    with torch.no_grad():
        more = {} if name.startswith("sdxl") else {"prompt_2": None, "prompt_3": None}
        _, null, _, pooled = pipeline.encode_prompt(prompt=["a cat"], device=torch.device("cpu"), **more)
    states, vector = target.encoder([""], torch.device("cpu")).values()
    torch.testing.assert_close(states, null, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(vector, pooled, rtol=1e-5, atol=1e-6)
    assert bool(states.any()) == (name != "sdxl")
    null = "zeros (force_zeros_for_empty_prompt)" if name == "sdxl" else "the encoded empty string"
    assert target.facts["condition"] == f"captions; the null one is {null}"


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "dit"])
def test_own_null_and_another_condition_give_three_answers(name, opened):
    target, own, views = told(opened(name))
    latent = normal("latent", (torch.arange(BATCH),), tuple(target.codec.latent_shape(3, 16)))
    timestep = torch.full((BATCH,), 400)
    answers = [target.predictor(latent, timestep, condition) for condition in (own, views["null"], views["shuffled"])]
    told_something = torch.tensor([True, name == "dit", True])  # the second text is the null caption itself
    for first, second in ((0, 1), (0, 2), (1, 2)):
        differ = (answers[first] - answers[second]).abs().flatten(1).amax(1) > 1e-5
        assert differ[told_something].all() or (first, second) == (1, 2), (first, second)
    assert target.modules[{"sdxl": "unet"}.get(name, "transformer")] in [*target.predictor.network.modules()]


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_captions_that_no_text_model_reads_to_the_end_are_counted(name, opened):
    encoder = opened(name).encoder
    ids, num_cut = encoder.token_ids(["cat", "cat " * 40])
    assert (len(ids), num_cut) == (2, int(name == "sdxl")), "T5 reads further than CLIP"
    for argument, shape in encoder.shapes.items():
        assert encoder(["cat", ""], torch.device("cpu"))[argument].shape == (2, *shape)


@pytest.mark.parametrize("name", ["sd3", "dit"])
def test_every_attack_runs(name, folders):
    target, own, views = told(open_target(folders(name), **({"num_tokens": 4} if name == "sd3" else {})))
    latent = normal("latent", (torch.arange(2),), tuple(target.codec.latent_shape(3, 16)))
    own = {key: value[:2] for key, value in own.items()}
    null = {key: value[:2] for key, value in views["null"].items()}
    for attack in ATTACKS:
        made = get_attack(attack)
        asked = dict.fromkeys(made.views, null)
        keep = torch.ones(1, *latent.shape, dtype=torch.bool)
        found = attack_statistics(made, target.predictor, latent, [300], keep, condition=own, views=asked)
        assert found.isfinite().all(), attack


@pytest.mark.parametrize("name", ["sd3", "ldm"])
def test_influence_is_that_of_the_pipelines_own_decoder_at_the_unscaled_latent(name, pipelines, opened):
    codec, pipeline = opened(name).codec, pipelines(name)
    image = normal("image", (torch.arange(1),), (3, 8, 8)).clamp(-1, 1)
    config = (pipeline.vae if name == "sd3" else pipeline.vqvae).config
    with torch.no_grad():
        if name == "sd3":
            latent = (pipeline.vae.encode(image).latent_dist.mean - config.shift_factor) * config.scaling_factor
        else:
            latent = pipeline.vqvae.encode(image).latents * config.scaling_factor
    torch.testing.assert_close(codec.encode(image), latent, rtol=1e-5, atol=1e-5)

    def decode(latent):
        if name == "sd3":
            return pipeline.vae.decode(latent / config.scaling_factor + config.shift_factor).sample
        network, mean = pipeline.vqvae, latent / config.scaling_factor
        return network.decoder(network.post_quant_conv(mean))

    expected = dense_jacobian(decode, latent).square().sum(1)
    found = ExactInfluence()(codec.decode, latent, torch.arange(1)).influence
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-7)


def test_a_codebook_has_no_part_in_influence(opened):
    codec = opened("ldm").codec
    image = normal("image", (torch.arange(2),), (3, 16, 16))
    latent = codec.encode(image)
    assert latent.shape[1:] == codec.latent_shape(3, 16)
    rounded = codec.network.decode(codec.channel_map.inverse(latent)).sample
    assert not torch.allclose(codec.decode(latent), rounded), "which the pipeline's pictures have"


@pytest.mark.parametrize("name", ["ldm", "ldm_kl"])
def test_as_many_images_share_a_pass_as_fit_the_budget(name, opened, limit_memory):
    codec = opened(name).codec
    image = normal("image", (torch.arange(5),), (3, 16, 16))
    latent = codec.encode(image)
    whole, sizes = codec.decode(latent), []
    limit_memory(2 * codec.bytes_per_number * image[0].numel())
    hooks = [
        part.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        for part in (codec.network.encoder, codec.network.decoder)
    ]
    torch.testing.assert_close(codec.encode(image), latent)
    torch.testing.assert_close(codec.decode(latent), whole)
    for hook in hooks:
        hook.remove()
    assert max(sizes) == 2
    assert sum(sizes) == 10


def test_guidance_is_an_input_that_is_said(folders, opened):
    latent = normal("latent", (torch.arange(BATCH),), (16, 8, 8))
    timestep = torch.full((BATCH,), 400)
    more, own, _ = told(open_target(folders("flux"), guidance=3.5))
    less = told(opened("flux"))[0]
    assert (more.predictor(latent, timestep, own) - less.predictor(latent, timestep, own)).abs().max() > 1e-4
    assert more.fingerprint != less.fingerprint, "or one's scores were taken for the other's"
    assert open_target(folders("flux"), guidance=1.0).fingerprint == less.fingerprint
    for name in ("flux", "sd3"):
        assert open_target(folders(name), num_tokens=7).fingerprint != opened(name).fingerprint
    assert (less.facts["fixed inputs"], more.facts["fixed inputs"]) == ("guidance 1", "guidance 3.5")
    assert opened("flux_schnell").facts["fixed inputs"] == "no guidance"
    with pytest.raises(UserError, match=r"^guidance: the transformer of .* is told none \(guidance_embeds: false\)\.$"):
        open_target(folders("flux_schnell"), guidance=3.5)


def test_the_size_of_the_picture_is_told(pipelines, opened):
    target, own, _ = told(opened("sdxl"))
    network, latent = pipelines("sdxl").unet, torch.zeros(1, 4, 8, 12)
    given = {name: value[:1] for name, value in target.predictor.given(own).items()}
    sizes = torch.tensor([[16.0, 24.0, 0.0, 0.0, 16.0, 24.0]])
    added = {"text_embeds": given["text_embeds"], "time_ids": sizes}
    with torch.no_grad():
        expected = network(latent, torch.tensor([7]), given["encoder_hidden_states"], added_cond_kwargs=added).sample
    found = target.predictor(latent, torch.tensor([7]), {"caption": own["caption"][:1]})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_facts_say_the_convention(opened):
    assert opened("sd3").facts["output"] == "v = n - z0, at timestep 1000 sigma"
    assert opened("flux").facts["output"] == "v = n - z0, at timestep sigma"
    assert opened("sd3_clip").facts["T5"] == "null: zeros in place of 256 tokens"
    assert opened("dit").facts["condition"] == "6 classes; the null one is class 6"
    assert opened("ddpm_variance").facts["output"] == "epsilon and a variance, which is left out"
    assert opened("sd3").facts["latents"] == "kl, channel map: one shift, 0.0609, and one scaling factor, 1.531"


INDEX, UNET, TRANSFORMER = "model_index.json", "unet/config.json", "transformer/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
NULL = [None, None]
DDIM = ["diffusers", "DDIMScheduler"]
MIXED = [
    ("sdxl", {INDEX: {"_class_name": "FluxPipeline"}}, "transformer is not there; FluxTransformer2DModel is needed"),
    ("sdxl", {INDEX: {"_class_name": "StableDiffusionPipeline"}}, "unet: has addition_embed_type text_time, which a Stable"),
    ("sdxl", {INDEX: {"text_encoder_2": NULL}}, "text_encoder_2 is not there; CLIPTextModelWithProjection is needed"),
    ("sdxl", {INDEX: {"requires_aesthetics_score": True}}, "a refiner, which is told an aesthetic score, can't be audited"),
    ("sdxl", {UNET: {"addition_embed_type": None}}, "has addition_embed_type None, so it is told no sizes and no pooled text"),
    (
        "sdxl",
        {UNET: {"cross_attention_dim": 30}},
        "cross_attention_dim is 30, but 24 comes from text_encoder and text_encoder_2",
    ),
    ("sdxl", {UNET: {"time_cond_proj_dim": 4}}, "time_cond_proj_dim 4, which a StableDiffusionXLPipeline has no input for"),
    ("sdxl", {"text_encoder/config.json": {"hidden_size": "16"}}, "text_encoder: hidden_size is '16', which is to be a whole"),
    ("sdxl", {UNET: {"in_channels": 9}}, "in_channels is 9, but 4 comes from vae; they don't belong together"),
    ("sdxl", {"text_encoder/config.json": {"num_hidden_layers": 3}}, r"text_encoder: CLIPTextModel can't .* are missing"),
    ("sdxl", {"text_encoder_2/config.json": {"model_type": "t5"}}, "describes a t5, and a clip_text_model is needed"),
    ("sdxl", {"text_encoder_2/config.json": {"vocab_size": 100}}, r"text_encoder_2: .* don't match"),
    ("sdxl", {"tokenizer_2/tokenizer_config.json": {"model_max_length": 9}}, "its text models read 12 and 9 tokens"),
    ("sdxl", {"tokenizer_2/tokenizer_config.json": {"model_max_length": 1}}, r"^no tokenizer .* no number of tokens\)\.$"),
    ("sd3", {INDEX: {"scheduler": DDIM}, SCHEDULER: {"_class_name": DDIM[1]}}, "its scheduler, a DDIMScheduler, isn't"),
    ("sd3", {INDEX: {"text_encoder": NULL}}, "text_encoder is not there; CLIPTextModelWithProjection is needed"),
    ("sd3", {TRANSFORMER: {"pooled_projection_dim": 9}}, "is 9, but 22 comes from text_encoder and text_encoder_2"),
    ("sd3", {TRANSFORMER: {"joint_attention_dim": 40}}, "is 40, but 32 comes from text_encoder_3"),
    ("flux", {INDEX: {"text_encoder_2": NULL}}, "text_encoder_2 is not there; T5EncoderModel is needed"),
    ("flux", {TRANSFORMER: {"in_channels": 128}}, "in_channels is 128, but 64 comes from vae, packed by 2 x 2"),
    (
        "dit",
        {INDEX: {"transformer": ["diffusers", "UNet2DModel"]}},
        "a UNet2DModel; DiTTransformer2DModel or Transformer",
    ),
    ("dit", {TRANSFORMER: {"norm_type": "ada_norm_single"}}, "has norm_type ada_norm_single, which isn't told classes"),
    ("dit", {TRANSFORMER: {"num_embeds_ada_norm": 9}}, r"transformer: DiTTransformer2DModel can't be used: .* don't match"),
    ("ldm", {"vqvae/config.json": {"num_vq_embeddings": 9}}, r"vqvae: VQModel can't be used: .* don't match"),
    ("ldm", {"vqvae/config.json": {"vq_embed_dim": [3]}}, r"vqvae: vq_embed_dim is \[3\], which is to be a whole number"),
    ("ldm", {"vqvae/config.json": {"lookup": "x"}}, "has lookup, which isn't understood"),
    ("ddpm", {UNET: {"num_class_embeds": 3}}, "unet: wants to be told classes, and a DDPMPipeline tells none"),
    ("ddpm", {UNET: {"time_embedding_type": "fourier"}}, "unet: has time_embedding_type fourier: it is told no timestep"),
    ("ddpm", {INDEX: {"_class_name": "AuraFlowPipeline"}}, "AuraFlowPipeline can't be opened. These can: DDIMPipeline, .*"),
]


@pytest.mark.parametrize(("name", "changes", "said"), MIXED, ids=[f"{name}: {said}" for name, _, said in MIXED])
def test_a_folder_that_is_not_what_it_says_is_refused_in_one_line(name, changes, said, copy_of):
    folder = copy_of(name)
    for file, values in changes.items():
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(UserError, match=said) as refused:
        open_target(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("count", [1, 513])
def test_a_number_of_tokens_that_no_pipeline_takes_is_refused(count, folders):
    with pytest.raises(UserError, match=rf"^num_tokens: {count}; T5 is told from 2 to 512 tokens of a caption\.$"):
        open_target(folders("sd3"), num_tokens=count)


def test_what_a_family_does_not_take_is_refused(folders):
    with pytest.raises(UserError, match=r"^guidance: .* is a StableDiffusion3Pipeline, which takes none\.$"):
        open_target(folders("sd3"), guidance=2.0)


def test_a_pipeline_whose_parts_lie_beside_its_index_is_the_same(copy_of, opened):
    folder = copy_of("ddpm")  # as those of DDPM's authors do
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    latent, timestep = normal("latent", (torch.arange(1),), (3, 8, 8)), torch.tensor([100])
    found = open_target(folder).predictor(latent, timestep, {})
    assert torch.equal(found, opened("ddpm").predictor(latent, timestep, {}))


def test_a_dit_under_the_name_that_its_authors_folders_have_is_the_same(copy_of, opened):
    folder, name = copy_of("dit"), "Transformer2DModel"
    for file, values in ((INDEX, {"transformer": ["diffusers", name]}), (TRANSFORMER, {"_class_name": name})):
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **values}))
    target, own, _ = told(open_target(folder))
    latent, timestep = normal("latent", (torch.arange(BATCH),), (4, 8, 8)), torch.full((BATCH,), 100)
    expected = told(opened("dit"))[0].predictor(latent, timestep, own)
    assert torch.equal(target.predictor(latent, timestep, own), expected)
    from diffusers import DiTPipeline

    loaded = DiTPipeline.from_pretrained(folder, use_safetensors=True)
    assert type(loaded.transformer) is type(target.modules["transformer"])


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_t5_whose_embedding_lies_under_its_other_name_is_the_same(name, copy_of, opened):
    folder = copy_of(name)
    part = folder / ("text_encoder_3" if name == "sd3" else "text_encoder_2")
    weights = load_file(part / "model.safetensors")
    assert "encoder.embed_tokens.weight" not in weights
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    save_file(weights, part / "model.safetensors")
    twin = open_target(folder).encoder(TEXTS, torch.device("cpu"))
    for argument, value in opened(name).encoder(TEXTS, torch.device("cpu")).items():
        assert torch.equal(twin[argument], value)
    del weights["encoder.embed_tokens.weight"]
    save_file(weights, part / "model.safetensors")
    with pytest.raises(UserError, match=r"T5EncoderModel .* \(2 weights are missing, the first 'shared\.weight'\)$"):
        open_target(folder)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "dit"])
def test_in_half_precision_the_denoiser_alone_is_rounded(name, folders, opened):
    whole, own, _ = told(opened(name))
    half, own_too, _ = told(open_target(folders(name), dtype="bfloat16"))
    for part, network in half.modules.items():
        dtype = torch.bfloat16 if part in ("unet", "transformer") else torch.float32
        assert {each.dtype for each in network.parameters()} == {dtype}, part
    latent = normal("latent", (torch.arange(BATCH),), tuple(whole.codec.latent_shape(3, 16)))
    timestep = torch.full((BATCH,), 400)
    expected, found = (each.predictor(latent, timestep, of) for each, of in ((whole, own), (half, own_too)))
    assert found.dtype == torch.float32
    error = (found - expected).square().mean().sqrt()
    assert 0 < error < 0.03 * expected.std()


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_an_adapter_of_the_network_changes_what_is_predicted_and_off_is_the_base(name, folders):
    from peft import LoraConfig

    target, own, _ = told(open_target(folders(name)))
    latent = normal("latent", (torch.arange(BATCH),), tuple(target.codec.latent_shape(3, 16)))
    timestep = torch.full((BATCH,), 400)
    base = target.predictor(latent, timestep, own)
    network = target.modules["unet" if name == "sdxl" else "transformer"]
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    assert (target.predictor(latent, timestep, own) - base).abs().max() > 1e-4
    network.disable_adapters()
    assert torch.equal(target.predictor(latent, timestep, own), base)


def test_what_is_not_installed_is_named(folders, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("ldm_privacy.targets.place.find_spec", lambda name: None if name == "transformers" else find(name))
    for name in ("sdxl", "sd3", "flux"):
        with pytest.raises(UserError, match=r": needs transformers: pip install 'ldm-privacy\[diffusers\]'\.$"):
            open_target(folders(name))
    for name in ("dit", "ldm", "ddpm"):
        open_target(folders(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pass_is_taken_to_hold_what_the_network_inside_all_wrappers_does(folders, name):
    predictor = open_target(folders(name)).predictor
    inner = next(each for each in predictor.network.modules() if hasattr(each, "config"))
    held = bytes_per_number(SimpleNamespace(config=inner.config))
    assert held != bytes_per_number(None)
    for network in (predictor.network, Called(inner), Adapted(predictor.network, Adapter({}), {})):
        assert replace(predictor, network=network).bytes_per_number == held
