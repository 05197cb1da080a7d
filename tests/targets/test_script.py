"""What a script holds: its VAE in float32, its network without its adapter, sharded weights told in one line."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL
from peft import LoraConfig, get_peft_model
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.script import FunctionEncoder, flat, nested
from ldm_privacy.targets.adapters.live import without_adapters
from ldm_privacy.targets.script import Called, base_of, check_whole, codec_of, in_words
from ldm_privacy.targets.target import unwrapped

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return self.last(self.first(x).relu())


def lora(**how):
    return LoraConfig(r=2, lora_alpha=1, target_modules=["first"], init_lora_weights=False, **how)


def flags(network):
    layers = [each for each in network.modules() if isinstance(getattr(each, "disable_adapters", None), bool)]
    return [each.disable_adapters for each in layers], [each.requires_grad for each in network.parameters()]


@pytest.mark.parametrize("how", [{}, {"use_dora": True}, {"modules_to_save": ["last"]}], ids=str)
def test_without_its_adapter_a_network_is_its_base_bit_for_bit(how):
    base = Network()(X)
    tuned = get_peft_model(Network(), lora(**how))
    with torch.no_grad():
        for name, each in tuned.named_parameters():
            if "modules_to_save" in name:
                each.add_(1)
    on, before = tuned(X), flags(tuned)
    assert not torch.equal(on, base)
    with without_adapters(tuned):
        assert torch.equal(tuned(X), base)
    with pytest.raises(KeyError), without_adapters(tuned):
        raise KeyError
    assert torch.equal(tuned(X), on)
    assert flags(tuned) == before


def test_an_adapter_that_was_off_or_frozen_stays_so():
    tuned = get_peft_model(Network(), lora())
    tuned.first.enable_adapters(False)
    tuned.requires_grad_(False)
    before = flags(tuned)
    assert before[0] == [True]
    with without_adapters(tuned):
        pass
    assert flags(tuned) == before


def test_nothing_to_take_off_and_merged_adapters_cost_one_line():
    with (
        pytest.raises(UserError, match=r"^reference: Network has no adapter of peft to take off; [^\n]*$"),
        without_adapters(Network()),
    ):
        pass
    tuned = get_peft_model(Network(), lora())
    tuned.merge_adapter()
    with pytest.raises(UserError, match=r"^reference: the adapter is merged \(fused\) [^\n]*$"), without_adapters(tuned):
        pass


def test_a_reference_is_an_adapter_off_a_network_or_a_context():
    network = get_peft_model(Network(), lora())
    base = base_of("adapter", network)
    assert torch.equal(Called(base.network, base.context).network(X), network(X))
    assert base_of(None, network) is None
    assert base_of(torch.compile(Network(), backend="eager"), network).network is not network
    assert base_of(contextlib.nullcontext, network).context is contextlib.nullcontext
    with pytest.raises(UserError, match=r"^reference: 'adaptor' is neither"):
        base_of("adaptor", network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_vae_of_any_precision_encodes_in_float32_and_stays_as_it_was(dtype):
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
    vae = AutoencoderKL(**blocks, block_out_channels=[4], norm_num_groups=2, scaling_factor=0.5, shift_factor=0.25).to(dtype)
    vae.train()
    processors = {name: id(each) for name, each in vae.attn_processors.items()}
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    codec = codec_of(torch.compile(vae, backend="eager"))
    latent = codec.encode(image)
    assert latent.dtype == torch.float32
    assert vae.dtype == dtype
    assert vae.training
    assert all(each.requires_grad for each in vae.parameters())
    assert {name: id(each) for name, each in vae.attn_processors.items()} == processors
    expected = (vae.float().encode(image).latent_dist.mean - 0.25) * 0.5
    assert torch.allclose(latent, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"^vae: a Linear is no AutoencoderKL"):
        codec_of(nn.Linear(1, 1))


def test_sharded_weights_are_refused_and_whole_ones_are_seen_through():
    engine = type("DeepSpeedEngine", (nn.Module,), {})()
    engine.module = Network()
    assert unwrapped(engine) is engine.module
    check_whole(engine)
    engine.module.first.weight.ds_id = 3
    with pytest.raises(UserError, match=r"^watch: the weights are sharded over the processes \(DeepSpeed ZeRO-3\)[^\n]*$"):
        check_whole(engine)
    sharded = type("FullyShardedDataParallel", (nn.Module,), {})()
    with pytest.raises(UserError, match=r"\(FullyShardedDataParallel\)"):
        check_whole(sharded)


def test_weights_that_fully_shard_has_cut_are_seen(tmp_path):
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = Network()
        fully_shard(network, mesh=distributed.init_device_mesh("cpu", (1,)))
        with pytest.raises(UserError, match=r"\(fully_shard\)"):
            check_whole(network)
    finally:
        distributed.destroy_process_group()


def test_arguments_that_are_mappings_travel_entry_by_entry():
    told = {"states": torch.ones(2, 3), "added": {"pooled": torch.ones(2, 4), "sizes": torch.ones(2, 6)}}
    assert {*flat(told)} == {"states", "added.pooled", "added.sizes"}
    back = nested(flat(told))
    assert {*back} == {*told}
    assert back["added"]["sizes"] is told["added"]["sizes"]
    encoder = FunctionEncoder(lambda texts: {"added": {"length": torch.tensor([[len(each)] for each in texts]).half()}})
    assert encoder.shapes == {"added.length": (1,)}
    found = encoder(["", "abc"], torch.device("cpu"))["added.length"]
    assert found.dtype == torch.float32
    assert found.tolist() == [[0.0], [3.0]]

    class Told(nn.Module):
        def forward(self, noisy, timestep, added):
            return noisy + added["length"][..., None, None]

    predictor = NetworkPredictor(Called(Told()), torch.full((10,), 0.5))
    assert predictor(torch.zeros(2, 1, 1, 1), torch.zeros(2).long(), {"added.length": found}).flatten().tolist() == [0.0, 3.0]
    with pytest.raises(UserError, match=r"^text_encoder: its 'states' for 1 texts is \(2, 3\); a tensor with a row each"):
        FunctionEncoder(lambda texts: {"states": torch.ones(2, 3)})


def test_a_network_in_words():
    network = get_peft_model(Network().half(), lora(), autocast_adapter_dtype=True)
    assert in_words(network) == "PeftModel, 110 in float16, 28 in float32, 28 trained"
    assert in_words(SimpleNamespace(parameters=lambda: iter(()))) == "SimpleNamespace, no parameters, 0 trained"
