"""Prefect flows and the command line: orchestration only. Imports nothing, so that `--help` needs no Prefect."""
