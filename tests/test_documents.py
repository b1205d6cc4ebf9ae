"""The pages are true: their commands run, their links lead somewhere, the modules they name are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from thalweg.streams import cli
from thalweg.streams.commands import output
from thalweg.streams.configuration import load

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language."""
    fences = re.findall(r"^```([a-z]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for name, text in fences if name == language]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's log and configuration."""
    folder = tmp_path_factory.mktemp("shop")
    (log,) = blocks(ROOT / "README.md", "json")
    configuration, live = blocks(ROOT / "README.md", "toml")
    (folder / "events.jsonl").write_text(log)
    (folder / "shop.toml").write_text(configuration)
    (folder / "live.toml").write_text(configuration + live)
    return folder


def test_the_readmes_configuration_is_one(shop: Path) -> None:
    assert [feature.name for feature in load(shop / "shop.toml", {}).features] == ["page", "category"]


def test_the_readmes_live_configuration_is_one(shop: Path) -> None:
    kafka = load(shop / "live.toml", {"THALWEG_KAFKA__CLIENT__SASL_PASSWORD": "secret"}).kafka
    assert kafka.topics["shop.events"] == "" and kafka.topics["shop.views"] == "impression"
    assert (kafka.client["sasl_password"], kafka.client["security_protocol"]) == ("secret", "SASL_SSL")


def test_the_readmes_live_commands_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of the live part has a help page with the options that it is shown with."""
    (six,) = (block for block in blocks(ROOT / "README.md") if "thalweg worker" in block)
    for line in six.strip().splitlines()[1:]:
        words = shlex.split(line.partition("#")[0])
        command = [word for word in words[1:3] if re.fullmatch("[a-z]+", word)]
        assert cli.main([*command, "--help"]) == 0
        said = capsys.readouterr().out
        assert all(option in said for option in words if option.startswith("--")), line


def test_the_readmes_six_commands_run(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the first, which installs; on the README's five events."""
    monkeypatch.chdir(shop)
    (six,) = (block for block in blocks(ROOT / "README.md") if "thalweg validate" in block)
    install, *commands = six.strip().splitlines()
    assert install.startswith("pip install") and len(commands) == 5
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "thalweg"
        assert cli.main(arguments) == 0, f"{command}: {capsys.readouterr().err}"
    assert (shop / "report.html").exists() and (shop / "state" / "attribution").is_dir()
    assert "the books balance" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target} is not there"
        assert not anchor or anchor in anchors(other), f"{page.name}: {target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_named_are_there(page: Path) -> None:
    """`streams/x.py` or `models/y/`; in one cell a bare `z.py` stands in the folder of the one before it."""
    text = page.read_text(encoding="utf-8")
    for line in text.splitlines():
        folder = Path()
        for name in re.findall(r"`((?:[\w]+/)*\w+\.py|(?:streams|models|graph_store)/(?:\w+/)*)`", line):
            path = Path(name)
            known = ROOT / path if len(path.parts) > 1 else ROOT / folder / path
            if "_x.py" in name or "/x.py" in name:
                continue
            assert known.exists(), f"{page.name}: `{name}` is not there (looked for {known.relative_to(ROOT)})"
            folder = known.parent.relative_to(ROOT)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8")):
            other = (page.parent / target).resolve()
            if other.exists() and other not in reached:
                todo.append(other)
    assert reached >= set(PAGES), f"link {sorted(p.name for p in set(PAGES) - reached)} from a page that can be reached"


def test_help_and_readme_name_the_same_statuses() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for status in (cli.DONE, output.FAILED, output.WRONG, cli.DEAD_LETTERED):
        assert re.search(rf"\b{status} \w+", text.split("Exit status:")[1].split("\n\n")[0])


def test_the_changelog_has_this_version() -> None:
    from thalweg import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "bench", "format", "clean"])
def test_the_makefile_has_its_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("kafka", [False, True])
@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 1)])
def test_ci_runs_the_tests_and_those_with_a_broker_on_apache_kafka_too(
    tmp_path: Path, kafka: bool, first: int, second: int
) -> None:
    """With stand-ins for make and pytest: it fails where either fails, and prints nothing behind the last of them."""
    stand_ins = {
        "repo/.ci/run": (ROOT / ".ci" / "run").read_text(),
        "bin/make": f"#!/bin/sh\necho make $@\nexit {first}\n",
        "bin/java": "#!/bin/sh\n",
        "repo/.venv/bin/python": f'#!/bin/sh\necho "$THALWEG_TEST_KAFKA" $@\nexit {second}\n',
    }
    if kafka:
        stand_ins["shared/kafka/broker"] = "#!/bin/sh\n"
    for name, text in stand_ins.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / "repo/.ci/run"], env=environment, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert said[0] == "make test"
    if kafka and not first:
        assert said[-1].startswith("../shared/kafka -m pytest") and said[-1].endswith("-m broker")
    else:
        assert len(said) == 1
    assert done.returncode == (first or (second if kafka else 0))
