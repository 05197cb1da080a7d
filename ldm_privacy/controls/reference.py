"""Control: does the reference tell the sides apart, which has not seen the training that is audited?"""

from ldm_privacy.controls.finding import REFERENCE_ALONE, WITHOUT_TARGET, Case, Finding
from ldm_privacy.registry import CONTROLS


@CONTROLS.register("reference")
def reference(case: Case) -> list[Finding]:
    """What attacks score on the reference alone, at the timesteps chosen for the target; nothing without one, no passes."""
    meaning = "the split, or what the reference was trained on, is measured up to this, not the target's training"
    return [
        Finding(f"{REFERENCE_ALONE}, {name}", WITHOUT_TARGET, meaning=meaning, score=score)
        for name, score in case.reference.items()
    ]
