"""What the words and numbers of reports mean, each in one sentence.

The pages link every number's name to its sentence; documentation can print the whole of it: `GLOSSARY` maps term -> sentence.
"""

from typing import NamedTuple


class Term(NamedTuple):
    """One sentence, and how texts spell the term: a regular expression; by default the term itself as a whole word."""

    sentence: str
    spelt: str = ""


_MASKS = {
    "all": Term("The mask that masks nothing: the attack sums over every latent dimension.", r"(?<=/)all\b|^all$"),
    "top60": Term(
        "A mask: the attack sums over the share of latent dimensions (60 %, say) that the decoder stretches most, by influence.",
        r"\btop\d+\b",
    ),
    "random60": Term(
        "A control of top60: as many latent dimensions, drawn at random, so a gain over it is influence's.", r"\brandom\d+\b"
    ),
    "low60": Term(
        "A control of top60: as many latent dimensions, those of least influence.", r"\blow\d+\b|\blow(?:est)?(?=/|$)"
    ),
    "std60": Term("A control of top60: as many latent dimensions, those that vary most between images.", r"\bstd\d+\b"),
    "tuned": Term("A mask by influence whose share of kept dimensions each half of the samples chose for the other."),
    "mask": Term("Which latent dimensions an attack sums over: all, or the share that a ranking keeps.", r"\bmasks?\b"),
    "kept": Term("The share of latent dimensions that the mask keeps."),
    "influence": Term(
        "How far a small step in one latent dimension moves the decoded image: the diagonal of the pullback metric JᵀJ."
    ),
}

_ATTACKS = {
    "sima": Term("An attack: the noise predicted for the clean latent, which is smaller for members.", r"\bsima(?=/|$)"),
    "sima_mc": Term("An attack: sima with noise added, averaged over draws.", r"\bsima_mc(?:_of_mean)?(?=/|$)"),
    "loss": Term("An attack: the denoising error under random noise, which is smaller for members.", r"\bloss(?=/|$)"),
    "pia": Term(
        "An attack: the denoising error under the noise that the model itself predicts for the clean latent.", r"\bpian?(?=/|$)"
    ),
    "secmi": Term("An attack: how far a deterministic step to more noise and back misses its start.", r"\bsecmi(?=/|$)"),
    "pfami": Term("An attack: how much the denoising error rises from an image to crops of it.", r"\bpfami(?=/|$)"),
    "dime": Term("An attack: size and divergence of the predicted noise around the image.", r"\bdime\d*(?=/|$)"),
    "clid": Term("An attack: how much the image's own condition lowers the denoising error.", r"\bclid(?=/|$)"),
    "dsm": Term("An attack: how much the predicted noise changes between neighbouring steps.", r"\bdsm(?=/|$)"),
    "curvature": Term("An attack: how the condition changes the slope of the predicted noise.", r"\bcurvature(?=/|$)"),
    "t_mc": Term("An attack: how far clean predictions under several noises lie from the image.", r"\bt_mc(?=/|$)"),
}

_CALIBRATED = {
    "complexity": Term(
        "A calibrated score: what an attack finds beyond what the image's size as a PNG lets expect; whoever has the model can "
        "compute it.",
        r"\b\w+_complexity\b",
    ),
    "history": Term(
        "A calibrated score: what an attack finds beyond what it found of the same image at earlier audits; it takes the run's "
        "checkpoints.",
        r"\b\w+_history\b",
    ),
    "gained": Term("A calibrated score: what the model learned of an image since the first audit.", r"\b\w+_gained\b"),
    "calibrated": Term(
        "A score freed of how difficult an image is by itself; *_calibrated uses image complexity and earlier audits together.",
        r"\b\w+_calibrated\b|\bcalibrated\b|\bcalibrations?\b",
    ),
    "reference": Term(
        "Another model that did not see the members, as the base of a fine-tuned one; what an attack finds beyond it was learned "
        "since.",
        r"\b\w+_(?:reference|ratio)\b",
    ),
    "combined": Term("One score fitted to all attacks, timesteps and earlier audits together.", r"\bcombined(?=/|$)"),
    "null": Term("The attack repeated without the image's condition.", r"\b\w+_null\b|^null$"),
    "shuffled": Term("The attack repeated with another image's condition.", r"\b\w+_shuffled\b|^shuffled$"),
}

