"""What a forecast rests on, what a run foretells of others, how to make a pilot: in words."""

from collections.abc import Sequence
from dataclasses import replace

from ldm_privacy.evidence.forecast import FACTOR, Pilot, forecast, two_digits

COPIES = 300
"""Steps a member until generated images are copies, at batches of up to 512 (Bonnaire et al. 2025, 2505.17638)."""


def basis(pilots: Sequence[Pilot]) -> str:
    """What a forecast rests on, and how its bounds were made."""
    differs = [f"{each.name} differs in {', '.join(each.differs)} ({each.factor:g} times)" for each in pilots if each.differs]
    others = f"; {'; '.join(differs)}" if differs else ""
    return (
        f"It rests on {'; '.join(map(str, pilots))}. Steps grow with the number of members, audits of more images find an "
        f"onset earlier; the bounds hold the audits' errors and are widened {FACTOR:g} times each way, a judgement{others}."
    )


def own_constant(run: Pilot) -> str:
    """What a training's own audits say of trainings on other numbers of members; "{keys}" stands for whose onset it is."""
    more = replace(run.size, num_members=10 * run.size.num_members)
    after, by = run.onset()
    steps = (after if by is None else by) * run.size.steps_per_epoch / run.size.num_members
    found = "was not found" if by is None else "was found"
    return (
        f"At this batch size and learning rate the onset of {{keys}} {found} by {steps:.2g} steps a member; on "
        f"{more.num_members:,} members, with as many images audited, it is to be expected {forecast([run], more)}."
    )


def without_pilot(num_members: int, num_heldout: int) -> tuple[str, ...]:
    """What can be said beforehand without any: how to make one, and the one published number."""
    fewer = max(200, num_members // 10)
    copies = two_digits(COPIES * num_members)
    says = (
        "When memorization is to be expected is not known without a pilot: steps grow with the number of members, but how many "
        "a member takes depends on network, learning rate, data and attack."
    )
    make = "This training is small enough to be its own pilot: its audits will say."
    if fewer <= num_members // 2:
        make = (
            f"To make one, add name=pilot data.num_members={fewer} data.num_heldout={min(fewer, num_heldout)} to the command "
            f"(about {fewer / num_members:.0%} of the training time at the same number of epochs), then "
            "audit.forecast=[runs/pilot]."
        )
    mark = (
        f"The published mark is far later: generated images are copies after about {COPIES} steps a member (Bonnaire et "
        f"al. 2025, 2505.17638), here step {copies}; attacks tell members long before."
    )
    return says, make, mark
