"""Control: are the images of one side more complex?"""

from dataclasses import replace

from ldm_privacy.controls.finding import WITHOUT_MODEL, Case, Finding
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.registry import CONTROLS


@CONTROLS.register("image_complexity")
def image_complexity(case: Case) -> Finding | None:
    """The log of each image's bytes as PNG (`ldm_privacy.data.complexity`); None where it wasn't measured.

    An attack's statistic is mostly how hard an image is, so sides of unequal complexity look like exposure to every attack;
    and a score that is calibrated by complexity is free of it only as far as one line fits both sides. So it leaks where it
    tells the sides apart, as the classifiers of `model_free` do. It is one number, unfitted, so that it finds with few samples
    what they need many for.

    Interval: of confidence 1 - (1 - confidence) / 2, because the classifiers may declare a leak as well: with their 2.0 % of
    false alarms as measured there, both together stay at 1 - confidence.

    Returns:
        Score: the complexity, as it is: an AUROC below 0.5 means that the members' images are the simpler ones. No randomness,
        no network passes.
    """
    score, samples = case.samples.complexity, case.samples
    if score is None:
        return None
    intervals = replace(case.intervals, confidence=1 - (1 - case.intervals.confidence) / 2)
    area = auroc_interval(score, samples.is_member, **intervals.options(samples.group))
    tells, word = area.leaves_out(0.5), "more" if area.value > 0.5 else "less"
    if tells:
        sentence = (
            f"The split leaks: the members' images are {word} complex than the held-out ones. "
            f"Size as PNG alone tells the sides apart with AUROC {area}; attack numbers up to that level (or as far below 0.5) "
            "measure the split, not the model, and calibrated scores are free of it only as far as their fit reaches."
        )
    else:
        sentence = (
            f"The sides don't differ in how complex their images are: size as PNG alone has AUROC {area}, which does not "
            "exclude 0.5."
        )
    return Finding("image complexity", WITHOUT_MODEL, sentence, score=score, estimate=area, is_telling=tells, leaks=tells)
