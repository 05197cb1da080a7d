"""The images of a run from source to tensor, by sample index."""

import io
import os

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch

from ldm_privacy.data.draw import draw_split
from ldm_privacy.data.folder import Folder
from ldm_privacy.data.images import to_float
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.sources import Digits, Parquet, Saved
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError


@pytest.fixture
def saved(tmp_path, image_dataset):
    """A function (rows or data set, **columns) -> source on disk."""

    def write(rows, **columns):
        dataset = image_dataset(rows, **columns) if isinstance(rows, int) else rows
        path = tmp_path / "saved"
        dataset.save_to_disk(str(path))
        return Saved(path=str(path))

    return write


def data_of(source, **options):
    return ImageData(source, **{"resolution": 6, "channels": 3, "num_members": 4, "num_heldout": 4, **options})


def test_files_are_addressed_by_sample_index(saved, tmp_path, random_image):
    for row in range(9):
        random_image(row).save(tmp_path / f"{row}.png")
    data = data_of(Folder(path=str(tmp_path)), memory_gib=0)
    index = data.split.audited_index.flip(0)
    assert [os.path.basename(name) for name in data.files(index)] == [f"{row}.png" for row in index.tolist()]
    data = data_of(saved(8))
    assert data.files(data.split.member_index) == [None] * 4


def test_images_are_addressed_by_sample_index(saved, random_image):
    data = data_of(saved(20), num_public=5, seed=7)
    split = data.split
    index = torch.cat([split.public_index, split.member_index, split.heldout_index])
    images = data.images(index)
    assert (images.dtype, tuple(images.shape)) == (torch.float32, (13, 3, 6, 6))
    for row, image in zip(index.tolist(), images):
        expected = torch.from_numpy(np.array(random_image(row))).permute(2, 0, 1)
        assert torch.equal(image, to_float(expected))
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(data.images(index[order]), images[order])
    assert split.hash == draw_split(20, num_members=4, num_heldout=4, num_public=5, seed=7).hash


def test_only_rows_of_the_split_are_decoded(saved):
    source = saved(20)
    data = data_of(source)
    outside = sorted(set(range(20)) - set(data.split.audited_index.tolist()))
    for row in (outside[0], -1, 20):
        with pytest.raises(ValueError, match=f"row {row} is not in the split"):
            data.images(torch.tensor([row]))


def test_digits(saved):
    data = ImageData(Digits(), resolution=8, channels=1, num_members=256, num_heldout=256, num_public=1285)
    assert data.num_classes == 10
    assert data.class_names == [str(digit) for digit in range(10)]
    index = data.split.member_index
    assert torch.equal(data.labels(index), torch.tensor(Digits().load()["label"][:])[index])
    assert data.images(index).unique().numel() <= 17
    assert data.captions(index) == [[text] for text in Digits().load()[index.tolist()]["text"]]
    assert data.groups(index) is None


def test_unreadable_image_is_named_by_its_row(saved, image_dataset):
    cells = image_dataset(12).cast_column("image", datasets.Image(decode=False))["image"][:]
    cells[9] = {"bytes": cells[9]["bytes"][:40], "path": None}
    dataset = datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image()}))
    with pytest.raises(UserError, match=r"row 9, column 'image': the image can't be read"):
        data_of(saved(dataset), num_members=6, num_heldout=6)


def test_progress_covers_every_row(saved):
    calls = []
    data_of(saved(20), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 8), (8, 8)]


def test_held_out_copies_of_members_are_taken_out(saved, image_dataset):
    data = data_of(saved(datasets.concatenate_datasets([image_dataset(10)] * 2)), num_members=10, num_heldout=10)
    drawn = draw_split(20, num_members=10, num_heldout=10, seed=0)
    copies = [row for row in drawn.heldout_index.tolist() if (row + 10) % 20 in drawn.member_index.tolist()]
    assert copies
    assert data.duplicates.pairs[:, 1].tolist() == copies
    assert data.split.heldout_index.tolist() == sorted(set(drawn.heldout_index.tolist()) - set(copies))
    kept = data_of(saved(datasets.concatenate_datasets([image_dataset(10)] * 2)), split=drawn)
    assert kept.split.hash == drawn.hash
    assert len(kept.duplicates.pairs) == len(copies)


def test_a_stored_split_is_used_as_it_is(saved):
    source = saved(20)
    data = data_of(source, seed=5)
    again = data_of(source, seed=99, num_members=7, split=Split.from_state_dict(data.split.state_dict()))
    assert again.split.hash == data.split.hash
    assert again.duplicates.content_hash == data.duplicates.content_hash
    index = data.split.audited_index
    assert torch.equal(again.images(index), data.images(index))
    with pytest.raises(UserError, match="belongs to a source of 21 rows, but this one has 20"):
        data_of(source, split=Split(*(torch.tensor([row]) for row in range(3)), 21))


