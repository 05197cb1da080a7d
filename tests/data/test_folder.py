"""Folders of images: what is read, what is not and said, and metadata row by row."""

import json
import logging
import os

import pytest
import torch

from ldm_privacy.data.folder import Folder
from ldm_privacy.data.images import decode_image
from ldm_privacy.errors import UserError


def pixels(source, row=0):
    cell = source.load()[row]["image"]
    return decode_image(cell, resolution=6, channels=3, row=row, column="image")


@pytest.fixture
def folder(tmp_path, random_image):
    """A function of names -> a folder with a random image under each; seeds count from 0."""

    def make(*names, at="images"):
        for seed, name in enumerate(names):
            file = tmp_path / at / name
            file.parent.mkdir(parents=True, exist_ok=True)
            random_image(seed).save(file)
        return tmp_path / at

    return make


@pytest.fixture
def said(caplog):
    """A function -> what was logged since the last call."""
    caplog.set_level(logging.WARNING, logger="ldm_privacy")

    def lines():
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return lines


def test_linked_class_folders_and_files_are_read_like_real_ones(folder, said):
    root = folder("real/0.png", "real/1.png")
    elsewhere = folder("2.png", "3.png", at="elsewhere")
    (root / "linked").symlink_to(elsewhere)
    (root / "real" / "4.png").symlink_to(elsewhere / "3.png")
    dataset = Folder(path=str(root)).load()
    assert dataset.features["label"].names == ["linked", "real"]
    assert dataset["label"][:] == [0, 0, 1, 1, 1]
    assert said() == []


def test_a_link_to_a_folder_above_it_ends(folder, said):
    root = folder("a/0.png", "b/1.png")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "over").symlink_to(folder("2.png", at="other"))
    (root.parent / "other" / "back").symlink_to(root)
    assert len(Folder(path=str(root)).load()) == 3
    (line,) = (line for line in said() if "not read" in line)
    assert line.endswith("2 links to a folder above them (the first: a/up).")


def test_whatever_is_not_read_is_counted_with_its_first_name(folder, said):
    root = folder("a/0.png", "a/.1.png", "b/2.PNG")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "b" / "video.mpg").write_bytes(b"no image")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    assert len(Folder(path=str(root)).load()) == 2
    (line,) = said()
    assert "\n" not in line
    assert line.startswith(f"data.source.path: not read of {root}: ")
    for part in (
        "1 hidden (the first: a/.1.png)",
        "2 without an image's ending (the first: a/notes.txt)",
        "1 links to nothing, or no files (the first: gone.png)",
    ):
        assert part in line


def test_images_beside_class_folders_have_no_class_and_that_is_said(folder, said):
    root = folder("a/0.png", "b/1.png", "2.png")
    assert "label" not in Folder(path=str(root)).load().features
    assert said() == ["data.source.path: subfolders are no classes, for images lie unequally deep (2.png highest)."]


def test_an_image_or_a_caption_that_is_replaced_with_its_time_kept_is_the_new_one(folder, random_image):
    root = folder("0.png")
    metadata = root / "metadata.csv"
    metadata.write_text("file_name,text\n0.png,old\n")
    source = Folder(path=str(root))
    assert (source.load()["text"][:], torch.equal(pixels(source), pixels(source))) == (["old"], True)
    before = pixels(source)
    times = {file: os.stat(file).st_mtime_ns for file in (metadata, root / "0.png")}
    metadata.write_text("file_name,text\n0.png,new\n")
    random_image(7).save(root / "0.png")
    for file, time in times.items():
        os.utime(file, ns=(time, time))
    assert source.load()["text"][:] == ["new"]
    assert not torch.equal(pixels(source), before)


def test_metadata_rows_are_the_rows_and_images_without_one_are_counted(folder, said):
    root = folder("0.png", "1.png", "sub/2.png", "sub/3.png")
    (root / "metadata.csv").write_bytes(
        b'\xef\xbb\xbffile_name,text,patient,day,note\r\n1.png,"two\nlines",7,2020-01-02,NA\r\n./sub/2.png,b,,2020-01-03,x\r\n'
    )
    dataset = Folder(path=str(root)).load()
    assert [os.path.basename(cell["path"]) for cell in dataset["image"][:]] == ["1.png", "2.png"]
    assert dataset["text"][:] == ["two\nlines", "b"]
    assert dataset["patient"][:] == [7, None]
    assert dataset["day"][:] == ["2020-01-02", "2020-01-03"]
    assert dataset["note"][:] == [None, "x"]
    (line,) = said()
    assert line.endswith(f"not read of {root}: 2 images that no row of the metadata names (the first: 0.png).")


