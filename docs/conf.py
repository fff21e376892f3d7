"""How Sphinx builds the site: ``make docs``.

Code cells of notebooks are run. The build needs no network, and what a reader opens needs none either.
"""

import hashlib
import inspect
import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from types import FunctionType

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(HERE))

import make_reference  # noqa: E402
import mathml  # noqa: E402


def fingerprint_of_the_library() -> str:
    """A hash of celbo's source: what notebooks gave is kept for as long as this stays the same."""
    found = hashlib.sha256()
    for path in sorted((REPOSITORY / "src" / "celbo").rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def quiet_kernels(folder: Path) -> str:
    """A folder of IPython's settings whose kernels do not warn that they talk over this machine's own network."""
    profile = folder / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c = get_config()\nc.IPKernelApp.log_level = 40\n")
    return str(folder)


os.environ.setdefault("CELBO_DATA", str(REPOSITORY.parent / "shared" / "data"))  # of the tutorials; need not be there
os.environ["IPYTHONDIR"] = quiet_kernels(REPOSITORY / "build" / "ipython")

project = "celbo"
author = "the celbo developers"
copyright = author
version = release = version_of("celbo")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
root_doc = "index"
exclude_patterns = ["**/.ipynb_checkpoints"]
templates_path: list[str] = []
nitpicky = False
show_warning_types = True
suppress_warnings = ["ref.python"]  # a short name in a docstring that two classes have: the first is linked

html_theme = "furo"
html_title = "celbo"
html_static_path = ["static"]
html_css_files = ["celbo.css"]
html_math_renderer = "mathml"
html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "monokai"

myst_enable_extensions = ["amsmath", "attrs_inline", "dollarmath", "html_image"]
myst_heading_anchors = 4
myst_update_mathjax = False

nb_execution_mode = "cache"
nb_execution_cache_path = str(REPOSITORY / "build" / "notebooks" / fingerprint_of_the_library())
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_inherit_docstrings = True
autodoc_typehints = "none"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def join_literals(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Put literals that a docstring breaks over two lines on one: napoleon takes sections apart line by line."""
    whole: list[str] = []
    for line in lines:
        if whole and line.strip() and whole[-1].count("``") % 2:
            whole[-1] += f" {line.strip()}"
        else:
            whole.append(line)
    lines[:] = whole


def signature_of_constructor(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Give a class the arguments of its constructor: celbo's metaclass takes any, and binds them."""
    if not inspect.isclass(thing) or not isinstance(inspect.getattr_static(thing, "__init__"), FunctionType):
        return None
    _, *parameters = inspect.signature(thing.__init__).parameters.values()
    shown = inspect.Signature([one.replace(annotation=one.empty) for one in parameters])
    return stringify_signature(shown), None


def setup(app: Sphinx) -> None:
    """Let Sphinx write the reference before it looks for pages, and give formulas as MathML."""
    app.connect("autodoc-process-signature", signature_of_constructor)
    app.connect("autodoc-process-docstring", join_literals, priority=400)
    app.connect("builder-inited", lambda app: make_reference.write(Path(app.srcdir) / "reference"))
    mathml.setup(app)
