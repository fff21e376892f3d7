"""All the benchmarks that need no data of the user's: ``python -m benchmarks``."""

import runpy

for name in ("ops", "import_time", "step", "inference", "memory"):
    print(f"== {name}", flush=True)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
