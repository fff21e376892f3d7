"""Write registry_golden.json: run with the Python of a virtualenv that has scvi-tools 1.4.2.

python tests/data/make_registry_golden.py
"""

import json
import warnings
from pathlib import Path

import scvi
from registry_cases import run_all
from scvi.data import AnnDataManager, fields

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    results = {"scvi_version": scvi.__version__, "cases": run_all(AnnDataManager, fields)}
    path = Path(__file__).with_name("registry_golden.json")
    path.write_text(json.dumps(results, sort_keys=True) + "\n")
