"""Blocks: what a reader may take for granted of one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from thalweg.streams.block import NO_CLOCK, Block, no_names
from thalweg.streams.row import EVENT_ROW


def test_a_block_has_the_length_of_its_rows_and_is_not_changed():
    block = Block(np.zeros(3, EVENT_ROW), np.zeros((3, 2), np.uint32), {0: (5, 8)}, 77)
    assert len(block) == 3
    assert (block.rejected, block.tops, block.names[1]) == ({}, {}, [])
    with pytest.raises(dataclasses.FrozenInstanceError):
        block.clock = 78  # type: ignore[misc]


def test_blocks_share_no_defaults():
    a, b = (Block(np.zeros(0, EVENT_ROW), np.zeros((0, 0), np.uint32), {}, NO_CLOCK) for _ in range(2))
    a.rejected["click", "no_item"] = 1
    a.names[1].append("x")
    assert b.rejected == {} and b.names[1] == []


def test_no_names_are_no_hashes():
    hashes, names = no_names()
    assert hashes.dtype == np.uint64 and len(hashes) == len(names) == 0


def test_no_clock_lies_below_every_time_and_can_be_moved_by_a_window():
    assert -(2**63) < NO_CLOCK - 10**13 < NO_CLOCK < -(10**16)
