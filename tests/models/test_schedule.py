"""The schedule of diffusers' schedulers, from the objects and from their configs."""

import json

import diffusers
import pytest
import torch

from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.errors import UserError
from ldm_privacy.models.schedule import schedule_of, training_schedule

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SAMPLERS = ("DDPM", "DDIM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LCM")


def config_of(scheduler, tmp_path):
    """As it lies in a pipeline's folder."""
    scheduler.save_config(tmp_path)
    return json.loads((tmp_path / "scheduler_config.json").read_text())


def obvious(betas):
    return torch.tensor(betas, dtype=torch.float64).neg().add(1).cumprod(0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_betas_are_the_folders_whatever_samples_with_them(name, tmp_path):
    scheduler = getattr(diffusers, f"{name}Scheduler")(**SD, prediction_type="v_prediction")
    root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    for given in (scheduler, config_of(scheduler, tmp_path)):
        abar, kind = schedule_of(given)
        assert kind == "v_prediction"
        torch.testing.assert_close(abar.double(), obvious(root.square().tolist()), rtol=1e-4, atol=1e-6)


def test_keys_that_a_config_lacks_are_its_classes_own():
    assert torch.equal(schedule_of({"_class_name": "LCMScheduler"})[0], diffusers.LCMScheduler().alphas_cumprod)
    assert not torch.equal(schedule_of({"_class_name": "DDIMScheduler"})[0], diffusers.LCMScheduler().alphas_cumprod)


def test_a_schedule_that_ends_close_to_pure_noise_is_left_as_it_is():
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    assert 0 < scheduler.alphas_cumprod[-1] < 1e-8
    assert torch.equal(schedule_of(scheduler)[0], scheduler.alphas_cumprod)


def test_trained_betas_are_heeded(tmp_path):
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=4, trained_betas=[0.1, 0.2, 0.3, 0.4], prediction_type="sample")
    abar, kind = schedule_of(config_of(scheduler, tmp_path))
    assert kind == "sample"
    torch.testing.assert_close(abar.double(), obvious([0.1, 0.2, 0.3, 0.4]))


def test_a_schedule_that_ends_in_pure_noise_stays_finite(tmp_path):
    scheduler = diffusers.DDIMScheduler(**SD, rescale_betas_zero_snr=True)
    assert scheduler.alphas_cumprod[-1] == 0
    for given in (scheduler, config_of(scheduler, tmp_path)):
        abar, _ = schedule_of(given)
        assert 0 < abar[-1] < 1e-7
        assert torch.equal(abar[:-1], scheduler.alphas_cumprod[:-1])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_is_told_by_its_class_and_its_shift_changes_nothing(shift, tmp_path):
    for name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"):
        scheduler = getattr(diffusers, name)(shift=shift)
        for given in (scheduler, config_of(scheduler, tmp_path)):
            abar, kind = schedule_of(given)
            assert kind == "flow"
            assert torch.equal(abar, flow_alphas_cumprod())


def test_a_flow_is_told_by_what_its_solver_says_that_it_predicts(tmp_path):
    scheduler = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    assert schedule_of(config_of(scheduler, tmp_path))[1] == schedule_of(scheduler)[1] == "flow"


def test_alphas_cumprod_itself_is_of_an_epsilon_network():
    abar = torch.linspace(0.9, 0.1, 5)
    assert schedule_of(abar) == (abar, "epsilon")


