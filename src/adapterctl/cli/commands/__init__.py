"""The commands, one file a group of them; each is imported when it is asked for."""
