"""``isthmus-agent``: the node daemon. Composition only."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial

from agent import memory
from agent.config import AgentConfig, ConfigError, SettingsChangedError, load
from reconcile.tasks import TaskGroup
from telemetry import logs


async def run(config: AgentConfig) -> None:
    """Until cancelled."""
    memory.settle()
    # Here and not above: a wrong setting is told without loading half the world.
    from agent import settings_watch
    from agent.daemon import Daemon
    from agent.mesh_encryption import open_encryption
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
        encryption = await open_encryption(config, me, links_thread)
        me = replace(me, node=encryption.announced(me.node))
        datapath = await open_kernel(config, me, encryption.for_datapath(me))
        stack.callback(datapath.close)
        daemon = Daemon(config, client, me, pools, datapath, links_thread, progress, encryption)
        async with TaskGroup() as tasks:
            read = partial(load, sys.argv[1:], os.environ)
            tasks.create_task(settings_watch.follow(daemon.encryption, read), name="settings")
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
    again, failed = False, ""  # before 3.11.4 what except* raises comes out in a group
    try:
        asyncio.run(_until_signal(config))
    except* SettingsChangedError:
        again = True
    except* (OSError, ValueError) as group:
        logging.getLogger("isthmus.agent").debug("event=end", exc_info=True)
        failed = f"isthmus-agent: {_sentence(group)}"
    if failed:
        sys.exit(failed)
    if again:
        # The same process, and so the same container: nothing beside it is started again.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
