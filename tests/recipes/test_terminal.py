"""What the program says in the terminal."""

import io
import logging
import threading

from rich.console import Console

from ldm_privacy.recipes import terminal


class Screen(io.StringIO):
    """That knows when something was written."""

    def __init__(self):
        super().__init__()
        self.is_written = threading.Event()

    def write(self, text):
        super().write(text)
        self.is_written.set()
        return len(text)


def test_a_log_has_lines_of_what_takes_long_and_none_of_what_does_not(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(terminal, "console", Console(file=screen, width=40))
    monkeypatch.setattr(terminal, "TOLD_EVERY", 1000)
    for seconds, description, total in ((1000, "Reading", 0), (0, "Controls and evidence", 0), (0, "Audit", 512)):
        monkeypatch.setattr(terminal, "TOLD_AFTER", seconds)
        screen.is_written.clear()
        with terminal.progress(description, total) as done:
            done(0)
            assert seconds or screen.is_written.wait(60)
    assert screen.getvalue().splitlines() == ["Controls and evidence ...", "Audit, 0 of 512 ..."]
    monkeypatch.setattr(terminal, "console", Console(file=screen, width=40, force_terminal=True))
    monkeypatch.setattr(terminal, "TOLD_AFTER", 0)
    before = threading.active_count()
    with terminal.progress("Audit", 512):
        assert threading.active_count() - before <= 1  # the bar's own


def test_a_log_says_again_and_again_how_far_it_is(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(terminal, "console", Console(file=screen, width=40))
    monkeypatch.setattr(terminal, "TOLD_AFTER", 0)
    monkeypatch.setattr(terminal, "TOLD_EVERY", 0.01)
    with terminal.progress("Audit", 3) as done:
        for number in range(3):
            done(number)
            while f"Audit, {number} of 3 ..." not in screen.getvalue():
                screen.is_written.clear()
                assert screen.is_written.wait(60)
    said = screen.getvalue()
    assert said.index("0 of 3") < said.index("1 of 3") < said.index("2 of 3")


def test_a_command_in_a_message_stands_on_one_line_however_narrow_the_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=screen, width=40))
    command = "wandb sync 'runs/a [bold] name/wandb/offline-run-20261126_004127-ayvsxq6w'"
    log = logging.getLogger("ldm_privacy")
    monkeypatch.setattr(log, "handlers", [])
    terminal.quiet_libraries()
    log.warning("%s, so this run is kept offline. Send it later with:\n%s", "No network", command)
    assert screen.getvalue().splitlines()[1] == command
