"""What the program says in the terminal."""

import io
import logging

from rich.console import Console

from ldm_privacy.recipes import terminal


def test_a_command_in_a_message_stands_on_one_line_however_narrow_the_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=screen, width=40))
    command = "wandb sync 'runs/a [bold] name/wandb/offline-run-20261126_004127-ayvsxq6w'"
    log = logging.getLogger("ldm_privacy")
    monkeypatch.setattr(log, "handlers", [])
    terminal.quiet_libraries()
    log.warning("%s, so this run is kept offline. Send it later with:\n%s", "No network", command)
    assert screen.getvalue().splitlines()[1] == command
