"""The pocket model: a base model of two million parameters and a generated world to adapt it to.

Everything the toolkit does can be run on it, for real, on a laptop: ``world`` holds what its texts are made of,
``rows`` makes the rows of the three tasks, ``corpus`` the pre-training text, ``pretrain`` the base model, and
``assets/`` the base model as shipped.
"""
