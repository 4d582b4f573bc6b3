"""Commands and files that the documents and the configurations name exist and parse."""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from engine.config import compose
from scripts.tables.grid import SETS, table_names

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "REPRODUCTION.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
COMMAND = re.compile(r"(?:python|bash) ([\w/]+\.(?:py|sh))((?: [^ \n]+)*)")
REST = re.compile(r"  |[#;)`>|]|, | \(| && |[,.:]$")            # what ends a command in prose
PLACEHOLDER = re.compile(r"\[.*|.*\]|[A-Z]+|CONFIG\.yaml|key=value|.*\.\.\.")
FOLDERS = ("configs", "dataset", "docs", "engine", "models", "requirements", "scripts", "tests")
NAMED = re.compile(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w/]+(?:\.(?:py|sh|md|yaml|json|svg|txt)\b)?)(?![\w*{{<])")
# test_extending.py runs its commands and writes its files.
EXAMPLES = "docs/extending.md"
HELP = """
import runpy, sys
outside, scripts = sys.path[:], sys.argv[1:]
for script in scripts:
    for name in [n for n in sys.modules if n.partition(".")[0] in ("dataset", "engine", "models", "scripts")]:
        del sys.modules[name]
    sys.path[:], sys.argv = [script.rpartition("/")[0], *outside], [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, script
    print("done:", script)
"""


def test_a_printed_program_prints_what_stands_beside_it():
    """`python - <<'END'` in a document: every line of its output is a line of that document."""
    programs = [(path, program) for path in DOCUMENTS
                for program in re.findall(r"^python - <<'END'\n(.*?)^END$", path.read_text(), re.M | re.S)]
    assert programs
    for path, program in programs:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(program, str(path), "exec"), {})
        lines = output.getvalue().splitlines()
        assert lines and set(lines) <= set(path.read_text().splitlines()), path


def text_of(path: Path) -> str:
    """Inline code and continued commands on one line each; of YAML the comments."""
    text = re.sub(r"\s*\\\n\s*", " ", path.read_text())
    if path.suffix == ".yaml":
        text = "\n".join(line.partition("#")[2].strip() for line in text.splitlines())
        return re.sub(r"\n(?=(?:dataset|backbone|method|configs)[=/.])", " ", text)
    return re.sub(r"(?<!`)`[^`\n]+\n[^`\n]+`", lambda code: code[0].replace("\n", " "), text)


def commands() -> list[tuple[str, str]]:
    """(file, command without its interpreter), each command once."""
    places = {script + REST.split(rest.replace("$SLURM_ARRAY_TASK_ID", "1"))[0]: str(path.relative_to(ROOT))
              for path in [*DOCUMENTS, *CONFIGS] for script, rest in COMMAND.findall(text_of(path))}
    return [(place, command) for command, place in places.items()]


@pytest.mark.parametrize("place, command", commands())
def test_a_printed_command_exists_and_parses(place, command, monkeypatch):
    script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file()
    if place == EXAMPLES or script.startswith("tests/") or script == "scripts/run_tests.sh":
        return
    given = [argument for argument in arguments if not PLACEHOLDER.fullmatch(argument)]
    if script in ("train.sh", "main_train.py"):
        compose([a for a in given if "=" not in a], [a for a in given if "=" in a])
        return
    if script == "test.sh" and given and "=" not in given[0] and not given[0].startswith("-"):
        given = ["--checkpoint", *given]
    name = "main_test" if script == "test.sh" else script.removesuffix(".py").replace("/", ".")
    monkeypatch.setattr("sys.argv", [script, *(arguments if script.startswith("scripts/") else given)])
    options = importlib.import_module(name).parse()
    if name == "scripts.reproduce":
        assert options.table in (None, "TABLE", *SETS, *table_names())
    given = [a for key in ("arguments", "overrides", "runs") for a in getattr(options, key, [])]
    changes = [a for a in given if "=" in a and not PLACEHOLDER.fullmatch(a)]
    if not any(a.startswith("dataset=") for a in changes) and name != "main_test":
        changes.insert(0, "dataset=music_avqa")
    compose(None, changes)


def test_commands_of_every_kind_are_read():
    """Fewer would mean that they are no longer recognised where they stand."""
    scripts = Counter(command.split()[0] for _, command in commands())
    assert sum(scripts.values()) >= 120 and scripts["train.sh"] >= 50
    assert scripts["scripts/reproduce.py"] >= 15 and scripts["test.sh"] + scripts["main_test.py"] >= 10


def test_every_command_starts_from_any_folder(tmp_path):
    """In one new process, which saves imports: each finds the project by itself."""
    scripts = [str(p) for p in [*ROOT.glob("main_*.py"), *ROOT.glob("scripts/*.py")] if p.stem != "check_environment"]
    done = subprocess.run([sys.executable, "-c", HELP, *scripts], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall("^done: (.*)$", done.stdout, re.M) == scripts and done.stdout.count("usage: ") == len(scripts)


def test_the_readme_has_at_most_120_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_named_files_exist():
    lacking = {}
    for path in [*DOCUMENTS, *CONFIGS, *(file for folder in FOLDERS[:-1] for file in (ROOT / folder).rglob("*.py"))]:
        text = path.read_text()
        names = {name for name in NAMED.findall(text) if f"\n`{name}`\n" not in text}          # an example writes it
        names = {name for name in names if not re.search("/[A-Z]+", name)}
        lacking[str(path.relative_to(ROOT))] = sorted(name for name in names if not (ROOT / name).exists())
    assert {place: names for place, names in lacking.items() if names} == {}
