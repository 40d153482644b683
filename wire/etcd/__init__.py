"""Keys and values of the mesh store. One file per value; versions are never changed, only added."""
