"""Every source: what it reads, in which order, and what it says when it can't."""

import json
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn.datasets import load_digits

from ldm_privacy.data.columns import Columns, find_columns
from ldm_privacy.data.folder import Folder
from ldm_privacy.data.images import decode_image
from ldm_privacy.data.sources import Digits, Hub, Parquet, Saved
from ldm_privacy.errors import UserError
from ldm_privacy.registry import IMAGE_SOURCES


def decoded(source, row, resolution=6, channels=3):
    dataset = source.load()
    column = source.columns(dataset).image
    return decode_image(dataset[row][column], resolution=resolution, channels=channels, row=row, column=column)


def pixels_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_registered_names():
    assert list(IMAGE_SOURCES) == [
        "celeba",
        "coco",
        "digits",
        "flickr30k",
        "folder",
        "hub",
        "imagenet",
        "parquet",
        "saved",
        "webdataset",
    ]
    assert IMAGE_SOURCES.get("parquet") is Parquet


def test_digits_are_the_scans_of_scikit_learn():
    dataset = Digits().load()
    assert (len(dataset), dataset.column_names) == (1797, ["image", "label", "text"])
    scans = load_digits()
    assert dataset["label"][:] == scans.target.tolist()
    for row in (0, 900, 1796):
        levels = decoded(Digits(), row, 8, 1)[0].double() * 16 / 255
        assert np.array_equal(levels.round().numpy(), scans.images[row])


def test_parquet_glob_is_sorted_and_a_list_keeps_its_order(tmp_path, image_dataset, random_image):
    folder = tmp_path / "with [brackets]"
    folder.mkdir()
    whole = image_dataset(6, label=[0, 1, 2, 3, 4, 5])
    for name, start in (("b", 3), ("a", 0)):
        whole.select(range(start, start + 3)).to_parquet(str(folder / f"{name}.parquet"))
    names = [str(folder / "b.parquet"), str(folder / "a.parquet")]
    assert Parquet(files=names).load()["label"][:] == [3, 4, 5, 0, 1, 2]
    source = Parquet(files=f"{tmp_path}/with*/*.parquet")
    assert source.load()["label"][:] == [0, 1, 2, 3, 4, 5]
    assert torch.equal(decoded(source, 4), pixels_of(random_image(4)))


@pytest.mark.parametrize("how", ["moved over it", "written into it"])
def test_parquet_that_is_replaced_with_its_time_kept_is_the_new_one(tmp_path, image_dataset, random_image, how):
    whole, path, new = image_dataset(4), tmp_path / "x.parquet", tmp_path / "new.parquet"
    whole.select([0, 1]).to_parquet(str(path))
    whole.select([2, 3]).to_parquet(str(new))
    source, time = Parquet(files=str(path)), os.stat(path).st_mtime_ns
    assert torch.equal(decoded(source, 0), pixels_of(random_image(0)))
    if how == "moved over it":
        os.replace(new, path)
    else:
        path.write_bytes(new.read_bytes())
    os.utime(path, ns=(time, time))
    assert torch.equal(decoded(source, 0), pixels_of(random_image(2)))


def test_saved_data_that_are_replaced_with_their_time_kept_are_the_new_ones(tmp_path, image_dataset, random_image):
    path = tmp_path / "saved"
    image_dataset(4).select([0, 1]).save_to_disk(str(path))
    source, times = Saved(path=str(path)), {file.name: os.stat(file).st_mtime_ns for file in path.iterdir()}
    assert torch.equal(decoded(source, 0), pixels_of(random_image(0)))
    image_dataset(4).select([2, 3]).save_to_disk(str(tmp_path / "new"))
    for name, time in times.items():
        os.replace(tmp_path / "new" / name, path / name)
        os.utime(path / name, ns=(time, time))
    assert torch.equal(decoded(source, 0), pixels_of(random_image(2)))


@pytest.mark.parametrize("bare", [True, False])
def test_parquet_without_the_hub_metadata(tmp_path, random_image, png, bare):
    cells = [png(random_image(row)) for row in range(3)]
    column = cells if bare else [{"bytes": cell, "path": None} for cell in cells]
    pa.parquet.write_table(pa.table({"img": column, "who": ["a", "b", "a"]}), tmp_path / "x.parquet")
    source = Parquet(files=str(tmp_path / "x.parquet"))
    assert torch.equal(decoded(source, 2), pixels_of(random_image(2)))


def test_nothing_is_written_beside_the_data_or_into_the_working_directory(tmp_path, monkeypatch, image_dataset):
    (tmp_path / "here").mkdir()
    image_dataset(3).to_parquet(str(tmp_path / "x.parquet"))
    monkeypatch.chdir(tmp_path / "here")
    Parquet(files="../x.parquet").load()
    assert sorted(os.listdir(tmp_path)) == ["here", "x.parquet"]
    assert os.listdir(tmp_path / "here") == []


