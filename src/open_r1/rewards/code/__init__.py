"""Rewards for programs. A program runs on test cases in a sandbox; its output is compared outside the sandbox."""
