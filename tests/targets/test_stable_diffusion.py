"""Stable Diffusion's folders: scores through the door are those of diffusers' own parts, computed one by one."""

import json
import shutil

import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import attack_statistics
from ldm_privacy.data.captions import Captions
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.targets.door import open_target
from tests.reference import attacks as plainly
from tests.targets.pipelines import NUM_TOKENS, autoencoder, stable_diffusion

TEXTS = ["a cat", "two cats", "", "dog " * 30, "a"]
TIMESTEPS = [3, 250, 900]


def captions_for(target):
    number = torch.arange(len(TEXTS))
    options = {"member_index": number[:3], "heldout_index": number[3:], "encoder": target.encoder}
    return Captions(captions=lambda index: [[TEXTS[at]] if TEXTS[at] else [] for at in index.tolist()], **options)


def changed(folder, part, **settings):
    """The settings of a part, changed."""
    file = next(file for name in ("config.json", "scheduler_config.json") if (file := folder / part / name).is_file())
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_scores_are_those_of_diffusers_own_parts(sd_copy, kind):
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    changed(sd_copy, "scheduler", prediction_type=kind)
    target = open_target(sd_copy)
    unet, vae = (
        maker.from_pretrained(sd_copy / name) for maker, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
    )
    text_model, tokenizer = (
        CLIPTextModel.from_pretrained(sd_copy / "text_encoder"),
        CLIPTokenizer.from_pretrained(sd_copy / "tokenizer"),
    )
    abar = PNDMScheduler.from_pretrained(sd_copy / "scheduler").alphas_cumprod.double()
    torch.manual_seed(1)
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latent = torch.cat([vae.encode(image[None]).latent_dist.mode() for image in images]) * vae.config.scaling_factor
        torch.testing.assert_close(target.codec.encode(images), latent, rtol=1e-5, atol=1e-5)
        options = {"padding": "max_length", "truncation": True, "max_length": NUM_TOKENS, "return_tensors": "pt"}
        told = [text_model(tokenizer([text], **options).input_ids)[0] for text in TEXTS]

        def predict(states, t):
            made = [unet(row[None], t, encoder_hidden_states=text).sample for row, text in zip(states.float(), told)]
            output = torch.cat(made).double()
            return output if kind == "epsilon" else abar[t].sqrt() * output + (1 - abar[t]).sqrt() * states

        noise, keep = torch.randn(len(TIMESTEPS), *latent.shape), torch.ones(latent.shape, dtype=torch.bool)
        expected = {
            "sima": [plainly.sima(predict, abar, latent.double(), t, keep) for t in TIMESTEPS],
            "loss": [plainly.loss(predict, abar, latent.double(), t, keep, n.double()) for t, n in zip(TIMESTEPS, noise)],
        }
    source = captions_for(target)
    told_target = target.told_by(source)
    condition = source(torch.arange(len(TEXTS)))
    for name, scores in expected.items():
        found = attack_statistics(
            get_attack(name), told_target.predictor, latent, TIMESTEPS, keep[None], condition=condition, noise=noise
        )
        torch.testing.assert_close(found[0], torch.stack(scores), rtol=1e-5, atol=1e-5)
    null = target.encoder([""], torch.device("cpu"))["encoder_hidden_states"]
    torch.testing.assert_close(null, told[2], rtol=0, atol=0)


