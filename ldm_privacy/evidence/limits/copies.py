"""A limit on the share of generated images that are copies of members."""

from dataclasses import dataclass

from ldm_privacy.evidence.limits.limit import Found, Limit, Reading
from ldm_privacy.metrics import GenerationCopies, clopper_pearson


@dataclass(frozen=True)
class CopiesLimit(Limit):
    """The upper bound of the share of memorized generations is at most `most`, in (0, 1); see `memorized_generations`.

    The bound is Clopper & Pearson's, exact for independent generations: of few copies the bootstrap's is too low.
    """

    most: float

    @property
    def name(self) -> str:
        return "gate.copies"

    @property
    def quantity(self) -> str:
        return "share of copies"

    def readings(self, found: Found) -> list[Reading]:
        if (copies := _copies(found)) is None:
            return []
        interval = clopper_pearson(copies.num_copies, len(copies.ratio), confidence=found.report.confidence)
        return [Reading("what the model generates", interval)]

    def counts(self, found: Found) -> dict[str, int]:
        copies = _copies(found)
        return {} if copies is None else {"generations": len(copies.ratio)}

    def missing(self) -> str:
        return "no image was generated"


def _copies(found: Found) -> GenerationCopies | None:
    return next((each for each in found.results.values() if isinstance(each, GenerationCopies)), None)
