"""What is released: wheel and sdist hold the package whole and nothing else, and work where they are installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'celbo[test]'")


def run(*command: object, cwd: Path) -> str:
    """What a command says; its errors are those of the test."""
    without_paths = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=without_paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    there = (path for path in (ROOT / "src/celbo").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    found = {name for name in names_of(wheel) if ".dist-info/" not in name}
    assert found == {path.relative_to(ROOT / "src").as_posix() for path in there}
    assert "celbo/py.typed" in found


def test_the_sdist_makes_the_same_wheel(built, wheel, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=unpacked)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert names_of(again) == names_of(wheel)


def pythons() -> list[str]:
    """The interpreters from 3.11 to 3.14 that there are."""
    there = {f"{sys.version_info[0]}.{sys.version_info[1]}"}
    there |= {version for version in ("3.11", "3.12", "3.13", "3.14") if shutil.which(f"python{version}")}
    return sorted(there)


@pytest.mark.parametrize("version", pythons())
def test_the_wheel_works_where_it_is_installed(version, wheel, tmp_path):
    """In an environment of its own, which borrows the packages that celbo needs from that of the tests."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = sys.executable if version == own else shutil.which(f"python{version}")
    if subprocess.run([python, "-c", "pass"], capture_output=True).returncode:
        pytest.skip(f"python{version} does not start")
    made = tmp_path / "env"
    run(python, "-m", "venv", "--without-pip", made, cwd=tmp_path)
    inside = made / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(sys.executable, *f"-m pip --python {inside} install --no-deps --no-index -q".split(), wheel, cwd=tmp_path)
    site = Path(run(inside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    assert (site / "celbo" / "__init__.py").exists()
    if version != own:
        pytest.skip(f"installed; the packages that celbo needs are there for Python {own}, not for {version}")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(inside, "-c", "import celbo; celbo.model.SCVI; print(celbo.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(made)
    assert "train" in run(inside.with_name("celbo"), "--help", cwd=tmp_path)
