"""Starting the processes of a run, and ending them together.

They are started before anything is encoded, by Lightning (which calls the same command line again) or by torchrun, and every
Lightning trainer of the run then uses them.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ldm_privacy.commands import called
from ldm_privacy.errors import ProcessError, UserError, reason_of
from ldm_privacy.processes import gather, is_main, is_torchrun, leave, rank
from ldm_privacy.recipes.terminal import in_one_line

GRACE_SECONDS = 10.0
"""An error that all processes share is told by the main one, which ends the others in this time."""


def check_processes(device_type: str, devices: int, num_nodes: int, *, most: int) -> None:
    """Refuse what can't be started.

    Args:
        device_type: "cuda", "cpu" or "mps".
        devices: Processes per node, each with a device of its own. On CPUs at most as many as cores (two always).
        num_nodes: Nodes.
        most: Samples to share, one a process at least.

    Raises:
        UserError: Fewer devices or samples than processes asked for, several nodes without torchrun, another number than
            torchrun started.
    """
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device_type, max(2, os.cpu_count() or 1))
    if devices > there:
        name = {"cuda": "GPUs", "mps": "Apple GPUs"}.get(device_type, "CPU processes")
        raise UserError(f"trainer.devices: {devices} {name} asked for, {there} there. Use trainer.devices={there}.")
    if devices * num_nodes > most:
        raise UserError(f"trainer.devices: {devices * num_nodes} processes for {most} samples; use {most} at most.")
    if is_torchrun():
        started = int(os.environ["WORLD_SIZE"])
        if started != devices * num_nodes:
            raise UserError(
                f"trainer.devices: torchrun started {started} processes, but {devices} a node on trainer.num_nodes={num_nodes} "
                "are asked for. Set both to what torchrun's --nproc-per-node and --nnodes say."
            )
    elif num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes: {num_nodes} nodes need torchrun, started on each of them: torchrun --nnodes {num_nodes} "
            f"--nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:PORT --no-python {called('train')} ..."
        )


def cluster_plugins() -> list[Any]:
    """Where Lightning learns of the other processes: torchrun or its own launcher, never a batch system around them."""
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    return [TorchElasticEnvironment() if is_torchrun() else LightningEnvironment()]


@contextmanager
def together(accelerator: str, devices: int, num_nodes: int) -> Iterator[None]:
    """The processes of a run, from here to the end of the context; nothing happens for a single one.

    gloo on CPUs, nccl on GPUs. When the main process fails it ends those that it started, and they end when it dies.

    Raises:
        UserError: Another process than the main one ended, or (there) what only that one ran into, with its number.
    """
    if devices * num_nodes == 1:
        yield
        return
    from lightning.fabric import Fabric

    parent = os.getppid()
    plugins = cluster_plugins()
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy="ddp", plugins=plugins)
    fabric.launch()
    if not is_main():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    children = getattr(fabric.strategy.launcher, "procs", [])
    try:
        yield
        gather(None)  # the others wait here, patiently, while the main one draws and writes
        leave()
        for child in children:
            child.wait()
    except BaseException as error:
        if children and isinstance(error, RuntimeError):
            time.sleep(1)  # a process closes its connections before it can be seen to have ended
        ended = next((place for place, child in enumerate(children, start=1) if child.poll()), None)
        for child in children:
            child.kill()  # it may wait for this one for ever, and it has nothing to write
        if ended is not None and isinstance(error, RuntimeError):
            raise UserError(
                f"process {ended} ended (exit code {children[ended - 1].returncode}; below 0: killed by that signal, as for "
                "want of memory). Go on from the last checkpoint with resume=."
            ) from error
        if is_main():
            raise
        if not isinstance(error, Exception):
            raise SystemExit(130) from error
        time.sleep(GRACE_SECONDS)
        raise ProcessError(f"process {rank()}: {in_one_line(error) or reason_of(error)}") from error


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone; a collective call of the GPU would wait for it for long."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)
