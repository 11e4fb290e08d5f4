"""The lab: a real chain of services, a real spike, and a report of what happened.

Nothing in here is needed to protect a service; `groundfault demo` is what it is for.
The third-party parts come with ``pip install 'groundfault[demo]'`` and are imported where they are used,
so that the command line can say so when they are missing.
"""
