"""What ``isthmus encrypt status`` says of IPsec."""

from cli import encrypt_text

STATUS = {
    "mode": "IPsec",
    "strict-mode": True,
    "ipsec": {
        "decrypt-interfaces": ["eth0"],
        "keys-in-use": 2,
        "key-ids": [3, 4],
        "current-key-id": 4,
        "max-seq-number": "0x1c/0xffffffffffffffff",
        "error-count": 5,
        "xfrm-errors": {"XfrmInNoStates": 5},
        "peers": [
            {
                "node": "one/b",
                "address": "192.0.2.2",
                "node-id": 7,
                "key-id": 3,
                "sends-with": 3,
            },
            {"node": "two/c", "address": "192.0.2.3", "node-id": 8, "key-id": 0, "sends-with": 0},
        ],
    },
    "problems": ["node two/c announces key 255"],
}


def test_a_node_tells_keys_errors_and_peers() -> None:
    """The lines of the original, then a row for each peer and what is sent to it in clear text."""
    lines = encrypt_text.node(STATUS).splitlines()
    assert "Decryption interface(s): eth0" in lines
    assert "Keys in use: 2 (3, 4)" in lines
    assert "Max Seq. Number: 0x1c/0xffffffffffffffff" in lines
    assert "Errors: 5" in lines
    assert "\tXfrmInNoStates: 5" in lines
    assert "Problem: node two/c announces key 255" in lines
    assert lines[-2].split() == ["one/b", "192.0.2.2", "7", "3", "3"]
    assert lines[-1].split() == ["two/c", "192.0.2.3", "8", "none", *["no", "key", "of", "IPsec"]]


def test_the_mesh_tells_modes_that_differ() -> None:
    """A row for each node; two ways of encrypting in one mesh are a fault."""
    answers = {"a": STATUS, "b": {"mode": "Disabled"}}
    assert encrypt_text.mesh(answers)[1] == ("a", "IPsec", "kernel", "1", "", "", "keys 3, 4")
    assert any("modes differ" in text for text in encrypt_text.faults(answers))
