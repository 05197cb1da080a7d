"""Combined: one score from all attacks, timesteps and earlier audits."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ldm_privacy.calibrations.base import Known
from ldm_privacy.calibrations.history import History, spread_out
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.types import AuditKey


@CALIBRATIONS.register("combined")
class Combined(History):
    """Logistic regression over everything that is known, in this order, as far as the half that chooses can bear:

    the level of each attack at its own chosen timestep under the mask of the primary attack, the primary attack at earlier
    audits, the other attacks there, the other timesteps of this audit; all of them calibrated by complexity.
    Threat model: an insider, who has the run's checkpoints. No passes, no randomness.
    """

    needs_complexity: ClassVar[bool] = True
    wraps: ClassVar[bool] = False

    def levels(self, known: Known) -> dict[str, Tensor]:
        keys = self.attacks(known.key, list(known.now))
        features: dict[str, Tensor] = {key.attack: known.now[key][known.places[key]] for key in keys}
        for key in keys:
            for place in spread_out(len(known.earlier)):
                if key in known.earlier[place]:  # an attack may have been added since
                    features[f"{key.attack}/audit-{len(known.earlier) - place}"] = known.earlier[place][key]
        for key in keys:
            for place in range(len(known.now[key])):
                if place != known.places[key]:
                    features[f"{key.attack}/place{place}"] = known.now[key][place]
        return {name: known.beyond_complexity(level)[0] for name, level in features.items()}

    def attacks(self, key: AuditKey, keys: Sequence[AuditKey]) -> Sequence[AuditKey]:
        """All with that mask, the primary one first."""
        return [key, *(other for other in keys if other.mask == key.mask and other != key)]
