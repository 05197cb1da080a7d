"""Losses of stage 1 in its steps: what is off changes nothing, what is on is resumed exactly and shared between processes."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from ldm_privacy import processes
from ldm_privacy.errors import UserError
from ldm_privacy.losses import adversarial, base
from ldm_privacy.losses.adversarial import Adversarial
from ldm_privacy.losses.base import CodecLoss
from ldm_privacy.losses.influence_variance import InfluenceVariance
from ldm_privacy.losses.kl import KL
from ldm_privacy.losses.reconstruction import L1, L2
from ldm_privacy.losses.relaxed_distortion import RelaxedDistortion
from ldm_privacy.training import stepwise
from tests.training.test_stepwise import autoencoder, fit
from tests.two_processes import in_two_processes

PLAIN = {"reconstruction": L1(), "kl": KL(weight=1e-2)}


def critic(**options):
    return Adversarial(**{"image_channels": 1, "resolution": 8, "seed": 5, "num_steps": 6, "first_step": 0, **options})


def everything():
    return {
        **PLAIN,
        "critic": critic(share=0.5),
        "flat": RelaxedDistortion(weight=0.1, share=0.5),
        "even": InfluenceVariance(weight=0.1, share=0.3, every=2, first_step=1),
        "square": L2(share=0.4),
    }


@pytest.fixture(scope="module")
def plain():
    return fit(autoencoder(losses=PLAIN, flip=True))


@pytest.mark.parametrize(
    "more", [{"critic": critic(first_step=99)}, {"critic": critic(weight=0.0)}, {"flat": RelaxedDistortion(weight=0.0)}]
)
def test_a_loss_that_is_off_or_weighs_nothing_leaves_the_run_bit_for_bit_as_it_was(plain, more):
    other = fit(autoencoder(losses=PLAIN | more, flip=True))
    assert list(other.state_dict()) == list(plain.state_dict()), "the critic is no part of the module"
    for mine, theirs in zip(other.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert {name: other.epoch_means[name] for name in plain.epoch_means} == plain.epoch_means


def test_a_loss_begins_where_it_is_told_to_and_is_averaged_over_its_own_steps():
    module, steps, values = autoencoder(losses={"a": L1(), "b": L2(first_step=1, every=2)}), [], []

    class Listed(L2):
        def __call__(self, batch):
            value = super().__call__(batch)
            steps.append(batch.step)
            values.append(float(value.detach()))
            return value

    module.losses["b"] = Listed(first_step=1, every=2)
    fit(module, max_epochs=3)
    assert steps == [1, 3, 5, 7]
    assert module.epoch_means["autoencoder/train_b"] == pytest.approx(values[-1], rel=1e-6), "of steps 6, 7, 8 it has one"


def test_the_critic_learns_and_is_logged_with_its_weight(plain):
    module = fit(autoencoder(losses=PLAIN | {"critic": critic()}, flip=True))
    more = {"autoencoder/train_critic", "autoencoder/train_critic_critic", "autoencoder/train_critic_weight"}
    assert module.epoch_means.keys() - plain.epoch_means.keys() == more
    assert module.epoch_means["autoencoder/train_critic_weight"] > 0
    new = critic().critic
    assert not torch.equal(module.losses["critic"].critic[0].weight, new[0].weight)
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(module.parameters(), plain.parameters()))


class Noted(CodecLoss):
    """Keeps what it was given; as one that says no more than that it decodes."""

    needs_decoder = True

    def __init__(self, **options):
        super().__init__(**options)
        self.seen, self.drawn = [], []

    def __call__(self, batch):
        decoded = batch.decode(batch.mean)
        self.seen += [batch.mean, batch.log_variance, batch.output, decoded]
        self.drawn.append(batch.normal("any", decoded))
        return decoded.square().mean()

    def learn(self, batch):
        self.seen += [batch.mean, batch.output, batch.decode(batch.mean)]
        return {}


def test_what_a_loss_draws_is_of_the_seed_its_label_and_the_step():
    def drawn(label, seed=0):
        loss = Noted()
        fit(autoencoder(losses=PLAIN | {label: loss}, seed=seed), max_epochs=1)
        return loss.drawn

    one, same, other, seeded = drawn("a"), drawn("a"), drawn("b"), drawn("a", seed=1)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, same, strict=True))
    for drawings in ((one[0], other[0], seeded[0]), one[:2]):
        assert len({float(each.flatten()[0]) for each in drawings}) == len(drawings)


def test_what_is_in_the_compiled_step_can_neither_draw_nor_decode():
    class Draws(Noted):
        needs_decoder = False
        compiles = True

        def __call__(self, batch):
            return (batch.output * batch.normal("any", batch.output)).mean()

    with pytest.raises(ValueError, match="a loss that draws can't be part of the compiled step: leave `compiles` False"):
        fit(autoencoder(losses=PLAIN | {"a": Draws()}))
    fit(autoencoder(losses=PLAIN | {"a": Draws(share=0.5)}), max_epochs=1)
    assert not Noted().is_within
    assert KL().is_within
    assert not KL(every=2).is_within


def test_losses_compute_in_float32_in_any_precision_of_the_networks():
    loss = Noted()
    module = autoencoder(
        losses=PLAIN | {"a": loss, "critic": critic(), "flat": RelaxedDistortion(), "even": InfluenceVariance()}
    )
    inside = []
    module.autoencoder.decoder.conv_out.register_forward_hook(lambda *seen: inside.append(seen[2].dtype))
    fit(module, precision="bf16-mixed", max_epochs=1)
    assert set(inside) == {torch.bfloat16}, "the critic's reconstructions too are those of the step's precision"
    assert {each.dtype for each in [*loss.seen, *loss.drawn]} == {torch.float32}
    assert {each.dtype for each in module._sums.values()} == {torch.float32}
    # float32 tells apart what bfloat16, of three digits, would not.
    for name in ("flat", "even"):
        assert module._sums[name] != module._sums[name].bfloat16().float()


def trainer(folder, **options):
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, **options}
    return Trainer(**options, gradient_clip_val=1.0, enable_checkpointing=False, default_root_dir=folder)


class Keep(Callback):
    """A checkpoint of the fifth step, of three an epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            trainer.save_checkpoint(self.path)


