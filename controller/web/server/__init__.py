"""The server of the page: sessions, the connections that it admits, and HTTP.

``application`` and ``serve`` alone import Starlette and uvicorn.
"""
