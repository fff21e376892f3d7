"""What a manager checks before it registers an AnnData."""

from dataclasses import dataclass

from ..core import checked

__all__ = ["AnnDataManagerValidationCheck"]


@checked
@dataclass
class AnnDataManagerValidationCheck:
    """What to check before an AnnData is registered.

    Parameters
    ----------
    check_if_view
        Refuse views: setup writes columns, and a view would silently become a copy.
    check_fully_paired_mudata
        For MuData: every modality has every cell.
    """

    check_if_view: bool = True
    check_fully_paired_mudata: bool = True
