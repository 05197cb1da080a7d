"""What `ldm-privacy suspect` answers on sets that are known: python -m benchmarks.suspect runs/digits [--folder suspects].

The run is that of digits.yaml. Sets: every second member, sixty of them enlarged, ten members, ten among ninety public images,
every second held-out image, 1,000 public images (the autoencoder trained on them, the denoiser didn't), the run's own
generations, held-out images in inverted colours. Then the test alone, on the run's scores: how often it takes sets of held-out
images for members.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from ldm_privacy.data.images import to_uint8
from ldm_privacy.data.sources import Digits
from ldm_privacy.evidence.suspect import permuted_p_value
from ldm_privacy.metrics import welch_verdict
from ldm_privacy.recipes import cli
from ldm_privacy.sampling import generate_images
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.record import Checkpoint

DRAWS, SIZES = 400, (10, 20, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("suspects"))
    options = parser.parse_args()
    path = options.run / "checkpoints" / "last.ckpt"
    rows, answers = [], {}
    for name, pixels in known_sets(Checkpoint.read(path)).items():
        folder = options.folder / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for place, image in enumerate(pixels):
            PIL.Image.fromarray(image).save(folder / f"{place:05d}.png")
        start = time.process_time()
        cli.main(["suspect", str(folder), f"ckpt={path}", f"out={options.folder / 'answers' / folder.name}"])
        found = answers[name] = json.loads((options.folder / "answers" / folder.name / "suspect.json").read_text())
        blind, passing = found["without_model"]["auroc"], found["generations"]["suspects"]["value"]
        told = f"{blind['value']:.2f} [{blind['lower']:.2f}, {blind['upper']:.2f}]"
        near = f"{found['without_model']['near_members']} ({found['without_model']['expected']:.1f})"
        cells = [name, len(pixels), found["answer"], near, f"{found['without_model']['p_value']:.2g}"]
        cells += [f"{found['p_value']:.2g}", told, f"{passing:.0%}"]
        rows.append([*cells, f"{time.process_time() - start:.0f} s"])
    columns = ("set", "images", "answer", "near members (expected)", "p of that", "p of scores")
    print("| " + " | ".join([*columns, "without the model", "pass for generations", "CPU time"]) + " |\n" + "|---" * 9 + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    heldout = torch.tensor(answers["every second member"]["scores"]["heldout"])
    print(
        f"\nof {DRAWS} random sets of held-out images, at .05:\n| size | Welch | permuted | larger of both |\n|---|---|---|---|"
    )
    for size in SIZES:
        print(f"| {size} | " + " | ".join(f"{share:.3f}" for share in false_alarms(heldout, size)) + " |", flush=True)


def known_sets(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """uint8 images by the name of their set."""
    scans = np.stack([np.asarray(image) for image in Digits().open()["image"]])
    split, target = checkpoint.split, target_of_checkpoint(checkpoint)
    members, heldout, public = (scans[index.numpy()] for index in (split.member_index, split.heldout_index, split.public_index))
    public = public[np.random.default_rng(0).permutation(len(public))]  # rows lie by writer
    shape = target.codec.latent_shape(1, 8)
    made = generate_images(target.predictor, target.codec.decode, shape, num_images=100, num_steps=30, seed=777)
    return {
        "every second member": members[::2],
        "sixty members as 32 x 32": np.stack([PIL.Image.fromarray(each).resize((32, 32)) for each in members[:60]]),
        "ten members": members[1::25][:10],
        "ten members among 90 others": np.concatenate([members[1::25][:10], public[1000:1090]]),
        "every second held-out image": heldout[::2],
        "1,000 public images": public[:1000],
        "own generations": to_uint8(made)[:, 0].numpy(),
        "inverted held-out images": 255 - heldout[::2],
    }


def false_alarms(score: Tensor, size: int) -> np.ndarray:
    """Shares of random sets whose p-value is at most .05: Welch's, permuted, the larger of both."""
    generator, p_values = torch.Generator().manual_seed(0), []
    for draw in range(DRAWS):
        order = torch.randperm(len(score), generator=generator)
        suspects, others = score[order[:size]], score[order[size:]]
        both = welch_verdict(suspects, others).p_value, permuted_p_value(suspects, others, num_permutations=499, seed=draw)
        p_values.append((*both, max(both)))
    return (np.array(p_values) <= 0.05).mean(0)


if __name__ == "__main__":
    main()