def test_what_it_is_stands_in_the_facts(sd_folder):
    target = open_target(sd_folder)
    facts = target.facts
    assert facts["target"] == f"folder {sd_folder}, StableDiffusionPipeline"
    assert facts["latents"] == "kl, channel map: one scaling factor, 0.1822"
    assert facts["denoiser"] == "UNet2DConditionModel, 52,004 parameters, predicts epsilon"
    assert facts["schedule"] == "1000 timesteps, betas scaled_linear, alphas_cumprod 0.9991 to 0.00466"
    assert facts["precision"] == "float32; autoencoder and text encoders float32"
    hashes = {part: digest for part, digest in target.fingerprint.items() if part != "dtype"}
    assert sorted(hashes) == ["scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    assert all(f"{part} " in facts["parts"] and digest[:12] in facts["parts"] for part, digest in hashes.items())
    assert "assumed" not in facts
    assert (target.image_channels, target.resolution, target.num_classes) == (3, 16, None)
    assert not any(each.training or any(p.requires_grad for p in each.parameters()) for each in target.modules.values())


def test_a_fingerprint_is_of_the_numbers_alone(sd_folder, sd_copy):
    before = open_target(sd_folder).fingerprint
    changed(sd_copy, "unet", _diffusers_version="0.1.0", _name_or_path="/of/somebody/else")
    assert open_target(sd_copy).fingerprint == before
    changed(sd_copy, "scheduler", beta_end=0.013)
    changed(sd_copy, "vae", scaling_factor=0.2)
    after = open_target(sd_copy).fingerprint
    assert {part for part in before if before[part] != after[part]} == {"scheduler", "vae"}


def test_schedules_of_every_scheduler_are_those_it_was_trained_with(sd_copy):
    from diffusers import DDIMScheduler

    DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", thresholding=True).save_pretrained(
        sd_copy / "scheduler"
    )
    index = json.loads((sd_copy / "model_index.json").read_text())
    (sd_copy / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "DDIMScheduler"]}))
    target = open_target(sd_copy)
    assert target.predictor.prediction_type == "v_prediction"
    torch.testing.assert_close(
        target.predictor.alphas_cumprod[:-1], DDIMScheduler(rescale_betas_zero_snr=True).alphas_cumprod[:-1]
    )
    assert target.facts["schedule"].startswith("1000 timesteps, betas linear, rescaled to end in noise alone, alphas_cumprod ")
    assert target.facts["assumed"] == "scheduler: clip_sample and thresholding limits what is sampled with it, and nothing here"


SCALINGS = {
    "scaling": {"scaling_factor": 0.18215},
    "shift": {"scaling_factor": 1.5305, "shift_factor": 0.0609},
    "mean and std": {"scaling_factor": 0.5, "latents_mean": [0.3, -1.0, 2.0, 0.1], "latents_std": [2.0, 0.5, 1.0, 4.0]},
}


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
def test_influence_and_latents_at_the_unscaled_latent(scaling):
    torch.manual_seed(0)
    vae = autoencoder(block_out_channels=(4, 4), norm_num_groups=2, latent_channels=4, **scaling).double().requires_grad_(False)
    codec = KLCodec.scaled(vae)
    factor, shift = scaling["scaling_factor"], scaling.get("shift_factor", 0.0)
    mean, std = (
        torch.tensor(scaling.get(f"latents_{each}", [default] * 4)).double()[:, None, None]
        for each, default in (("mean", 0), ("std", 1))
    )
    image = torch.rand(1, 3, 8, 8).double() * 2 - 1
    posterior = vae.encode(image).latent_dist.mode()
    latent = codec.encode(image)
    torch.testing.assert_close(latent, (posterior - shift - mean) * factor / std, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(codec.decode(latent), vae.decode(posterior).sample, rtol=1e-6, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda z: vae.decode(z).sample, posterior).reshape(192, 4, 4, 4)
    exact = jacobian.square().sum(0) * (std / factor) ** 2  # of the decoder at the unscaled latent, and the chain rule
    found = ExactInfluence()(codec.decode, latent, torch.arange(1)).influence[0]
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-12)


