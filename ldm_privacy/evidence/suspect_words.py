"""The answer on a suspect set in one sentence, and the sentences that stand behind it."""

from ldm_privacy.evidence.suspect import SuspectAnswer, SuspectVerdict
from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.types import Tone

ENOUGH = 0.9
"""Share of sets of members that are found, from which on a size is said to be enough."""
LABELS: dict[SuspectAnswer, str] = {
    "yes": "Trained on",
    "no": "No sign",
    "differs": "Can't say",
    "generated": "Its own generations",
}
TONES: dict[SuspectAnswer, Tone] = {"yes": "exposed", "no": "safe", "differs": "leak", "generated": "unclear"}


def said_of_suspects(verdict: SuspectVerdict, where: str) -> Verdict:
    """One of four answers, then what stands behind it: the test, what is seen without any model, the generations where
    something hangs on them.
    """
    return Verdict(
        (answer(verdict, where), tested(verdict), without_model(verdict), *like_generations(verdict)),
        TONES[verdict.answer] if verdict.answer != "no" or verdict.power_at(verdict.test.num_suspect) >= ENOUGH else "unclear",
        LABELS[verdict.answer],
    )


def answer(verdict: SuspectVerdict, where: str) -> str:
    """One of four, with its reason."""
    num, p, made = verdict.test.num_suspect, f"p = {verdict.p_value:.2g}", verdict.generated
    if verdict.is_of_record:
        return f"Yes: {in_the_record(verdict, where)}, whatever the model shows of them ({p} by their scores)."
    if verdict.answer == "yes":
        return (
            f"Yes: {where} was trained on, in whole or in part. As a set its {num} images score above held-out images ({p}), "
            "are not told from those without the model, and don't pass for what it generates."
        )
    if verdict.answer == "no":
        return f"No sign that {where} was trained on ({p}, {num} images). {needed(verdict)}"
    if verdict.answer == "differs":
        by = f", most by {', '.join(verdict.causes)}" if verdict.causes else ""
        return (
            f"Can't say: the images of {where} differ from the held-out images without any model (AUROC {verdict.blind}{by}); "
            f"scores of other images are others, whatever was trained on ({p})."
        )
    known = f" And {in_the_record(verdict, where)}." if verdict.has_near_members else ""
    return (
        f"Can't say: the images of {where} look like what the model itself generates, and such images score as members "
        f"whatever it was trained on ({made.suspects.value:.0%} of them pass for generations, {made.heldout.value:.0%} of "
        f"held-out images, {made.members.value:.0%} of members).{known}"
    )


def in_the_record(verdict: SuspectVerdict, where: str) -> str:
    """How many suspects are images that were trained on, or near-duplicates of such."""
    copies, num = verdict.copies, verdict.test.num_suspect
    near = "near-duplicates of images that it was trained on"
    chance = f"(of as many held-out images {copies.expected:.1f}, p = {copies.p_value:.2g})"
    if not copies.of_members:
        return f"{copies.near_members} of {num} images of {where} are {near} {chance}"
    same = f"{copies.of_members} of {num} images of {where} are images that it was trained on, pixel by pixel"
    return f"{same}, and {copies.near_members} are {near} {chance}" if verdict.has_near_members else same


def needed(verdict: SuspectVerdict) -> str:
    """How large a set of members would have been found."""
    size, num = verdict.size_found(ENOUGH), verdict.test.num_suspect
    if size is None:
        heldout = f"against {verdict.test.num_heldout} held-out images"
        return f"But that says little: no set of members, however large, would have shown it {heldout}."
    found = f"a set of {size:,} images, all of them trained on, would have shown it in {ENOUGH:.0%} of cases"
    if size <= num:
        return f"{found[0].upper()}{found[1:]}."
    return f"But that says little: only {found}; of {num} it finds {verdict.power_at(num):.0%}."


def tested(verdict: SuspectVerdict) -> str:
    """The test of the set, and how often it is wrong."""
    test = verdict.test
    permuted = "" if verdict.p_permuted is None else f", {verdict.p_permuted:.2g} under permuted labels"
    size = max((size for size in verdict.false_alarms if size <= test.num_suspect), default=None)
    alarms = (
        "too few held-out images to count false alarms"
        if size is None
        else f"of sets of {size} held-out images it takes {verdict.false_alarms[size]:.1%} for members"
    )
    return (
        f"The suspects score {test.effect_size:+.2f} standard deviations beside {test.num_heldout} held-out images that chose "
        f"nothing (one-sided Welch test, p = {test.p_value:.2g}{permuted}; {verdict.choice}, chosen on other images with AUROC "
        f"{verdict.choice.auroc:.3f}). At level {verdict.level:.2g} {alarms}; of as large sets of members it finds "
        f"{verdict.power_at(test.num_suspect):.0%}."
    )


def without_model(verdict: SuspectVerdict) -> str:
    """Copies, near-duplicates and the classifiers that see no model."""
    copies, num = verdict.copies, verdict.test.num_suspect
    same = f"{copies.of_members} of {num} are images of members, pixel by pixel, {copies.of_heldout} are held-out images; "
    known = same if copies.of_members or copies.of_heldout else ""
    return (
        f"Without any model: {known}{copies.near_members} are near-duplicates of a member (of as many held-out images "
        f"{copies.expected:.1f}); a classifier tells the set from held-out images with AUROC {verdict.blind}."
    )


def like_generations(verdict: SuspectVerdict) -> tuple[str, ...]:
    """The comparison with the target's own generations, and how often it is wrong; nothing where no answer hangs on it."""
    made = verdict.generated
    if not made.are_likely and (verdict.answer != "yes" or verdict.is_of_record):
        return ()
    shares = {"generations": made.generations, "held-out images": made.heldout, "members": made.members}
    passing = ", ".join(f"{share.value:.0%} of {what} [{share.lower:.0%}, {share.upper:.0%}]" for what, share in shares.items())
    return (
        f"They {'' if made.are_likely else 'do not '}look like the model's own generations: {made.suspects.value:.0%} of them "
        f"pass for such (more often than real images: p = {made.p_value:.2g}), beside {passing}; without the model they are "
        f"told from generations with AUROC {made.likeness}.",
    )
