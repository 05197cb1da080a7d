"""CelebA: a folder of images and the file of who is on them."""

from dataclasses import dataclass

import datasets
from datasets import Dataset, Features, Value

from ldm_privacy.data.places import existing_file, existing_folder, named_images, text_of
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.errors import UserError
from ldm_privacy.registry import IMAGE_SOURCES


@IMAGE_SOURCES.register("celeba")
@dataclass(frozen=True, kw_only=True)
class CelebA(ImageSource):
    """CelebA's images, rows in the order of file names; `data.group_column=identity` keeps each person on one side.

    Source: Liu et al. 2015, 1411.7766; 202,599 images of 10,177 people.

    Args:
        images: The folder of the images (img_align_celeba).
        identities: identity_CelebA.txt: a line per image, its name and the number of the person.
    """

    images: str
    identities: str

    def open(self) -> Dataset:
        file, folder = existing_file(self.identities, "identities"), existing_folder(self.images, "images")
        people: dict[str, int] = {}
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if not (fields := line.split()):
                continue
            if len(fields) != 2 or not fields[1].isdecimal() or fields[0] in people:
                is_twice = fields[0] in people
                problem = (
                    f"'{fields[0]}' stands in a line before" if is_twice else "no name and number, as in '000001.jpg 2880'"
                )
                raise UserError(f"{file}, line {number}: {problem}; name identity_CelebA.txt.")
            people[fields[0]] = int(fields[1])
        names = sorted(people)
        columns = {"image": named_images(names, folder, by=file), "identity": [people[name] for name in names]}
        return Dataset.from_dict(columns, features=Features({"image": datasets.Image(), "identity": Value("int64")}))
