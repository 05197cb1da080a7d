"""Generated images, the same starting noise at every look: a picture growing up over the epochs."""

from dataclasses import KW_ONLY, dataclass

from pydantic import PositiveInt

from ldm_privacy.pictures import image_grid
from ldm_privacy.registry import WATCHERS
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Image
from ldm_privacy.watch.generated import Generating
from ldm_privacy.watch.watcher import Look, Moment


@WATCHERS.register("samples")
@dataclass(eq=False)
class Samples(Generating):
    """A grid of generated images. Arguments as in `Generating`."""

    _: KW_ONLY
    num_images: PositiveInt = 16
    num_steps: PositiveInt = 50

    def look_at(self, generated: Image, target: Target, moment: Moment) -> Look:
        return Look(pictures={"samples": image_grid(generated)})
