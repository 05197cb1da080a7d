"""The published data as they come: the order of rows, captions, people, sides, and what is wrong in one line."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import datasets
import pytest
import torch

from ldm_privacy.controls.image_features import image_features
from ldm_privacy.controls.model_free import classify
from ldm_privacy.data.celeba import CelebA
from ldm_privacy.data.coco import Coco
from ldm_privacy.data.columns import all_captions
from ldm_privacy.data.flickr30k import Flickr30k
from ldm_privacy.data.folder import Folder
from ldm_privacy.data.imagenet import ImageNet
from ldm_privacy.data.images import decode_image
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.sources import Parquet, Saved
from ldm_privacy.data.webdataset import WebDataset
from ldm_privacy.errors import UserError
from tests.standins import (
    captions_of,
    encoded,
    picture,
    write_celeba,
    write_coco,
    write_flickr30k,
    write_hub,
    write_imagenet,
    write_medical,
    write_webdataset,
)


def names(dataset, column="image"):
    return [os.path.basename(cell["path"]) for cell in dataset[column][:]]


def data_of(source, **options):
    given = {"resolution": 16, "channels": 3, "num_members": None, "num_heldout": None, **options}
    return ImageData(source, **given)


def test_coco_rows_are_in_the_order_of_file_names_with_all_captions(tmp_path):
    source = Coco(**write_coco(tmp_path, 4))
    dataset = source.load()
    assert names(dataset) == [f"{139 + 7 * number:012}.jpg" for number in range(4)]
    assert dataset["caption"][:] == [captions_of(number) for number in range(4)]
    pixels = decode_image(dataset[2]["image"], resolution=32, channels=3, row=2, column="image")
    stored = decode_image(
        {"bytes": encoded(picture(139 + 14), "JPEG"), "path": None}, resolution=32, channels=3, row=0, column=""
    )
    assert torch.equal(pixels, stored)
    data = data_of(source, num_members=2, num_heldout=2)
    assert data.captions(torch.tensor([3])) == [captions_of(3)]


@pytest.mark.parametrize("layout", ["annotations", "results", "token"])
def test_the_files_of_flickr30k_say_the_same(tmp_path, layout):
    dataset = Flickr30k(**write_flickr30k(tmp_path, 3, layout=layout)).load()
    assert names(dataset) == ["1000092795.jpg", "1000092826.jpg", "1000092857.jpg"]
    assert dataset["caption"][:] == [captions_of(number) for number in range(3)]


@pytest.mark.parametrize("layout", ["annotations", "results", "token"])
def test_a_caption_of_flickr30k_may_hold_a_line_separator(tmp_path, layout):
    options = write_flickr30k(tmp_path, 2, layout=layout)
    text = Path(options["captions"]).read_text(encoding="utf-8")
    said = captions_of(0)[1]
    dataset = Flickr30k(**rewritten(options, "captions", text.replace(said, f"a\u2028{said}\x85b"))).load()
    assert dataset["caption"][0][1] == f"a\u2028{said}\x85b"


def test_nobody_of_celeba_is_on_both_sides(tmp_path):
    source = CelebA(**write_celeba(tmp_path, 30, num_identities=8))
    dataset = source.load()
    assert names(dataset)[:2] == ["000001.jpg", "000002.jpg"]
    identity = torch.tensor(dataset["identity"][:])
    split = data_of(source, num_members=15, num_heldout=15, group_column="identity").split
    members, heldout = (set(identity[index].tolist()) for index in (split.member_index, split.heldout_index))
    assert members
    assert heldout
    assert not members & heldout
    both = data_of(source, num_members=15, num_heldout=15).split
    assert set(identity[both.member_index].tolist()) & set(identity[both.heldout_index].tolist())


def test_what_of_imagenet_is_taken_is_a_hash_of_names_alone(tmp_path):
    options = write_imagenet(tmp_path, 9, num_classes=2, num_heldout=4)
    source = ImageNet(**options, per_class=3, heldout_per_class=2)
    dataset = source.load()
    by_class = {}
    for cell, side, label in zip(dataset["image"][:], dataset["side"][:], dataset["label"][:]):
        path = Path(cell["path"])
        assert dataset.features["label"].int2str(label) == path.parent.name
        by_class.setdefault((side, path.parent.name), []).append(path.stem)
    for (side, synset), found in by_class.items():
        folder = tmp_path / ("train" if side == "member" else "val") / synset
        stems = sorted((path.stem for path in folder.iterdir()), key=lambda stem: hashlib.sha256(stem.encode()).hexdigest())
        assert found == sorted(stems[: 3 if side == "member" else 2])
    # Written down, so that a change of the rule shows.
    assert by_class["member", "n01440764"] == PINNED
    other = ImageNet(path=options["path"], per_class=3, heldout_per_class=2)
    assert names(other.load().filter(lambda row: row["side"] == "member")) == names(
        dataset.filter(lambda row: row["side"] == "member")
    )
    (tmp_path / "train" / "n01440764" / f"{PINNED[0]}.JPEG").rename(tmp_path / "train" / "n01440764" / f"{PINNED[0]}.png")
    assert by_class["member", "n01440764"] == [Path(name).stem for name in names(source.load())[:3]]


PINNED = ["n01440764_3", "n01440764_4", "n01440764_7"]


@pytest.mark.parametrize("heldout", ["of the validation set", "of the training set", "more of the training set"])
def test_the_sides_of_imagenet_come_with_it(tmp_path, heldout):
    options = write_imagenet(tmp_path, 9, num_classes=3, num_heldout=4)
    if heldout != "of the validation set":
        options.pop("heldout_path")
    source = ImageNet(**options, per_class=5, heldout_per_class=4 if heldout[0] == "m" else 2)
    data = data_of(source)
    dataset = source.load()
    sides = dataset["side"][:]
    assert [sides[row] for row in data.split.member_index.tolist()] == ["member"] * 15
    assert {sides[row] for row in data.split.heldout_index.tolist()} == {"heldout"}
    assert len(data.split.heldout_index) == 3 * source.heldout_per_class
    assert len({cell["path"] for cell in dataset["image"][:]}) == len(dataset)
    assert data.labels(data.split.heldout_index).bincount().tolist() == [source.heldout_per_class] * 3
    fewer = data_of(source, num_members=4, num_heldout=3).split
    assert torch.isin(fewer.member_index, data.split.member_index).all()
    assert (len(fewer.member_index), len(fewer.heldout_index)) == (4, 3)


def test_without_sides_imagenet_is_drawn_by_seed_and_coins(tmp_path):
    source = ImageNet(**write_imagenet(tmp_path, 6, num_classes=2), per_class=6, heldout_per_class=0)
    assert data_of(source, num_members=6, num_heldout=6, by_coins=True).split.by_coins
    with pytest.raises(UserError, match=r"^data\.num_members: missing"):
        data_of(source)
    with pytest.raises(UserError, match=r"^data\.split=coin: data\.source comes with its sides.*heldout_per_class=0"):
        data_of(ImageNet(path=source.path, per_class=3, heldout_per_class=2), by_coins=True)


def test_the_model_free_control_tells_the_published_sides_of_imagenet_apart_and_not_those_within(tmp_path):
    options = write_imagenet(tmp_path, 24, num_classes=3, num_heldout=12, brightest_heldout=200)

    def leaks(source):
        data = data_of(source)
        index = data.split.audited_index
        found = classify(image_features(data.images(index)), data.split.is_member(index))
        return [finding.leaks for finding in found]

    assert leaks(ImageNet(**options, per_class=12, heldout_per_class=12)) == [True, True]
    assert leaks(ImageNet(path=options["path"], per_class=12, heldout_per_class=12)) == [False, False]


def test_shards_are_read_in_order_with_captions_and_what_their_json_says(tmp_path):
    source = WebDataset(**write_webdataset(tmp_path, 6))
    dataset = source.load()
    columns = source.columns(dataset)
    assert (columns.image, columns.caption) == ("jpg", "caption")
    assert all_captions(dataset, columns.caption, range(6)) == [captions_of(number, 1) for number in range(6)]
    assert dataset["patient"][:] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    data = data_of(source, num_members=2, num_heldout=4, group_column="patient")
    assert len(data.split.member_index) == 2


def test_a_txt_beside_an_image_of_a_shard_is_its_caption(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in (("a.png", encoded(picture(0))), ("a.txt", b"a thing"), ("a.cls", b"3")):
            (tmp_path / name).write_bytes(content)
            tar.add(tmp_path / name, name)
    source = WebDataset(files=str(tmp_path / "0.tar"))
    dataset = source.load()
    columns = source.columns(dataset)
    assert (columns.caption, columns.label) == ("txt", "cls")
    assert (dataset[0]["txt"], dataset[0]["cls"]) == ("a thing", 3)


def test_splits_that_were_saved_together_are_joined_in_the_order_that_is_asked(tmp_path, image_dataset):
    parts = {"train": image_dataset(2, n=[0, 1]), "valid": image_dataset(1, n=[2])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path))
    assert Saved(path=str(tmp_path), split="valid+train").load()["n"][:] == [2, 0, 1]
    with pytest.raises(UserError, match=r"there is no split 'test' in .*Splits: train, valid"):
        Saved(path=str(tmp_path), split="train+test").load()


def without(options, *, images="images", number=1):
    """The same with so many images gone."""
    for path in sorted(Path(options[images]).iterdir())[:number]:
        path.unlink()
    return options


def rewritten(options, key, text):
    """The same with another text in a file that the options name."""
    Path(options[key]).write_text(text)
    return options


def edited(options, change):
    """COCO's, with its JSON changed."""
    content = json.loads(Path(options["annotations"]).read_text())
    change(content)
    return rewritten(options, "annotations", json.dumps(content))


