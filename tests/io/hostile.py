"""Hand-made pickles and torch files for the tests: what no honest program writes."""

import contextlib
import io
import os
import pickle
import time
import zipfile


def torch_zip(pickled, storages=(), root="model", extra=(), compression=zipfile.ZIP_STORED):
    """Bytes of a zip as ``torch.save`` lays it out, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled)
        archive.writestr(f"{root}/byteorder", "little")
        for key, raw in dict(storages).items():
            archive.writestr(f"{root}/data/{key}", raw)
        for name, raw in extra:
            archive.writestr(name, raw)
    return buffer.getvalue()


class Reduced:
    """Pickles as a call of anything with any arguments, and a state."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def call(module, name, arguments, build=b""):
    """A pickle of one call: ``arguments`` is the pickle code of the argument tuple."""
    return b"\x80\x02c" + module + b"\n" + name + b"\n" + arguments + b"R" + build + b"."


def text(value):
    """Pickle code of a string."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def body(value):
    """Pickle code of a value, to be put inside another pickle."""
    return pickle.dumps(value, 2)[2:-1]


def _status(line):
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(row.split()[1]) * 1024 for row in file if row.startswith(line))


@contextlib.contextmanager
def bounded(seconds=10, megabytes=500):
    """The block ends within that time, and takes no more memory on the way (looked at on Linux only)."""
    linux = os.access("/proc/self/clear_refs", os.W_OK)
    if linux:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the peak starts again from here
        before = _status("VmRSS")
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds
    if linux:
        assert _status("VmHWM") - before < megabytes * 2**20
