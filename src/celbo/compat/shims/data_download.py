"""``scvi.data._download``: a file from an address."""

import logging
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

__all__ = ["_download"]

logger = logging.getLogger("celbo")


def _download(url: str | None, save_path: str, filename: str) -> None:
    """Fetch a file into a folder, whole or not at all; one that is there stays."""
    target = Path(save_path) / filename
    if target.exists() or url is None:
        logger.info(f"{target} is there already." if url is not None else f"No address to fetch {target} from.")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"partial-{target.name}")
    with urlopen(Request(url, headers={"User-Agent": "celbo"})) as answer, partial.open("wb") as file:
        shutil.copyfileobj(answer, file)
    partial.replace(target)
