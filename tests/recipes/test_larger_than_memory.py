"""A run whose images and latents don't fit the memory that it is given is the run that has them all in memory."""

import re

import pyarrow.parquet
import pytest

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.bounded import AT_ONCE, BoundedImages
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.training.denoiser import DenoiserModule
from tests.mapped import file_of
from tests.tiny import arguments, series

GIB = (2 * AT_ONCE + 9) * 64 / 2**30
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


def test_a_run_beyond_its_memory_is_the_same_run_and_so_is_its_evaluation(tmp_path, run, seen, capsys):
    assert cli.train(arguments(tmp_path, f"data.memory_gib={GIB:.9g}", "dry_run=true")) == 0
    told = " ".join(capsys.readouterr().out.split())
    (times,) = re.findall(r"Images: 144 of 1 x 8 x 8, \S+ GiB; 9 stay in memory .* decoded about (\d+) times", told)
    seen.clear()
    assert cli.train(arguments(tmp_path, f"data.memory_gib={GIB:.9g}")) == 0
    assert series(tmp_path / "digits") == series(run)
    (images,), (module,) = seen[BoundedImages], seen[DenoiserModule]
    assert images.num_kept == 9
    assert images.num_decoded / 144 == pytest.approx(int(times), abs=1.5)
    assert file_of(module.latents).endswith("(deleted)")
    assert not module.latents_to_device
    audited = seen[AuditedSamples][-1]
    assert file_of(audited.latent).endswith("(deleted)")
    assert file_of(audited.influence).endswith(".safetensors")
    one, other = (pyarrow.parquet.read_table(each / "evaluation" / "scores.parquet") for each in (tmp_path / "digits", run))
    assert one.equals(other)
    last = f"ckpt={tmp_path}/digits/checkpoints/last.ckpt"
    assert cli.evaluate([last, f"out={tmp_path}/out", "data.memory_gib=null"]) == 0
    assert pyarrow.parquet.read_table(tmp_path / "out" / "scores.parquet").equals(one)


def test_a_budget_without_room_for_one_batch_is_refused_by_its_key(tmp_path):
    message = (
        r"^data\.memory_gib: 0\.05 is too small for one batch: 128 images of 3 x 512 x 512 lie in memory while they are "
        r"decoded, 0\.094 GiB; give at least that\.$"
    )
    with pytest.raises(UserError, match=message):
        cli.train(arguments(tmp_path, "data.memory_gib=0.05", "data.resolution=512", "data.channels=3"))
    assert not (tmp_path / "digits").exists()
