"""Claims of many clusters become one table each of nodes, identities, ipcache, services. Pure."""