_AUDIT = {
    "member": Term("An image that the model was trained on.", r"\bmembers?\b"),
    "held-out": Term("An image of the same kind that the model was never trained on.", r"\bheld-out\b"),
    "membership inference": Term("Learning from a model whether a given image was in its training set."),
    "attack": Term(
        "A rule that gives each image a score, higher the more it looks like one that was trained on.", r"\battacks?\b"
    ),
    "AUROC": Term(
        "The chance that a random member scores above a random held-out image: .5 is guessing, 1 tells all of them apart.",
        r"\bAUROCs?\b",
    ),
    "interval": Term(
        "Where the true number lies with the confidence named, as far as the choice of audited images goes; another training may "
        "differ by more.",
        r"\bintervals?\b",
    ),
    "TPR@1%FPR": Term(
        "The share of members found while the named share of held-out images (1 %, say) is taken for members.",
        r"\bTPR@[\d.]+%FPR|\bTPRs?\b",
    ),
    "false positives": Term(
        "Held-out images that are taken for members; FPR is their share.", r"\bfalse positives\b|\bfalse-positive rate\b|\bFPR\b"
    ),
    "carried over": Term(
        "The threshold was set on one half of the images for the named false-positive rate and used on the other half.",
        r"\b(?:TPR|FPR) at [\d.]+% carried over\b|\bcarried[- ]over\b|\bthreshold that was set for\b",
    ),
    "TNR@1%FNR": Term(
        "The share of held-out images named as such while the named share of members is missed: TPR@1%FPR, sides exchanged.",
        r"\bTNR@[\d.]+%FNR",
    ),
    "ASR": Term(
        "The best share of right answers with one threshold, chosen on the reported samples themselves, so it is optimistic."
    ),
    "t": Term("The timesteps (how much noise is added, of 1000) that each half of the images chose for the other.", r"^t$"),
    "sigma": Term("The share of noise at which a flow was asked."),
    "half": Term(
        "Half of the audited images, by a hash of their index: each half chooses timesteps and thresholds for the other, so "
        "nothing is chosen on what it is reported on.",
        r"\b[Ee]ach half\b|\bof (?:their|its) half\b",
    ),
    "oracle": Term("The AUROC that choosing on the reported samples themselves would have claimed: optimistic."),
    "permuted labels": Term(
        "The same procedure with members and held-out images shuffled: what chance alone gives.",
        r"\b[Pp]ermuted labels\b|^permuted$",
    ),
    "p": Term("How often chance alone would give a number as extreme.", r"\bp(?= [=<≤])|^p$|^median p$|\bp-values?\b"),
    "AUROC gained": Term(
        "The difference of two AUROCs on the same images, with an interval of its own.", r"\bAUROC gained\b|\babove it$|^difference$"
    ),
    "against": Term("What a gain is measured against: the unmasked attack, or a control mask of the same size.", r"^against$"),
    "Holm": Term("A correction for testing several things together."),
    "control": Term(
        "What tells the two sets of images apart without the denoiser that is audited; an attack counts only above it.",
        r"\bcontrols?\b",
    ),
    "insider": Term("Somebody who has the run's checkpoints, as who trained the model.", r"\binsiders?\b|\brun's checkpoints\b"),
    "outsider": Term("Somebody who has the model, and nothing else of the training.", r"\boutsiders?\b|\bmodel alone\b"),
    "planted duplicate": Term(
        "A member shown many times in training on purpose: an attack that doesn't find it finds nobody.",
        r"\bplanted duplicates?\b|^repeated$|^planted$",
    ),
    "single": Term("The members that were not planted as duplicates.", r"^single$"),
    "own condition": Term("The attack under the caption or label that the image was trained with.", r"\bown condition\b"),
    "epsilon": Term(
        "The bound of differential privacy: no attack's odds of being right rise by more than e to this power; an audit can only "
        "say how large it is at least.",
        r"\bepsilon at least\b|(?<!predicts )\b[Ee]psilon\b",
    ),
    "right": Term("How many of the guesses were right.", r"^right$"),
    "guesses": Term("The surest images, that the attack called member or held-out.", r"^guesses$"),
    "coins": Term("Images for which a fair coin of their own decided whether they were trained on.", r"\bcoins\b"),
}

_TRAINING = {
    "onset": Term("The first audit at which a rise over the untrained denoiser is certain.", r"\b[Oo]nsets?\b"),
    "epoch": Term("One pass of the training over all members.", r"\b[Ee]poch\b"),
    "audit": Term("One look at the model: every attack on every audited image.", r"\baudits?\b"),
    "seed": Term("What one training's random numbers start from; another seed is another training.", r"\bseeds?\b"),
    "loss gap": Term("The denoising error on held-out images minus that on members.", r"\bloss gap\b"),
    "rank correlation": Term(
        "How alike two orders of the members are: 1 is the same order, 0 no relation.", r"\brank correlation\b"
    ),
}

_AGREEMENT = {
    "members found": Term("The share of members above the threshold.", r"^members$"),
    "by it alone": Term("Of the members found, those that no other attack finds.", r"\bby it alone\b"),
    "held-out found": Term("The share of held-out images above the same threshold: errors.", r"\bheld-out found\b"),
    "members at the union's errors": Term(
        "What the attack finds when it may err as often as all attacks together do.", r"\bmembers at the union's errors\b"
    ),
    "both of either": Term("Of the members that either attack finds, the share that both find.", r"\bboth of either\b|\bJaccard\b"),
    "by chance": Term("What it would be if each attack found as many members at random.", r"^by chance$"),
}

