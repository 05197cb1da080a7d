"""What every codec has, whoever wrote it."""

import torch

from ldm_privacy.audit.measure import Measuring
from ldm_privacy.models.codec import Codec
from ldm_privacy.recipes.terminal import progress


class Brighter(Codec):
    """Pixels times a factor, plus a fixed picture; no network."""

    name = "brighter"

    def __init__(self, factor: float, offset: torch.Tensor):
        self.factor, self.offset = factor, offset

    def mean(self, image):
        return self.factor * image + self.offset

    def record(self):
        return {"class": self.name, "factor": self.factor, "offset": self.offset, "channel_map": self.channel_map.record()}


def test_codecs_without_a_network_share_stored_latents_only_where_they_are_the_same(tmp_path):
    index, zeros, ones = torch.arange(4), torch.zeros(1, 2, 2), torch.ones(1, 2, 2)

    def means(codec):
        measuring = Measuring(
            codec, lambda index: torch.ones(len(index), 1, 2, 2), "", tmp_path, 8, torch.device("cpu"), progress
        )
        return measuring.means(index)

    assert (means(Brighter(2.0, zeros)) == 2).all()
    assert (means(Brighter(3.0, zeros)) == 3).all()
    assert (means(Brighter(3.0, ones)) == 4).all()
    assert (means(Brighter(2.0, zeros)) == 2).all()
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
