"""``isthmus-hubble``: the flows of a node. Composition only."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable

from hubble.config import ConfigError, HubbleConfig, load
from reconcile.tasks import TaskGroup
from telemetry import logs
from telemetry.metrics import Family


async def run(config: HubbleConfig) -> None:
    """Until cancelled."""
    # Here and not above: a wrong setting is told without loading half the world.
    from hubble.node import NodeSource
    from hubble.serving import Serving

    source = NodeSource(config)
    async with TaskGroup() as tasks:
        tasks.create_task(source.run(), name="source")
        serving = Serving(config, source)
        tasks.create_task(serving.run(), name="serving")
        more: list[Callable[[], list[Family]]] = [serving.calls.families]
        if config.exports or config.hubble_flowlogs_config_path:
            from hubble.export.exporter import Exporter

            exporter = Exporter(config, source)
            tasks.create_task(exporter.run(), name="exporter")
            more.append(exporter.families)
        if config.hubble_drop_events:
            from hubble.drop_event_sender import DropEventSender
            from kube.config import connect

            sender = DropEventSender(
                config.drop_events, source, lambda: connect(config.k8s_kubeconfig_path)
            )
            tasks.create_task(sender.run(), name="drop-events")
            more.append(sender.families)
        if config.hubble_metrics_server is not None:
            from hubble.metrics.server import Metrics

            metrics = Metrics(config, source, lambda: [f for tell in more for f in tell()])
            tasks.create_task(metrics.run(), name="metrics")


async def _until_signal(config: HubbleConfig) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run(config)


def _sentence(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def main() -> None:
    """Exit code 0 after a signal, 1 for anything that a person must look at."""
    try:
        config = load(sys.argv[1:], os.environ)
    except ConfigError as error:
        sys.exit(f"isthmus-hubble: {error}")
    logs.configure(config.log_opt, debug=config.debug)
    failed = ""  # before 3.11.4 what except* raises comes out in a group
    try:
        asyncio.run(_until_signal(config))
    except* (OSError, ValueError) as group:
        logging.getLogger("isthmus.hubble").debug("event=end", exc_info=True)
        failed = f"isthmus-hubble: {_sentence(group)}"
    if failed:
        sys.exit(failed)


if __name__ == "__main__":
    main()
