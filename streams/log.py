"""A log: the files of a replay, in a documented order, and the times that are plausible in it.

Order: paths in the order given; a folder stands for its log files sorted by name: not those of its folders, nor hidden
ones, nor what other commands leave beside a log (rejected rows, readable names, the truth of a simulation; `BESIDE`),
which is read only where it is named itself. Each file is a raw partition of its own. A file's format is told by its
name: `.parquet`, `.jsonl` or `.ndjson`, `.csv`, the text formats also with `.gz`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .configuration import Configuration
from .log_file import LogError, LogFile
from .time_bounds import Bounds, configured, scan

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, the rows done, and the rows there are, None where not known."""

FORMATS = (".parquet", ".jsonl", ".ndjson", ".csv", ".jsonl.gz", ".ndjson.gz", ".csv.gz")
BESIDE = frozenset({"dead_letters", "names", "truth", "pairs"})
"""Parts of the name of a file that lies beside a log and is none: `year.names.parquet`, `truth.parquet`."""


class Log:
    """The files of a log and its time bounds.

    Attributes
    ----------
    files : in the order of the log
    bounds : times accepted; keep them with the state and hand them in again on a resume
    """

    def __init__(self, files: Sequence[LogFile], bounds: Bounds) -> None:
        self.files = tuple(files)
        self.bounds = bounds

    @property
    def unfinished(self) -> list[str]:
        """What was wrong with the ends of the files that were read."""
        return [file.unfinished for file in self.files if file.unfinished is not None]


def open_log(
    paths: Sequence[str | Path],
    configuration: Configuration,
    bounds: Bounds | None = None,
    progress: Progress | None = None,
) -> Log:
    """Open a log: check that every file can be read, and find its time bounds.

    Without `bounds` they come from the configuration, or, for an end it leaves open, from a look at all times of the
    log (`time_bounds.scan`). LogError names the file and the mend.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "clicks.csv").write_text("ts,item_id\\n1774785600,A\\n")
    ...     log = open_log([folder], Configuration())
    ...     [batch.events.column("event_id").to_pylist() for batch in log.files[0].batches()]
    [['clicks.csv#0']]
    """
    found = expand(paths)
    limit = configured(configuration) if bounds is None else bounds
    files = [_file(path, configuration, limit) for path in found]
    if bounds is None and (configuration.time.earliest is None or configuration.time.latest is None):
        limit = scan(_all_times(files, progress), configuration)
        for file in files:
            file.bounds = limit
    return Log(files, limit)


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """The files that `paths` stand for, in order; LogError where there is none or two have one name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "b.csv").write_text("ts"), Path(folder, "a.csv").write_text("ts")
    ...     [path.name for path in expand([folder])]
    ['a.csv', 'b.csv']
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and is_log(p.name))
            if not inside:
                raise LogError(f"{path}: holds no log file; a log is {', '.join(FORMATS)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise LogError(f"{path}: there is no such file or folder")
    if not found:
        raise LogError("no log given; name a file or a folder")
    names: dict[str, Path] = {}
    for path in found:
        if path.name in names:
            raise LogError(
                f"{path}: has the name of {names[path.name]}, and a row is known by file name and number; rename one"
            )
        names[path.name] = path
    return found


def is_log(name: str) -> bool:
    """Whether a folder's file is one of its log files, by its name.

    >>> [is_log(name) for name in ("year.parquet", "clicks.csv.gz", "year.names.parquet", "truth.parquet", ".x.csv")]
    [True, True, False, False, False]
    """
    low = name.lower()
    return low.endswith(FORMATS) and low[0] != "." and BESIDE.isdisjoint(low.split("."))


def _file(path: Path, configuration: Configuration, bounds: Bounds) -> LogFile:
    name = path.name.lower()
    if name.endswith(".parquet"):
        from .log_parquet import ParquetFile

        return ParquetFile(path, configuration, bounds)
    if name.endswith((".csv", ".csv.gz")):
        from .log_csv import CsvFile

        return CsvFile(path, configuration, bounds)
    if name.endswith(FORMATS):
        from .log_json import JsonLinesFile

        return JsonLinesFile(path, configuration, bounds)
    raise LogError(f"{path}: is no log by its name; a log is {', '.join(FORMATS)}")


def _all_times(files: Sequence[LogFile], progress: Progress | None) -> Iterator[npt.NDArray[np.int64]]:
    for file in files:
        seen = 0
        for piece in file.times():
            seen += len(piece)
            if progress is not None:
                progress(f"looking at the times of {file.name}", seen, file.rows)
            yield piece
