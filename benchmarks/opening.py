"""What opening a target costs: `python -m benchmarks.opening PATH [LAYOUT]`; without a path, of a UNet made for it."""

import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.resident import resident


def made(folder: Path) -> Path:
    """Stable Diffusion's kind with a UNet of 100 million numbers, 0.4 GB."""
    from tests.targets.pipelines import conditional_unet, stable_diffusion

    unet = conditional_unet(block_out_channels=(320, 640), norm_num_groups=32, attention_head_dim=8, layers_per_block=2)
    return stable_diffusion(folder, unet=unet)


def opened(path: Path, layout: Path | None = None) -> dict[str, float]:
    """Opens it in this process: seconds, and the rise of the peak as a multiple of what its networks hold."""
    import diffusers
    import transformers

    from ldm_privacy.targets.door import open_target

    _ = diffusers.UNet2DConditionModel, transformers.CLIPTextModel, transformers.AutoTokenizer  # imported before it is timed
    before, start = resident("VmHWM"), time.perf_counter()
    target = open_target(path, layout=layout)
    seconds, risen = time.perf_counter() - start, resident("VmHWM") - before
    held = sum(each.nbytes for network in target.modules.values() for each in network.state_dict().values())
    return {"seconds": seconds, "held_mib": held / 2**20, "risen_mib": risen / 2**20, "ratio": risen / held}


def main() -> None:
    """Prints what was found."""
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(opened(*map(Path, sys.argv[1:])))
        return
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder) / "sd")  # by this process: its peak is not the other's
        subprocess.run([sys.executable, "-m", "benchmarks.opening", f"{folder}/sd"], check=True)


if __name__ == "__main__":
    main()
