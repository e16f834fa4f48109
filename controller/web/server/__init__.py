"""The server of the page: sessions, the connections that it admits, the follower of the view, and HTTP.

``application`` and ``serve`` alone import Starlette and uvicorn.
"""
