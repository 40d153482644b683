"""What the front end of Hubble's UI asks for: cards, links, flows and notices, from a relay."""