def test_metadata_in_subfolders_and_rows_of_different_keys(folder, said):
    root = folder("a/0.png", "b/1.png", "b/2.png")
    (root / "a" / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "zero"}) + "\n\n")
    rows = [{"file_name": "2.png", "patient": 5}, {"file_name": "1.png", "text": "one"}, {"file_name": "1.png"}]
    (root / "b" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    dataset = Folder(path=str(root)).load()
    assert dataset["text"][:] == ["zero", "one", None, None]
    assert dataset["patient"][:] == [None, None, None, 5]
    assert said() == [f"data.source.path: 1 rows of the metadata in {root} name an image that another row names."]


def test_rows_stand_in_the_order_of_file_names_whatever_the_order_of_the_lines(folder):
    root = folder("10.png", "2.png", "sub/1.png", "z.png")
    lines = ["z.png,last", "2.png,two", "sub/1.png,one", "10.png,ten"]
    found = []
    for written in (lines, lines[::-1], sorted(lines)):
        (root / "metadata.csv").write_text("\n".join(["file_name,text", *written]))
        dataset = Folder(path=str(root)).load()
        names = [os.path.relpath(cell["path"], root) for cell in dataset["image"][:]]
        found.append([*zip(names, dataset["text"][:])])
    assert found == [[("10.png", "ten"), ("2.png", "two"), ("sub/1.png", "one"), ("z.png", "last")]] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "", r"metadata\.csv: can't be read as comma-separated UTF-8 text"),
        ("metadata.csv", "file_name,text\n", r"metadata\.csv: no rows.*take the file away: then all 2 images are read"),
        ("metadata.csv", "file;text\n0.png;a\n", r"metadata\.csv: no column 'file_name'.*Columns: file;text"),
        (
            "metadata.csv",
            "file_name,text\n0.png,a\n1.png\n",
            r"metadata\.csv: can't be read .*Row #3: Expected 2 columns, got 1",
        ),
        ("metadata.csv", "file_name,text,text\n0.png,a,b\n", r"metadata\.csv: two columns are called 'text'"),
        ("metadata.csv", "file_name,image\n0.png,a\n", r"metadata\.csv: the column 'image' is taken"),
        ("metadata.csv", "file_name,text\n1.png,a\n,b\n", r"metadata\.csv, row 1: file_name is missing"),
        ("metadata.csv", "file_name,text\n1.png,a\n9.png,b\n", r"metadata\.csv, row 1: there is no file '9\.png' in .*images;"),
        (
            "metadata.csv",
            "file_name,text\n/data/0.png,a\n",
            r"metadata\.csv, row 0: file_name '/data/0\.png' leads out .* as '0\.png'",
        ),
        (
            "metadata.csv",
            "file_name,text\nC:\\scans\\0.png,a\n",
            r"row 0: file_name 'C:\\scans\\0\.png' leads out .* as '0\.png'",
        ),
        ("metadata.csv", "file_name,text\na/../../0.png,a\n", r"row 0: file_name 'a/\.\./\.\./0\.png' leads out"),
        ("metadata.csv", b"file_name,text\n0.png,\xe9\n", r"metadata\.csv: column 'text' is no UTF-8 text"),
        ("metadata.jsonl", "", r"metadata\.jsonl: no rows"),
        ("metadata.jsonl", '{"file_name": "0.png"}\n{"file_name": \n', r"metadata\.jsonl, line 2: no JSON"),
        ("metadata.jsonl", b'{"file_name": "0.png", "text": "\xe9"}\n', r"metadata\.jsonl, line 1: no JSON"),
        ("metadata.jsonl", '{"file_name": "0.png"}\n["1.png"]\n', r"metadata\.jsonl, line 2: no names and values"),
        ("metadata.jsonl", '{"file_name": 0}\n', r"metadata\.jsonl, row 0: file_name is 0"),
        (
            "metadata.jsonl",
            '{"file_name": "0.png", "p": 1}\n{"file_name": "1.png", "p": "x"}\n',
            r"the values of 'p' are of several",
        ),
    ],
)
def test_metadata_that_can_not_be_is_told_with_file_and_row(folder, name, text, message):
    root = folder("0.png", "1.png")
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        Folder(path=str(root)).load()
    assert str(root) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_metadata_files_of_two_minds_are_refused(folder):
    root = folder("a/0.png", "b/1.png")
    (root / "a" / "metadata.csv").write_text("file_name,patient\n0.png,1\n")
    (root / "b" / "metadata.csv").write_text("file_name,patient\n1.png,x\n")
    with pytest.raises(UserError, match=r"a/metadata\.csv, b/metadata\.csv in .* don't agree in their columns"):
        Folder(path=str(root)).load()


def test_two_metadata_files_in_one_place_are_refused(folder):
    root = folder("a/0.png")
    (root / "a" / "metadata.csv").write_text("file_name\n0.png\n")
    assert len(Folder(path=str(root)).load()) == 1
    (root / "a" / "metadata.jsonl").write_text('{"file_name": "0.png"}')
    with pytest.raises(UserError, match=r"images/a: metadata\.csv and metadata\.jsonl lie there both; keep one"):
        Folder(path=str(root)).load()


def test_the_handed_in_inputs_are_told_with_file_and_row(shared_file):
    with pytest.raises(UserError, match=r"metadata_header_only/metadata\.csv: no rows"):
        Folder(path=str(shared_file("inputs/metadata_header_only"))).load()
    with pytest.raises(
        UserError, match=r"metadata_absolute_path/metadata\.csv, row 0: file_name '/data/scans/0\.png' leads out"
    ):
        Folder(path=str(shared_file("inputs/metadata_absolute_path"))).load()
