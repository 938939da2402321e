"""Handing a release to the servers: what each accepts, the folder they read, and telling them of it."""
