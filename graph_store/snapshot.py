"""What a refresh hands to the builder: the co-purchase graph of one moment, as arrays in a folder.

A snapshot is a build input and no recovery point. Its digest covers every array, the settings and the version before
it, and names the build: equal inputs are built once.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]


class BuildSettings(msgspec.Struct, frozen=True):
    """What a build depends on beside the graph; the names are those of the configuration's table `graph`."""

    dimensions: int = 64
    max_edges: int = 12_000_000
    min_weight: float = 0.0
    epochs: int = 60
    propagation: int = 3
    evidence: float = 0.3
    seed: int = 1


@dataclass(frozen=True)
class Snapshot:
    """The graph at time `ts`, with what the last refresh period added beside it.

    Parameters
    ----------
    version : number of the version to build
    ts : event time of the snapshot, ms
    settings : of the build
    prior : digest of the inputs of the version before, which is judged, learned from and turned to; None at first
    items : uint64[n], item hash of each node
    popularity : float64[n], decayed purchases
    codes : uint32[n, F], catalogue codes
    out, into : float64[n], row sums of all decayed weights by source and by target (customers)
    recent_out, recent_into : float64[n], the same of the last period alone, not decayed
    source, target : int32[m], the pairs kept
    weight : float32[m], decayed customers; 0 where the pair is not among the highest by shrunk z
    recent : float32[m], customers in the last period, not decayed
    last : int64[m], time of the pair's latest purchase, ms
    """

    version: int
    ts: int
    settings: BuildSettings
    prior: str | None
    items: U64
    popularity: F64
    codes: npt.NDArray[np.uint32]
    out: F64
    into: F64
    recent_out: F64
    recent_into: F64
    source: I32
    target: I32
    weight: F32
    recent: F32
    last: npt.NDArray[np.int64]

    @property
    def nodes(self) -> int:
        """Number of items."""
        return len(self.items)

    def _arrays(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def _header(self) -> bytes:
        header = {"version": self.version, "ts": self.ts, "settings": self.settings, "prior": self.prior}
        return msgspec.json.encode(header, order="deterministic")

    def digest(self) -> str:
        """128-bit hex digest of all of it."""
        digest = hashlib.blake2b(self._header(), digest_size=16)
        for name, value in self._arrays().items():
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data if value.size else b"")
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write to `folder`, whole or not at all (a folder beside it is renamed); nothing where it exists already."""
        if (folder / "header.json").exists():
            return
        draft = folder.with_name(folder.name + f".{os.getpid()}")
        draft.mkdir(parents=True, exist_ok=True)
        for name, value in self._arrays().items():
            np.save(draft / f"{name}.npy", value)
        (draft / "header.json").write_bytes(self._header())
        try:
            os.replace(draft, folder)
        except OSError as error:
            raise OSError(f"{folder}: the snapshot cannot be written: {error.strerror}; remove that folder") from None

    @classmethod
    def load(cls, folder: Path) -> Snapshot:
        """Read what `save` wrote. OSError where it is not there."""
        header = msgspec.json.decode((folder / "header.json").read_bytes())
        header["settings"] = msgspec.convert(header["settings"], BuildSettings)
        names = [field.name for field in fields(cls) if field.name not in header]
        return cls(**header, **{name: np.load(folder / f"{name}.npy") for name in names})
