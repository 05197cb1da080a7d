"""Losses of stage 1 in a run: what the plan counts is what happens; what can't be computed is told before anything is made."""

import re
from collections import Counter
from types import SimpleNamespace

import pytest
from diffusers import AutoencoderKL
from torch import nn

from ldm_privacy.config import compose
from ldm_privacy.errors import UserError
from ldm_privacy.losses.critic import Critic
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.check import check_losses
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.recipes.train.codec_stage import stage_1, train_codec
from ldm_privacy.recipes.train.plan import costs
from tests.tiny import arguments, settings
from tests.training.test_stepwise import fit

CRITIC = "autoencoder.losses.critic={class: adversarial}"
FLAT = "autoencoder.losses.flat={class: relaxed_distortion, share: 0.25, every: 2}"


def setup_of(*overrides):
    return RunSetup(compose("digits.yaml", settings(*overrides)).config, progress)


def test_the_plan_counts_what_the_losses_cost(monkeypatch):
    setup = setup_of(CRITIC, FLAT)
    found = {(cost.what, cost.network): cost.passes for cost in costs(setup, setup.codec) if cost.what.startswith("loss ")}
    # Of 4 steps of 32, the critic has all but the first quarter, the other one 8 samples of every second.
    assert found == {
        ("loss critic", "decoder"): 3 * 32,
        ("loss critic", "critic"): 3 * 3 * 32,
        ("loss flat", "decoder"): 2 * 8,
        ("loss flat", "decoder products"): 2 * 2 * 8,
    }
    rows, decode, look = Counter(), AutoencoderKL.decode, Critic.forward

    def counted(name, function):
        def count(self, value):
            rows[name] += len(value)
            return function(self, value)

        return count

    monkeypatch.setattr(AutoencoderKL, "decode", counted("decoder", decode))
    monkeypatch.setattr(Critic, "forward", counted("critic", look))
    fit(stage_1(setup, setup.codec.network), max_epochs=2)
    assert rows == {"critic": found["loss critic", "critic"], "decoder": 4 * 32 + 3 * 32 + 2 * 8}


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (
            ["autoencoder.losses.late={class: l2, first_step: 4}"],
            r"losses\.late\.first_step: 4, but stage 1 has 4 steps; use a lower",
        ),
        (
            ["autoencoder.losses.few={class: l2, share: 0.01}"],
            r"losses\.few\.share: 0\.01 of a batch of 32 is no sample; use at ",
        ),
        (
            ["autoencoder.losses={reconstruction: {every: 2}, kl: {every: 2}}"],
            r"losses: none of them is computed in every step",
        ),
        ([CRITIC, "autoencoder.losses.reconstruction=null"], "losses.critic: its weight is relative to the"),
        ([CRITIC, "autoencoder.losses.reconstruction.weight=0"], "losses.critic: its weight is relative"),
        ([CRITIC, "autoencoder.losses.reconstruction.every=2"], "losses.critic: .* none of a weight above 0 is"),
        ([f"{CRITIC[:-1]}, learning_rate: -1}}"], r"losses\.critic\.learning_rate: -1 should be greater than 0"),
        ([f"{CRITIC[:-1]}, wait: 3}}"], r"losses\.critic: unknown key 'wait'"),
        (["autoencoder.losses.looks={class: perceptual, path: nowhere}"], r"losses\.looks\.path: there is no folder 'nowhere'"),
    ],
)
def test_a_loss_that_cant_be_is_told_in_one_line_and_no_run_is_made(tmp_path, overrides, match):
    with pytest.raises(UserError, match=rf"^autoencoder\.{match}") as caught:
        cli.train(arguments(tmp_path / "runs", *overrides))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("label", ["reconstruction", "sharp"])
def test_what_stage_1_reached_is_told_whatever_the_losses_label(tmp_path, capsys, label):
    named = [] if label == "reconstruction" else ["autoencoder.losses={reconstruction: null, sharp: {class: l2}}"]
    setup = setup_of(*named)
    run = SimpleNamespace(autoencoder=tmp_path / "autoencoder", autoencoder_last=tmp_path / "last.ckpt")

    def fitted(module, callbacks, *, max_epochs, **ignored):
        fit(module, max_epochs=max_epochs)

    fitting = SimpleNamespace(run=run, fit=fitted, resume_point=lambda *ignored: None)
    train_codec(setup, fitting, setup.codec, {})
    assert re.search(rf"^Autoencoder trained: {label} loss \d\.\d{{4}}\.$", capsys.readouterr().out, re.MULTILINE)


def headless():
    """A codec of somebody's own, whose decoder ends in something else than a convolution."""
    return SimpleNamespace(name="mine", network=nn.ModuleDict({"decoder": nn.Linear(2, 2)}))


@pytest.mark.parametrize(
    ("override", "codec", "match"),
    [
        (FLAT, IdentityCodec(image_channels=1), "flat: it needs a decoder, and the codec 'identity' has none"),
        (CRITIC, IdentityCodec(image_channels=1), "critic: it needs a decoder, and the codec 'identity' has none"),
        (
            CRITIC,
            headless(),
            "critic: it needs the decoder's last convolution, and the codec 'mine' has none; take it out with",
        ),
    ],
)
def test_a_loss_that_needs_what_the_codec_hasnt_costs_one_line(override, codec, match):
    with pytest.raises(UserError, match=rf"^autoencoder\.losses\.{match}"):
        check_losses(setup_of(override), codec)


def test_a_run_whose_codec_is_trained_builds_no_loss_again():
    config = compose("digits.yaml", settings("autoencoder.losses.looks={class: perceptual, path: nowhere}")).config
    assert RunSetup(config, progress, is_codec_trained=True).losses == {}
