"""``isthmus-agent``: the node daemon. Composition only."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from dataclasses import replace

from agent.config import AgentConfig, ConfigError, load
from telemetry import logs

# Objects made before the collector looks at the young ones again, and how often it looks at the
# older: what an agent learns stays, and a look at it for each 700 new ones is a third of its start.
GC_THRESHOLDS = (50_000, 20, 50)


async def run(config: AgentConfig) -> None:
    """Until cancelled."""
    gc.set_threshold(*GC_THRESHOLDS)
    # Here and not above: a wrong setting is told without loading half the world.
    from agent.daemon import Daemon
    from agent.encryption import open_wireguard
    from agent.ipsec import open_ipsec
    from agent.node import learn_self
    from agent.opening import open_kernel
    from agent.view import Progress
    from datapath.kernel_thread import KernelThread
    from kube.config import connect

    progress = Progress(started_s=time.monotonic(), steps=["waiting for this node"])
    client = await connect(config.k8s_kubeconfig_path)
    links_thread = KernelThread("links")
    async with client, contextlib.AsyncExitStack() as stack:
        stack.callback(links_thread.close)
        me, pools = await learn_self(client, config)
        progress.steps.append("opening the datapath")
        wireguard = await open_wireguard(config, me, links_thread)
        encryption = wireguard or await open_ipsec(config, me, links_thread)
        if encryption is not None:
            me = replace(me, node=encryption.announced(me.node))
        wanted = encryption.for_datapath(me) if encryption is not None else None
        datapath = await open_kernel(config, me, wanted)
        stack.callback(datapath.close)
        daemon = Daemon(config, client, me, pools, datapath, links_thread, progress, encryption)
        await daemon.run()


async def _until_signal(config: AgentConfig) -> None:
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
        sys.exit(f"isthmus-agent: {error}")
    logs.configure(config.log_opt, debug=config.debug)
    try:
        asyncio.run(_until_signal(config))
    except* (OSError, ValueError) as group:
        logging.getLogger("isthmus.agent").debug("event=end", exc_info=True)
        sys.exit(f"isthmus-agent: {_sentence(group)}")


if __name__ == "__main__":
    main()