_QUALITY = {
    "quality": Term("How far generated images lie from held-out ones: lower is better.", r"\bquality\b"),
    "kid_random": Term(
        "Kernel distance between two sets of images, in the features of a fixed random network; 0 for sets of one kind.",
        r"\bkid_\w+\b|\bKID\b",
    ),
    "swd": Term("Sliced Wasserstein distance: between small patches of two sets of images.", r"^swd$|\bSWD\b"),
    "fid": Term("Fréchet distance between two sets of images, in the features of a named network.", r"^fid\w*$|\bFID\b"),
    "cmmd": Term("Kernel distance between two sets of images, in the features of CLIP.", r"^cmmd\w*$|\bCMMD\b"),
    "to held-out": Term("The distance of generated images to held-out ones.", r"^to held-out$"),
    "to members": Term("The distance of generated images to members: smaller than to held-out where they are copied.", r"^to members$"),
    "gap": Term("The distance to members minus that to held-out images: surely below 0 means nearer to members.", r"^gap$|(?<=\()gap\b"),
    "reconstructions": Term(
        "The distance of images that only went through encoder and decoder: the best that generations can reach.",
        r"\b[Rr]econstructions\b",
    ),
}

_TRAJECTORIES = {
    "guidance": Term("How strongly the condition is pressed on the generation; 1 is as trained.", r"\b[Gg]uidance\b"),
    "D1": Term("How much earlier than it should the training image comes in, summed over the steps of a generation."),
    "D2": Term("How much earlier than it should the starting noise is lost, summed over the steps of a generation."),
    "a step": Term("The number to its left, by the number of steps.", r"^a step$"),
    "k": Term("How many times too much of the training image the first clean predictions hold.", r"^k$"),
    "error": Term("Squared distance of the first clean predictions to the training image.", r"^error$"),
    "branch gap": Term(
        "How far the predictions with and without the condition lie apart: large for memorized captions.", r"\b(?:mean )?branch gap\b"
    ),
    "similarity": Term("Cosine of a generated latent with that of the caption's own image, less the mean.", r"\b[Ss]imilarity\b"),
    "nearest": Term("Cosine with the nearest audited member, whoever it is.", r"^nearest$"),
    "own nearest": Term("The share of generations whose nearest audited member is an image of that caption.", r"\b[Oo]wn nearest\b"),
    "other duplicate": Term(
        "The share of generations whose nearest audited member is another caption's planted duplicate.", r"\bother duplicate\b"
    ),
    "nearest member": Term("The sample index of the member that most of the caption's generations are nearest to.", r"^nearest member$"),
    "value": Term("The number with its interval.", r"^value$"),
}

_DECISIONS = {
    "limit": Term("What a number may be at most, set before the audit.", r"\blimits?\b"),
    "decision": Term(
        "Pass: the upper bound keeps the limit; fail: the number itself doesn't; undecided: more samples are needed.", r"^decision$"
    ),
    "mean, sd": Term("Mean and standard deviation over the compared audits.", r"^mean, sd$"),
    "compared audit": Term("One of the compared audits, or the difference of two of them; the letters are named at the top.", r"^[A-Z]( - [A-Z])?$"),
    "frontier": Term("What remains when every setting that another one beats in privacy and quality is taken away."),
    "baseline": Term("The setting that all others are compared with."),
    "strongest attack": Term(
        "The attack of highest AUROC against that very training, chosen on one half of the samples and reported on the other.",
        r"\b[Ss]trongest attack\b|^chosen by the halves$",
    ),
    "at equal quality": Term(
        "The setting's AUROC minus the baseline's where both generate equally well: below 0 is privacy gained, not learning lost.",
        r"\b[Aa]t equal quality\b|\bat the baseline's quality\b|\bat the best quality\b",
    ),
    "best quality": Term("The best quality that the setting reaches minus the baseline's: above 0 is worse.", r"^best quality$"),
    "dominated": Term(
        "Another setting has a lower AUROC and a better quality at the end, in every seed.", r"\b[Dd]ominated(?: by)?\b"
    ),
    "AUROC's sd, range": Term(
        "Standard deviation of the AUROC over seeds, its least and its greatest.", r"\bAUROC's sd, range\b"
    ),
    "told apart": Term("The share of random sets of that size for which the test says that they were trained on.", r"\b[\w-]+ told apart$"),
    "images": Term("How many images there are.", r"^images$"),
    "pass": Term("The share that a classifier takes for images generated by the model.", r"^pass$"),
}

TERMS = {
    **_AUDIT,
    **_ATTACKS,
    **_CALIBRATED,
    **_MASKS,
    **_TRAINING,
    **_AGREEMENT,
    **_QUALITY,
    **_TRAJECTORIES,
    **_DECISIONS,
}
"""Term -> its sentence, and how texts spell it."""
GLOSSARY = {term: each.sentence for term, each in TERMS.items()}
"""Term -> its sentence."""
