"""Nodes with numbers of their own, so that rules can select them by their labels. Adapter: a file.

With `enable-node-selector-labels` every other node of the mesh that has labels is one of the
identities of remote-node scope: nodes with equal labels share one. They are this node's own, as
those of prefixes are, and to others a node stays a remote node.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.api_server import LABEL, ApiServer
from agent.endpoint_store import write_atomically
from agent.mesh_state import MeshState
from mesh.nodes import NodeKey
from model.identity import NumericIdentity
from model.labels import SOURCE_RESERVED, Label, Labels
from model.node import Node
from policy.wanted import Numbers
from wire.etcd.identity_v1 import parse_labels

log = logging.getLogger("isthmus.agent.policy")

SOURCE_NODE = "node"
_FIRST, _LAST = (2 << 24) + 1, (3 << 24) - 1
_REMOTE_NODE = Label("remote-node", "", SOURCE_RESERVED)


def node_labels(labels: dict[str, str], source: str) -> Iterable[Label]:
    """The labels of a Kubernetes node, as identities carry them."""
    return (Label(key, value, source) for key, value in sorted(labels.items()))


def with_node_labels(labels: Labels, of_node: dict[str, str], source: str) -> Labels:
    """Labels and, beside them, those of a node."""
    return Labels.of((*labels, *node_labels(of_node, source)))


class NodeIdentities:
    """Gives numbers to label sets, and says which node has which."""

    def __init__(self, mesh: MeshState, api_server: ApiServer, file: Path) -> None:
        self._mesh, self._api_server, self._file = mesh, api_server, file
        self._numbers = Numbers(_FIRST, _LAST, _read(file))
        self._of: dict[NodeKey, Labels] = {}
        self._users: dict[Labels, set[NodeKey]] = {}
        self._unwritten = False
        mesh.nodes.identity_of = self.identity_of

    def identity_of(self, node: Node) -> NumericIdentity:
        """Its number; new labels get one at once. ``save`` before anybody has it."""
        key = (node.cluster, node.name)
        labels = self._labels(node)
        before = self._of.get(key)
        number = NumericIdentity(self._numbers.give(labels))
        if before != labels:
            self._of[key] = labels
            self._users.setdefault(labels, set()).add(key)
            self._leave(key, before)
            self._unwritten = True
            self._mesh.identities.put(number, self._mesh.own, labels)
        return number

    def _labels(self, node: Node) -> Labels:
        found = [_REMOTE_NODE, *node_labels(node.labels, SOURCE_NODE)]
        if (node.cluster, node.name) in self._api_server.nodes:
            found.append(LABEL)
        return Labels.of(found)

    def gone(self, key: NodeKey) -> None:
        """A node may have left the mesh."""
        if self._mesh.nodes.get(*key) is None and key in self._of:
            self._leave(key, self._of.pop(key))
            self._unwritten = True

    def _leave(self, key: NodeKey, labels: Labels | None) -> None:
        if labels is None:
            return
        users = self._users[labels]
        users.discard(key)
        if not users:
            del self._users[labels]
            self._mesh.identities.drop(
                NumericIdentity(self._numbers.take_back(labels)), self._mesh.own
            )

    def api_server_moved(self) -> None:
        """Other nodes than before may be the API server's."""
        self._mesh.nodes.identities_changed(list(self._of))

    def save(self) -> None:
        """Put new numbers on disk: after a restart they must mean the same."""
        if not self._unwritten:
            return
        self._unwritten = False
        texts = {labels.text(): number for labels, number in self._numbers.all().items()}
        try:
            write_atomically(self._file, msgspec.json.encode(texts))
        except OSError as error:
            log.error('event=file-not-written path=%s error="%s"', self._file, error)


def _read(path: Path) -> dict[Labels, int]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        return {parse_labels(text): number for text, number in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning('event=file-ignored path=%s error="%s"', path, error)
        return {}
