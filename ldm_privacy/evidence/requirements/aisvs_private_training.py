"""OWASP AISVS 11.2.4: a claimed epsilon, checked by an audit of one run."""

from collections.abc import Sequence

from ldm_privacy.evidence.limits.epsilon import EpsilonLimit
from ldm_privacy.evidence.limits.limit import Judgement, Limit
from ldm_privacy.evidence.requirements.requirement import Case, Requirement
from ldm_privacy.registry import REQUIREMENTS


@REQUIREMENTS.register("aisvs_private_training")
class PrivateTraining(Requirement):
    """A lower bound on epsilon can refute a claim; it never shows that a training is private."""

    reference = "OWASP AISVS 1.0, 11.2.4"
    says = '"Verify that training on sensitive datasets employs differentially-private optimization."'
    held_to = (
        "The standard's research note has a claimed epsilon checked by an audit of one run. Held here: the audit doesn't "
        "refute the claim (the training's own proof, or gate.epsilon), and could have. Whether the data are sensitive, and "
        "whether the optimization is private, no attack can show: pass means that the claim wasn't refuted."
    )
    source = "https://github.com/OWASP/AISVS/blob/main/1.0/en/0x10-C11-Adversarial-Robustness.md"
    lacks = "a training with data.split=coin"
    more = "data.num_members and data.num_heldout of another training with data.split=coin"
    mend = "find out what the proof leaves out (a codec that saw the members, a bug) and train again, or claim no less"

    def limits(self, case: Case) -> list[Limit]:
        claim = case.claim
        return [] if claim is None else [EpsilonLimit(claim.epsilon, delta=claim.delta)]

    def obstacle(self, case: Case) -> tuple[str, str] | None:
        if case.claim is not None:
            return None
        coins = "" if self.found(case, ()) else ", with data.split=coin so that it can be checked"
        return "nothing is claimed of this training's epsilon", f"a private training that proves one, or gate.epsilon{coins}"

    def found(self, case: Case, judgements: Sequence[Judgement]) -> list[str]:
        """The bound, claim or none."""
        limit = EpsilonLimit(0.0, delta=0.0 if case.claim is None else case.claim.delta)
        readings = limit.readings(case.found)
        return [f"{limit.shown(each.estimate)} of {each.of}" for each in readings]
