"""Training: one LoRA adapter from examples, resumable, the same bytes every time."""
