"""The workspace: adapterctl.yaml, adapters/*.yaml and evaluation/suite.yaml as one validated object."""
