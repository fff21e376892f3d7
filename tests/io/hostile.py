"""Hand-made pickles and torch files for the tests: what no honest program writes."""

import io
import pickle
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
