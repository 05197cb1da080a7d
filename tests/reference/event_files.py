"""A reader of TensorBoard's event files, by TensorBoard itself."""

from pathlib import Path


def _read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def scalars_in(folder: Path, name: str) -> dict[int, float]:
    """Step -> value."""
    return {event.step: event.value for event in _read(folder).Scalars(name)}


def names_in(folder: Path) -> set[str]:
    """Of every curve."""
    return set(_read(folder).Tags()["scalars"])


def pictures_in(folder: Path) -> dict[str, dict[int, tuple[int, int]]]:
    """Name -> step -> (width, height) of every picture."""
    events = _read(folder)
    return {name: {each.step: (each.width, each.height) for each in events.Images(name)} for name in events.Tags()["images"]}
