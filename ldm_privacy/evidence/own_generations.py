"""Does a set of images look like what the model itself generates? Its own images score as members."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.controls.model_free import NUM_FOLDS, classify
from ldm_privacy.metrics import clopper_pearson
from ldm_privacy.types import Estimate

TARGET_FPR = 0.05
"""Of a single image, at which the threshold is set."""


@dataclass(frozen=True)
class OwnGenerations:
    """How many images pass for generations of the model.

    Attributes:
        heldout, members: Share of each side that pass though they were not generated; none of these images had a part in the
            classifier or in its threshold.
        generations: Share of generations that pass, none of which had a part either.
        suspects: Share of the suspect images that pass.
        p_value: That the suspects are no more often taken for generations than members, or than held-out images are: the larger
            of two one-sided Fisher tests.
        likeness: AUROC of telling the suspects from generations without any model, cross-fitted; the better of two classifiers.
        are_likely: The test is below the level, and the suspects are either not told from generations or surely less well than
            from held-out images: images of another kind may pass by chance of their brightness, and are like neither.
    """

    heldout: Estimate
    members: Estimate
    generations: Estimate
    suspects: Estimate
    p_value: float
    likeness: Estimate
    are_likely: bool


def own_generations(
    seen: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    *,
    is_member: Tensor,
    is_heldout: Tensor,
    is_suspect: Tensor,
    is_generated: Tensor,
    chooses: Tensor,
    blind: Estimate,
    confidence: float = 0.95,
    seed: int = 0,
) -> OwnGenerations:
    """A logistic classifier of generations against real images, with a threshold of known false-positive rate.

    It is fitted to the members and held-out images that choose and to every second generation. The threshold lets `TARGET_FPR`
    of either side of those pass, out of fold; what it does in fact is counted on the other half. What tells generations best of
    a latent model is how little they change in its autoencoder (Ricker et al., AEROBLADE, CVPR 2024, arXiv 2401.17879).

    Args:
        seen: Name -> (images,), what the model says of each image: levels of an attack, reconstruction error.
        features: `image_features` of all.
        is_member, is_heldout, is_suspect, is_generated: (images,) bool; each image is of one part.
        chooses: (images,) bool, of members and held-out images.
        blind: AUROC of telling the suspects from held-out images without any model.
        confidence: Of each interval; 1 - confidence is the level of the test.
        seed: Of folds.

    No network passes; a few fits of the classifier.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    value = torch.stack([column.double() for column in {**features, **seen}.values()], 1).numpy()
    even = torch.zeros_like(is_generated)
    even[torch.nonzero(is_generated)[::2, 0]] = True
    real = (is_member | is_heldout) & chooses
    fits, label = (real | even).numpy(), is_generated.numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed % 2**32)
    decision = np.full(len(value), np.nan)
    decision[fits] = cross_val_predict(model, value[fits], label[fits], cv=folds, method="decision_function")
    threshold = max(
        float(np.quantile(decision[(side & real).numpy()], 1 - TARGET_FPR, method="higher")) for side in (is_member, is_heldout)
    )
    decision[~fits] = model.fit(value[fits], label[fits]).decision_function(value[~fits])
    passing = torch.from_numpy(decision > threshold)
    parts = {"heldout": is_heldout & ~chooses, "members": is_member & ~chooses, "suspects": is_suspect}
    parts["generations"] = is_generated & ~even
    counts = {name: (int(passing[part].sum()), int(part.sum())) for name, part in parts.items()}
    p_value = max(more_often(counts["suspects"], counts[side]) for side in ("members", "heldout"))
    either = is_suspect | parts["generations"]
    told = classify(
        {name: each[either] for name, each in features.items()}, is_suspect[either], confidence=confidence, seed=seed
    )
    likeness = max((each.estimate for each in told if each.estimate is not None), key=lambda each: each.lower)
    is_like = likeness.lower <= 0.5 or likeness.upper < blind.lower
    shares = {name: clopper_pearson(*count, confidence=confidence) for name, count in counts.items()}
    return OwnGenerations(**shares, p_value=p_value, likeness=likeness, are_likely=p_value <= 1 - confidence and is_like)


def more_often(one: tuple[int, int], other: tuple[int, int]) -> float:
    """P-value of "no more of the first pass than of the second", each (passing, in all)."""
    table = [[passing, total - passing] for passing, total in (one, other)]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)
