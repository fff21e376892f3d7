"""``scvi.data._download``: a file from an address."""

import logging
from pathlib import Path

from ...data.tenx import fetch

__all__ = ["_download"]

logger = logging.getLogger("celbo")


def _download(url: str | None, save_path: str, filename: str) -> None:
    """Fetch a file into a folder, whole or not at all; one that is there stays."""
    target = Path(save_path) / filename
    if url is None:
        logger.info(f"No address to fetch {target} from.")
    else:
        fetch(url, target)
