"""What the hub's library tells while it fetches."""

from types import SimpleNamespace

from huggingface_hub.utils import logging as library
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

from mtp_mlx.hub.client import bar_class, told


def test_bytes_of_the_other_transport_are_counted_once():
    counts: list[float] = []
    reporter = XetDownloadProgressReporter(
        reconstruction_desc="file", total=100, log_level=30, tqdm_class=bar_class(counts.append)
    )
    with reporter:
        for done in (40, 100):
            report = SimpleNamespace(
                total_bytes=100,
                total_bytes_completed=done,
                total_transfer_bytes_completed=done,
                total_bytes_completion_rate=1.0,
                total_transfer_bytes_completion_rate=1.0,
            )
            reporter.update_progress(report)
    assert counts == [40, 60]


def test_what_the_library_warns_of_is_shown_and_not_printed(capsys):
    said: list[str] = []
    with told(said.append):
        library.get_logger("huggingface_hub.file_download").warning("waiting\n30 s")
    assert said == ["waiting 30 s"]
    assert capsys.readouterr() == ("", "")
