"""No calibration, settings or model of the user's own in the whole suite, and one line at the end
of a run: how many cases of the exactness law were compared."""

import os
from collections import Counter

# Before anything is loaded, and for the processes that tests start. Tests of calibrations switch
# it on, with a folder of their own.
os.environ["MTP_MLX_CALIBRATION"] = "off"
# Nor any settings of the user's own.
os.environ["MTP_MLX_CONFIG"] = os.devnull

# An empty cache of the hub, and nothing of the user's own settings.
for name in [name for name in os.environ if name.startswith(("HF_", "MTP_MLX_MODEL"))]:
    del os.environ[name]
os.environ["HF_HUB_CACHE"] = os.path.join(os.path.dirname(__file__), "no-cache")


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
