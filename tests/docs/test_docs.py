"""Every example of the documentation runs, each page in a process and a folder of its own; warnings are errors."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("run_page.py")
ALL_PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("**/*.md")])
NOTEBOOKS = [page for page in ALL_PAGES if page.read_text().startswith("---\nfile_format: mystnb\n")]
PAGES = [page for page in ALL_PAGES if page not in NOTEBOOKS]
# As in pyproject.toml: errors, but what mudata 0.3.10 does that its helpers for Python 3.12 and newer deprecate.
OF_MUDATA = ("ignore:The decorator_name argument is", "ignore:The docstring_style argument is")
WARNINGS = [part for rule in ("error", *OF_MUDATA) for part in ("-W", rule)]
IMPORT_NAMES = {"pyro-ppl": "pyro", "scikit-learn": "sklearn"}


def optional_packages() -> list[str]:
    """Import names of what the extras of celbo install."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[\[<>=~! ]", need)[0] for extra, needs in extras.items() if extra != "test" for need in needs}
    return sorted(IMPORT_NAMES.get(name, name) for name in names)


def run_page(page: Path, folder: Path, *optional: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    environment.setdefault("CELBO_DATA", str(REPOSITORY.parent / "shared" / "data"))  # without it cells are simulated
    command = [sys.executable, *WARNINGS, str(RUNNER), str(page), *optional]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def runner():
    """A process that has celbo loaded and forks for each page."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    environment = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *WARNINGS, str(RUNNER), "--each", *optional_packages()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_examples_run(page, runner, tmp_path):
    runner.stdin.write(f"{page}\t{tmp_path}\n")
    runner.stdin.flush()
    status = runner.stdout.readline().strip()
    assert status == "0", (tmp_path / "err").read_text()
    said = (tmp_path / "out").read_text()
    skipped = [line.removeprefix("SKIPPED ") for line in said.splitlines() if line.startswith("SKIPPED ")]
    if skipped:
        pytest.skip("; ".join(skipped))


@pytest.mark.tutorials
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_tutorials_run(page, tmp_path):
    done = run_page(page, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_tutorials_are_all_code_cells_and_check_what_they_show(page):
    """A block that is no code cell would neither run nor show what it gives."""
    text = page.read_text()
    assert "```python" not in text
    if page.parent.name == "tutorials":
        title = "## How to tell whether it worked"
        assert text.count(title) == 1
        assert "assert " in text.partition(title)[2]


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_python_is_fenced_so_that_it_is_found(page):
    """A block opened by ```py, ```Python or an indented fence would silently never run."""
    fences = re.findall(r"^[ \t]*```[ \t]*py\w*", page.read_text(), re.MULTILINE | re.IGNORECASE)
    assert {fence for fence in fences if fence != "```python"} == set()


class TestTheRunnerItself:
    @pytest.fixture
    def page(self, tmp_path):
        def page(text: str) -> Path:
            path = tmp_path / "page.md"
            path.write_text(text)
            return path

        return page

    def test_blocks_share_a_namespace(self, page, tmp_path):
        text = "```python\na = 1\n```\ntext\n```python\nassert a == 1; print('ran')\n```\n"
        done = run_page(page(text), tmp_path)
        assert done.returncode == 0
        assert done.stdout == "ran\n"

    @pytest.mark.parametrize("code", ["assert 1 == 2", "import warnings; warnings.warn('x')", "raise SystemExit(3)"])
    def test_a_page_that_fails_in_a_fork_is_told(self, page, runner, tmp_path, code):
        runner.stdin.write(f"{page(f'```python{chr(10)}{code}{chr(10)}```{chr(10)}')}\t{tmp_path}\n")
        runner.stdin.flush()
        assert runner.stdout.readline().strip() == "1"
        assert "line 2" in (tmp_path / "err").read_text()

    def test_an_error_names_the_line_of_the_page(self, page, tmp_path):
        done = run_page(page("# Title\n\n```python\na = 1\nassert a == 2\n```\n"), tmp_path)
        assert done.returncode != 0
        assert "page.md" in done.stderr
        assert "line 5" in done.stderr

    def test_warnings_are_errors(self, page, tmp_path):
        assert run_page(page("```python\nimport warnings\nwarnings.warn('x')\n```\n"), tmp_path).returncode != 0

    def test_code_cells_run(self, page, tmp_path):
        done = run_page(page("```{code-cell} ipython3\nprint('ran')\n```\n"), tmp_path)
        assert done.stdout == "ran\n", done.stderr

    def test_no_run(self, page, tmp_path):
        assert run_page(page("```python no-run\nraise ValueError\n```\n"), tmp_path).returncode == 0

    def test_unknown_mark(self, page, tmp_path):
        assert "unknown mark" in run_page(page("```python norun\n1\n```\n"), tmp_path).stderr

    def test_absent_optional_package_is_a_skip_with_its_reason(self, page, tmp_path):
        path = page("```python\nimport no_such_package_xyz\n```\n")
        done = run_page(path, tmp_path, "no_such_package_xyz")
        assert done.stdout == "SKIPPED page.md:2 needs no_such_package_xyz, which is not installed\n"
        assert run_page(path, tmp_path).returncode != 0

    def test_optional_packages_have_names_that_python_knows(self):
        assert {"jax", "sklearn", "zarr"} <= set(optional_packages())
