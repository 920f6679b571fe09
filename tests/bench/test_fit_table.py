"""The table of the published pairs: five, two batches, two contexts; the last line is JSON."""

import json

from bench import fit_table


def test_the_table_and_its_last_line(capsys):
    fit_table.main()
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)["fit"]
    assert len(found) == len(lines) - 2 == 5 * 2 * 2
    for line, parts in zip(lines[2:], found, strict=True):
        assert line.split()[:3] == [
            parts["pair"].removesuffix("-4bit"),
            str(parts["rows"]),
            f"{parts['context']:,}",
        ]
        sizes = [parts[name] for name in fit_table.PARTS[:6]]
        assert sum(sizes) == parts["total"] > parts["peak"] > sum(sizes[:3])
