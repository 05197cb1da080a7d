"""Watching a plain loop: it leaves no trace, looks when it is due, sees through wrappers, and ends in a report."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ldm_privacy.config.compose import read_yaml
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.errors import UserError
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.recipes.loop.watch import MemorizationWatch
from ldm_privacy.targets.target import unwrapped
from ldm_privacy.types import Intervals
from ldm_privacy.watch.quality import Quality
from ldm_privacy.watch.samples import Samples
from ldm_privacy.watch.trajectories import Trajectories
from tests.pages import text_of

QUICK = {"every_n_steps": 4, "timesteps": [30], "intervals": Intervals(num_bootstrap=20)}
SCHEDULER = DDPMScheduler()


@pytest.fixture(scope="module")
def images():
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(dtype=torch.float32):
    """With dropout, so that a step depends on the mode and on the random state."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "block_out_channels": [8, 8]}
    shapes = {"in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4, "add_attention": False}
    return UNet2DModel(**blocks, **shapes, dropout=0.2).to(dtype)


def without_time(series):
    return {name: value for name, value in series.items() if not name.startswith("watch/")}


def trained(images, dtype, watch=None, autocast=False):
    """What ten steps leave: weights, optimizer, random states, and what was drawn and lost on the way."""
    unet = network(dtype).train()
    unet.conv_in.eval()  # modes are restored module by module
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    trace = []
    for step in range(11):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = {} if watch is None else watch(unet, step=step, is_last=step == 10)
            assert bool(found) is (watch is not None and step in (0, 4, 8, 10))
            batch = images[torch.randint(32, (8,))].to(dtype)
            noise, timestep = torch.randn_like(batch), torch.randint(1000, (8,))
            loss = (unet(SCHEDULER.add_noise(batch, noise, timestep), timestep).sample - noise).square().mean()
        loss.backward()
        if step % 2:  # a look in the midst of an accumulation leaves its gradients
            optimizer.step()
            optimizer.zero_grad()
        trace.append((loss.item(), random.random(), np.random.rand()))
    assert unet.training
    assert not unet.conv_in.training
    left = [*unet.state_dict().values(), *(parameter.grad for parameter in unet.parameters()), torch.get_rng_state()]
    left += [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    return trace, left


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)], ids=str
)
def test_a_training_ends_the_same_to_the_last_bit(images, dtype, autocast):
    watch = MemorizationWatch(images[:32], images[32:], SCHEDULER, **QUICK)
    expected_trace, expected = trained(images, dtype, autocast=autocast)
    trace, left = trained(images, dtype, watch, autocast=autocast)
    assert trace == expected_trace
    assert len(left) == len(expected)
    for mine, theirs in zip(left, expected):
        assert torch.equal(mine, theirs)


def test_a_look_is_the_same_in_any_mode_and_wrapper(images):
    """Evaluation mode, no autocast; and the network inside torch.compile, DataParallel and DistributedDataParallel."""
    unet = network()
    plain = MemorizationWatch(images[:32], images[32:], SCHEDULER, **QUICK)(unet.eval(), step=0)
    assert plain["memorization/sima/all/auroc_lower"] < plain["memorization/sima/all/auroc"]
    assert {"denoiser/loss_members", "memorization/loss/all/auroc", "watch/seconds"} < plain.keys()
    compiled = torch.compile(unet, backend="eager")
    for wrapped in (unet.train(), compiled, nn.DataParallel(unet), nn.DataParallel(compiled)):
        watch = MemorizationWatch(images[:32], images[32:], SCHEDULER, **QUICK)
        with torch.autocast("cpu", torch.bfloat16):
            assert without_time(watch(wrapped, step=0)) == without_time(plain)
        assert watch.watched["auroc/sima/all"] == plain["memorization/sima/all/auroc"]
        assert not any(name.endswith("_lower") for name in watch.watched)
        assert unwrapped(wrapped) is unet


def test_wrappers_are_taken_off_and_a_network_that_holds_another_is_not(tmp_path):
    unet = network()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert unwrapped(DistributedDataParallel(unet)) is unet
        assert unwrapped(DistributedDataParallel(torch.compile(unet, backend="eager"))) is unet
    finally:
        dist.destroy_process_group()

    class Preconditioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = unet

    own = Preconditioned()
    assert unwrapped(own) is own


