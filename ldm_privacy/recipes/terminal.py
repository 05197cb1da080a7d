"""The terminal: one console, progress bars for preparations, quiet libraries, errors in one line."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ldm_privacy.errors import ProcessError, UserError
from ldm_privacy.plugins import explained

console = Console()

LOADING = "loading PyTorch and diffusers"

TOLD_AFTER, TOLD_EVERY = 5.0, 30.0
"""Seconds to the first line of how far a preparation is, and from one to the next, where there is no terminal for a bar."""

TRACEBACK = "LDM_PRIVACY_TRACEBACK"
"""Set in the environment, it shows the traceback above the line that tells a mistake."""


def tell(text: str) -> None:
    """Print lines as they are, so that a path or a command in them can be copied: nothing wrapped, coloured or interpreted."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar that goes away when it is done; gives a function of the number done so far. `total` 0 = not known.

    Where the output is no terminal there are lines in place of the bar, after `TOLD_AFTER` seconds and then every `TOLD_EVERY`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total or None)

        def update(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)

        def say() -> None:
            seconds = TOLD_AFTER
            while not is_over.wait(seconds):
                now, seconds = bar.tasks[0], TOLD_EVERY
                tell(f"{description}{'' if now.total is None else f', {now.completed:.0f} of {now.total:.0f}'} ...")

        is_over = Event()
        if not console.is_terminal:
            Thread(target=say, daemon=True).start()  # a stop doesn't wait for it
        try:
            yield update
        finally:
            is_over.set()


def waiting(text: str) -> AbstractContextManager[object]:
    """A spinner that goes away, for seconds that can't be counted: imports, a network that is made. No bar inside it."""
    return console.status(text) if console.is_terminal else nullcontext()


class _Said(logging.Handler):
    """Prints messages with their lines as they are: a command in one of them can be pasted."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(record.getMessage(), highlight=False, markup=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Keep libraries from talking over the program: their hints are about choices that this program makes itself."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module=r"lightning\..*|torch\..*|diffusers\..*|huggingface_hub\..*")
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # torch's, of gradients by sample
    for name in ("lightning.pytorch", "lightning.fabric", "diffusers", "wandb", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs an error, and then raises it
    log = logging.getLogger("ldm_privacy")
    if not log.handlers:
        log.addHandler(_Said())
        log.setLevel(logging.INFO)


def run_program(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    """Call `main` with the command line and exit with its code: 2 with one line on stderr for a user's or a plug-in's mistake.

    Of several processes the main one alone prints; a mistake that is found before they are together is told by it.
    """
    console.quiet = not is_first()
    quiet_libraries()
    try:
        code = main(arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    except BaseException as error:
        if (words := in_one_line(error)) is None:
            raise
        if is_first() or isinstance(error, ProcessError):
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            print(f"error: {words}", file=sys.stderr)
        code = 2
    sys.stdout.flush()
    sys.exit(code)


def in_one_line(error: BaseException) -> str | None:
    """What a user can mend of an error: a mistake of theirs, of a plug-in, a file's; None where it is the program's own."""
    if isinstance(error, UserError):
        return str(error)
    if (words := explained(error)) is not None:
        return f"{words} ({TRACEBACK}=1 shows the traceback)"
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return f"{error.filename}: {error.strerror}"
    return None


def is_first() -> bool:
    """Whether this is the main process, known from how it was started: nothing heavy is imported to ask."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