def test_labels_captions_and_groups(saved):
    source = saved(
        12,
        label=["dog", "cat"] * 6,
        captions=[[f"first {row}", "", "second"] for row in range(11)] + [[" "]],
        patient=[f"p{row // 3}" for row in range(12)],
    )
    data = data_of(source, num_members=6, num_heldout=6, group_column="patient")
    index = torch.tensor([3, 11, 0])
    assert data.class_names == ["cat", "dog"]
    assert data.labels(index).tolist() == [0, 0, 1]
    assert data.captions(index) == [["first 3", "second"], [], ["first 0", "second"]]
    assert data.groups(index).tolist() == [1, 3, 0]
    members, heldout = (set(data.groups(part).tolist()) for part in (data.split.member_index, data.split.heldout_index))
    assert (len(members), len(heldout), members & heldout) == (2, 2, set())


def test_rows_that_share_a_caption_are_on_one_side(saved):
    lists = [["a dog", "runs"], ["a cat"], ["runs", "away"], [" "], None, ["away"], [" "], ["a dog."]]
    data = data_of(saved(8, captions=lists), group_column="captions")
    assert data.groups(torch.arange(8)).tolist() == [0, 1, 0, 2, 3, 0, 4, 5]
    assert (len(data.split.member_index), len(data.split.heldout_index)) == (4, 4)
    members, heldout = (set(data.groups(part).tolist()) for part in (data.split.member_index, data.split.heldout_index))
    assert not members & heldout


def test_missing_labels_are_minus_one(saved):
    data = data_of(saved(8, label=[3, None, 5, 6, 7, 8, 9, 0]))
    assert data.labels(torch.arange(3)).tolist() == [3, -1, 5]
    assert data.class_names is None


@pytest.mark.parametrize(
    ("columns", "group_column", "message"),
    [
        ({"patient": [1, 2]}, "patent", r"data\.group_column: no column 'patent'.*Did you mean 'patient'\?"),
        ({"patient": [1, None]}, "patient", r"row 1 has no value in column 'patient'"),
        ({"patient": [[1], [2]]}, "patient", "a group is one number or one string a row"),
        ({}, "image", "a group is one number or one string a row"),
    ],
)
def test_group_columns_that_can_not_be(saved, columns, group_column, message):
    with pytest.raises(UserError, match=message):
        data_of(saved(2, **columns), num_members=1, num_heldout=1, group_column=group_column)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, r"data\.channels=2"),
        ({"resolution": 0}, r"data\.resolution=0"),
        ({"num_members": None}, r"data\.num_members: missing"),
        ({"num_heldout": None}, r"data\.num_heldout: missing"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        data_of(Digits(), **options)


def test_more_members_than_rows(saved):
    with pytest.raises(UserError, match=r"data\.num_members=30.* the source has 20"):
        data_of(saved(20), num_members=30)


def test_index_file_alone_is_enough(saved, tmp_path):
    np.savez(tmp_path / "index.npz", mia_train_idxs=[1, 2, 3], mia_eval_idxs=[4, 5])
    data = data_of(saved(8), num_members=None, num_heldout=None, index_file=str(tmp_path / "index.npz"), num_public=3)
    assert data.split.member_index.tolist() == [1, 2, 3]
    assert data.split.heldout_index.tolist() == [4, 5]
    assert data.split.public_index.tolist() == [0, 6, 7]


def test_cifar10_rows_keep_every_byte(shared_file):
    file = shared_file("data/cifar10/test-00000-of-00001.parquet")
    data = ImageData(Parquet(files=str(file)), resolution=32, channels=3, num_members=20, num_heldout=20)
    table = pyarrow.parquet.read_table(file)
    assert data.num_classes == 10
    for row in data.split.audited_index[::5].tolist():
        with PIL.Image.open(io.BytesIO(table["img"][row]["bytes"].as_py())) as image:
            expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert torch.equal(data.pixels(torch.tensor([row]))[0], expected)
        assert data.labels(torch.tensor([row])).item() == table["label"][row].as_py()


def test_captioned_images_at_another_resolution(shared_file):
    folder = shared_file("data/noto_emoji")
    name = next(name for name in os.listdir(folder) if name.endswith(".parquet"))
    data = ImageData(
        Parquet(files=str(folder / name)),
        resolution=16,
        channels=3,
        num_members=10,
        num_heldout=10,
        group_column="subgroup",
    )
    index = data.split.member_index
    assert data.images(index).shape == (len(index), 3, 16, 16)
    table = pyarrow.parquet.read_table(folder / name, columns=["text"])
    assert data.captions(index) == [[table["text"][row].as_py()] for row in index.tolist()]
