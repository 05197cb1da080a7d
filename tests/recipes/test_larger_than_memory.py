"""A run whose images and latents don't fit the memory that it is given is the run that has them all in memory."""

import re
import weakref

import pytest

from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.config import compose
from ldm_privacy.data.bounded import AT_ONCE, BoundedImages
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.train.plan import image_memory
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.types import no_progress
from tests.mapped import file_of
from tests.tiny import DISTORTION, arguments, series, settings

GIB = (2 * AT_ONCE + 9.5) * 64 / 2**30
"""For 9 of 144 images beside those that are being decoded, and for no set of latents."""


@pytest.fixture
def seen(monkeypatch):
    """Images, latents and audited samples of the runs of this test, as they were made."""
    found = {}
    for kind in (BoundedImages, DenoiserModule, AuditedSamples):
        made = kind.__init__

        def make(self, *given, made=made, kind=kind, **options):
            made(self, *given, **options)
            found.setdefault(kind, []).append(self)

        monkeypatch.setattr(kind, "__init__", make)
    return found


@pytest.fixture
def left(monkeypatch):
    """Posterior means that are still held when the denoiser's training begins."""
    made, found = [], []

    def noted(name):
        function = getattr(Measuring, name)

        def note(self, *given, **options):
            made.append(weakref.ref(means := function(self, *given, **options)))
            return means

        monkeypatch.setattr(Measuring, name, note)

    noted("means")
    noted("joined")
    start = DenoiserModule.on_fit_start

    def look(self):
        found.append([each() is not None for each in made])
        start(self)

    monkeypatch.setattr(DenoiserModule, "on_fit_start", look)
    return found


@pytest.mark.slow
def test_a_run_beyond_its_memory_is_the_same_run(tmp_path, run, seen, left):
    override = [DISTORTION, f"data.memory_gib={GIB:.9g}"]
    setup = RunSetup(compose("digits.yaml", settings(*override)).config, no_progress)
    (times,) = re.findall(
        r"^Images: 144 of 1 x 8 x 8, \S+ GiB; 9 stay in memory .* (\d+) times", image_memory(setup, setup.codec)
    )
    seen.clear()
    assert cli.train(arguments(tmp_path, *override)) == 0
    beyond = tmp_path / "digits"
    assert series(beyond) == series(run)
    (still_there,) = left
    assert len(still_there) >= 2
    assert not any(still_there)
    (images,), (module,) = seen[BoundedImages], seen[DenoiserModule]
    assert images.num_kept == 9
    assert images.num_decoded / 144 == pytest.approx(int(times), abs=1.5)
    assert file_of(module.latents).endswith("(deleted)")
    assert not module.latents_to_device
    audited = seen[AuditedSamples][-1]
    assert file_of(audited.latent).endswith("(deleted)")
    assert file_of(audited.influence).endswith(".safetensors")
    mine, theirs = ({path.name: path.read_bytes() for path in (each / "scores").iterdir()} for each in (beyond, run))
    assert mine == theirs
    assert mine


def test_a_budget_without_room_for_one_batch_is_refused_by_its_key(tmp_path):
    message = (
        r"^data\.memory_gib: 0\.05 is too small for one batch: 128 images of 3 x 512 x 512 lie in memory while they are "
        r"decoded, 0\.094 GiB; give at least that\.$"
    )
    with pytest.raises(UserError, match=message):
        cli.train(arguments(tmp_path, "data.memory_gib=0.05", "data.resolution=512", "data.channels=3"))
    assert not (tmp_path / "digits").exists()
