"""What a run costs: nothing twice, and as much as the plan says."""

from collections import Counter

import pytest
from matplotlib.figure import Figure

from ldm_privacy.config import compose
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.recipes.train.plan import costs
from tests.recipes.counting import counted_passes
from tests.tiny import DISTORTION, PIXELS, arguments, settings

GENERATIONS = "watch={generations: {class: generations, num_steps: 2, every: {epochs: 9}}}"
SAMPLES = "watch={samples: {class: samples, num_images: 3, num_steps: 4, every: {steps: 2}}}"
QUALITY = "watch={quality: {class: quality, num_images: 30, num_steps: 2}}"
EXACT = [f"geometry.distortion_{name}" for name in ("rank=20", "oversample=10", "power_iterations=2")]
SHORT = ["trainer.max_epochs=3", "autoencoder.max_epochs=1"]


def announced(*overrides):
    """Network -> passes, and the most that a tolerance can make of them."""
    setup = RunSetup(compose("digits.yaml", settings(*overrides)).config, progress)
    found, most = Counter(), Counter()
    for cost in costs(setup, setup.codec):
        found[cost.network] += cost.passes
        most[cost.network] += cost.passes if cost.most is None else cost.most
    return found, most


def test_copies_are_counted_at_every_audit_that_the_gate_acts_upon():
    def every(*overrides):
        setup = RunSetup(compose("digits.yaml", settings(GENERATIONS, *overrides)).config, progress)
        return setup.watchers(setup.blank_samples(setup.codec), progress)["generations"].every.epochs

    assert every("gate.copies=0.1") == every("gate.auroc=0.9", "audit.stop.at=fail") == 9
    assert every("gate.copies=0.1", "audit.stop.at=fail") == 2


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are asked for, with whatever passes they cost, but not drawn."""
    for name in ("influence_map_figure", "mask_frequency_figure", "pixel_influence_figure", "distortion_figure"):
        monkeypatch.setattr(f"ldm_privacy.report.geometry_report.{name}", lambda *arguments, **options: Figure(figsize=(1, 1)))


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([DISTORTION], id="plain"),
        pytest.param(
            [
                *EXACT,
                *(
                    "data.flip=true",
                    SAMPLES,
                    "geometry.influence.class=exact",
                    "audit.every_n_epochs=1",
                    "audit.max_samples=30",
                ),
                *("denoiser.channel_map.class=flattening", "denoiser.channel_map.num_samples=30"),
            ],
            id="flipped, samples, exact, flattened",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [GENERATIONS, "trainer.figures=true", "geometry.distortion_rank=0", "audit.attacks={secmi: {class: secmi}}"],
            id="generations, figures",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                *EXACT,
                "autoencoder.train_on=all",
                "watch.loss_gap=null",
                "geometry.influence.class=shrunk",
                "denoiser.condition=labels",
                "audit.views=[null,shuffled]",
                "data.repeats={share: 0.2, times: 3}",
                "watch.trajectories={class: trajectories, num_captions: 4, num_steps: 2, clean: generated}",
            ],
            id="shrunk, conditional",
            marks=pytest.mark.slow,
        ),
        pytest.param([QUALITY, "geometry.distortion_rank=0", "audit.attacks=[sima]"], id="quality"),
        pytest.param(
            [*PIXELS, SAMPLES, "audit.masks={top60: null, low60: null}", "trainer.figures=true", "data.flip=true"],
            id="pixels",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_plan_announces_what_happens(tmp_path, undrawn, overrides):
    expected, most = announced(*SHORT, *overrides)
    with counted_passes() as found:
        assert cli.train(arguments(tmp_path, *SHORT, *overrides)) == 0
    assert {network for network, count in expected.items() if count} >= set(found.rows)
    assert (set(expected) == {"denoiser"}) is (PIXELS[0] in overrides)
    for network, passes in expected.items():
        if most[network] > passes:
            assert passes <= found.rows[network] <= most[network], network
        else:  # an exact estimator decodes one sample more, to see what its image looks like
            assert found.rows[network] == pytest.approx(passes, rel=0.05 if network == "decoder" else 0), network


def test_each_audited_image_is_encoded_once_and_reconstructed_once(tmp_path):
    with counted_passes() as found:
        assert cli.train(arguments(tmp_path, *SHORT, "data.num_members=50", "audit.max_samples=30")) == 0
    # 50 members and 30 of the held-out samples, one of which is a copy of no other.
    assert len(found.encoded) == found.rows["encoder"] == 80
    assert set(found.encoded.values()) == {1}
    assert len(found.reconstructed) == 60
    assert set(found.reconstructed.values()) == {1}
    assert found.compressed == 60


def test_a_finished_run_that_is_resumed_and_evaluated_measures_nothing_again(run, tmp_path):
    with counted_passes() as found:
        assert cli.train([f"resume={run}"]) == 0
    assert set(found.rows) == {"denoiser"}
    assert found.compressed == 0
    assert found.rows["denoiser"] == 80 * 7  # one audit at two timesteps: SimA, Loss, and PIA, which asks once more
    with counted_passes() as found:
        assert cli.evaluate([f"ckpt={run}/checkpoints/last.ckpt", f"out={tmp_path}"]) == 0
    assert set(found.rows) == {"denoiser"}
    assert found.compressed == 0


@pytest.mark.slow
def test_a_run_that_goes_on_measures_nothing_again_nor_does_its_evaluation(tmp_path):
    options = [
        DISTORTION,
        "autoencoder.max_epochs=1",
        "trainer.max_epochs=2",
        "data.num_members=50",
        "audit.max_samples=30",
        "data.flip=true",
    ]
    cli.train(arguments(tmp_path, *options))
    with counted_passes() as found:
        assert cli.train([f"resume={tmp_path}/digits", "trainer.max_epochs=4"]) == 0
        assert cli.evaluate([f"ckpt={tmp_path}/digits/checkpoints/last.ckpt"]) == 0
    assert set(found.rows) == {"denoiser"}
    assert found.compressed == 0
