"""Counting in two lines what argparse, click, typer, logging, ASGI, WSGI, Flask, Django or pytest have names for."""
