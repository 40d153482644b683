"""What tests of an agent have in common."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent import AgentNode, agent_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AgentNode]:
    """A node of its own; its agent does not run yet."""
    async with agent_node(tmp_path) as found:
        yield found
