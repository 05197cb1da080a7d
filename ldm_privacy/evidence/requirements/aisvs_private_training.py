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
        "The standard's research note has a claimed epsilon checked by an audit of one run. Held here: the training proves "
        "one, the audit doesn't refute it, and could have. A claim without a proof (gate.epsilon) can be refuted, and else "
        "decides nothing. Whether the data are sensitive no attack can show, nor that a proof is right: pass means not refuted."
    )
    source = "https://github.com/OWASP/AISVS/blob/main/1.0/en/0x10-C11-Adversarial-Robustness.md"
    lacks = "a training with data.split=coin"
    more = "data.num_members and data.num_heldout of another training with data.split=coin"
    mend = "find out what the proof leaves out (a codec that saw the members, a bug) and train again, or claim no less"

    def limits(self, case: Case) -> list[Limit]:
        claim = case.claim
        return [] if claim is None else [EpsilonLimit(claim.epsilon, delta=claim.delta)]

    def obstacle(self, case: Case) -> tuple[str, str] | None:
        """Without a proof a claim can be refuted, never met."""
        claim = case.claim
        is_refuted = any(each.judge(case.found).decision == "fail" for each in self.limits(case))
        if case.evidence.proven is not None or is_refuted:
            return None
        coins = "" if case.evidence.report.data.by_coins else ", with data.split=coin so that it can be checked"
        claimed = "" if claim is None else f" (the claim of {claim.epsilon:g} isn't refuted)"
        return f"nothing proves an epsilon of this training{claimed}", f"private training (denoiser.privacy){coins}"

    def found(self, case: Case, judgements: Sequence[Judgement]) -> list[str]:
        """The proof where there is one; the bound, claim or none."""
        proven = case.evidence.proven
        told = [] if proven is None else [f"epsilon proven of {proven.of}: {proven.epsilon:.3g} at delta {proven.delta:.2g}"]
        limit = EpsilonLimit(0.0, delta=0.0 if case.claim is None else case.claim.delta)
        readings = limit.readings(case.found)
        return [*told, *(f"{limit.shown(each.estimate)} of {each.of}" for each in readings)]
