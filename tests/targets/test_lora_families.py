"""LoRA of other families: two text encoders, other trainers' names for the same modules, transformers."""

import re

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

from ldm_privacy.errors import UserError
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.lora import Base
from tests.targets.loras import ALPHA, ATTENTION, attached, epsilons, kohya, live, prefixed, settings_of, state_of, written
from tests.targets.more_pipelines import flux, sd3, sdxl
from tests.targets.pipelines import conditional_unet


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """A Stable Diffusion XL whose UNet has the blocks of the real one."""
    folder = sdxl(tmp_path_factory.mktemp("xl") / "sdxl")
    torch.manual_seed(0)
    conditional_unet(
        cross_attention_dim=24,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=36,
    ).save_pretrained(folder / "unet")
    return Base.open(Opening(base=folder))


@pytest.fixture(scope="module")
def xl_unet(xl):
    """Its UNet with a live adapter."""
    return attached(UNet2DConditionModel.from_pretrained(xl.place / "unet"), [*ATTENTION, "proj_in", "ff.net.2", "conv1"])


def sgm(name: str) -> str:
    """The name of a module in the authors' own code, by the blocks of a UNet with two layers in each."""
    within = {"resnets": "0", "attentions": "1"}
    name = re.sub(
        r"^down_blocks\.(\d)\.(resnets|attentions)\.(\d)",
        lambda found: f"input_blocks.{3 * int(found[1]) + int(found[3]) + 1}.{within[found[2]]}",
        name,
    )
    name = re.sub(
        r"^up_blocks\.(\d)\.(resnets|attentions)\.(\d)",
        lambda found: f"output_blocks.{3 * int(found[1]) + int(found[3])}.{within[found[2]]}",
        name,
    )
    name = re.sub(r"^mid_block\.attentions\.0", "middle_block.1", name)
    name = re.sub(r"^mid_block\.resnets\.(\d)", lambda found: f"middle_block.{2 * int(found[1])}", name)
    return re.sub(r"\.conv1\.", ".in_layers.2.", name)


def test_kohyas_names_for_sdxl(xl, xl_unet, tmp_path):
    state = state_of(xl_unet)
    new = xl.adapted(written(tmp_path / "new.safetensors", prefixed(state, "unet."), {"unet.lora_alpha": ALPHA}))
    names = {sgm(name): value for name, value in state.items()}
    assert sum(name.startswith(("input_blocks", "middle_block", "output_blocks")) for name in names) == len(state)
    old = xl.adapted(written(tmp_path / "sgm.safetensors", kohya(names, "lora_unet")))
    on = epsilons(new)
    assert torch.equal(on, epsilons(live(xl.target, xl_unet)))
    assert torch.equal(on, epsilons(old))
    assert old.facts["adapter"] == "kohya form, rank 4, alpha 2 (its own), strength 1"
    assert (on - epsilons(xl.target)).abs().max() > 0.05


def test_a_mixture_of_names_is_not_read_in_part(xl, xl_unet, tmp_path):
    state = kohya(state_of(xl_unet), "lora_unet")
    name = next(iter(kohya({sgm(each): value for each, value in state_of(xl_unet).items()}, "lora_unet"))).partition(".")[0]
    state |= {f"{name}.lora_down.weight": torch.ones(4, 8), f"{name}.lora_up.weight": torch.ones(8, 4)}
    with pytest.raises(UserError, match=f"1 of its .* modules are none of .*, the first '{name}'"):
        xl.adapted(written(tmp_path / "mixed.safetensors", state))


def test_both_text_encoders_of_sdxl(xl, xl_unet, tmp_path):
    factors = {
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (16, 16),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1": (8, 32),
    }
    draw = torch.Generator().manual_seed(0)
    state = {}
    for name, (inner, outer) in factors.items():
        state[f"{name}.lora_down.weight"] = torch.randn(2, inner, generator=draw)
        state[f"{name}.lora_up.weight"] = torch.randn(outer, 2, generator=draw)
    target = xl.adapted(written(tmp_path / "text.safetensors", state))
    assert target.facts["adapter modules"] == "1 in text_encoder, 1 in text_encoder_2"
    on, off = (each(["a cat"], torch.device("cpu")) for each in (target.encoder, target.reference_encoder))
    changed = (on["encoder_hidden_states"] - off["encoder_hidden_states"]).abs().amax((0, 1))
    assert changed[:16].max() > 1e-3
    assert changed[16:].max() > 1e-3
    assert not torch.equal(on["text_embeds"], off["text_embeds"])
    assert torch.equal(epsilons(target, reference=True), epsilons(xl.target))
    assert not torch.equal(epsilons(target), epsilons(xl.target))


def test_sd3_under_the_names_of_diffusers_and_kohya(tmp_path):
    base = Base.open(Opening(base=sd3(tmp_path / "sd3", has_t5=False)))
    network = attached(SD3Transformer2DModel.from_pretrained(base.place / "transformer"), [*ATTENTION, "add_k_proj"])
    told = {f"transformer.{name}": value for name, value in settings_of(network).items()}
    files = {
        "diffusers": written(tmp_path / "a.safetensors", prefixed(state_of(network), "transformer."), told),
        "kohya": written(tmp_path / "b.safetensors", kohya(state_of(network), "lora_unet")),
    }
    on = epsilons(live(base.target, network))
    assert not torch.equal(on, epsilons(base.target))
    for form, file in files.items():
        target = base.adapted(file)
        assert torch.equal(epsilons(target), on), form
        assert torch.equal(epsilons(target, reference=True), epsilons(base.target))


def test_flux_under_its_authors_names(tmp_path):
    base = Base.open(Opening(base=flux(tmp_path / "flux")))
    network = attached(FluxTransformer2DModel.from_pretrained(base.place / "transformer"), ["to_q", "to_k", "to_v"])
    state = state_of(network)
    block = "transformer_blocks.0.attn"
    down = state[f"{block}.to_q.lora_A.weight"]
    shared = {name: value for name, value in state.items() if name.startswith(block)}
    for name in ("to_k", "to_v"):
        shared[f"{block}.{name}.lora_A.weight"] = down
    up = torch.cat([shared[f"{block}.{name}.lora_B.weight"] for name in ("to_q", "to_k", "to_v")])
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    authors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(ALPHA)}
    new = base.adapted(
        written(tmp_path / "new.safetensors", prefixed(shared, "transformer."), {"transformer.lora_alpha": ALPHA})
    )
    old = base.adapted(written(tmp_path / "old.safetensors", authors))
    torch.testing.assert_close(epsilons(old), epsilons(new), rtol=1e-5, atol=1e-6)  # alpha is multiplied into the factors
    assert not torch.equal(epsilons(new), epsilons(base.target))
    assert old.facts["adapter modules"] == "3 in transformer"
