"""One embedding version on disk: dual vectors of every item, and a manifest that says what they are.

A folder is written under another name and renamed, so a reader sees a whole version or none; arrays are read as
memory maps. The digest of the inputs is part of the state's digest; the digest of the vectors is a line of its own,
for their bits depend on the processor and the libraries.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

FORMAT = 1

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]


class EmbeddingError(RuntimeError):
    """An embedding folder cannot be read; the message names it and the mend."""


class Manifest(msgspec.Struct, frozen=True):
    """What a version is: numbers, digests, how it was made and how the version before it did.

    Attributes
    ----------
    version, ts : number, and event time of the snapshot in ms
    inputs : digest of the snapshot it was built from
    vectors : digest of the vectors' bits
    method : "propagation" or "svd": which of the two went into service
    reason : one sentence that says why
    evidence : weight of shrunk z beside the inner product
    dimensions, items, pairs : sizes
    health : figures about the graph, such as the share of pairs that are significantly one-way
    choice : HitRate@10 and MRR@10 of both on the validation slice
    previous : evaluation of the version before on the pairs of the period since
    """

    version: int
    ts: int
    inputs: str
    vectors: str
    method: str
    reason: str
    evidence: float
    dimensions: int
    items: int
    pairs: int
    health: dict[str, float]
    choice: dict[str, Any]
    previous: dict[str, Any]
    format: int = FORMAT


@dataclass(frozen=True)
class Embedding:
    """A version's arrays.

    Parameters
    ----------
    manifest : what it is
    items : uint64[n], item hashes; row i of the others is item i's
    popularity : float32[n], decayed purchases
    source, target : float32[n, d]; the relatedness of v to u is <source[u], target[v]>
    svd_source, svd_target : float32[n, d] of the warm start, kept to compare both; equal to the above where it serves
    latest : int32[n, 10], the targets of each item's latest pairs, newest first, -1 where there are fewer: a baseline
    pair_source, pair_target, pair_weight : int32[m], int32[m], float32[m], the pairs it was built from
    out, into : float64[n], row sums of all pairs by source and by target; with the pairs, what the next build judges
        this version and its baselines by
    """

    manifest: Manifest
    items: U64
    popularity: F32
    source: F32
    target: F32
    svd_source: F32
    svd_target: F32
    latest: npt.NDArray[np.int32]
    pair_source: npt.NDArray[np.int32]
    pair_target: npt.NDArray[np.int32]
    pair_weight: F32
    out: npt.NDArray[np.float64]
    into: npt.NDArray[np.float64]

    ARRAYS: ClassVar[tuple[str, ...]] = (
        "items",
        "popularity",
        "source",
        "target",
        "svd_source",
        "svd_target",
        "latest",
        "pair_source",
        "pair_target",
        "pair_weight",
        "out",
        "into",
    )

    def save(self, folder: Path) -> None:
        """Write the version, whole or not at all; nothing where it is there already."""
        if (folder / "manifest.json").exists():
            return
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in self.ARRAYS:
            np.save(draft / f"{name}.npy", getattr(self, name))
        (draft / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(self.manifest)))
        try:
            os.replace(draft, folder)
        except OSError:  # another builder was first: equal inputs, the same version
            shutil.rmtree(draft, ignore_errors=True)
            if not (folder / "manifest.json").exists():
                raise

    @classmethod
    def load(cls, folder: Path) -> Embedding:
        """Open a version read-only, its arrays as memory maps. EmbeddingError where there is none, or a newer one."""
        manifest = load_manifest(folder)
        return cls(manifest, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls.ARRAYS))


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a version's folder. EmbeddingError where there is none, or one of a newer format."""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except OSError:
        raise EmbeddingError(f"{folder}: no embedding version here; replay the log again to have it built") from None
    except msgspec.DecodeError as error:
        raise EmbeddingError(f"{folder}/manifest.json: {error}; remove the folder, it will be built again") from None
    if manifest.format > FORMAT:
        raise EmbeddingError(f"{folder}: format {manifest.format}, this version reads up to {FORMAT}; upgrade thalweg")
    return manifest


def vectors_digest(*arrays: F32) -> str:
    """128-bit hex digest of the bits of some arrays.

    >>> vectors_digest(np.zeros(3, np.float32)) == vectors_digest(np.zeros(3, np.float32))
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
