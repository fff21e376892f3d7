"""The import hook: ``scvi`` and everything below it, served from celbo."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ..core import REGISTRY_KEYS, SCVI_TOOLS_VERSION, settings
from ..core.planned import PUBLIC_API, missing_name, not_in_celbo_yet, stand_in
from .aliases import ADDED, ATTRIBUTES, PRIVATE
from .over import Over

__all__ = ["CelboFinder"]

_HERE = __name__.partition(".")[0]
_THERE = "scvi"


def _celbo(path: str) -> Any:
    """A module of celbo by its path below the root, for example ``"model.base"``."""
    return importlib.import_module(f"{_HERE}.{path}" if path else _HERE)


class CelboFinder(MetaPathFinder):
    """Finds scvi-tools' modules in celbo.

    A public module is celbo's own of that path; a private one of :data:`~celbo.compat.aliases.PRIVATE` is a
    :class:`PrivateModule`. Everything else below ``scvi`` is refused with the reason: Python must not look for it in
    celbo's folders, where it would load a file a second time under another name.
    """

    def __init__(self) -> None:
        self._added: list[tuple[Any, str]] = []
        self._replaced: list[tuple[Any, str, Any]] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of ``scvi`` or a module below it; None for what is not ours.

        Raises
        ------
        ModuleNotFoundError
            scvi-tools has no such module, or celbo does not have it yet.
        """
        root, _, rest = fullname.partition(".")
        if root == _HERE and rest in PRIVATE:  # `from scvi.data import _constants` looks below celbo.data
            return ModuleSpec(fullname, _Loader(self), is_package=True)
        if root != _THERE:
            return None
        if rest and rest not in PRIVATE and not self._is_in_celbo(rest):
            raise ModuleNotFoundError(_why_not(rest), name=fullname)
        return ModuleSpec(fullname, _Loader(self), is_package=True)

    @staticmethod
    def _is_in_celbo(rest: str) -> bool:
        if rest not in PUBLIC_API:
            return False
        try:
            _celbo(rest)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{_HERE}.{rest}".startswith(error.name):
                raise
            return False
        return True

    def add_names(self, rest: str, module: ModuleType) -> None:
        """Names that scvi-tools has in this module and celbo in another one, private modules, private attributes."""
        for name, source in ADDED.get(rest, {}).items():
            self._add(module, name, source.find())
        for cls, attributes in ATTRIBUTES[rest].find().items() if rest in ATTRIBUTES else ():
            for name, value in attributes.items():
                self._add(cls, name, value)
        # There as soon as the package is: `scvi.model.base._archesmixin` after nothing but `import scvi.model`.
        for path in (*(room for room in PUBLIC_API if f"{_HERE}.{room}" in sys.modules), *PRIVATE):
            if path.rpartition(".")[0] == rest:
                importlib.import_module(f"{_THERE}.{path}")

    def _add(self, owner: object, name: str, value: object) -> None:
        there = vars(owner).get(name)
        if isinstance(value, Over):
            setattr(owner, name, value.form(there))
            self._replaced.append((owner, name, there))
        elif there is None:
            setattr(owner, name, value)
            self._added.append((owner, name))

    def forget(self) -> None:
        """Take everything out again that imports have left behind."""
        for owner, name in self._added:
            delattr(owner, name)
        for owner, name, there in self._replaced:
            setattr(owner, name, there)
        self._added.clear()
        self._replaced.clear()
        for fullname in [name for name in sys.modules if name.partition(".")[0] == _THERE]:
            del sys.modules[fullname]
        for rest in PRIVATE:
            if sys.modules.pop(f"{_HERE}.{rest}", None) is not None:
                parent, _, name = rest.rpartition(".")
                vars(_celbo(parent)).pop(name, None)


class _Loader(Loader):
    """Puts an existing module of celbo, or a stand-in, under the asked name."""

    def __init__(self, finder: CelboFinder) -> None:
        self.finder = finder

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module that Python made: what is in ``sys.modules`` afterwards is what is imported."""
        fullname = module.__name__
        rest = fullname.partition(".")[2]
        if not rest:
            sys.modules[fullname] = _Root(module)
        elif rest in PRIVATE:
            stand_in = sys.modules.get(f"{_THERE}.{rest}")
            known = stand_in if isinstance(stand_in, PrivateModule) else PrivateModule(rest, module)
            sys.modules[f"{_THERE}.{rest}"] = sys.modules[f"{_HERE}.{rest}"] = known
        else:
            sys.modules[fullname] = _celbo(rest)
            self.finder.add_names(rest, sys.modules[fullname])


def _why_not(rest: str) -> str:
    if rest in PUBLIC_API:
        return not_in_celbo_yet(f"{_THERE}.{rest}")
    if any(part.startswith("_") for part in rest.split(".")):
        return (
            f"{_THERE}.{rest} is a private module of scvi-tools that celbo.compat does not stand in for; "
            "import what you need from the public modules, or ask for it."
        )
    return f"No module named '{_THERE}.{rest}': scvi-tools {SCVI_TOOLS_VERSION} has no such public module."


class _Root(ModuleType):
    """The package ``scvi``: celbo's rooms, under scvi-tools' version."""

    def __init__(self, blank: ModuleType) -> None:
        super().__init__(_THERE, "celbo, standing in for scvi-tools.")
        self.__spec__, self.__loader__, self.__path__ = blank.__spec__, blank.__loader__, []
        self.__version__ = SCVI_TOOLS_VERSION
        self.settings = settings
        self.REGISTRY_KEYS = REGISTRY_KEYS
        self.__all__ = ["REGISTRY_KEYS", "settings", *sorted({room.partition(".")[0] for room in PUBLIC_API})]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or (name not in PUBLIC_API and name not in PRIVATE):
            raise AttributeError(f"module {_THERE!r} has no attribute {name!r}")
        try:
            return importlib.import_module(f"{_THERE}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(str(error)) from None


class PrivateModule(ModuleType):
    """A private module of scvi-tools: its names are looked up in celbo when they are asked for."""

    def __init__(self, rest: str, blank: ModuleType) -> None:
        super().__init__(f"{_THERE}.{rest}", f"celbo's stand-in for scvi-tools' private module {_THERE}.{rest}.")
        self.__spec__, self.__loader__, self.__path__ = blank.__spec__, blank.__loader__, []
        self._celbo_rest = rest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for source in self._sources():
            if name in vars(source) or name in source.__all__:  # a package may load a public name only now
                return getattr(source, name)
        for room in PRIVATE[self.__name__.partition(".")[2]]:
            if name in PUBLIC_API.get(room, ()):
                return stand_in(f"{_THERE}.{room}.{name}")
        raise missing_name(self._why_not(name), name, self.__name__, sys._getframe(1))

    def _sources(self) -> list[ModuleType]:
        """Modules of celbo to look in; imported only now, because a package brings many of these along."""
        return [_celbo(source) for source in PRIVATE[self._celbo_rest]]

    def _why_not(self, name: str) -> str:
        return (
            f"celbo.compat's stand-in for the private module {self.__name__} has no {name!r}: "
            f"it serves {', '.join(dir(self))}."
        )

    def __dir__(self) -> list[str]:
        return sorted({name for source in self._sources() for name in source.__all__})
