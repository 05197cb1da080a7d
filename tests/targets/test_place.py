"""What is known of a path before anything heavy is loaded."""

import json

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.targets.place import check_may_be_target, target_name


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
