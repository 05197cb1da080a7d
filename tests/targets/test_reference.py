"""Another target as a reference: what it must have in common, and whose it is."""

import json
from dataclasses import replace

import pytest

from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.errors import UserError
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.reference import have_one_noise, of_whom, with_reference


@pytest.fixture(scope="module")
def target(sd_folder):
    return open_target(sd_folder)


@pytest.mark.parametrize("changes", [{"beta_schedule": "linear"}, {"num_train_timesteps": 500}])
def test_one_of_another_schedule_is_refused(target, sd_copy, changes):
    file = sd_copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UserError, match=r"^reference: .*sd has other noise at its timesteps than the target; name one"):
        with_reference(target, open_target(sd_copy), sd_copy)


def test_noise_is_compared_as_numbers_and_a_flow_with_flows_alone(target):
    mine = target.predictor
    assert have_one_noise(mine, replace(mine, alphas_cumprod=mine.alphas_cumprod * (1 + 1e-6)))
    assert have_one_noise(mine, replace(mine, prediction_type="v_prediction"))
    flow = replace(mine, alphas_cumprod=flow_alphas_cumprod(), prediction_type="flow")
    assert have_one_noise(flow, flow)
    assert not have_one_noise(flow, replace(flow, prediction_type="epsilon"))


def test_whose_it_is_is_said_and_assumed_to_be_anybodys(target, sd_folder):
    compared = with_reference(target, target, sd_folder)
    found = {whose: of_whom(compared, whose) for whose in (None, "outsider", "insider")}
    assert [each.whose_reference for each in found.values()] == ["outsider", "outsider", "insider"]
    words = [each.facts["threat model of the reference"] for each in found.values()]
    assert words[0] == f"{words[1]} (assumed public; say target.reference_is=insider where it isn't)"
    assert words[2] == "an insider, who has the run's checkpoints"


def test_without_one_it_is_nobodys(target):
    assert of_whom(target, None) is target
    with pytest.raises(UserError, match=r"^reference_is: insider, and the target has no reference; name one"):
        of_whom(target, "insider")
