"""The floor that does: every workflow reads from top to bottom as its story, carrying values between the rooms."""
