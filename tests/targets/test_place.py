"""What is known of a path before anything heavy is loaded."""

import json

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.targets.place import check_is_file, check_may_be_denoiser, check_may_be_target, target_name


def test_a_target_is_called_by_the_name_that_its_folder_has(tmp_path, monkeypatch):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "model" / "unet")
    here = tmp_path.__class__
    assert [target_name(here(each)) for each in (".", "..", "../unet/..")] == ["unet", "model", "model"]
    (tmp_path / "blob").write_text("")
    (tmp_path / "model" / "adapter_model.safetensors").symlink_to(tmp_path / "blob")
    assert target_name(here("../adapter_model.safetensors")) == "model"


@pytest.mark.parametrize("header", ["5", "[1]", "null", "[" * 100_000, "no"])
def test_a_header_that_is_none_is_left_to_who_reads_the_file(header, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    check_may_be_target(file, ())


def test_a_header_larger_than_the_format_has_it_is_not_read(tmp_path, monkeypatch):
    file, header = tmp_path / "lora.safetensors", json.dumps({"unet.x.lora_A.weight": {}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"is an adapter"):
        check_may_be_target(file, ())
    monkeypatch.setattr("ldm_privacy.targets.place.MOST_HEADER", len(header) - 1)
    check_may_be_target(file, ())


def test_of_a_run_only_checkpoints_that_can_be_audited_are_offered_the_last_one_first(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("autoencoder-last.ckpt", "before-onset.ckpt", "last.ckpt"):
        (folder / name).touch()
    offered = rf"There: {folder}/last\.ckpt, {folder}/before-onset\.ckpt\.$"
    for path in (tmp_path, folder):
        with pytest.raises(UserError, match=rf"^ckpt: {path} is the folder of a run; .*{offered}"):
            check_may_be_target(path, ())
    with pytest.raises(UserError, match=rf"lst\.ckpt: does not exist; .*{offered}"):
        check_is_file(folder / "lst.ckpt")
    with pytest.raises(UserError, match=rf"it is from the autoencoder stage, .*{offered}"):
        check_may_be_denoiser(folder / "autoencoder-last.ckpt")
    check_may_be_denoiser(folder / "before-onset.ckpt")
