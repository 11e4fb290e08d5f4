"""``groundfault hub``: one page for many hosts. Hosts push their reports to it, or it pulls them from their consoles.

Needs the extra ``hub``: Starlette and uvicorn serve it, SQLAlchemy keeps its history. It is watched, and never asked by
a service: whatever becomes of it, the services go on.
"""
