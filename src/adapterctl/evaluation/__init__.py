"""Scoring a model on a suite, scorecards, their statistics, and the gate between candidate and champion."""
