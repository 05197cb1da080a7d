"""Plug-ins: a mistake in one of them is one line that names the plug-in, file and line."""

import json
import sys

import pytest

from ldm_privacy.config import compose, compose_stored
from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on, explained, import_plugins, is_own
from ldm_privacy.recipes.terminal import TRACEBACK, run_program
from ldm_privacy.registry import ATTACKS, CONTROLS
from tests.desk import working_in

REGISTER = 'from ldm_privacy.registry import ATTACKS\n\n\n@ATTACKS.register("{}")\nclass Mine:\n    pass\n'


@pytest.fixture
def desk(tmp_path):
    with working_in(tmp_path):
        yield tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nraise ValueError('boom\\nand more')\n", r"mine\.py:2: ValueError: boom$"),
        ("def f(:\n    pass\n", r"mine\.py:1: SyntaxError: invalid syntax$"),
        ("a = 1\nimport helper_of_mine\n", r"helper_of_mine\.py:2: SyntaxError: "),
        ("a = 1\0\n", r"mine\.py: SyntaxError: .*null bytes"),
        ("\nimport no_such_library\n", r"mine\.py:2: ModuleNotFoundError: No module named 'no_such_library'$"),
        ("import circle_of_mine\nb = 1\n", r"circle_of_mine\.py:1: ImportError: cannot import name 'b'.*circular"),
        ("import sys\n\nsys.exit(3)\n", r"mine\.py:3: SystemExit: 3$"),
        ("class Own(BaseException):\n    pass\n\n\nraise Own\n", r"mine\.py:5: Own$"),
        (
            REGISTER.format("sima"),
            r"mine\.py:4: attack 'sima' is already registered by ldm_privacy\.attacks\.sima(\.SimA)?; choose",
        ),
        (REGISTER.replace('("{}")', ""), r'mine\.py:4: write @ATTACKS\.register\("name"\), with the name of the attack'),
    ],
)
def test_what_goes_wrong_in_an_import_has_file_and_line(desk, text, message):
    (desk / "mine.py").write_text(text)
    (desk / "helper_of_mine.py").write_text("a = 1\nb = = 2\n")
    (desk / "circle_of_mine.py").write_text("from mine import b\n")
    for _ in range(2):  # another try in the same process says the same
        with pytest.raises(UserError, match=rf"^plugins: 'mine' can't be imported: {message}") as caught:
            compose("digits.yaml", ["plugins=[mine]"])
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mine", r"expected a list of module names; write plugins=\[mine\]"),
        ("mine.py", r"'mine\.py' is a path; name its module: plugins=\[mine\], looked for in .*desk"),
        ("[./sub/mine.py]", r"'\./sub/mine\.py' is a path; name its module: plugins=\[sub\.mine\], looked for in"),
        ("[sub/mine]", r"name its module: plugins=\[sub\.mine\]"),
        ("[../other/mine.py]", r"plugins=\[mine\], run in \.\./other or with PYTHONPATH=\.\./other"),
        ("[3]", r"expected a list of module names, as in plugins=\[my_attack\], got \[3\]"),
        ("[mime]", r"there is no module 'mime' in .*desk, where you run, .*Did you mean 'mine'\?"),
        ("[mine.inner]", r"there is no module 'mine\.inner'"),
        ("[silent]", r"'silent' \(silent\.py\) registers nothing; put @ATTACKS\.register"),
        ("[json]", r"'json' \(.*\) registers nothing"),
        ("[calendar]", r"calendar\.py is hidden by another module 'calendar' \(.*\); rename it"),
    ],
)
def test_a_name_that_is_none_says_what_to_write(tmp_path, value, message):
    folder = tmp_path / "desk"
    (folder / "sub").mkdir(parents=True)
    for name in ("mine", "sub/mine", "calendar"):
        (folder / f"{name}.py").write_text(REGISTER.format(f"own_{len(name)}"))
    (folder / "silent.py").write_text("a = 1\n")
    import calendar  # noqa: F401

    with working_in(folder):
        sys.path.pop(0)
        for _ in range(2):
            with pytest.raises(UserError, match=f"^plugins: .*{message}"):
                compose("digits.yaml", [f"plugins={value}"])
    assert sys.modules["json"] is json


