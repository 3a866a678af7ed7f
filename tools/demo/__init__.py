"""The demo: the bundled video model without and with the cache, side by side.

`python3 run.py demo` sets up what it needs and runs `python -m tools.demo`.
"""
