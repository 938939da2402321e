"""Low-rank adapters as values: the delta, the PEFT folder that holds it, and what makes folders fit together."""