def test_half_precision_is_the_denoisers_alone(sd_folder):
    whole, half = (open_target(sd_folder, dtype=dtype) for dtype in ("float32", "bfloat16"))
    dtypes = {part: {each.dtype for each in network.parameters()} for part, network in half.modules.items()}
    assert dtypes == {"unet": {torch.bfloat16}, "vae": {torch.float32}, "text_encoder": {torch.float32}}
    assert {**half.fingerprint, "dtype": "float32"} == whole.fingerprint != half.fingerprint
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 600])
    told = whole.encoder(["a cat", ""], torch.device("cpu"))
    found = half.predictor(z, t, told)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole.predictor(z, t, told), rtol=0.1, atol=0.05)
    assert half.facts["precision"].startswith("bfloat16;")
    assert half.facts["assumed"] == "unet: stored as float32, taken as bfloat16"


def test_old_names_of_attention_layers_are_read(sd_folder, sd_copy):
    from safetensors.torch import load_file, save_file

    file = sd_copy / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for new, name in old.items():
        weights = {each.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): value for each, value in weights.items()}
    assert any(".query." in name for name in weights)
    save_file(weights, file)
    assert open_target(sd_copy).fingerprint == open_target(sd_folder).fingerprint


def test_shards_are_one_file(sd_folder, sd_copy):
    from diffusers import UNet2DConditionModel

    shutil.rmtree(sd_copy / "unet")
    UNet2DConditionModel.from_pretrained(sd_folder / "unet").save_pretrained(sd_copy / "unet", max_shard_size="60KB")
    assert len(list((sd_copy / "unet").glob("*.safetensors"))) > 2
    assert open_target(sd_copy).fingerprint == open_target(sd_folder).fingerprint


def test_folders_of_a_training_of_ours_are_that_model(tmp_path):
    """Our networks, channel map and schedule as a folder of diffusers, opened again: the same scores to rounding."""
    from diffusers import DDPMScheduler
    from transformers import PreTrainedTokenizerFast

    from ldm_privacy.models.channel_map import per_channel
    from ldm_privacy.models.predictor import NetworkPredictor
    from ldm_privacy.models.text.tiny import tiny_text_encoder
    from ldm_privacy.models.unet_condition import unet_condition

    torch.manual_seed(0)
    sizes = {"latent_channels": 4, "latent_size": 8, "block_out_channels": [8, 8], "norm_num_groups": 4, "num_heads": 2}
    unet = unet_condition(**sizes, cross_attention_dim=64).eval()
    encoder = tiny_text_encoder(TEXTS, num_tokens=NUM_TOKENS)
    codec = KLCodec(autoencoder())
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    codec.channel_map = fit = per_channel(codec.mean(images))
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    codec.network.register_to_config(
        scaling_factor=1.0, latents_mean=fit.shift.tolist(), latents_std=(1 / fit.matrix.diagonal()).tolist()
    )

    folder = stable_diffusion(tmp_path / "exported", unet=unet, vae=codec.network, scheduler=schedule)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "DDPMScheduler"]}))
    encoder.network.save_pretrained(folder / "text_encoder")
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    begin, end = "<|startoftext|>", "<|endoftext|>"
    options = {"bos_token": begin, "eos_token": end, "pad_token": end, "model_max_length": NUM_TOKENS}
    PreTrainedTokenizerFast(tokenizer_object=encoder.tokenizer, **options).save_pretrained(folder / "tokenizer")

    target = open_target(folder)
    latent, index = codec.encode(images), torch.arange(5)
    torch.testing.assert_close(target.codec.encode(images), latent, rtol=1e-5, atol=1e-5)
    texts = {name: each(TEXTS, torch.device("cpu")) for name, each in (("ours", encoder), ("opened", target.encoder))}
    torch.testing.assert_close(texts["ours"], texts["opened"], rtol=0, atol=0)
    ours = NetworkPredictor(unet, schedule.alphas_cumprod, "v_prediction")
    keep = torch.ones(1, *latent.shape, dtype=torch.bool)
    for name in ("sima", "loss"):
        found = [
            attack_statistics(get_attack(name), predictor, z, TIMESTEPS, keep, condition=condition, sample_index=index)
            for predictor, z, condition in (
                (ours, latent, texts["ours"]),
                (target.predictor, target.codec.encode(images), texts["opened"]),
            )
        ]
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
