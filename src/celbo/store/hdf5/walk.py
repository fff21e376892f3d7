"""All groups and arrays of an HDF5 file, and whether each lies in the file.

HDF5 lets a file borrow from others: links to other files, arrays whose bytes are another file's ("external storage"),
arrays put together from other files' ("virtual"). A file from a stranger would bring bytes of the reader's own into the
output. None of that is followed.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import TypeAlias

import h5py
import numpy as np

from ..damage import OutsideDataError

__all__ = ["elements", "refuse_outside"]

_Element: TypeAlias = "h5py.h5g.GroupID | h5py.h5d.DatasetID"

_WITHIN = (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT)
"""Links that stay in the file."""

_HERE = b"."
"""How a virtual array calls its own file."""


def refuse_outside(group: h5py.Group | h5py.Dataset) -> list[_Element]:
    """Make sure that nothing in an opened HDF5 file, or a group or array of it, is kept in another file.

    Only the structure is read: no array, no string.

    Returns
    -------
    All that is in it, as of :func:`elements`.

    Raises
    ------
    OutsideDataError
        For a link to another file, of an unknown kind, or an array whose bytes are in another; with both names.
    """
    filename = group.file.filename
    found = [*elements(group, filename)]
    for element in found:
        if isinstance(element, h5py.h5d.DatasetID):
            _refuse_elsewhere(element, filename)
    return found


def elements(group: h5py.Group | h5py.Dataset, filename: str | None = None) -> Iterator[_Element]:
    """A group and all that is in it or referred to, each once; what cannot be opened is left out.

    h5py's own `visititems` follows pointers that nothing else does, and may do so for ever.

    Parameters
    ----------
    group
        Of an opened file.
    filename
        Raise an :class:`OutsideDataError` with this name for a link out of the file; None: links are not followed.
    """
    seen: set[int] = set()
    waiting: list[_Element] = [group.id]
    while waiting:
        element = waiting.pop()
        yield element
        if isinstance(element, h5py.h5g.GroupID):
            waiting.extend(_members(element, seen, filename))
        waiting.extend(_referred(element, seen))


def _members(group: h5py.h5g.GroupID, seen: set[int], filename: str | None) -> Iterator[_Element]:
    """What the hard links of a group lead to: soft ones lead to the same."""
    names: list[bytes] = []
    with suppress(Exception):
        group.links.iterate(names.append)
    for name in names:
        element = link = None
        with suppress(Exception):
            link = group.links.get_info(name)
            if link.type == h5py.h5l.TYPE_HARD and link.u not in seen:
                seen.add(link.u)
                element = h5py.h5o.open(group, name)
        if isinstance(element, (h5py.h5g.GroupID, h5py.h5d.DatasetID)):
            yield element
        elif filename is not None and link is not None and link.type not in _WITHIN:
            raise _link_out(group, name, link.type, filename)


def _link_out(group: h5py.h5g.GroupID, name: bytes, kind: int, filename: str) -> OutsideDataError:
    target = "something else, of an unknown kind"
    if kind == h5py.h5l.TYPE_EXTERNAL:
        target = "another file"
        with suppress(Exception):
            target = repr(group.links.get_val(name)[0].decode(errors="replace"))
    place = f"{_name(group).rstrip('/')}/{name.decode(errors='replace')}"
    return OutsideDataError(filename, f"{place} is a link to {target}")


def _referred(element: _Element, seen: set[int]) -> Iterator[_Element]:
    """What the attributes refer to: old files say so where the categories of a column are; it may have no name."""
    for number in range(h5py.h5a.get_num_attrs(element)):
        with suppress(Exception):
            attribute = h5py.h5a.open(element, index=number)
            if attribute.get_type().get_class() != h5py.h5t.REFERENCE:
                continue
            references = np.empty(attribute.shape, attribute.dtype)
            attribute.read(references)
            for reference in references.ravel():
                found = h5py.h5r.dereference(reference, element)
                address = h5py.h5o.get_info(found).addr
                if address not in seen:
                    seen.add(address)
                    yield found


def _refuse_elsewhere(dataset: h5py.h5d.DatasetID, filename: str) -> None:
    files: list[bytes] = []
    with suppress(RuntimeError, ValueError, OSError):  # of a damaged one: it fails when it is read
        plist = dataset.get_create_plist()
        files += [plist.get_external(i)[0] for i in range(plist.get_external_count())]
        if plist.get_layout() == h5py.h5d.VIRTUAL:
            sources = [plist.get_virtual_filename(i) for i in range(plist.get_virtual_count())]
            files += [source.encode() for source in sources if source.encode() != _HERE]
    if files:
        other = files[0].decode(errors="replace")
        raise OutsideDataError(filename, f"the values of {_name(dataset)} are in another file, {other!r}")


def _name(element: _Element) -> str:
    name = h5py.h5i.get_name(element)
    return "an array without a name" if name is None else name.decode(errors="replace")
