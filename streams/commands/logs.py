"""Commands about logs, before anything learns: simulate, convert, validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .output import Flag, Json, say, table, write, write_json
from .progress import Progress


def simulate(
    out: Path,
    /,
    *,
    events: int,
    seed: int,
    truth: Path | None = None,
    dial: list[str] | None = None,
    json: Json = False,
) -> None:
    """Write a synthetic funnel with known truth: impressions, clicks, carts, purchases, returns.

    The configuration for it is written beside it, OUT.toml. The defaults hold no row later than the allowed lateness.

    Parameters
    ----------
    out
        The log to write, Parquet.
    events
        Number of events.
    seed
        The same seed gives the same file, bit for bit.
    truth
        Where the truth goes: true conversion probability of each impression, planted pairs.
    dial
        A law of the funnel, NAME=VALUE, as often as needed: --dial base_rate=0.05 --dial delay=6h. docs/funnel.md lists
        them.
    json
        Report as JSON.
    """
    from ..funnel import simulate as run

    dials: dict[str, Any] = dict(_pair(text) for text in dial or [])
    with Progress() as progress:
        summary = run(out, events, seed, truth, progress, **dials)
    if json:
        write_json(summary)
        return
    write(table(("type", "rows"), list(summary.rows.items())))
    say(f"wrote {summary.out} and its configuration {summary.configuration}")


def _pair(text: str) -> tuple[str, str]:
    from ..configuration import ConfigurationError

    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--dial {text}: write it NAME=VALUE, such as base_rate=0.05")
    return name.strip().replace("-", "_"), value.strip()


def convert(source_name: str, /, *paths: Path, allow_dead_letters: Flag = False, json: Json = False) -> int:
    """Turn a known public log into a canonical one.

    What cannot be used goes to OUT.dead_letters.jsonl with its reason; names of products go to OUT.names.parquet.

    Parameters
    ----------
    source_name
        complete-journey (comes with the extra of that name; its notice calls the data simulated), or online-retail.
    paths
        IN... OUT.parquet: what to read, if the source is not a package, and the log to write, last.
    allow_dead_letters
        Exit with 0 although some rows were dead-lettered (else with 3).
    json
        Report as JSON.
    """
    from ..configuration import ConfigurationError
    from ..converters import converter

    if not paths:
        raise ConfigurationError(f"convert {source_name}: name the log to write, such as year.parquet")
    run = converter(source_name)
    with Progress() as progress:
        report = run(list(paths[:-1]), paths[-1], progress)
    if json:
        write_json(report)
    else:
        for text in report.lines():
            write(text)
    if report.dead_letters:
        say(f"{sum(report.dead_letters.values()):,} rows went to {report.dead_letters_path}")
        return 0 if allow_dead_letters else 3
    return 0


def validate(
    logs: list[Path], /, *, config: Path | None = None, allow_dead_letters: Flag = False, json: Json = False
) -> int:
    """Say what is wrong with a log, before anything learns from it: one PASS or FAIL line a check.

    A FAIL line is followed by example lines and by what to do about them.

    Parameters
    ----------
    logs
        Files or folders: .parquet, .jsonl, .csv, the last two also with .gz.
    config
        TOML file that declares the features. Without one, LOG.toml beside the first file, if it is there.
    allow_dead_letters
        Exit with 0 although some rows would be dead-lettered (else with 3).
    json
        Report as JSON.
    """
    from ..validate import validate as check
    from .settings import configuration_for

    configuration = configuration_for(logs, config)
    with Progress() as progress:
        report = check(logs, configuration, progress=progress)
    if json:
        write_json(report.to_dict())
    else:
        for text in report.lines():
            write(text)
    if not report.passed:
        return 1
    return 3 if report.dead_letters and not allow_dead_letters else 0