def test_a_module_in_a_folder_is_a_plugin(desk):
    (desk / "sub").mkdir()
    (desk / "sub" / "mine.py").write_text(REGISTER.format("in_a_folder"))
    for _ in range(2):
        import_plugins(["sub.mine"])
    assert ATTACKS.get("in_a_folder").__module__ == "sub.mine"


def test_what_a_checkpoint_asks_for_is_not_compared_with_a_part_of_a_name():
    with pytest.raises(UserError, match=r"write plugins=\[my_attacks\]"):
        compose_stored("plugins: [my_attack]", ["plugins=my_attacks"])


LATE = """
from ldm_privacy.registry import ATTACKS, CONTROLS


def helper(value):
    return value["key"]


class Base:
    def run(self, work, argument):
        return work(argument)


@ATTACKS.register("late")
class Late(Base):
    def raises(self):
        return helper({})

    def ends(self):
        raise SystemExit(3)

    def explains(self):
        try:
            return helper({})
        except KeyError as error:
            raise ValueError("no such key") from error


@CONTROLS.register("second")
def second(case):
    return 1 // case
"""


@pytest.fixture
def late(desk):
    (desk / "late_one.py").write_text(LATE)
    import_plugins(["late_one"])
    return ATTACKS.get("late")()


def _explained(work):
    try:
        work()
    except BaseException as error:
        return explained(error)
    raise AssertionError("nothing was raised")


def test_the_line_is_the_innermost_one_of_the_user(late):
    check = "; check it with ldm_privacy.testing.check_attack"
    assert _explained(late.raises) == f"attack 'late' (late_one.py:6): KeyError: 'key'{check}"
    assert _explained(late.ends) == f"attack 'late' (late_one.py:20): SystemExit: 3{check}"
    assert _explained(late.explains) == f"attack 'late' (late_one.py:26): ValueError: no such key{check}"
    assert _explained(lambda: CONTROLS.get("second")(0)).startswith("control 'second' (late_one.py:31): ZeroDivisionError: ")
    # Raised in a library that the user's line calls, or that calls it and says less.
    assert _explained(lambda: late.run(json.loads, "{")).startswith("attack 'late' (late_one.py:11): JSONDecodeError")

    def library():
        try:
            late.raises()
        except KeyError as error:
            raise RuntimeError("an error occurred") from error

    assert _explained(library) == f"attack 'late' (late_one.py:6): KeyError: 'key'{check}"


def test_what_is_blamed_on_a_component_names_where_it_is_defined(late):
    def wrong():
        with blamed_on(CONTROLS.get("second")), blamed_on(late):
            raise ValueError("it returns something else")

    assert _explained(wrong).startswith("attack 'late' (late_one.py:14): ValueError: it returns something else; check it")


def test_the_programs_own_faults_are_nobody_elses(late):
    assert is_own(late)
    assert not is_own(ATTACKS.get("sima")())

    def wrong():
        with blamed_on(ATTACKS.get("sima")()):
            raise ValueError("ours")

    assert _explained(wrong) is None


def test_a_run_ends_with_one_line_and_shows_the_traceback_where_it_is_asked_for(late, capsys, monkeypatch):
    for asked, lines in (("", 1), ("1", 2)):
        monkeypatch.setenv(TRACEBACK, asked)
        with pytest.raises(SystemExit) as ended:
            run_program(lambda arguments: late.raises(), [])
        assert ended.value.code == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert told[-1].startswith("error: attack 'late' (late_one.py:6): KeyError: 'key'; check it with")
        assert (len(told) == 1) == (lines == 1)
    assert "Traceback (most recent call last):" in told


def test_an_interrupt_stays_one(desk, capsys):
    (desk / "slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(SystemExit) as ended:
        run_program(lambda arguments: compose("digits.yaml", ["plugins=[slow]"]), [])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
