"""The command line: parses, calls one workflow, renders. It decides nothing and starts without torch."""
