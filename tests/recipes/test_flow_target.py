"""evaluate.py on a flow that was trained elsewhere: grids in sigma, and the self-check."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ldm_privacy.errors import UserError
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.recipes import cli
from ldm_privacy.targets.target import Target
from tests.pages import text_of
from tests.targets.test_self_check import train

WORDS = [
    *("--config", "audit.yaml", "data.source.class=digits", "audit.attacks=[sima]", "audit.calibrations={complexity: null}"),
    *("audit.masks={random60: null, std60: null}", "audit.num_bootstrap=20", "trainer.accelerator=cpu"),
    *("audit.timesteps=null", "audit.sigmas=[0.3,0.6]", "audit.calibrated=[]", "watch.quality=null"),
]


@pytest.fixture(scope="module")
def predictor():
    return train("flow", torch.tensor(load_digits().images, dtype=torch.float32)[200:, None] / 8 - 1)


@pytest.fixture
def evaluated(predictor, tmp_path, monkeypatch):
    """What evaluate.py writes of that network, read in another way than it was trained."""
    np.savez(tmp_path / "split.npz", mia_train_idxs=np.arange(200, 240), mia_eval_idxs=np.arange(40))
    monkeypatch.setattr("ldm_privacy.recipes.evaluate.check.check_may_be_target", lambda path, beside: None)

    def evaluate(*words, **declared):
        target = Target(IdentityCodec(image_channels=1), replace(predictor, **declared), image_channels=1, resolution=8)
        monkeypatch.setattr("ldm_privacy.recipes.evaluate.target.open_target", lambda path, **how: target)
        given = [f"ckpt={tmp_path}", f"data.index_file={tmp_path}/split.npz", f"out={tmp_path}/out", *WORDS, *words]
        assert cli.evaluate(given) == 0
        return tmp_path / "out"

    return evaluate


def test_sigmas_and_the_self_check_stand_in_the_report(evaluated):
    out = evaluated()
    page = text_of((out / "report.html").read_text())
    assert "leaves 0." in page
    assert "of what an affine guess leaves, on 64 images; read otherwise: " in page
    assert "without top60: there is no decoder that influence could be of" in page
    row = json.loads((out / "metrics.json").read_text())["rows"][0]
    assert set(row["timesteps"]) <= {299, 600}
    assert row["sigmas"] == pytest.approx([(each + 1) / 1001 for each in row["timesteps"]])


def test_a_network_that_is_given_another_time_is_refused_unless_it_is_not_asked(evaluated):
    with pytest.raises(UserError, match=r"^target: the network fits 1000 sigma as its timestep better than sigma as"):
        evaluated(time="sigma")
    assert "read otherwise" not in (evaluated("target.self_check=false", time="sigma") / "report.html").read_text()
