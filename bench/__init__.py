"""Benchmarks that can be run: `python -m bench.NAME`. Their threads wait as those of a run do."""

from nanochat.runtime.openmp import let_waiting_threads_sleep

let_waiting_threads_sleep()
