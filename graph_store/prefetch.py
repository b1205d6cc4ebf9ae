"""Ask the processor for a cache line before it is needed: it changes when memory is read, never what is computed.

A stage knows its next rows; the cells of hash tables and weights that they will touch lie anywhere in some tens of
megabytes. Asked for a few rows ahead, they arrive while other rows are being worked on.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, args[0])
        position = context.cast(builder, args[1], signature.args[1], types.intp)
        place = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
            context, builder, kind, view, [position], wraparound=False
        )
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        read, keep, data = (ir.Constant(word, number) for number in (0, 3, 1))
        builder.call(function, [builder.bitcast(place, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)
"""`prefetch(array, index)` in a kernel: fetch the line of `array[index]` (one dimension, the index is not checked)."""
