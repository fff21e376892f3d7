"""ArchivedModel: a model on disk, written and read again."""

from typing import Any, Self

from anndata import AnnData

from ...core import checked_methods
from . import archives
from .describe import setup_call_text
from .face import ModelFace

__all__ = ["ArchivedModel"]


@checked_methods
class ArchivedModel(ModelFace):
    """A model that is written to an archive and read from one."""

    def save(
        self,
        dir_path: str,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        save_kwargs: dict[str, Any] | None = None,
        legacy_mudata_format: bool = False,
        datamodule: object = None,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Write the model as an archive of safetensors and JSON: no pickle, atomic.

        Parameters
        ----------
        dir_path
            Folder; made if it does not exist.
        prefix
            Put before the names of the files.
        overwrite
            Whether an archive that is there may be replaced.
        save_anndata
            Write the training data beside it as ``adata.h5ad``, those of several modalities as ``mdata.h5mu``.
        save_kwargs, legacy_mudata_format, datamodule
            Accepted for compatibility with scvi-tools.
        **anndata_write_kwargs
            For ``AnnData.write_h5ad`` or ``MuData.write_h5mu``.

        Raises
        ------
        ValueError
            An archive is there and ``overwrite`` is False; an argument that nobody knows.

        Examples
        --------
        >>> model.save("my_model")
        """
        archives.save_model(self, dir_path, prefix or "", overwrite, save_anndata, anndata_write_kwargs)

    @classmethod
    def load(
        cls,
        dir_path: str,
        adata: AnnData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
        datamodule: object = None,
        allowed_classes_names_list: list[str] | None = None,
    ) -> Self:
        """Read a model from an archive.

        Parameters
        ----------
        dir_path
            Folder of the archive.
        adata
            Data to go on with, set up like the training data; None: those saved beside the model, if there are any;
            False: none.
        accelerator, device
            Where the module goes.
        prefix
            As in :meth:`save`.
        backup_url, datamodule
            Accepted for compatibility with scvi-tools.
        allowed_classes_names_list
            Names of other classes whose archives may be read.

        Raises
        ------
        ValueError
            The archive is damaged, or of another class.

        Examples
        --------
        >>> model.save("trained")
        >>> celbo.model.SCVI.load("trained", adata).is_trained
        True
        """
        return archives.load_model(cls, dir_path, adata, accelerator, device, prefix or "", allowed_classes_names_list)

    @staticmethod
    def load_registry(dir_path: str, prefix: str | None = None) -> dict[str, Any]:
        """The registry in an archive.

        Parameters
        ----------
        dir_path, prefix
            As in :meth:`load`.

        Examples
        --------
        >>> model.save("of_registry")
        >>> celbo.model.SCVI.load_registry("of_registry")["model_name"]
        'SCVI'
        """
        return archives.read_saved(dir_path, prefix or "").registry

    @staticmethod
    def view_setup_args(dir_path: str, prefix: str | None = None) -> None:
        """Print the setup call in an archive.

        Parameters
        ----------
        dir_path, prefix
            As in :meth:`load`.
        """
        print(setup_call_text(archives.read_saved(dir_path, prefix or "").registry))

    @classmethod
    def convert_legacy_save(
        cls,
        dir_path: str,
        output_dir_path: str,
        overwrite: bool = False,
        prefix: str | None = None,
        **save_kwargs: Any,
    ) -> None:
        """Write an archive of this class that scvi-tools saved, of any version, as one of celbo's.

        Parameters
        ----------
        dir_path, output_dir_path, overwrite, prefix
            As in :func:`celbo.model.base.convert_archive`.
        **save_kwargs
            Accepted for compatibility with scvi-tools.
        """
        archives.convert_archive(
            dir_path, output_dir_path, prefix=prefix or "", overwrite=overwrite, class_name=cls.__name__
        )

    def load_weights(self, dir_path: Any) -> None:
        """Put the weights of an archive of this very model into the module.

        Parameters
        ----------
        dir_path
            Folder of the archive.

        Examples
        --------
        >>> model.save("of_weights")
        >>> model.load_weights("of_weights")
        """
        self.module.load_state_dict(archives.read_saved(dir_path, "").state_dict)

    def delete_archive(self, dir_path: Any) -> None:
        """Remove an archive that :meth:`save` wrote, and its folder if nothing else is in it.

        Parameters
        ----------
        dir_path
            Folder of the archive.

        Examples
        --------
        >>> model.save("no_longer_wanted")
        >>> model.delete_archive("no_longer_wanted")
        """
        archives.delete(dir_path)
