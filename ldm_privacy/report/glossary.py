"""What the words and numbers of reports mean, each in one sentence.

The pages link every number's name to its sentence; documentation can print all of them.
"""

GLOSSARY = {
    # The audit.
    "member": "An image that the model was trained on.",
    "held-out": "An image of the same kind that the model was never trained on.",
    "membership inference": "Learning from a model whether a given image was in its training set.",
    "attack": "A rule that gives each image a score, higher the more it looks like one that was trained on.",
    "AUROC": "The chance that a random member scores above a random held-out image: .5 is guessing, 1 tells all of them apart.",
    "interval": (
        "Where the true number lies with the confidence named, over the choice of images; another training may differ by more."
    ),
    "TPR@1%FPR": "The share of members found while the named share of held-out images (1 %, say) is taken for members.",
    "false positives": "Held-out images that are taken for members; FPR is their share.",
    "carried over": (
        "The threshold was set on one half of the images for the named false-positive rate and used on the other half."
    ),
    "TNR@1%FNR": (
        "The share of held-out images named as such while the named share of members is missed: TPR@1%FPR, sides exchanged."
    ),
    "ASR": (
        "The best share of right answers with one threshold, chosen on the reported samples themselves, so it is optimistic."
    ),
    "t": "The timesteps (how much noise is added, of 1000) that each half of the images chose for the other.",
    "sigma": "The share of noise at which a flow was asked.",
    "half": (
        "Half of the audited images, by a hash of their index: each half chooses timesteps and thresholds for the other, "
        "so nothing is chosen on what it is reported on."
    ),
    "oracle": "The AUROC that choosing on the reported samples themselves would have claimed: optimistic.",
    "permuted labels": "The same procedure with members and held-out images shuffled: what chance alone gives.",
    "p": "How often chance alone would give a number as extreme.",
    "AUROC gained": "The difference of two AUROCs on the same images, with an interval of its own.",
    "against": "What a gain is measured against: the unmasked attack, or a control mask of the same size.",
    "Holm": "A correction for testing several things together.",
    "control": "What tells the two sets of images apart without the denoiser that is audited; an attack counts only above it.",
    "insider": "Somebody who has the run's checkpoints, as who trained the model.",
    "outsider": "Somebody who has the model, and nothing else of the training.",
    "planted duplicate": "A member shown many times in training on purpose: an attack that doesn't find it finds nobody.",
    "single": "The members that were not planted as duplicates.",
    "own condition": "The attack under the caption or label that the image was trained with.",
    "epsilon": (
        "The bound of differential privacy: no attack's odds of being right rise by more than a factor of e to this power."
    ),
    "right": "How many of the guesses were right.",
    "guesses": "The surest images, that the attack called member or held-out.",
    "coins": "Images for which a fair coin of their own decided whether they were trained on.",
    # Attacks.
    "sima": "An attack: the noise predicted for the clean latent, which is smaller for members.",
    "sima_mc": "An attack: sima with noise added, averaged over draws.",
    "loss": "An attack: the denoising error under random noise, which is smaller for members.",
    "pia": "An attack: the denoising error under the noise that the model itself predicts for the clean latent.",
    "secmi": "An attack: how far a deterministic step to more noise and back misses its start.",
    "pfami": "An attack: how much the denoising error rises from an image to crops of it.",
    "dime": "An attack: size and divergence of the predicted noise around the image.",
    "clid": "An attack: how much the image's own condition lowers the denoising error.",
    "dsm": "An attack: how much the predicted noise changes between neighbouring steps.",
    "curvature": "An attack: how the condition changes the slope of the predicted noise.",
    "t_mc": "An attack: how far clean predictions under several noises lie from the image.",
    # Calibrated scores, conditions.
    "complexity": (
        "A calibrated score: what an attack finds beyond what the image's size as a PNG lets expect; whoever has the "
        "model can compute it."
    ),
    "history": (
        "A calibrated score: what an attack finds beyond what it found of the same image at earlier audits; it takes the "
        "run's checkpoints."
    ),
    "gained": "A calibrated score: what the model learned of an image since the first audit.",
    "calibrated": (
        "A score freed of how difficult an image is by itself; *_calibrated uses image complexity and earlier audits together."
    ),
    "reference": (
        "Another model that did not see the members, as the base of a fine-tuned one; what goes beyond it was learned since."
    ),
    "combined": "One score fitted to all attacks, timesteps and earlier audits together.",
    "null": "The attack repeated without the image's condition.",
    "shuffled": "The attack repeated with another image's condition.",
    # Masks.
    "all": "The mask that masks nothing: the attack sums over every latent dimension.",
    "top60": "A mask: the attack sums over the share of latent dimensions (60 %, say) of largest influence.",
    "random60": "A control of top60: as many latent dimensions, drawn at random, so a gain over it is influence's.",
    "low60": "A control of top60: as many latent dimensions, those of least influence.",
    "std60": "A control of top60: as many latent dimensions, those that vary most between images.",
    "tuned": "A mask by influence whose share of kept dimensions each half of the samples chose for the other.",
    "mask": "Which latent dimensions an attack sums over: all, or the share that a ranking keeps.",
    "kept": "The share of latent dimensions that the mask keeps.",
    "influence": (
        "How far a small step in one latent dimension moves the decoded image: the diagonal of the pullback metric JᵀJ."
    ),
    # The training.
    "onset": "The first audit at which a rise over the untrained denoiser is certain.",
    "epoch": "One pass of the training over all members.",
    "audit": "One look at the model: every attack on every audited image.",
    "seed": "What one training's random numbers start from; another seed is another training.",
    "loss gap": "The denoising error on held-out images minus that on members.",
    "rank correlation": "How alike two orders of the members are: 1 is the same order, 0 no relation.",
    # Who is found by which attack.
    "members found": "How many members score above the threshold.",
    "by it alone": "Of the members found, those that no other attack finds.",
    "held-out found": "The share of held-out images above the same threshold: errors.",
    "members at the union's errors": "What the attack finds when it may err as often as all attacks together do.",
    "both of either": "Of the members that either attack finds, the share that both find.",
    "by chance": "What it would be if each attack found as many members at random.",
    # Generated images.
    "quality": "How far generated images lie from held-out ones: lower is better.",
    "kid_random": (
        "Kernel distance between two sets of images, in the features of a fixed random network; 0 for sets of one kind."
    ),
    "swd": "Sliced Wasserstein distance: between small patches of two sets of images.",
    "fid": "Fréchet distance between two sets of images, in the features of a named network.",
    "cmmd": "Kernel distance between two sets of images, in the features of CLIP.",
    "to held-out": "The distance of generated images to held-out ones.",
    "to members": "The distance of generated images to members: smaller than to held-out where they are copied.",
    "gap": "The distance to members minus that to held-out images: surely below 0 means nearer to members.",
    "reconstructions": (
        "The distance of images that only went through encoder and decoder: the best that generations can reach."
    ),
    # Trajectories.
    "guidance": "How strongly the condition is pressed on the generation; 1 is as trained.",
    "D1": "How much earlier than it should the training image comes in, summed over the steps of a generation.",
    "D2": "How much earlier than it should the starting noise is lost, summed over the steps of a generation.",
    "a step": "The number to its left, by the number of steps.",
    "k": "How much of the training image the first clean predictions hold: 1 is all of it, more is too much.",
    "error": "Squared distance of the first clean predictions to the training image.",
    "branch gap": "How far the predictions with and without the condition lie apart: large for memorized captions.",
    "similarity": "How alike two images or latents are, the cosine of what stands for them: 1 is the same, 0 no relation.",
    "nearest": "Cosine with the nearest audited member, whoever it is.",
    "own nearest": "The share of generations whose nearest audited member is an image of that caption.",
    "other duplicate": "The share of generations whose nearest audited member is another caption's planted duplicate.",
    "nearest member": "The sample index of the member that most of the caption's generations are nearest to.",
    "value": "The number with its interval.",
    # Decisions, comparisons, suspect sets.
    "limit": "What a number may be at most, set before the audit.",
    "decision": "Pass: the upper bound keeps the limit; fail: the number itself doesn't; undecided: more samples are needed.",
    "mean, sd": "Mean and standard deviation over the compared audits.",
    "compared audit": "One of the compared audits, or the difference of two of them; the letters are named at the top.",
    "frontier": "What remains when every setting that another one beats in privacy and quality is taken away.",
    "baseline": "The setting that all others are compared with.",
    "strongest attack": (
        "The attack of highest AUROC against that very training, chosen on one half of the samples and reported on the other."
    ),
    "at equal quality": (
        "AUROC minus the baseline's where both generate equally well: below 0 is privacy gained, not learning lost."
    ),
    "best quality": "The best quality that the setting reaches minus the baseline's: above 0 is worse.",
    "dominated": "Another setting has a lower AUROC and a better quality at the end, in every seed.",
    "AUROC's sd, range": "Standard deviation of the AUROC over seeds, its least and its greatest.",
    "told apart": "The share of random sets of that size for which the test says that they were trained on.",
    "images": "How many images there are.",
    "pass": "The share that a classifier takes for images generated by the model.",
}
"""Term -> its sentence."""
