"""metrics.csv."""

import pytest

from ldm_privacy.runs.series import SeriesFile


@pytest.fixture
def written(tmp_path):
    file = SeriesFile(tmp_path / "metrics.csv")
    for epoch in (1, 2):
        file.write("autoencoder", epoch, {"x": epoch})
    for epoch in (0, 1, 2, 3):
        file.write("denoiser", epoch, {"y": epoch / 3, "z": -epoch})
    return file


def rows(file):
    return [row.split(",")[:3] for row in file.path.read_text().splitlines()[1:]]


def test_what_was_written_is_read_by_stage(written):
    assert written.read("autoencoder") == {(1, "x"): 1.0, (2, "x"): 2.0}
    assert written.read("denoiser")[3, "y"] == 1.0
    assert written.read("denoiser")[2, "y"] == 2 / 3
    assert SeriesFile(written.path.with_name("none.csv")).read("denoiser") == {}


@pytest.mark.parametrize("torn", ["denoiser,4,half a r", "denoiser,4,y,", "denoiser,4,y,-1e-", "denoiser,4,y,0.1", "deno", ""])
def test_cut_back_drops_what_comes_after_the_checkpoint(written, torn):
    with written.path.open("a") as file:
        file.write(torn)  # a kill in the middle of a row
    assert max(epoch for epoch, _ in written.read("denoiser")) == 3
    written.cut_back("denoiser", 1)
    expected = [["autoencoder", "1", "x"], ["autoencoder", "2", "x"]]
    expected += [["denoiser", epoch, name] for epoch in "01" for name in "yz"]
    assert rows(written) == expected
    assert sorted(path.name for path in written.path.parent.iterdir()) == ["metrics.csv"]


def test_a_row_that_was_cut_in_the_middle_of_a_letter_is_no_row(written):
    with written.path.open("ab") as file:
        file.write("denoiser,4,memorization/größe".encode()[:-2])  # half an ß
    before = len(written.read("denoiser"))
    written.cut_back("denoiser", 3)
    assert len(written.read("denoiser")) == before == 8


def test_an_earlier_stage_that_goes_on_drops_all_of_a_later_one(written):
    written.cut_back("autoencoder", 1)
    assert written.path.read_text().splitlines()[1:] == ["autoencoder,1,x,1.0"]


def test_there_may_be_nothing_to_cut_back(tmp_path):
    file = SeriesFile(tmp_path / "metrics.csv")
    file.cut_back("denoiser", -1)
    assert not file.path.exists()
