"""Rewards for programs: they run against test cases in a sandbox, and their output is compared outside of it."""
