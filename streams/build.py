"""The builder of embedding versions: a process of its own, with one thread, off the hot path.

    python -m thalweg.streams.build SNAPSHOT_DIR OUT_DIR

A build is a pure function of its snapshot and the version before, so it is kept under the digest of its inputs and made
once. A stage starts it at the refresh and waits for it where the version goes into service; after a kill the timer is
met again in the log, and the build is found done, or is started again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

from thalweg.graph_store.embedding import Embedding, load_manifest
from thalweg.graph_store.snapshot import Snapshot

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class BuildError(RuntimeError):
    """A build failed; the message names the version, the folder and what the builder said."""


def build_version(snapshot_folder: Path, folder: Path) -> None:
    """Build the version of a snapshot into `folder`; nothing where it is there already.

    The version before is looked for beside `folder`, under the digest that the snapshot names.
    """
    if (folder / "manifest.json").exists():
        return
    snapshot = Snapshot.load(snapshot_folder)
    before = None if snapshot.prior is None else Embedding.load(folder.parent / snapshot.prior)
    from thalweg.models.blade.version import build  # torch comes with it

    build(snapshot, before, snapshot.digest()).save(folder)


class Builds:
    """Versions by the digest of their inputs, in one folder, and the processes that make them.

    Parameters
    ----------
    folder : where versions and snapshots live; None: a temporary folder that goes with this object
    inline : build in this process at `wait` (tests and small graphs); else in a process of its own from `start` on

    >>> builds = Builds(None, inline=True)
    >>> builds.ready("0" * 32)
    False
    """

    def __init__(self, folder: Path | None, inline: bool = False) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="thalweg-builds-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder
        self.inline = inline
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, snapshot: Snapshot) -> str:
        """Write the snapshot and begin its build, unless it is done; the digest of its inputs."""
        digest = snapshot.digest()
        if not self.ready(digest):
            self.folder.mkdir(parents=True, exist_ok=True)
            snapshot.save(self._snapshot(digest))
            if not self.inline:
                self._spawn(digest)
        return digest

    def ready(self, digest: str) -> bool:
        """Whether the version is there."""
        return (self.folder / digest / "manifest.json").exists()

    def poll(self, digest: str) -> bool:
        """Whether the version is there; BuildError where its process has failed."""
        process = self._running.get(digest)
        if process is not None and process.poll() is not None:
            self._finish(digest, process)
        return self.ready(digest)

    def wait(self, digest: str) -> Path:
        """The version's folder, once it is there; starts the build again where a kill has ended it.

        BuildError where the build fails, or where neither the version nor its snapshot is there.
        """
        if not self.ready(digest):
            if not (self._snapshot(digest) / "header.json").exists():
                raise BuildError(
                    f"{self.folder}: neither version {digest} nor its snapshot is there; replay the log into a new "
                    "--state folder"
                )
            if self.inline:
                build_version(self._snapshot(digest), self.folder / digest)
            else:
                if digest not in self._running:
                    self._spawn(digest)
                self._finish(digest, self._running[digest])
        shutil.rmtree(self._snapshot(digest), ignore_errors=True)
        return self.folder / digest

    def load(self, digest: str) -> Embedding:
        """The version, its arrays as memory maps; waits for it as `wait` does."""
        return Embedding.load(self.folder / digest if self.ready(digest) else self.wait(digest))

    def drop_vectors(self, digest: str) -> None:
        """Let a version's arrays go; its manifest, which the report reads, stays."""
        for name in Embedding.ARRAYS:
            (self.folder / digest / f"{name}.npy").unlink(missing_ok=True)

    def close(self) -> None:
        """End the processes that still run; what they would have built is built when it is waited for."""
        for process in self._running.values():
            process.kill()
            process.communicate()
        self._running.clear()

    def _snapshot(self, digest: str) -> Path:
        return self.folder / f"{digest}-snapshot"

    def _spawn(self, digest: str) -> None:
        command = [
            sys.executable,
            "-m",
            "thalweg.streams.build",
            str(self._snapshot(digest)),
            str(self.folder / digest),
        ]
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
        environment.pop("THALWEG_FAULT", None)
        self._running[digest] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )

    def _finish(self, digest: str, process: subprocess.Popen[bytes]) -> None:
        _, said = process.communicate()
        self._running.pop(digest, None)
        if process.returncode != 0 or not self.ready(digest):
            lines = said.decode(errors="replace").strip().splitlines()
            raise BuildError(
                f"{self.folder / digest}: the builder ended with status {process.returncode}: "
                f"{lines[-1] if lines else 'no message'}; run the same command again, it starts the build anew"
            )


def main(arguments: list[str]) -> int:
    """The builder's command line: SNAPSHOT_DIR OUT_DIR; 2 where it is wrong."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m thalweg.streams.build SNAPSHOT_DIR OUT_DIR\n")
        return 2
    build_version(Path(arguments[0]), Path(arguments[1]))
    return 0


def builds_in(folder: Path) -> list[str]:
    """Digests of the versions in a folder, by version number."""
    found = [(load_manifest(path.parent).version, path.parent.name) for path in folder.glob("*/manifest.json")]
    return [digest for _, digest in sorted(found)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
