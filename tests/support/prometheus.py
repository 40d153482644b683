"""Debian's Prometheus, inside a node of a lab, and what it answers."""

import contextlib
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

ADDRESS = "127.0.0.1:9090"


@dataclass(frozen=True)
class Target:
    """A page, and what is said of all that is on it."""

    address: str
    labels: tuple[tuple[str, str], ...]


class Prometheus:
    """Asked from inside the namespace it runs in."""

    def __init__(self, netns: str) -> None:
        self._netns = netns

    def _get(self, path: str) -> Any:
        command = ["ip", "netns", "exec", self._netns, "curl", "-s", f"http://{ADDRESS}/{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return json.loads(done.stdout) if done.stdout else {}

    def query(self, expression: str) -> list[float]:
        """The numbers it gives now; what is no number is left out. Fails on a wrong query."""
        answer = self._get(f"api/v1/query?query={quote(expression)}")
        assert answer.get("status") == "success", (expression, answer)
        values = [float(one["value"][1]) for one in answer["data"]["result"]]
        return [value for value in values if not math.isnan(value)]

    def down(self) -> list[str]:
        """Targets that were not read, and why."""
        active = self._get("api/v1/targets").get("data", {}).get("activeTargets", [])
        return [f"{t['scrapeUrl']}: {t['lastError']}" for t in active if t["health"] != "up"]

    def targets(self) -> int:
        return len(self._get("api/v1/targets").get("data", {}).get("activeTargets", []))


@contextlib.contextmanager
def prometheus(netns: str, targets: Sequence[Target]) -> Iterator[Prometheus]:
    """Reads the targets every second while the context lasts."""
    with tempfile.TemporaryDirectory() as where:
        directory = Path(where)
        jobs = [{"targets": [target.address], "labels": dict(target.labels)} for target in targets]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "isthmus", "static_configs": jobs}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", netns, "prometheus"),
                    f"--config.file={directory}/prometheus.yml",
                    f"--storage.tsdb.path={directory}/data",
                    f"--web.listen-address={ADDRESS}",
                ],
                stdout=log,
                stderr=log,
            )
            try:
                yield Prometheus(netns)
                # Read while it lives: the file goes with the directory.
            except AssertionError as error:
                error.add_note((directory / "log").read_text()[-2000:])
                raise
            finally:
                process.terminate()
                process.wait(timeout=20)


def wait_up(running: Prometheus, number: int, seconds: float = 60) -> None:
    """Until all targets were read."""
    deadline = time.monotonic() + seconds
    while running.targets() < number or running.down():
        assert time.monotonic() < deadline, running.down()
        time.sleep(0.5)
