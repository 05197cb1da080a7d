"""A trainer without a model, for whatever happens to the file of a checkpoint."""

from types import SimpleNamespace


class Disk:
    """A trainer whose checkpoints are a few bytes."""

    def __init__(self):
        self.content = b""
        self.lightning_module = SimpleNamespace(parameters=lambda: [])
        self.current_epoch = 0
        self.global_step = 1

    def save_checkpoint(self, path):
        with open(path, "r+b" if path.exists() else "wb") as file:  # an older file is written into, not replaced
            file.write(self.content)