def test_weights_of_a_low_precision_are_looked_at_in_theirs(images):
    watch = MemorizationWatch(images[:32], images[32:], SCHEDULER, **QUICK)
    asked = []
    unet = network(torch.bfloat16)
    unet.register_forward_pre_hook(lambda module, arguments: asked.append(arguments[0].dtype))
    series = watch(unet, step=0)
    assert set(asked) == {torch.bfloat16}
    assert 0 <= series["memorization/sima/all/auroc"] <= 1


def test_it_looks_when_it_is_due_and_never_twice_at_a_step(images):
    watch = MemorizationWatch(images[:32], images[32:], SCHEDULER, **QUICK)
    unet = network()
    assert watch.due(0)
    assert watch(unet, step=0)
    assert not watch.due(0)
    assert watch(unet, step=0) == {}
    assert [step for step in range(1, 6) if watch.due(step)] == [4, 5]  # until it has looked
    assert watch(unet, step=6)  # a loop that counts by threes jumps over 4
    assert [step for step in range(6, 10) if watch.due(step)] == [8, 9]
    assert watch.due(7, is_last=True)
    assert watch(unet, step=7) == {}
    assert watch(unet, step=8)
    assert watch(unet, step=8, is_last=True) == {}
    assert {step for step, _ in watch.curves} == {0, 6, 8}


def test_going_on_from_a_state_equals_going_on():
    images = torch.rand(160, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1  # enough to fit a history on

    def one():
        return MemorizationWatch(images[:80], images[80:], SCHEDULER, **QUICK)

    straight, first, second, unet = one(), one(), one(), network()
    straight(unet, step=0), first(unet, step=0)
    with torch.no_grad():
        unet.conv_in.weight += 1
    straight(unet, step=4), first(unet, step=4)
    torch.save(first.state_dict(), buffer := io.BytesIO())
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    second.load_state_dict(state)
    second.load_state_dict({name: each for name, each in state.items() if name != "loss_gap"})  # as of a loop without it
    with torch.no_grad():
        unet.conv_out.weight += 1
    found = second(unet, step=8)
    went_on = straight(unet, step=8)
    assert without_time(found) == without_time(went_on)
    assert 0 < went_on["watch/share"] <= 1
    assert second.curves == straight.curves
    assert "memorization/sima/all/rise" in found
    # All registered calibrations, by default, of the first attack; they look back on both audits.
    areas = {name: found[f"memorization/{name}/all/auroc"] for name in ("sima", "sima_history", "sima_calibrated", "combined")}
    assert areas["sima_history"] != areas["sima"]
    assert {"calibration/sima_history/all/half1/audit-1", "memorization/sima_complexity/all/gain_over_plain"} < found.keys()
    assert list(second.memorization.history.read()) == [0, 4, 8]


def test_a_latent_space_has_masks_and_the_scaling_of_diffusers(images, tmp_path):
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    shapes = {"in_channels": 1, "out_channels": 1, "latent_channels": 1, "norm_num_groups": 4}
    vae = AutoencoderKL(**shapes, **blocks, block_out_channels=[4, 4], scaling_factor=0.5, shift_factor=0.1)
    watch = MemorizationWatch(
        images[:32],
        images[32:],
        SCHEDULER,
        codec=KLCodec.scaled(vae),
        watchers={
            "samples": lambda samples, every: Samples(samples, num_images=1, num_steps=2, every=every),
            "quality": lambda samples, every: Quality(
                samples, images.__getitem__, *torch.arange(64).split(32), num_images=20, num_steps=2, every=every
            ),
        },
        **QUICK,
    )
    expected = (vae.encode(images).latent_dist.mean - 0.1) * 0.5
    assert torch.allclose(watch.samples.latent, expected, atol=1e-6)
    assert torch.equal(watch.samples.complexity, image_complexity(images))
    series = watch(network(), step=0)
    assert {f"memorization/sima/{mask}/auroc" for mask in ("all", "top", "random", "deviation")} < series.keys()
    assert watch.watchers["samples"].last is not None
    assert {"quality/kid_random_heldout", "quality/swd_gap_upper"} < watch(network(), step=4).keys()

    page = watch.report(tmp_path / "audit")
    assert page == tmp_path / "audit" / "report.html"
    html, text = page.read_text(), text_of(page.read_text())
    assert "Step 4; audited on " in text
    assert "32 members (images that it was trained on) and 32 held-out images (that it was not)" in text
    assert ">image complexity<" in html
    assert "Generations lie " in text
    assert "random convolutions, seed 0" in text
    written = {each.name for each in page.parent.iterdir()}
    assert {"scores.parquet", "metrics.json", "exposed.csv", "model_card.md", "requirements.json"} < written


def test_mistakes_cost_one_line(images):
    sides = images[:32], images[32:]
    watch = MemorizationWatch(*sides, SCHEDULER, **QUICK)
    with pytest.raises(UserError, match=r"^report: there was no look yet; [^\n]*$"):
        watch.report("anywhere")
    with pytest.raises(UserError, match=r"^every: 0 steps; use 1 or more\.$"):
        MemorizationWatch(*sides, SCHEDULER, every_n_steps=0)
    with pytest.raises(UserError, match=r"unknown attack 'simma'\. Did you mean 'sima'\?"):
        MemorizationWatch(*sides, SCHEDULER, attacks=["simma"])
    with pytest.raises(UserError, match=r"^prediction_type: 'v' is unknown"):
        MemorizationWatch(*sides, SCHEDULER, prediction_type="v")
    for scheduler, kind, whose in (
        (SCHEDULER, "flow", "no flow's"),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), "epsilon", "a flow's"),
        (flow_alphas_cumprod(500).float(), None, "a flow's"),
    ):
        with pytest.raises(UserError, match=rf"^prediction_type: '\w+', and the scheduler is {whose}[^\n]*$"):
            MemorizationWatch(*sides, scheduler, prediction_type=kind)
    with pytest.raises(UserError, match="ranks by influence"):
        MemorizationWatch(*sides, SCHEDULER, masks=["top"])
    with pytest.raises(UserError, match=r"^target: the network can't take a latent of shape \(1, 8, 8\) [^\n]*$"):
        watch(nn.Linear(3, 3), step=0)
    with pytest.raises(UserError, match=r"^audit\.calibrations: a half of the audit has \d members, 5 are needed"):
        MemorizationWatch(images[:8], images[32:], SCHEDULER)
    MemorizationWatch(images[:8], images[32:], SCHEDULER, calibrations={})
    with pytest.raises(UserError, match="fewer than two members"):
        MemorizationWatch(images[:1], images[32:], SCHEDULER)