def half_a_shard(folder):
    options = write_webdataset(folder, 6)
    (folder / "00001.tar").write_bytes((folder / "00001.tar").read_bytes()[:3000])
    return options


def no_shard(folder):
    (folder / "0.tar").write_bytes(b"<html>Not found</html>" * 100)
    return {"files": f"{folder}/0.tar"}


def half_a_set(folder):
    options = write_hub(folder, 3)
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00001-of-00003.parquet")
    return options


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            lambda at: Coco(annotations=f"{at}/x.json", images=f"{at}"),
            r"^data\.source\.annotations: there is no file .*x\.json",
        ),
        (lambda at: Coco(annotations=f"{at}", images=f"{at}"), r"^data\.source\.annotations: .* is a folder, not a file"),
        (
            lambda at: Coco(**write_coco(at, 3) | {"images": f"{at}/train2017"}),
            r"^data\.source\.images: there is no folder .*train2017",
        ),
        (
            lambda at: Coco(**without(write_coco(at, 5), number=3)),
            r"^data\.source\.images: 3 of the 5 images that .*captions_val2017\.json names aren't in .*val2017; the first is "
            r"'000000000139\.jpg'\. Copy all",
        ),
        (
            lambda at: Coco(**write_coco(at, 2, kind="instances")),
            r"instances_val2017\.json: entry 0 of 'annotations' has no text 'caption'; name COCO's captions",
        ),
        (lambda at: Coco(**rewritten(write_coco(at, 2), "annotations", '{"images": [')), r"captions_val2017\.json: no JSON"),
        (lambda at: Coco(**rewritten(write_coco(at, 2), "annotations", "[]")), r"no list 'images' in it; name COCO's captions"),
        (
            lambda at: Coco(**edited(write_coco(at, 2), lambda content: content["images"].pop())),
            r"5 captions are of images that it doesn't list, the first of image_id 139",
        ),
        (
            lambda at: Coco(**edited(write_coco(at, 2), lambda content: content["images"][0].update(file_name="../x.jpg"))),
            r"'\.\./x\.jpg' leads out of",
        ),
        (
            lambda at: Flickr30k(**without(write_flickr30k(at, 4), number=2)),
            r"^data\.source\.images: 2 of the 4 images that .*flickr_annotations_30k\.csv names aren't in .*'1000092795\.jpg'",
        ),
        (
            lambda at: Flickr30k(**rewritten(write_flickr30k(at, 2), "captions", "file,text\nx.jpg,a\n")),
            r"no column 'raw'; its columns are file, text\. Name flickr_annotations_30k\.csv, results\.csv or",
        ),
        (
            lambda at: Flickr30k(**rewritten(write_flickr30k(at, 2), "captions", "raw,filename\nx,x.jpg\n")),
            r"flickr_annotations_30k\.csv, line 2: no file name, or no list of captions in 'raw'",
        ),
        (
            lambda at: Flickr30k(**rewritten(write_flickr30k(at, 2), "captions", "x.jpg#0\ta dog\nx.jp")),
            r"flickr_annotations_30k\.csv, line 2: no name, number and caption",
        ),
        (lambda at: Flickr30k(**rewritten(write_flickr30k(at, 2), "captions", "")), r"it names no images; take the whole file"),
        (
            lambda at: CelebA(**without(write_celeba(at, 6), number=4)),
            r"^data\.source\.images: 4 of the 6 images that .*identity_CelebA\.txt names aren't in .*'000001\.jpg'",
        ),
        (
            lambda at: CelebA(**rewritten(write_celeba(at, 2), "identities", "000001.jpg 5\n000002.jpg -1 1\n")),
            r"identity_CelebA\.txt, line 2: no name and number, as in '000001\.jpg 2880'",
        ),
        (
            lambda at: CelebA(**rewritten(write_celeba(at, 2), "identities", "000001.jpg 5\n000001.jpg 6\n")),
            r"line 2: '000001\.jpg' stands in a line before",
        ),
        (
            lambda at: ImageNet(**write_imagenet(at, 3), per_class=3, heldout_per_class=1),
            r"^data\.source\.path: 4 of the 4 class folders in .*train hold fewer than 4 images, the first, n01440764, 3; copy",
        ),
        (
            lambda at: ImageNet(path=write_imagenet(at, 3)["path"] + "/n01440764"),
            r"^data\.source\.path: no folder in .* holds images; name the one of the class folders",
        ),
        (
            lambda at: ImageNet(
                **write_imagenet(at, 2) | {"heldout_path": write_imagenet(at / "other", 2, num_classes=3)["path"]},
                per_class=2,
                heldout_per_class=1,
            ),
            r"^data\.source\.heldout_path: 1 class folders are in .* alone, the first is n01440773; both need the same",
        ),
        (lambda at: WebDataset(files=f"{at}/*.tar"), r"^data\.source\.files: no file matches"),
        (lambda at: WebDataset(files=f"{at}"), r"^data\.source\.files: .* is a folder; name its files, as in '.*/\*\.tar'"),
        (
            lambda at: WebDataset(**half_a_shard(at)),
            r"^data\.source\.files: can't read .*00000\.tar and 1 more as webdataset \(",
        ),
        (lambda at: WebDataset(**no_shard(at)), r"^data\.source\.files: can't read .*0\.tar as webdataset \("),
        (
            lambda at: ImageNet(path=f"{at}", heldout_path=f"{at}", heldout_per_class=0),
            r"^data\.source\.heldout_path: .*heldout_per_class=0",
        ),
        (
            lambda at: Parquet(**half_a_set(at)),
            r"^data\.source\.files: 2 of the files whose names count them aren't there, the first is .*train-00000-of-00003",
        ),
        (
            lambda at: Folder(**without(write_medical(at, 5), images="path", number=2)),
            r"metadata\.csv, row 0: there is no file '0000\.png' in .*, nor those that 1 further rows name; mend",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(tmp_path, source, message):
    with pytest.raises(UserError, match=message) as caught:
        source(tmp_path).load()
    assert "\n" not in str(caught.value)


def test_a_file_of_a_whole_set_may_be_named_alone(tmp_path):
    half_a_set(tmp_path)
    assert len(Parquet(files=[str(tmp_path / "train-00001-of-00003.parquet")]).load()) == 3


def test_a_wrong_column_names_those_there_are(tmp_path):
    source = Coco(**write_coco(tmp_path, 2), caption_column="captions")
    with pytest.raises(UserError, match=r"^data\.source\.caption_column: no column 'captions'.*Did you mean 'caption'\?"):
        source.columns(source.load())
    celeba = CelebA(**write_celeba(tmp_path, 4))
    with pytest.raises(UserError, match=r"^data\.group_column: no column 'celeb_id' in the data\..*Columns: image, identity"):
        data_of(celeba, num_members=2, num_heldout=2, group_column="celeb_id")


def test_images_that_no_file_names_are_counted(tmp_path, caplog):
    options = write_celeba(tmp_path, 3)
    picture(9).save(Path(options["images"]) / "x.jpg")
    assert len(CelebA(**options).load()) == 3
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.endswith("1 images that identity_CelebA.txt doesn't name (the first: x.jpg).")
