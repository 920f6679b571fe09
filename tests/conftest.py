"""No calibration, settings or model of the user's own in the whole suite, and one line at the end
of a run: how many cases of the exactness law were compared."""

import contextlib
import gc
import os
import subprocess
import sys
from collections import Counter

# MLX's CPU backend hands each small operation to a second thread, which woke at once and took the
# core from the one that builds the graph: 80,000 switches a second. Batch work does not take a core
# from other work: two workers on two cores need a quarter less time. Children inherit it.
if sys.platform == "linux":
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

# What collection makes stays until the end: no search for garbage looks at it, then or later.
gc.disable()

# Before anything is loaded, and for the processes that tests start. Tests of calibrations switch
# it on, with a folder of their own.
os.environ["MTP_MLX_CALIBRATION"] = "off"
# Nor any settings of the user's own.
os.environ["MTP_MLX_CONFIG"] = os.devnull

# An empty cache of the hub, and nothing of the user's own settings.
for name in [name for name in os.environ if name.startswith(("HF_", "MTP_MLX_MODEL"))]:
    del os.environ[name]
os.environ["HF_HUB_CACHE"] = os.path.join(os.path.dirname(__file__), "no-cache")


def pytest_configure(config):
    """Kernels are made before workers start, which are several."""
    is_worker = hasattr(config, "workerinput")
    if not is_worker and getattr(config.option, "numprocesses", None):
        subprocess.run([sys.executable, "-m", "tests.warm"], check=True)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter):
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            properties = dict(getattr(report, "user_properties", ()))  # warnings have none
            if getattr(report, "when", None) == "call":
                total.update(properties.get("exactness", {}))
    if total:
        counts = ", ".join(f"{count:,} {what}" for what, count in total.items())
        terminalreporter.write_line(f"exactness law: {counts}")