def test_a_verdict_rests_on_what_it_rests_on_in_a_configured_run(images):
    configured = read_yaml(Path(__file__).parents[2] / "configs" / "audit" / "default.yaml")["calibrations"]
    audit = MemorizationWatch(images[:32], images[32:], SCHEDULER, **QUICK).memorization.audit
    assert list(audit.calibrations) == list(configured), "the last one with a history is the insider's"
    assert [key.attack for key in audit.forms(audit.keys[0])] == ["sima", "sima_complexity", "sima_calibrated"]


class Labelled(nn.Module):
    """A network that is told a class, 4 = none, and adds what it says of it."""

    def __init__(self):
        super().__init__()
        self.unet, self.of_class = network(), nn.Embedding(5, 1)

    def forward(self, noisy, timestep, class_labels):
        return self.unet(noisy, timestep).sample + self.of_class(class_labels)[..., None, None]


def test_with_a_null_condition_attacks_have_views_and_guided_sampling_is_followed(images, tmp_path):
    told = {"class_labels": torch.arange(64) % 4}
    followed = {
        "trajectories": lambda samples, every: Trajectories(
            samples, lambda index: images[index], num_captions=2, num_seeds=1, num_steps=2, num_early=1, every=every
        )
    }
    watch = MemorizationWatch(
        images[:32],
        images[32:],
        SCHEDULER,
        condition=told,
        null={"class_labels": torch.tensor([4])},
        attacks=["sima", "clid"],
        watchers=followed,
        **QUICK,
    )
    found = watch(Labelled(), step=4)
    assert {f"memorization/sima{view}/all/auroc" for view in ("", "_null", "_shuffled")} < found.keys()
    assert found["memorization/condition_use"] > 0
    page = watch.report(tmp_path).read_text()
    assert "Which captions give their image back" in page
    assert "The image or its condition" in page
    assert (tmp_path / "captions.csv").exists()
