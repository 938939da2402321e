"""Accounting: what every step used, what that costs, and how an update compares with retraining everything."""
