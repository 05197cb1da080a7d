"""What images and latents hold in memory, at two sizes, and how fast images are decoded. Linux, CPU.

`python -m benchmarks.data` prints the tables of docs/reference/memory.md (three minutes on one core). JPEG files are generated
in a temporary folder; each row runs in a process of its own. Memory is what is not backed by a file, RssAnon + RssShmem of
/proc/self/status, sampled every two milliseconds: pages of a file that is mapped go again where memory is short. The codec is a
few averages, so that the rows show what lies around the networks, and the budgets are small ones, so that both sizes are beyond
them: what grows from one size to the other grows for ever.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from benchmarks.resident import resident

SIDE = 512
UNBACKED = "RssAnon", "RssShmem"
AT_FULL_SIZE = 118_000
"""Images of COCO's training set, of which an audit is to run in 8 GiB."""
DATA_GIB, AUDIT_GIB = 0.1, 1 / 32
ROWS = [
    *(("audit", side, count) for side in ("64 px", "128 px") for count in (400, 1200)),
    *(("training", "mapped", count) for count in (10_000, 30_000)),
    *(("speed", way, 300) for way in ("PIL", "datasets", "1 thread", "2 threads", "4 threads")),
]


def write_images(folder: Path, count: int, side: int = SIDE) -> None:
    """Smooth pictures with a little noise, about 60 kB a JPEG file of 512 px."""
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = PIL.Image.fromarray(coarse).resize((side * 4 // 3, side), PIL.Image.Resampling.BICUBIC)
        noisy = np.asarray(image, dtype=np.int16) + generator.integers(-6, 7, (side, side * 4 // 3, 1), dtype=np.int16)
        PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.jpg", quality=90)


@contextmanager
def peak() -> Iterator[dict[str, int]]:
    """The most that is held inside above what was held before, under "bytes"."""
    before, found, over = resident(*UNBACKED), {"bytes": 0}, threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            found["bytes"] = max(found["bytes"], resident(*UNBACKED) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def cheap_codec() -> Any:
    """512 px -> 4x64x64 by averages, and back by repetition, with the three colours mixed to four channels."""
    from ldm_privacy.models.channel_map import ChannelMap
    from ldm_privacy.models.codec import Codec

    class Averages(Codec):
        name = "averages"
        bytes_per_number = 64

        def __init__(self) -> None:
            mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
            self.network = nn.ParameterDict({"mix": nn.Parameter(mix, requires_grad=False)})
            self.channel_map = ChannelMap.diagonal("scaling_factor", torch.zeros(4), torch.full((4,), 2.0))

        def latent_shape(self, image_channels: int, resolution: int) -> torch.Size:
            return torch.Size((4, resolution // 8, resolution // 8))

        def mean(self, image: Tensor) -> Tensor:
            return torch.einsum("ij,bjhw->bihw", self.network["mix"], nn.functional.avg_pool2d(image, 8))

        def decode(self, latent: Tensor) -> Tensor:
            mixed = torch.einsum("ij,bihw->bjhw", self.network["mix"], self.channel_map.inverse(latent))
            return nn.functional.interpolate(mixed, scale_factor=8).tanh()

        def record(self) -> dict[str, Any]:
            return {"class": self.name}

    return Averages()


def audit(how: str, count: int, folder: Path) -> str:
    """From the files to the evidence, with the attacks, masks, timesteps and keep fractions of the shipped configs.

    The budgets are those of 512 px, made smaller as the images are.
    """
    from ldm_privacy.config import compose
    from ldm_privacy.data.folder import Folder
    from ldm_privacy.data.module import ImageData
    from ldm_privacy.device import limit_memory

    side = int(how.split()[0])
    write_images(folder, count, side)
    limit_memory(AUDIT_GIB * (side / SIDE) ** 2)
    memory_gib = DATA_GIB * (side / SIDE) ** 2
    config = compose("cifar10.yaml", ["trainer.accelerator=cpu"]).config
    with peak() as held:
        start = time.monotonic()
        data = ImageData(
            Folder(path=str(folder)),
            resolution=side,
            channels=3,
            num_members=count // 2,
            num_heldout=count // 2,
            memory_gib=memory_gib,
        )
        evidence_of(data, config, folder / "store", memory_gib)
        seconds = time.monotonic() - start
    return f"{held['bytes']} {seconds:.0f}"


def evidence_of(data: Any, config: Any, store: Path, memory_gib: float | None) -> None:
    """What an evaluation does with images: latents, influence, attacks, report, controls, verdict, the codec's figures."""
    from ldm_privacy.attacks.base import Attack
    from ldm_privacy.audit.audit import Audit
    from ldm_privacy.audit.measure import Measuring
    from ldm_privacy.calibrations.base import Calibration
    from ldm_privacy.evidence.gather import gather_evidence
    from ldm_privacy.geometry.probe import ProbeInfluence
    from ldm_privacy.recipes.loop.cost import Free
    from ldm_privacy.report.geometry_report import geometry_figures, geometry_series
    from ldm_privacy.types import no_progress

    codec, index, content = cheap_codec(), data.split.audited_index, data.duplicates.content_hash
    measuring = Measuring(codec, data.images, content, store, codec.device, no_progress, latents_gib=memory_gib)
    members = torch.isin(index, data.split.member_index)
    samples = measuring.samples(index, measuring.means(index), members, influence=ProbeInfluence(2))
    settings = config.audit
    attacks = {label: each.build_a(Attack) for label, each in settings.attacks.items()}
    masks = {label: each.build(seed=0) for label, each in settings.masks.items()}
    calibrations = {label: each.build_a(Calibration) for label, each in settings.calibrations.items()}
    audit = Audit(
        samples, attacks, masks, settings.timesteps, keep_fractions=settings.keep_fractions, calibrations=calibrations
    )
    report = audit(Free())
    whole = samples.gathered()
    geometry_series(whole)
    geometry_figures(whole, masks, None, data.images)
    gather_evidence(report, audit.keys[0], whole, data.images, history={}, num_permutations=20)


def training(how: str, count: int, folder: Path) -> str:
    """Steps of the denoiser's training on so many latents 4x32x32, which the disk alone holds."""
    from ldm_privacy.geometry.store import in_file
    from ldm_privacy.models.ideal import scaled_linear_alphas_cumprod
    from ldm_privacy.training.denoiser import DenoiserModule

    class Tiny(nn.Conv2d):
        def forward(self, state: Tensor, timestep: Tensor) -> Tensor:
            return super().forward(state)

    with peak() as held:
        start = time.monotonic()
        latents = in_file((torch.randn(500, 4, 32, 32) for _ in range(count // 500)), folder)[None]
        network = Tiny(4, 4, 3, padding=1)
        module = DenoiserModule(network, scaled_linear_alphas_cumprod(), latents, batch_size=128, latents_to_device=False)
        optimizer = torch.optim.AdamW(network.parameters())
        for step in range(count // 128):  # every latent once
            module.loss(module.batch_indices(0, step))["loss"].backward()
            optimizer.step()
        seconds = time.monotonic() - start
    return f"{held['bytes']} {seconds:.0f} {latents.nbytes // count}"


def speed(how: str, count: int, folder: Path) -> str:
    """Images a second, as uint8 of 512 px, of files that the system has in its cache."""
    from datasets import Dataset, Image

    from ldm_privacy.data.bounded import BoundedImages
    from ldm_privacy.device import ahead

    write_images(folder, count)
    files = sorted(map(str, folder.glob("*.jpg")))

    def square(image: PIL.Image.Image) -> np.ndarray:
        image = image.convert("RGB")
        left = (image.width - SIDE) / 2
        return np.array(image.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC, box=(left, 0, left + SIDE, SIDE)))

    def by_pil() -> int:
        return sum(int(square(PIL.Image.open(file))[0, 0, 0]) >= 0 for file in files)

    def by_datasets() -> int:
        rows = Dataset.from_dict({"image": files}).cast_column("image", Image())
        return sum(int(square(row["image"])[0, 0, 0]) >= 0 for row in rows)

    by_us: Callable[[], int]
    if how in ("PIL", "datasets"):
        by_us = by_pil if how == "PIL" else by_datasets
    else:
        dataset = Dataset.from_dict({"image": files}).cast_column("image", Image(decode=False))
        options: dict[str, Any] = {"resolution": SIDE, "channels": 3, "memory_gib": 0, "num_threads": int(how.split()[0])}
        images = BoundedImages(dataset, "image", range(count), **options)

        def by_us() -> int:
            return sum(len(batch) for batch in ahead(images.__getitem__, torch.arange(count).split(64)))

    start = time.monotonic()
    assert by_us() == count
    return f"{count / (time.monotonic() - start):.0f}"


def measured(kind: str, how: str, count: int) -> list[float]:
    """One row, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.data", kind, how, str(count)]
    return [float(each) for each in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def main(words: list[str]) -> None:
    """Print the tables; with a row's three words that row's numbers alone."""
    if len(words) == 3:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            print({"audit": audit, "training": training, "speed": speed}[words[0]](words[1], int(words[2]), Path(folder)))
        return
    found = {row: measured(*row) for row in ROWS if not words or row[0] in words}
    print("| what | images or latents | MiB | s | bytes each more | of 118,000, GiB |\n|---|---|---|---|---|---|")
    for (kind, how, count), (held, seconds, *_) in ((row, each) for row, each in found.items() if row[0] != "speed"):
        of_less = [
            (other, values[0]) for (one, way, other), values in found.items() if (one, way) == (kind, how) and other < count
        ]
        grown = (held - of_less[0][1]) / (count - of_less[0][0]) if of_less else None
        whole = "" if grown is None else f"{(held + grown * (AT_FULL_SIZE - count)) / 2**30:.2f}"
        more = "" if grown is None else f"{grown:,.0f}"
        print(f"| {kind}, {how} | {count:,} | {held / 2**20:,.0f} | {seconds:.0f} | {more} | {whole} |")
    print("\n| decoding JPEG files of 512 px | images a second |\n|---|---|")
    for (kind, how, _), values in found.items():
        if kind == "speed":
            print(f"| {how} | {values[0]:.0f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
