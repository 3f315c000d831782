"""What stands on the screen, and what libraries say, in a process of its own."""

import os
import pty
import re
import subprocess
import sys
import termios

LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) ")
# Code of a user's, a library, Ignite, and MONAI, whose loggers print by themselves.
CODE = """
import logging, os, sys, sysconfig, time, warnings
from pathlib import Path
from mrn_components.system.logs import bar, keep_notices, start_logs

logging.basicConfig(stream=sys.stdout, format="in a format of a bundle's: %(message)s")
start_logs()
start_logs()
library = os.path.join(sysconfig.get_path("purelib"), "library", "part.py")

def say(name, level, text):
    logger = logging.getLogger(name)
    logger.handle(logger.makeRecord(name, level, library, 1, text, None, None))

out = Path(sys.argv[1])
warnings.warn_explicit("torch will change", FutureWarning, library, 7)
keep_notices(out)
say("ignite.engine", logging.ERROR, "Engine run is terminating")
say("ignite.engine", logging.INFO, "Engine run resuming from iteration 0")
say("library", logging.WARNING, "advice")
say("library", logging.ERROR, "no disk")
out.mkdir()
logging.getLogger("monai.bundle.workflows").propagate = False  # as MONAI does
say("monai.bundle.workflows", logging.WARNING, "Logging file is set to False")
warnings.warn("look at this")
for number in bar(range(3), "Subjects"):
    logging.info("said %d", number)
"""


def run(tmp_path, **streams):
    command = [sys.executable, "-c", CODE, str(tmp_path / "out")]
    return subprocess.run(command, check=True, timeout=100, **streams)


def test_libraries_are_heard_in_a_file_and_no_bar_is_drawn_in_one(tmp_path):
    done = run(tmp_path, capture_output=True, text=True)
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert all(map(LINE.match, lines))
    assert [LINE.sub("", line) for line in lines] == [
        "no disk",
        "UserWarning: look at this (<string>, line 25)",
        "said 0",
        "said 1",
        "said 2",
    ]
    kept = (tmp_path / "out" / "notices.log").read_text().splitlines()
    assert all(map(LINE.match, kept))
    assert [re.sub(r" \(.*", "", LINE.sub("", line)) for line in kept] == [
        "FutureWarning: torch will change",
        "Engine run is terminating",
        "Engine run resuming from iteration 0",
        "advice",
        "Logging file is set to False",
    ]


def test_a_bar_of_a_terminal_is_drawn_below_the_lines(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    run(tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    rows = seen.decode().split("\n")
    assert any("Subjects:" in row for row in rows)
    said = [row.rstrip("\r").split("\r")[-1] for row in rows if "said" in row]
    assert [LINE.sub("", row) for row in said] == ["said 0", "said 1", "said 2"]


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # its other end is closed
        return b""