def test_folder_rows_are_sorted_and_subfolders_are_classes(tmp_path, random_image):
    for seed, name in enumerate(["test/b.png", "test/a.png", "cat/z.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        random_image(seed).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    source = Folder(path=str(tmp_path))
    dataset = source.load()
    assert dataset.features["label"].names == ["cat", "test"]
    assert dataset["label"][:] == [0, 1, 1]
    assert [bool(torch.equal(decoded(source, row), pixels_of(random_image(2 - row)))) for row in range(3)] == [True] * 3


def test_folder_with_metadata_has_captions(tmp_path, random_image):
    folder = tmp_path / "a[b]"
    folder.mkdir()
    random_image(0).save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a thing", "patient": 7}) + "\n")
    source = Folder(path=str(folder))
    dataset = source.load()
    assert source.columns(dataset).caption == "text"
    assert dataset[0]["patient"] == 7
    assert torch.equal(decoded(source, 0), pixels_of(random_image(0)))


def test_saved_data_set_and_its_splits(tmp_path, image_dataset, random_image):
    image_dataset(4).with_format("torch").save_to_disk(str(tmp_path / "one"))
    assert torch.equal(decoded(Saved(path=str(tmp_path / "one")), 3), pixels_of(random_image(3)))
    parts = datasets.DatasetDict({"train": image_dataset(2), "validation": image_dataset(3)})
    parts.save_to_disk(str(tmp_path / "two"))
    assert len(Saved(path=str(tmp_path / "two"), split="validation").load()) == 3
    for split, message in (
        (None, r"data\.source\.split: missing\. Splits: train, validation"),
        ("trian", r"Did you mean 'train'\?"),
    ):
        with pytest.raises(UserError, match=message):
            Saved(path=str(tmp_path / "two"), split=split).load()
    with pytest.raises(UserError, match="without splits"):
        Saved(path=str(tmp_path / "one"), split="train").load()


def test_hub_offline_says_how_to_name_a_local_copy():
    with pytest.raises(UserError) as caught:
        Hub(repo_id="uoft-cs/no-such-data").load()
    message = str(caught.value)
    for part in ("uoft-cs/no-such-data", "data.source.class=parquet data.source.files=", "class=saved", "HF_HUB_OFFLINE"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda path: Folder(path=f"{path}/none"), r"data\.source\.path: there is no folder .*none"),
        (lambda path: Folder(path=f"{path}/broken.pq"), r"data\.source\.path: .*broken\.pq is a file, not a folder"),
        (lambda path: Folder(path=f"{path}/empty"), r"data\.source\.path: no images in .*empty"),
        (lambda path: Saved(path=f"{path}/none"), "there is no folder"),
        (lambda path: Saved(path=f"{path}/empty"), "not written by save_to_disk"),
        (lambda path: Parquet(files=f"{path}/*.parquet"), r"data\.source\.files: no file matches '.*\*\.parquet'"),
        (lambda path: Parquet(files=[]), "the list is empty"),
        (
            lambda path: Parquet(files=f"{path}/empty/"),
            r"data\.source\.files: '.*/empty/' is a folder; .*'.*/empty/\*\.parquet'",
        ),
        (lambda path: Hub(repo_id=f"{path}/empty"), r"data\.source\.repo_id: '.*empty' is on this machine: .*class=folder"),
        (lambda path: Parquet(files=f"{path}/broken.pq"), r"can't read .*broken\.pq as parquet"),
    ],
)
def test_missing_and_broken_data(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.pq").write_bytes(b"PAR1 is not enough")
    with pytest.raises(UserError, match=message) as caught:
        source(tmp_path).load()
    assert "\n" not in str(caught.value)


def test_columns_are_found_by_type_then_by_name(image_dataset):
    dataset = image_dataset(2, fine_label=[0, 1], text=["a", "b"], weight=[0.5, 0.25])
    assert find_columns(dataset) == Columns("image", "fine_label", "text")
    assert find_columns(dataset.rename_column("image", "odd name")).image == "odd name"
    two = dataset.add_column("img", [b"x", b"y"]).cast_column("img", datasets.Image(decode=False))
    assert find_columns(two).image == "image"
    assert find_columns(two, image="img").image == "img"
    classes = dataset.rename_column("fine_label", "kind").cast_column("kind", datasets.ClassLabel(names=["x", "y"]))
    assert find_columns(classes).label == "kind"
    assert find_columns(image_dataset(1)) == Columns("image")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"image": "imagee"}, r"image_column: no column 'imagee'.*Did you mean 'image'\? Columns: image, label, text"),
        ({"label": "texts"}, r"label_column: no column 'texts'.*Did you mean 'text'\?"),
        ({"image": "text"}, "column 'text' is not an image but string"),
        ({"label": "image"}, "column 'image' is not a label"),
        ({"caption": "label"}, "column 'label' is not a caption"),
    ],
)
def test_wrong_columns(image_dataset, named, message):
    with pytest.raises(UserError, match=message):
        find_columns(image_dataset(2, label=[0, 1], text=["a", "b"]), **named)


def test_no_image_column_and_several():
    plain = datasets.Dataset.from_dict({"name": ["a"], "size": [1]})
    with pytest.raises(UserError, match=r"no image column found.*image_column=NAME\. Columns: name, size"):
        find_columns(plain)
    both = datasets.Dataset.from_dict({"left": [b"x"], "right": [b"y"]})
    both = both.cast_column("left", datasets.Image(decode=False)).cast_column("right", datasets.Image(decode=False))
    with pytest.raises(UserError, match=r"several image columns \(left, right\)"):
        find_columns(both)


def test_progress_bars_of_the_library_are_left_as_they_were():
    was_off = datasets.are_progress_bars_disabled()
    try:
        datasets.enable_progress_bars()
        Digits().load()
        assert not datasets.are_progress_bars_disabled()
    finally:
        if was_off:
            datasets.disable_progress_bars()
