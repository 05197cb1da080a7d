"""Attacks under another condition than the samples' own."""

from copy import copy

from ldm_privacy.attacks.base import Attack
from ldm_privacy.errors import UserError


def on_condition(attack: Attack, view: str) -> Attack:
    """The same attack, whose every query is under another condition of the samples: without one, with somebody else's.

    Same settings, noise, orientation and cost. The image's own signal survives a wrong caption, so how an attack does under
    the own, the null and a shuffled condition says whether the image or its pairing with the condition gives a member away.

    Args:
        attack: One that queries under the own condition alone.
        view: "null", "shuffled", or whatever other condition the samples have.

    Raises:
        UserError: The attack compares conditions itself.
    """
    if attack.views or attack.view != "own":
        raise UserError(f"{attack!r} chooses its conditions itself; it can't be put under '{view}'.")
    twin = copy(attack)
    twin.view = view
    return twin
