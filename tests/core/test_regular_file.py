"""A name is opened only where a regular file stands behind it."""

import os
import socket

import pytest

from celbo.core import open_regular, read_regular

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and devices have no names there")


def test_a_file_and_a_link_to_it(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(str(tmp_path / "link")) == b"abc"
    with open_regular(tmp_path / "link") as file:
        assert file.read(2) == b"ab"


def make_socket(path):
    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "pipe"),
        (os.mkdir, "folder"),
        (lambda path: os.symlink("/dev/zero", path), "device"),
        (make_socket, "socket"),
    ],
)
def test_what_is_no_file(tmp_path, make, kind):
    """Opening a pipe without a writer waits forever otherwise, and a device never ends."""
    make(tmp_path / "x")
    with pytest.raises(OSError, match=f"{kind}.*no regular file"):
        read_regular(tmp_path / "x")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "x")


def test_a_hole_is_not_read(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.write(b"head")
        file.truncate(2**40)
    if os.stat(tmp_path / "x").st_blocks > 2**20:
        pytest.skip("this file system keeps no holes")
    with pytest.raises(OSError, match="hole"):
        read_regular(tmp_path / "x")
    os.truncate(tmp_path / "x", 2**20)
    assert len(read_regular(tmp_path / "x")) == 2**20
