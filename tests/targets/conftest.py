"""Folders of tiny pipelines, written once a session."""

import shutil

import pytest

from tests.targets.pipelines import stable_diffusion


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory):
    """A StableDiffusionPipeline's folder; not to be changed."""
    return stable_diffusion(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture
def sd_copy(sd_folder, tmp_path):
    """A copy of it that may be damaged."""
    return shutil.copytree(sd_folder, tmp_path / "sd", copy_function=shutil.copyfile)
