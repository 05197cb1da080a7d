"""A limit on the share of generated images that are copies of members."""

from dataclasses import dataclass

from ldm_privacy.evidence.limits.limit import Found, Limit, Reading
from ldm_privacy.metrics import GenerationCopies, clopper_pearson


@dataclass(frozen=True)
class CopiesLimit(Limit):
    """The upper bound of the share of memorized generations is at most `most`, in (0, 1); see `memorized_generations`.

    Every watcher that counts them is held to it. The bound is Clopper & Pearson's, exact for independent generations: of few
    copies the bootstrap's is too low.
    """

    most: float

    @property
    def name(self) -> str:
        return "gate.copies"

    @property
    def quantity(self) -> str:
        return "share of copies"

    def readings(self, found: Found) -> list[Reading]:
        return [
            Reading(name, clopper_pearson(each.num_copies, len(each.ratio), confidence=found.report.confidence))
            for name, each in _copies(found, "what the model generates").items()
        ]

    def counts(self, found: Found) -> dict[str, int]:
        return {name: len(each.ratio) for name, each in _copies(found, "generations").items()}

    def missing(self) -> str:
        return "no image was generated"


def _copies(found: Found, name: str) -> dict[str, GenerationCopies]:
    """What each watcher of generations counted, by that name; with its label where there are several."""
    counted = {label: each for label, each in found.results.items() if isinstance(each, GenerationCopies)}
    return {name if len(counted) == 1 else f"{name} ({label})": each for label, each in counted.items()}