def test_a_stop_in_mid_epoch_is_gone_on_from_bit_for_bit(tmp_path):
    whole = fit(autoencoder(losses=everything(), flip=True), Keep(tmp_path / "stopped.ckpt"), max_epochs=3)
    resumed = autoencoder(losses=everything() | {"critic": critic(share=0.5, seed=6)}, flip=True)
    trainer(tmp_path, max_epochs=3).fit(resumed, ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    critics = [module.losses["critic"].critic for module in (resumed, whole)]
    for mine, theirs in zip(*(each.parameters() for each in critics), strict=True):
        assert torch.equal(mine, theirs)
    assert resumed.epoch_means == whole.epoch_means
    assert len(whole.epoch_means) == 9


def test_a_checkpoint_of_another_loss_costs_one_line(tmp_path):
    stopped = trainer(tmp_path, max_epochs=1)
    stopped.fit(autoencoder())
    stopped.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(
        UserError, match=r"autoencoder\.losses\.critic: what the checkpoint holds of it can't be used \('critic'\)"
    ):
        trainer(tmp_path, max_epochs=2).fit(
            autoencoder(losses=PLAIN | {"critic": critic()}), ckpt_path=tmp_path / "plain.ckpt", weights_only=True
        )


def doubled():
    """A module in float64, with all losses; in its second step."""
    module = autoencoder(losses=everything(), flip=True, batch_size=7).double()
    module.losses["critic"].critic.double()
    module.images = module.images.double()
    return module


def stepped(module, step):
    """Gradients of a step, its values, and the critic after it."""
    module.training_step(step, step).backward()
    module.teach()
    gradient = torch.cat([each.grad.flatten() for each in module.parameters()])
    learned = torch.cat([each.detach().flatten() for each in module.losses["critic"].critic.parameters()])
    return gradient, {name: value.detach() for name, value in module._sums.items()}, learned


@pytest.mark.parametrize("step", [0, 5], ids=["of 7", "of 5"])
def test_two_processes_step_as_one(monkeypatch, step):
    monkeypatch.setattr("ldm_privacy.training.autoencoder.to_float", lambda images: images / 127.5 - 1)
    monkeypatch.setattr(torch, "randn", lambda shape, device=None, randn=torch.randn: randn(shape, dtype=torch.float64))
    monkeypatch.setattr(type(autoencoder()), "global_step", 1)
    one = doubled()
    gradient, values, learned = stepped(copy.deepcopy(one), step)
    with monkeypatch.context() as patch:
        both = in_two_processes(patch, lambda rank: stepped(copy.deepcopy(one), step), processes, stepwise, base, adversarial)
    assert values.keys() >= {"loss", "critic", "critic_critic", "critic_weight", "flat", "even", "square"}
    torch.testing.assert_close((both[0][0] + both[1][0]) / 2, gradient)
    for name, value in values.items():
        whole = both[0][1][name] + both[1][1][name]
        torch.testing.assert_close(whole, value, msg=lambda words, name=name: f"{name}: {words}")
    for _, _, theirs in both:
        torch.testing.assert_close(theirs, learned)


@pytest.mark.slow
def test_what_needs_its_own_gradients_runs_beside_the_compiled_encoder(traced):
    more = {"critic": critic(), "flat": RelaxedDistortion(share=0.5)}
    plain, fast = (fit(autoencoder(losses=PLAIN | copy.deepcopy(more), compile_mode=mode)) for mode in ("none", "default"))
    assert len(traced[1]) == 2, "one for batches of 16, one for the last of 8, in every epoch"
    assert fast.epoch_means == pytest.approx(plain.epoch_means, rel=1e-3)
    for mine, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
