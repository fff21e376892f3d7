"""LLVM code for what numba does not make of loops: sums that stay in registers. ``csr_kernel`` takes it."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["LANES", "sum_of_rows"]

LANES = 16
"""Numbers of a vector: a cache line of them."""

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)
_FUSED = ("contract",)


def sum_of_rows(n_vectors: int) -> Callable[..., None]:
    """A function of addresses for numba's code: ``out[:w] += sum over entries of value * row[:w]``.

    Its arguments are the addresses of int32 columns and float32 values, their number, the address of the rows, the
    bytes of a row, and the address of ``out``. LLVM does not see by itself that the sums may stay in registers from the
    first entry to the last, for what is written might be what is read; that costs half of the time.

    Parameters
    ----------
    n_vectors
        Vectors of :data:`LANES` numbers in ``w``; the registers of any processor hold eight.
    """

    @intrinsic
    def add_rows(
        typing_context: object,
        columns: object,
        values: object,
        n_entries: object,
        rows: object,
        bytes_of_a_row: object,
        out: object,
    ) -> tuple[Any, Any]:
        arguments = (types.uintp, types.uintp, types.intp, types.uintp, types.intp, types.uintp)

        def code(context: Any, builder: Any, signature: Any, given: Sequence[Any]) -> Any:
            _add_rows(builder, n_vectors, *given)
            return context.get_dummy_value()

        return types.void(*arguments), code

    return add_rows


def _add_rows(
    builder: Any, n_vectors: int, columns: Any, values: Any, n_entries: Any, rows: Any, bytes_of_a_row: Any, out: Any
) -> None:
    """Write the loop over entries."""
    targets = _vectors(builder, out, n_vectors)
    begun = [_I64(0), *(builder.load(target, align=4) for target in targets)]
    before = builder.block
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)

    builder.position_at_end(head)
    k, *sums = phis = [builder.phi(_I64), *(builder.phi(_VECTOR) for _ in targets)]
    builder.cbranch(builder.icmp_signed("<", k, n_entries), body, end)

    builder.position_at_end(body)
    place = builder.mul(k, _I64(4))
    column = builder.sext(builder.load(_at(builder, columns, place, _I32), align=4), _I64)
    factor = _repeated(builder, builder.load(_at(builder, values, place, _F32), align=4))
    row = _vectors(builder, builder.add(rows, builder.mul(column, bytes_of_a_row)), n_vectors)
    products = [builder.fmul(factor, builder.load(part, align=4), flags=_FUSED) for part in row]
    added = [builder.fadd(total, product, flags=_FUSED) for total, product in zip(sums, products, strict=True)]
    following = [builder.add(k, _I64(1)), *added]
    builder.branch(head)
    for phi, first, later in zip(phis, begun, following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, body)

    builder.position_at_end(end)
    for total, target in zip(sums, targets, strict=True):
        builder.store(total, target, align=4)


def _at(builder: Any, start: Any, n_bytes: Any, kind: Any) -> Any:
    return builder.inttoptr(builder.add(start, n_bytes), kind.as_pointer())


def _vectors(builder: Any, start: Any, n_vectors: int) -> list[Any]:
    return [_at(builder, start, _I64(4 * LANES * q), _VECTOR) for q in range(n_vectors)]


def _repeated(builder: Any, value: Any) -> Any:
    one = builder.insert_element(_VECTOR(ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, ir.VectorType(_I32, LANES)([0] * LANES))