REFUSED = {
    "VQDiffusionScheduler": ({"num_vec_classes": 8}, "no alphas_cumprod and is no flow"),
    "EDMEulerScheduler": ({}, "no alphas_cumprod and is no flow"),
    "FlowMatchEulerDiscreteScheduler": ({"invert_sigmas": True}, "with invert_sigmas"),
    "FlowMatchHeunDiscreteScheduler": ({"num_train_timesteps": 500}, "with num_train_timesteps 500"),
    "DDIMScheduler": ({"prediction_type": "flow"}, "with prediction_type 'flow'"),
    "DDPMScheduler": ({"beta_schedule": "steep"}, "can't be built from its config (steep is not implemented"),
    "UniPCMultistepScheduler": ({"use_flow_sigmas": True}, "with use_flow_sigmas"),
    "AutoencoderKL": ({}, "is no scheduler of diffusers"),
    "NoSuchScheduler": ({}, "is no scheduler of diffusers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_in_one_line(name):
    settings, message = REFUSED[name]
    with pytest.raises(UserError) as caught:
        schedule_of({"_class_name": name, **settings})
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scheduler_of_somebody_elses_is_told_by_its_class():
    class FlowMatchOfOnesOwn:
        def __init__(self):
            self.config = {"_class_name": "DDPMScheduler", "shift": 3.0}

    abar, kind = schedule_of(FlowMatchOfOnesOwn())
    assert kind == "flow"
    assert torch.equal(abar, flow_alphas_cumprod())
    for nothing in (object(), 3, None):
        with pytest.raises(UserError, match="no alphas_cumprod and is no flow"):
            schedule_of(nothing)


@pytest.mark.parametrize("count", [1, 2, 100_000])
def test_from_one_timestep_to_a_hundred_thousand_are_taken(count):
    abar, _ = schedule_of({"_class_name": "DDPMScheduler", "num_train_timesteps": count})
    theirs = diffusers.DDPMScheduler(count).alphas_cumprod
    assert torch.equal(abar, torch.where(theirs == 0, 2.0**-24, theirs))
    assert len(abar) == count
    with pytest.raises(UserError):
        schedule_of({"_class_name": "DDPMScheduler", "num_train_timesteps": 100_001})


def test_a_timestep_without_noise_is_taken():
    abar, _ = schedule_of({"_class_name": "DDPMScheduler", "num_train_timesteps": 3, "trained_betas": [0.0, 0.5, 0.5]})
    assert abar.tolist() == [1, 0.5, 0.25]


def test_a_config_without_a_class_is_refused():
    with pytest.raises(UserError, match="its class None"):
        schedule_of({"num_train_timesteps": 1000})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_start": float("nan")}, "alphas_cumprod that are not from 0 to 1"),
        ({"beta_start": -0.001, "beta_end": -0.0001}, "alphas_cumprod that are not from 0 to 1"),
        ({"trained_betas": [0.1, 1.5, 0.1]}, "alphas_cumprod that are not from 0 to 1"),
        ({"trained_betas": [0.1, float("nan")]}, "alphas_cumprod that are not from 0 to 1"),
        ({"num_train_timesteps": 50_000_000}, "num_train_timesteps 50000000; it is to be 1 to 100000"),
        ({"num_train_timesteps": 0}, "num_train_timesteps 0; it is to be 1 to 100000"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps 'many'; it is to be 1 to 100000"),
    ],
)
def test_betas_that_can_not_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        schedule_of({"_class_name": "DDPMScheduler", **settings})


def test_a_training_from_random_weights_has_linear_betas_of_an_epsilon_network():
    for abar, kind in (training_schedule(), training_schedule(schedule=None, prediction_type=None, beta_start=None)):
        assert kind == "epsilon"
        assert torch.equal(abar, diffusers.DDPMScheduler(1000, 1e-4, 2e-2, "linear").alphas_cumprod)


def test_what_a_training_is_given_goes_before_what_it_starts_from():
    given = {"schedule": "scaled_linear", "num_train_timesteps": 20, "beta_start": 0.01, "beta_end": 0.09}
    root = torch.linspace(0.1, 0.3, 20, dtype=torch.float64)
    for base in (None, {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2", "beta_end": 0.5}):
        before = None if base is None else dict(base)
        abar, kind = training_schedule(base, prediction_type="sample", **given)
        assert kind == "sample"
        torch.testing.assert_close(abar.double(), obvious(root.square().tolist()))
        assert base == before, "it is somebody else's"


def test_a_training_that_is_given_nothing_has_the_schedule_that_it_starts_from():
    base = {"_class_name": "DDIMScheduler", **SD, "prediction_type": "v_prediction", "num_train_timesteps": 30}
    abar, kind = training_schedule(base, schedule=None, prediction_type=None, num_train_timesteps=None)
    assert kind == "v_prediction"
    assert torch.equal(abar, diffusers.DDIMScheduler(30, **SD).alphas_cumprod)


def test_trained_betas_of_what_a_training_starts_from_hold_until_others_are_given():
    betas = [0.1, 0.2, 0.3, 0.4]
    base = {"_class_name": "DDPMScheduler", "trained_betas": betas, "num_train_timesteps": 4}
    for kind in (None, "sample"):
        abar, found = training_schedule(base, prediction_type=kind)
        assert found == (kind or "epsilon")
        torch.testing.assert_close(abar.double(), obvious(betas))
    abar, _ = training_schedule(base, beta_start=0.2, beta_end=0.5)
    torch.testing.assert_close(abar.double(), obvious([0.2, 0.3, 0.4, 0.5]))
    assert base["trained_betas"] is betas


def test_a_training_of_a_flow_has_a_flows_schedule_of_as_many_timesteps_as_are_asked_for():
    flow = {"schedule": "flow", "prediction_type": "flow"}
    for count in (None, 10):
        abar, kind = training_schedule(num_train_timesteps=count, **flow)
        assert kind == "flow"
        assert torch.equal(abar, flow_alphas_cumprod(count or 1000))


@pytest.mark.parametrize(("schedule", "kind"), [("flow", None), (None, "flow"), ("flow", "epsilon"), ("linear", "flow")])
def test_half_a_flow_is_refused(schedule, kind):
    for base in (None, {"_class_name": "DDPMScheduler"}):
        with pytest.raises(UserError, match=r"^denoiser\.schedule: "):
            training_schedule(base, schedule=schedule, prediction_type=kind)
